"""What every policy family shares: a Hugging Face model, its facts, and one forward over prompt and canvas.

Legend: b rows, l canvas, c chosen columns, n scored positions of all rows, v vocabulary, k views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.canvas import Canvas, CanvasConfig
from dllm_rl.constraint import Constraint
from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import Attention, Causal
from dllm_rl.policies.facts import PolicyFacts
from dllm_rl.policies.feed import Feed, Tokens
from dllm_rl.policies.interface import ModelInterface
from dllm_rl.policies.terms import joint_terms, target_log_probs
from dllm_rl.process import ForwardProcess
from dllm_rl.types import Family, Prompts, Rollouts, Views

MASKED_FAMILIES: tuple[Family, ...] = ("masked", "block", "slot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a canvas is read.

    attention: which positions each position reads.
    is_shifted: the logits of a column stand one position before it.
    """

    attention: Attention
    is_shifted: bool = False


# The policy's own reading, and the two causal ones of the original study.
_READINGS = {
    "native": None,
    "causal": Reading(attention=Causal()),
    "causal_shifted": Reading(attention=Causal(), is_shifted=True),
}


class BasePolicy:
    """A model with its tokenizer and facts. Subclasses say how a family attends, and what its likelihood terms are."""

    family: ClassVar[Family]
    version: ClassVar[int] = 1
    # Every likelihood is exact, in one view.
    is_exact: ClassVar[bool] = False
    # Under a grammar a step's draws are constrained by the whole canvas, not by a part that is known so far.
    constrains_whole_canvas: ClassVar[bool] = True

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        self.model, self.tokenizer, self.facts = model, tokenizer, facts
        self.canvas = Canvas(CanvasConfig(length=facts.canvas_length, line_width=facts.line_width), tokenizer)
        self.mask_id: int | None = facts.mask_id if facts.mask_id is not None else tokenizer.mask_token_id
        if self.mask_id is None and self.family in MASKED_FAMILIES:
            raise ConfigError(f"the {self.family} family needs a mask token; this tokenizer has none. Set mask_id.")
        self.vocab_size = int(model.config.vocab_size)  # type: ignore[union-attr]
        self.interface = ModelInterface.of(model, self.canvas.pad_id)
        self._banned = torch.zeros(self.vocab_size, dtype=torch.bool)
        self._banned[list(self.banned_ids)] = True

    @property
    def reading(self) -> Reading:
        """How the family reads a canvas."""
        raise NotImplementedError

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never written: MASK, and ids beyond the tokenizer's own."""
        own = () if self.mask_id is None else (self.mask_id,)
        return own + tuple(range(len(self.tokenizer), self.vocab_size))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def process(self) -> ForwardProcess:
        """The forward process that views are drawn from."""
        return ForwardProcess(
            family=self.family,
            mask_id=self.mask_id if self.family in MASKED_FAMILIES else None,
            pad_id=self.canvas.pad_id,
            eos_id=self.canvas.eos_id,
            vocab_size=self.vocab_size,
            slot_size=self.facts.slot_size,
            schedule_power=self.facts.schedule_power,
            banned_ids=self.banned_ids,
        )

    def prompts(self, texts: Sequence[str], row_ids: Sequence[int]) -> Prompts:
        """Tokenise prompts, left-padded to the longest. Raises ConfigError where one exceeds max_prompt."""
        encoded = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        longest = max(map(len, encoded))
        if longest > self.facts.max_prompt:
            text = texts[[len(ids) for ids in encoded].index(longest)]
            raise ConfigError(
                f"a prompt of {longest} tokens exceeds max_prompt={self.facts.max_prompt}; nothing is ever cut. "
                f"Use smaller forms or a policy with a longer prompt. It starts: {text[:80]!r}"
            )
        return Prompts.left_padded(encoded, row_ids=row_ids, pad_id=self.canvas.pad_id)

    def empty_canvas(self, num_rows: int) -> Int[Tensor, "b l"]:
        """A canvas before anything is written."""
        mask_id = self.process.mask_id
        start = self.canvas.pad_id if mask_id is None else mask_id
        return torch.full((num_rows, self.facts.canvas_length), start, dtype=torch.long)

    def logits(
        self,
        prompts: Prompts,
        canvas: Int[Tensor, "b l"],
        *,
        columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None = None,
        time: Float[Tensor, " b"] | None = None,
        order: Int[Tensor, "b l"] | None = None,
        cache: Any = None,
    ) -> Float[Tensor, "b c v"]:
        """Float32 logits of the distribution of each column (all, or the given ones); banned ids are -inf.

        columns: the same for all rows, or one index tensor a row. cache: what `read_prompts` returned for these rows.
        """
        feed = Feed(prompt_ids=prompts.ids, prompt_mask=prompts.mask, canvas=canvas, time=time, order=order)
        return self.score(feed, columns=columns, cache=cache).to(canvas.device)

    def read_prompts(self, prompts: Prompts) -> Any:
        """Return keys and values of the prompts, where they do not depend on the canvas; else None."""
        return None

    def score(
        self,
        feed: Feed,
        *,
        columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None = None,
        reading: Reading | None = None,
        cache: Any = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Return float32 logits of columns in one forward, on the model's device; banned ids are -inf.

        Records live on the CPU, whatever the model's device.

        columns: columns that are asked, the same for all rows or each row its own. Default: all.
        reading: default the family's own.
        cache: keys and values that then are not fed again. A cache of the prompt is left as it came.
        scored: which of the columns are wanted in each row; their logits come row after row, as one row, and no others
            are computed. Not with a cache.
        """
        reading = reading or self.reading
        every = torch.arange(feed.canvas.shape[1], device=feed.canvas.device)
        keep = feed.places(every if columns is None else columns.to(feed.canvas.device))
        if reading.is_shifted and feed.order is None:
            keep = keep - 1
        tokens = feed.tokens(reading.attention)
        if cache is None:
            return self.forward(tokens, keep, scored=scored)
        return self.continue_from(cache, tokens, keep, feed.width)

    def forward(
        self,
        tokens: Tokens,
        keep: Int[Tensor, " c"] | Int[Tensor, "b c"],
        *,
        cache: Any = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Return the model's logits at these positions of the tokens, without banned ids; see `ModelInterface`."""
        logits = self.interface.forward(self.model, tokens, keep, cache=cache, scored=scored)
        return logits.masked_fill(self._banned.to(logits.device), -torch.inf)

    def continue_from(
        self, cache: Any, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"], width: int
    ) -> Float[Tensor, "b c v"]:
        """Return logits at these positions, where a cache holds keys and values of the prompt (of this width)."""
        total = tokens.ids.shape[1]
        logits = self.forward(tokens.between(width, total), keep - width, cache=cache)
        cache.crop(width - total)
        return logits

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Log p(target) at scored positions of each view, float32, 0 elsewhere.

        Kinds that score draws as they were made (exact, left_to_right, trajectory, answer) do so at the sampler's
        temperature, others at 1.
        """
        return torch.stack([self._one_view(rollouts, views, index) for index in range(views.num_views)])

    def _one_view(self, rollouts: Rollouts, views: Views, index: int) -> Float[Tensor, "b l"]:
        if rollouts.trajectory is not None and rollouts.trajectory.constraint is not None:
            return self._constrained_view(rollouts, views, index, rollouts.trajectory.constraint)
        score = views.score[index]
        targets = rollouts.completion_ids if views.targets is None else views.targets[index]
        columns = score.any(dim=0).nonzero().squeeze(1)
        if columns.numel() == 0:
            return torch.zeros(score.shape, dtype=torch.float32)
        logits = self.score(
            self._view_feed(rollouts, views, index),
            columns=columns,
            reading=_READINGS[views.read],
            scored=score[:, columns],
        )
        return self.spread_terms(logits[0], targets, rollouts, views, index)

    def _view_feed(self, rollouts: Rollouts, views: Views, index: int) -> Feed:
        return Feed(
            prompt_ids=rollouts.prompt_ids if views.prompt_tokens is None else views.prompt_tokens[index],
            prompt_mask=rollouts.prompt_mask,
            canvas=views.tokens[index],
            time=None if views.time is None else views.time[index],
            order=None if views.order is None else views.order[index],
        )

    def spread_terms(
        self,
        logits: Float[Tensor, "n v"],
        targets: Int[Tensor, "b l"],
        rollouts: Rollouts,
        views: Views,
        index: int,
    ) -> Float[Tensor, "b l"]:
        """Likelihood terms of one view on its canvas, from the logits of its scored positions, row after row."""
        score = views.score[index]
        if views.kind in ("exact", "trajectory", "answer", "left_to_right"):
            logits = logits / rollouts.temperature
        place = score.nonzero(as_tuple=True)
        terms = self.terms(logits, targets[place], views, index, place)
        return torch.zeros(score.shape, dtype=torch.float32, device=terms.device).index_put(place, terms)

    def _constrained_view(
        self, rollouts: Rollouts, views: Views, index: int, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Replay of draws under a grammar: the law of accepted canvases, not the model's. Other kinds are refused."""
        if views.kind not in ("exact", "trajectory"):
            raise ConfigError(
                f"these rollouts were drawn under the grammar, and a '{views.kind}' view does not score its law: "
                "training would follow other probabilities than those of the draws. Use an objective that replays "
                "trajectories (such as cj_grpo) or the autoregressive family, or set decoding.grammar to evaluation."
            )
        logits = self.score(self._view_feed(rollouts, views, index))
        terms = self.constrained_terms(logits / rollouts.temperature, rollouts, views, index, constraint)
        return torch.where(views.score[index], terms.float(), 0.0)

    def constrained_terms(
        self,
        logits: Float[Tensor, "b l v"],
        rollouts: Rollouts,
        views: Views,
        index: int,
        constraint: Constraint,
    ) -> Float[Tensor, "b l"]:
        """Log-probability of the tokens that a step wrote, each given those left of it, among accepted canvases."""
        trajectory = rollouts.trajectory
        assert trajectory is not None and views.step is not None
        tokens = views.tokens[index]
        chosen = (trajectory.commit_step == views.step[index][:, None]) | views.score[index]
        # The canvas after the last step, since what stands behind EOS has been padded in the completion.
        targets = rollouts.completion_ids
        if trajectory.keeps_states:
            targets = trajectory.states(trajectory.events.end[None])[0]
        end = self.unscored_from(chosen)
        return joint_terms(constraint, logits, tokens, tokens == self.mask_id, chosen, targets, end=end)

    def unscored_from(self, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"] | None:
        """First column that the step which wrote these positions did not score; None if it scored all."""
        return None

    def terms(
        self,
        logits: Float[Tensor, "n v"],
        targets: Int[Tensor, " n"],
        views: Views,
        index: int,
        place: tuple[Int[Tensor, " n"], ...],
    ) -> Float[Tensor, " n"]:
        """Likelihood term of each target under these logits; families with another forward process override it.

        place: row and column of each on the canvas of view `index`.
        """
        return target_log_probs(logits, targets)
