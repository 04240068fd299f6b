"""A check of a foreign model at load: it keeps the promises of its family, or it is refused with the reason.

What a column may read moves its distribution, what it may not read does not, and padding changes nothing; also where
keys and values are kept between forwards, and in whatever order tokens are fed. A model that adds boolean masks to its
scores, drops masks or positions, or has recurrent layers breaks one of these without any error.

Legend: r rows of the probe, c columns, t positions of [prompt, canvas].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.policies.autoregressive import AutoregressivePolicy
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.policies.feed import Feed
from dllm_rl.policies.layers import ATTENTION, kinds_of_layers, limits
from dllm_rl.records.types import Prompts

NUM_PADDING = 3
# Share of what an allowed change does that may be seen elsewhere: rounding, which for other shapes of the same sums is
# coarse in half precision. A mask that is not kept lets through about as much as it should.
SHARE, SHARE_IN_HALF = 1e-2, 0.3
_TEXT = "Fill in the name and the town, choose a plan, then send the form."


def check_model(policy: BasePolicy, name: str) -> None:
    """Run all checks.

    Args:
        name: Of the checkpoint, for messages.

    Raises CheckpointError where the model cannot serve as this family, ConfigError where its facts ask for more
    positions than it has.
    """
    refuse_layers(policy, name)
    refuse_length(policy, name)
    try:
        with torch.no_grad():
            reason = broken_promise(policy)
    except Exception as error:
        reason = f"its forward fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if reason is not None:
        config: Any = policy.model.config
        raise CheckpointError(
            f"'{name}' ({policy.interface.model_name}, attention {config._attn_implementation}) cannot serve as a "
            f"policy of the {policy.family} family: {reason}. Take a decoder whose layers are all attention, with "
            "attention sdpa or eager, or another family."
        )


def refuse_layers(policy: BasePolicy, name: str) -> None:
    """Raise CheckpointError where layers that are not attention would read a canvas in one direction only."""
    others = sorted(kinds_of_layers(policy.model.config) - ATTENTION)
    if others and policy.is_bidirectional:
        raise CheckpointError(
            f"'{name}' has layers that are not attention ({', '.join(others)}). They read from left to right whatever "
            f"the mask says, and the {policy.family} family reads in both directions. Take a decoder whose layers are "
            "all attention."
        )


def refuse_length(policy: BasePolicy, name: str) -> None:
    """Raise ConfigError where prompt and canvas exceed the model's positions, or a window that its layers read."""
    length = policy.facts.max_prompt + policy.facts.canvas_length
    for key, stated in limits(policy.model.config).items():
        limit = stated - policy.interface.first_position if key == "max_position_embeddings" else stated
        if length > limit:
            raise ConfigError(
                f"'{name}': max_prompt={policy.facts.max_prompt} and canvas_length={policy.facts.canvas_length} are "
                f"{length} positions, and the model was made for {limit} ({key}); a mask of ours replaces such a "
                f"window. Give facts with at most {limit} positions in all."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Rows that differ in one place each.

    Attributes:
        prompts, canvas: Row 0 as it is, row 1 with other ids at the padding, then one row a changed place.
        places: The changed places, of [prompt without padding, canvas].
    """

    prompts: Prompts
    canvas: Int[Tensor, "r c"]
    places: tuple[int, ...]

    @property
    def width(self) -> int:
        """Tokens of the prompt without padding."""
        return self.prompts.ids.shape[1] - NUM_PADDING

    @property
    def alone(self) -> Prompts:
        """The first row's prompt without padding."""
        first = self.prompts.rows(torch.tensor([0]))
        return replace(first, ids=first.ids[:, NUM_PADDING:], mask=first.mask[:, NUM_PADDING:])


def make_probe(policy: BasePolicy) -> Probe:
    """Return rows of ordinary tokens: a prompt, and a canvas of two blocks."""
    ids = _ordinary_ids(policy)
    width, length = 6, min(policy.facts.canvas_length, max(16, policy.facts.block_size + 4))
    line = [ids[place % len(ids)] for place in range(width + length)]
    places = (0, width - 1, width, width + length // 2, width + length - 1)
    lines = torch.tensor([line] * (2 + len(places)))
    for row, place in enumerate(places, start=2):
        lines[row, place] = next(other for other in ids if other != line[place])
    padding = torch.full((len(lines), NUM_PADDING), policy.canvas.pad_id)
    padding[1] = ids[0] if ids[0] != policy.canvas.pad_id else ids[1]
    mask = torch.ones(len(lines), NUM_PADDING + width, dtype=torch.bool)
    mask[:, :NUM_PADDING] = False
    prompts = Prompts(
        ids=torch.cat([padding, lines[:, :width]], dim=1), mask=mask, row_ids=torch.arange(len(lines), dtype=torch.long)
    )
    return Probe(prompts=prompts, canvas=lines[:, width:], places=places)


def _ordinary_ids(policy: BasePolicy) -> Sequence[int]:
    special = {*policy.banned_ids, policy.canvas.pad_id, policy.canvas.eos_id}
    ids = dict.fromkeys(policy.tokenizer.encode(_TEXT, add_special_tokens=False))
    return [token for token in ids if token not in special]


def broken_promise(policy: BasePolicy) -> str | None:
    """Return which promise of its family the model breaks; None where it keeps all."""
    probe = make_probe(policy)
    logits = policy.logits(probe.prompts, probe.canvas)
    moved = (_finite(logits) - _finite(logits[:1])).abs().amax(dim=-1)
    may, must = _readable(policy, probe)
    changed = moved[2:]
    effect = float(changed[may].max())
    share = SHARE if policy.model.dtype == torch.float32 else SHARE_IN_HALF
    if not effect > 0:
        return "no change of a token moves any distribution"
    if (changed[must] == 0).any():
        return "a token that a column reads does not move its distribution"
    if _largest(changed[~may]) > share * effect:
        return "a token that a column must not read moves its distribution, so the attention mask is not kept"
    alone = policy.logits(probe.alone, probe.canvas[:1])
    if max(float(moved[1].max()), _gap(policy, alone[0], logits[0])) > share * effect:
        return "padding moves distributions"
    if policy.is_bidirectional and _gap_of_orders(policy, probe) > share * effect:
        return (
            "it takes a token's position from where it is fed, not from position_ids, and tokens are fed in other "
            "orders, too"
        )
    return _broken_cache(policy, probe, alone, share * effect)


def _gap_of_orders(policy: BasePolicy, probe: Probe) -> float:
    """How far another order of the same tokens, with their positions and masks, moves distributions."""
    tokens = Feed.of(probe.alone, probe.canvas[:1]).tokens(policy.reading.attention)
    every = torch.arange(tokens.ids.shape[1])
    order = torch.cat([every[::2], every[1::2]])
    other = replace(
        tokens,
        ids=tokens.ids[:, order],
        mask=tokens.mask[:, :, order][..., order],
        positions=tokens.positions[:, order],
        columns=tokens.columns[:, order],
    )
    return _gap(policy, policy.forward(other, every), policy.forward(tokens, every)[:, order])


def _broken_cache(policy: BasePolicy, probe: Probe, alone: Float[Tensor, "1 c v"], tolerance: float) -> str | None:
    """Whether the forward that keeps keys and values gives the same logits; alone: those of a full forward."""
    prompts, canvas = probe.alone, probe.canvas[:1]
    if isinstance(policy, AutoregressivePolicy):
        state = policy.start(prompts, canvas[:, :2])
        # A row that others outpace is filled up.
        filled = torch.cat([torch.full_like(canvas[:, :1], policy.canvas.pad_id), canvas[:, 2:4]], dim=1)
        policy.advance(state, filled, torch.tensor([[False, True, True]]))
        found, wanted = state.logits, alone[:, 4]
    else:
        cache = policy.read_prompts(prompts)
        if cache is None:
            return None
        length = canvas.shape[1]
        end = policy.blocks(prompts.mask).edges(length)[0][1] if isinstance(policy, BlockPolicy) else length
        columns = torch.arange(min(2, end))
        found, wanted = policy.logits(prompts, canvas, columns=columns, cache=cache), alone[:, columns]
    if _gap(policy, found, wanted) > tolerance:
        return "keys and values that are kept between forwards give other distributions than a full forward"
    return None


def _gap(policy: BasePolicy, found: Float[Tensor, "... v"], wanted: Float[Tensor, "... v"]) -> float:
    """How far two forwards of other shapes lie apart: in the worst column, or in half precision in the middle one.

    There the sums round otherwise, and a router of experts that stood between two may take the other one, which moves
    some columns far. What is read against the mask moves all.
    """
    by_column = (_finite(found) - _finite(wanted)).abs().amax(dim=-1)
    return float(by_column.max() if policy.model.dtype == torch.float32 else by_column.median())


def _readable(policy: BasePolicy, probe: Probe) -> tuple[Bool[Tensor, "r c"], Bool[Tensor, "r c"]]:
    """Which changes may move a column, over any number of layers, and which it reads itself."""
    length, reading = probe.canvas.shape[1], policy.reading
    visible = torch.ones(1, probe.width + length, dtype=torch.bool)
    direct = reading.attention.mask(visible, probe.width)[0, 0]
    reached = direct
    while not torch.equal(further := (reached.float() @ reached.float()) > 0, reached):
        reached = further
    at = probe.width + torch.arange(length) - int(reading.is_shifted)
    places = torch.tensor(probe.places)
    return reached[at][:, places].T, direct[at][:, places].T


def _finite(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Logits with banned ids at 0."""
    return torch.where(logits.isneginf(), 0.0, logits)


def _largest(values: Float[Tensor, " n"]) -> float:
    return float(values.max()) if values.numel() else 0.0
