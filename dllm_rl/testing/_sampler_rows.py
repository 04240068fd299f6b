"""Properties of a sampler: what a row's text must not depend on, and that its costs are what the model ran."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.testing.policies import logits_changed, prompts_of

ROWS = tuple(range(6))
# Of a sum of martingale differences in standard deviations; a right sampler passes it once in a million.
LARGEST_DEVIATION = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerCase:
    """One sampler class on one policy.

    Attributes:
        options: Passed to every instance.
    """

    sampler_class: Any
    policy: BasePolicy
    options: dict[str, Any]
    _kept: dict[float, Completions] = field(default_factory=dict, repr=False, compare=False)

    def draw(
        self,
        rows: tuple[int, ...] = (0, 1, 2),
        *,
        seed: int = 3,
        temperature: float = 1.0,
        prompts: Prompts | None = None,
        **options: Any,
    ) -> Completions:
        """Completions of these row ids, or of these prompts; options go before the case's own."""
        given = prompts_of(self.policy, rows) if prompts is None else prompts
        return self.sampler(temperature, **options).generate(self.policy, given, seed=seed)

    def sampler(self, temperature: float = 1.0, **options: Any) -> Any:
        """The sampler; options go before the case's own."""
        return self.sampler_class(temperature=temperature, **{**self.options, **options})

    def kept(self, temperature: float = 1.0) -> Completions:
        """Completions of `ROWS`, drawn once for all properties that only read them."""
        if temperature not in self._kept:
            self._kept[temperature] = self.draw(ROWS, temperature=temperature)
        return self._kept[temperature]

    @property
    def has_steps(self) -> bool:
        """Whether the sampler takes a number of denoising steps."""
        return "num_steps" in self._option_names

    @property
    def takes_grammar(self) -> bool:
        """Whether the grammar is an option of the sampler."""
        return "grammar" in self._option_names

    @property
    def _option_names(self) -> set[str]:
        return {field.name for field in fields(self.sampler_class)}

    @property
    def draws_from_policy(self) -> bool:
        """Whether its recorded probabilities are the policy's at the recorded states.

        Those of a rule that remasks are, too, although a replay cannot train on them: what stays depends on the draws.
        """
        sampler = self.sampler()
        remasks = getattr(sampler, "remasks", False) and not {"guidance", "cache"} & self.options.keys()
        return sampler.approximation is None or remasks

    @property
    def has_grammar(self) -> bool:
        """Whether the case draws under the grammar."""
        return bool(self.options.get("grammar"))


@contextmanager
def fed_to(policy: BasePolicy) -> Iterator[list[Int[Tensor, "b t"]]]:
    """The ids of every forward of the model while it is open."""
    calls: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(kwargs["input_ids"].clone())

    handle = policy.model.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def ending(policy: BasePolicy, probability: float) -> AbstractContextManager[None]:
    """While it is open, the model gives EOS this probability everywhere, whatever it reads; 0 means never."""
    eos = policy.canvas.eos_id

    def change(given: Tensor) -> Tensor:
        logits = given.clone()
        logits[..., eos] = -torch.inf
        total = logits.logsumexp(dim=-1)
        logits[..., eos] = total + math.log(probability / (1 - probability)) if probability else total - 1e4
        return logits

    return logits_changed(policy, change)


# Enough that a policy which hardly reads its prompt would notice.
PADDING = 40


def rows_are_independent(case: SamplerCase) -> None:
    """A row's text does not depend on the rows beside it or on their order, greedy or sampled."""
    for temperature in (0.0, 1.0):
        together = case.draw((0, 1, 2, 4), temperature=temperature)
        swapped = case.draw((4, 2, 1, 0), temperature=temperature)
        assert torch.equal(together.ids, swapped.ids.flip(0)), f"row order changes text at temperature {temperature}"
        alone = case.draw((2,), temperature=temperature)
        assert torch.equal(alone.ids[0], together.ids[2]), f"the batch changes text at temperature {temperature}"


def left_padding(case: SamplerCase) -> None:
    """Padding on the left of the prompts changes no text, and no recorded probability (1e-4 absolute)."""
    prompts = prompts_of(case.policy, (0, 1))
    wide = replace(
        prompts,
        ids=F.pad(prompts.ids, (PADDING, 0), value=case.policy.canvas.pad_id),
        mask=F.pad(prompts.mask, (PADDING, 0), value=False),
    )
    plain, padded = case.draw(prompts=prompts), case.draw(prompts=wide)
    assert torch.equal(plain.ids, padded.ids), "padding on the left changes text"
    gap = (plain.trajectory.log_probs - padded.trajectory.log_probs)[plain.mask].abs().max().item()
    assert gap < 1e-4, f"padding on the left changes a log-probability by {gap:.2g} nats: it is read"


def seeds_decide(case: SamplerCase) -> None:
    """Equal seeds give equal text, other seeds other text, and torch's global random state is untouched."""
    before = torch.get_rng_state()
    first, again, other = case.kept(), case.draw(ROWS), case.draw(ROWS, seed=4)
    assert torch.equal(before, torch.get_rng_state()), "the global random state was used; draw with keyed noise"
    assert torch.equal(first.ids, again.ids), "the same seed gave two texts"
    assert not torch.equal(first.ids, other.ids), "another seed gave the same text"


