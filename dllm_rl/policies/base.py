"""What every policy family shares: a Hugging Face model, its facts, and the way tokens, positions and masks are fed.

Legend: b rows, p prompt, l canvas, c chosen columns, n scored positions of all rows, v vocabulary, k views.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.canvas import Canvas, CanvasConfig
from dllm_rl.constraint import Constraint
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.policies.head import scored_only, without_adapter
from dllm_rl.policies.terms import Attention, attention_mask, joint_terms, last_ids, target_log_probs
from dllm_rl.process import ForwardProcess
from dllm_rl.types import Family, Prompts, Rollouts, Views

MASKED_FAMILIES: tuple[Family, ...] = ("masked", "block", "slot")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """What a checkpoint must say of itself; stored in its config.json under `policy`.

    max_prompt: longest prompt in tokens; longer ones are refused, never cut. canvas_length, line_width: the canvas.
    slot_size: tokens of a slot (slot family). schedule_power: kappa_t = t ** power, as trained (flow family).
    block_size: tokens of a block (block family). block_sizes: those that a warm start draws from, if it knows several.
    is_prompt_causal: within the prompt each token reads those before it, else all of them (block family).
    is_shifted: logits at position i are of token i + 1 in a bidirectional model (Dream).
    """

    family: Family
    max_prompt: int = 384
    canvas_length: int = 128
    line_width: int | None = None
    slot_size: int = 4
    block_size: int = 32
    block_sizes: tuple[int, ...] = ()
    is_prompt_causal: bool = False
    schedule_power: float = 1.0
    is_shifted: bool = False
    mask_id: int | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PolicyFacts:
        """Read facts; unknown keys are refused."""
        known = {item.name for item in fields(cls)}
        for key in values:
            if key not in known:
                raise unknown_name("policy fact", key, known)
        # A file has lists where facts are tuples.
        given: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain data."""
        return asdict(self)