def the_prompt_is_text(case: SamplerCase) -> None:
    """Prompts come back as they were given, and the model reads them so, also where they contain the MASK id."""
    policy = case.policy
    prompts = prompts_of(policy, (1,))
    ids = prompts.ids.clone()
    token = policy.mask_id if policy.mask_id is not None else policy.canvas.eos_id
    ids[:, [1, ids.shape[1] // 2, -2]] = token
    given = replace(prompts, ids=ids.clone())
    with fed_to(policy) as calls:
        out = case.draw(prompts=given)
    assert torch.equal(given.ids, ids), "the prompt's ids were changed in place"
    width = ids.shape[1]
    read = [call[:, :width] for call in calls if call.shape[1] >= width]
    assert read, "the model never read the whole prompt"
    # Cached samplers feed the prompt once, and a later feed as long as it may hold something else.
    assert torch.equal(read[0], ids), "the model read another prompt than the one given"
    assert out.ids.shape == (1, policy.facts.canvas_length), f"completions have shape {tuple(out.ids.shape)}"
    assert not (out.ids == policy.mask_id).any(), "MASK was written behind a prompt that has it"


FEW_STEPS = 5


def counts_are_honest(case: SamplerCase) -> None:
    """nfe is the number of forwards of the model, and token_forwards the positions fed to it: for one row, and for
    three that end at different times (few enough to stay one batch on any device).
    """
    for rows, probability in (((1,), None), ((0, 1, 2), 0.15)):
        with ending(case.policy, 0.0 if probability is None else probability), fed_to(case.policy) as calls:
            out = case.draw(rows)
        where = f"with {len(rows)} rows "
        assert out.nfe == len(calls), f"{where}nfe says {out.nfe}, and the model ran {len(calls)} times"
        fed = sum(call.numel() for call in calls)
        assert out.token_forwards == fed, f"{where}token_forwards says {out.token_forwards}, fed were {fed}"


def every_forward_writes(case: SamplerCase) -> None:
    """A row alone, ending early or never: every step commits, so that there are at most as many as columns, and no more
    than num_steps.

    One forward more may read the prompt. Steps of a rule that may idle (`may_idle`) can write nothing, and then take no
    forward. Rules that take tokens back, and flows, keep to num_steps only.
    """
    for probability in (0.0, 0.3):
        with ending(case.policy, probability):
            out = case.draw((1,))
        record, length = out.trajectory, out.ids.shape[1]
        if record.time is not None or record.is_approximate:
            break
        steps = record.commit_step[0]
        written = steps[steps >= 0].unique().numel()
        if record.canvases is not None and not getattr(case.sampler_class, "may_idle", False):
            idle = sorted(set(range(record.num_steps)) - set(steps.tolist()))
            assert not idle, f"steps {idle} of {record.num_steps} wrote nothing"
        assert out.nfe <= written + 1, f"{out.nfe} forwards for {written} steps that wrote"
        assert out.nfe <= length + 1, f"{out.nfe} forwards for {length} columns"
    if case.has_steps:
        few = case.draw((1,), num_steps=FEW_STEPS)
        # A step that draws from something else than the policy's distribution may take several forwards.
        taken = few.nfe if case.draws_from_policy else few.trajectory.num_steps
        assert taken <= FEW_STEPS, f"num_steps={FEW_STEPS}, and it took {taken} forwards"


def early_ends_save(case: SamplerCase) -> None:
    """Rows that have ended are not fed any more: rows with equal prompts cost together what they cost alone.

    Not under the grammar, where rows that are fed unequal numbers of forced tokens are filled up.
    """
    if case.has_grammar:
        return
    rows = (0, 3, 6)
    with ending(case.policy, 0.15):
        together = case.draw(rows).token_forwards
        alone = sum(case.draw((row,)).token_forwards for row in rows)
    assert together <= alone, (
        f"three rows that end at different times cost {together} token-forwards together, and {alone} alone: rows that "
        "have ended go on being fed"
    )


def padding_follows_the_end(case: SamplerCase) -> None:
    """Behind EOS everything is PAD, also where rows of a batch end at different times."""
    with ending(case.policy, 0.3):
        out = case.draw()
    after = ~case.policy.canvas.until_eos(out.ids)
    assert (out.ids[after] == case.policy.canvas.pad_id).all(), "something other than PAD stands behind EOS"


def draws_are_scored(case: SamplerCase) -> None:
    """Every final draw is scored, with the token that was drawn, and nothing else.

    Left out are a row's last draws where they lie behind an EOS that stood already and was not taken back: nothing
    read them.
    """
    with ending(case.policy, 0.2):
        out = case.draw(ROWS)
    record, eos_id = out.trajectory, case.policy.canvas.eos_id
    drawn = record.commit_step
    for row, column in itertools.product(range(len(ROWS)), range(out.ids.shape[1])):
        step = int(drawn[row, column])
        is_idle = False
        if record.canvases is not None and step == int(drawn[row].max()):
            stood = (record.canvases[row, step : step + 2, :column] == eos_id).all(dim=0)
            is_idle = bool(stood.any()) and record.time is None
        where = f"row {row}, column {column}, drawn at step {step},"
        assert bool(out.mask[row, column]) == (step >= 0 and not is_idle), f"{where} is scored where it should not be"
    if record.canvases is not None:
        held = torch.where(out.mask, record.canvases[:, -1], out.ids)
        assert torch.equal(out.as_drawn, held), "what is scored is not what was drawn"