class BasePolicy:
    """A model with its tokenizer and facts. Subclasses say how a family attends, and what its likelihood terms are."""

    family: ClassVar[Family]
    attention: ClassVar[Attention]

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        self.model, self.tokenizer, self.facts = model, tokenizer, facts
        self.canvas = Canvas(CanvasConfig(length=facts.canvas_length, line_width=facts.line_width), tokenizer)
        self.mask_id: int | None = facts.mask_id if facts.mask_id is not None else tokenizer.mask_token_id
        if self.mask_id is None and self.family in MASKED_FAMILIES:
            raise ConfigError(f"the {self.family} family needs a mask token; this tokenizer has none. Set mask_id.")
        self.vocab_size = int(model.config.vocab_size)  # type: ignore[union-attr]
        # Stock encoders (masked language models) give every position's logits; adapters hide what a decoder takes.
        takes = inspect.signature(without_adapter(model).forward).parameters
        self._slices = "logits_to_keep" in takes
        # transformers renamed the argument in 5.24.
        self._cache_name = next((name for name in ("cache", "past_key_values") if name in takes), None)
        self._takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in takes.values())
        self._banned = torch.zeros(self.vocab_size, dtype=torch.bool)
        self._banned[list(self.banned_ids)] = True

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
        logits = self.score(prompts.ids, prompts.mask, canvas, columns=columns, time=time, order=order, cache=cache)
        return logits.to(canvas.device)

    def read_prompts(self, prompts: Prompts) -> Any:
        """Keys and values of the prompts, where what they are does not depend on the canvas; else None."""
        return None

    def score(
        self,
        prompt_ids: Int[Tensor, "b p"],
        prompt_mask: Bool[Tensor, "b p"],
        canvas: Int[Tensor, "b l"],
        *,
        columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None = None,
        time: Float[Tensor, " b"] | None = None,
        order: Int[Tensor, "b l"] | None = None,
        attention: Attention | None = None,
        is_shifted: bool | None = None,
        cache: Any = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """One forward over [prompt, canvas], on the model's device; records live on the CPU, whatever that is.

        Positions count real tokens, so that padding changes nothing.

        order: feed order of the canvas columns; each token keeps its true position. is_shifted: read column i at i - 1.
        cache: keys and values of the prompt, which then is not fed again; left as it came.
        scored: which of the columns are wanted in each row; their logits come row after row, as one row, and no others
        are computed. Not with a cache.
        """
        width, length = prompt_ids.shape[1], canvas.shape[1]
        shifted = self.facts.is_shifted if is_shifted is None else is_shifted
        column = torch.arange(length, device=canvas.device).expand_as(canvas)
        fed, fed_column = (canvas, column) if order is None else (canvas.gather(1, order), order)
        tokens = torch.cat([prompt_ids, fed], dim=1)
        visible = torch.cat([prompt_mask, torch.ones_like(fed, dtype=torch.bool)], dim=1)
        real = prompt_mask.sum(dim=1, keepdim=True)
        positions = torch.cat([(prompt_mask.long().cumsum(dim=1) - 1).clamp(min=0), real + fed_column], dim=1)
        wanted = column[0] if columns is None else columns.to(canvas.device)
        extra: dict[str, Any] = {}
        if getattr(self.model.config, "num_columns", 0):
            extra["column_ids"] = torch.cat([torch.zeros_like(prompt_ids), fed_column + 1], dim=1)
        if getattr(self.model.config, "has_time", False):
            extra["time"] = torch.ones(len(canvas), device=canvas.device) if time is None else time
        if order is None:
            keep = width + wanted - (1 if shifted else 0)
        else:
            place = torch.empty_like(order).scatter_(1, order, column)
            keep = width + (place[:, wanted] if wanted.dim() == 1 else place.gather(1, wanted))
        inputs = {
            "input_ids": tokens,
            "attention_mask": self.reads(visible, width, attention or self.attention),
            "position_ids": positions,
            **extra,
        }
        output = self._at(inputs, keep, scored) if cache is None else self._after_prompt(inputs, keep, width, cache)
        return output.masked_fill(self._banned.to(output.device), -torch.inf)

    def reads(self, visible: Bool[Tensor, "b t"], width: int, attention: Attention) -> Bool[Tensor, "b 1 t t"]:
        """Which of [prompt, canvas] each position reads; the canvas starts at `width`."""
        return attention_mask(visible, attention)

    def _at(
        self, inputs: dict[str, Tensor], keep: Tensor, scored: Bool[Tensor, "b c"] | None = None, **cached: Any
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Float32 logits of the model at positions (c,) or (b, c); stock decoders compute the union of all rows'."""
        by_row = keep.dim() == 2 and not getattr(self.model.config, "keeps_by_row", False)
        wanted = keep.unique() if by_row else keep
        moved = {name: value.to(self.device) for name, value in inputs.items()} | cached
        if self._slices:
            moved["logits_to_keep"] = wanted.to(self.device)
        if scored is not None:
            row, column = scored.nonzero(as_tuple=True)
            at = keep[column] if keep.dim() == 1 else keep[row, column]
            place = at if not self._slices else torch.searchsorted(wanted, at) if by_row else column
            read = wanted.shape[-1] if self._slices else inputs["input_ids"].shape[1]
            with scored_only(self.model, row, place, shape=(len(scored), read)) as narrowed:
                return narrowed(self.model(**moved).logits).float()
        output = self.model(**moved).logits
        output = (output if self._slices else output.index_select(1, wanted.to(self.device))).float()
        if not by_row:
            return output
        place = torch.searchsorted(wanted, keep).to(output.device)
        return output.gather(1, place[..., None].expand(-1, -1, output.shape[-1]))

    def _after_prompt(self, inputs: dict[str, Tensor], keep: Tensor, width: int, cache: Any) -> Float[Tensor, "b n v"]:
        rest = {name: value[:, width:] for name, value in inputs.items() if name not in ("attention_mask", "time")}
        rest["attention_mask"] = inputs["attention_mask"][:, :, width:]
        num_smeared: int = getattr(self.model.config, "num_smeared", 0)
        if num_smeared:
            rest["previous_ids"] = last_ids(inputs["input_ids"][:, :width], num_smeared, self.canvas.pad_id)
        output = self._at(rest, keep - width, **self.kept(cache))
        cache.crop(width - inputs["input_ids"].shape[1])
        return output

    def kept(self, cache: Any) -> dict[str, Any]:
        """Arguments by which the model reads these keys and values, and adds to them.

        Raises ConfigError where its forward takes none. One that takes anything is given the older name.
        """
        if self._cache_name is None and not self._takes_any:
            raise ConfigError(
                f"the {self.family} family keeps keys and values between forwards, and the forward of "
                f"{type(without_adapter(self.model)).__name__} takes neither `cache` nor `past_key_values`. Use a "
                "decoder of transformers, or add the argument (a transformers Cache that is read and added to)."
            )
        return {self._cache_name or "past_key_values": cache, "use_cache": True}

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Log p(target) at scored positions of each view, float32, 0 elsewhere.

        Exact, trajectory and answer kinds score what was drawn at the sampler's temperature, and so at it; others at 1.
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
        prompt = rollouts.prompt_ids if views.prompt_tokens is None else views.prompt_tokens[index]
        attention = self.attention if views.read == "native" else "causal"
        shifted = True if views.read == "causal_shifted" else (None if views.read == "native" else False)
        logits = self.score(
            prompt,
            rollouts.prompt_mask,
            views.tokens[index],
            columns=columns,
            time=None if views.time is None else views.time[index],
            order=None if views.order is None else views.order[index],
            attention=attention,
            is_shifted=shifted,
            scored=score[:, columns],
        )
        return self.spread_terms(logits[0], targets, rollouts, views, index)

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
        if views.kind in ("exact", "trajectory", "answer"):
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
        tokens = views.tokens[index]
        logits = self.score(
            rollouts.prompt_ids,
            rollouts.prompt_mask,
            tokens,
            time=None if views.time is None else views.time[index],
            order=None if views.order is None else views.order[index],
        )
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
        if trajectory.is_approximate:
            raise ConfigError(
                "this record is approximate: its rule masks tokens again and keeps only each position's last draw, or "
                "draws from stale keys and values or guided laws. Under a grammar a draw depends on all others of its "
                "step, so its probability cannot be replayed. Train with another rule."
            )
        tokens = views.tokens[index]
        chosen = (trajectory.commit_step == views.step[index][:, None]) | views.score[index]
        # The canvas after the last step, since what stands behind EOS has been padded in the completion.
        targets = rollouts.completion_ids
        if trajectory.keeps_states:
            targets = trajectory.states(trajectory.events.end[None])[0]
        end = self.horizon(chosen)
        return joint_terms(constraint, logits, tokens, tokens == self.mask_id, chosen, targets, end=end)

    def horizon(self, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"] | None:
        """The column from which on the step that wrote these positions asked for no law; None: it asked for all."""
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
