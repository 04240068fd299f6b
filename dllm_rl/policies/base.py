"""What every policy family shares: a Hugging Face model, its facts, and one forward over prompt and canvas.

Legend: b rows, l canvas, c chosen columns, n scored positions of all rows, v vocabulary, k views.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.options import construct
from dllm_rl.policies.attention import Reading
from dllm_rl.policies.blocks import PromptBlocks
from dllm_rl.policies.chat import encode_chat, plan_in, refuse_text_facts
from dllm_rl.policies.feed import Feed, Tokens, places_of
from dllm_rl.policies.head import output_head
from dllm_rl.policies.interface import ModelInterface, at_least_float32
from dllm_rl.policies.process import ANY, ForwardProcess
from dllm_rl.policies.scoring import cross_entropy, view_terms
from dllm_rl.policies.tiles import LARGE_VOCABULARY
from dllm_rl.records.canvas import Canvas, CanvasConfig, encode_text
from dllm_rl.records.types import Prompts, Rollouts, Views

if TYPE_CHECKING:
    from dllm_rl.policies.lens import LayerLens
    from dllm_rl.training.warmstart import Batch

# Ranges that facts are checked against.
Size = Annotated[int, Field(ge=1)]
Power = Annotated[float, Field(gt=0, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0)]
# Facts that every family reads.
COMMON = frozenset(
    {
        "family",
        "max_prompt",
        "canvas_length",
        "line_width",
        "mask_id",
        "end_ids",
        "chat_template",
        "system_prompt",
        "adds_bos",
        "plan_after",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """Facts of a checkpoint, stored in its config.json under `policy`.

    A family with facts of its own derives from this class and names it as its policy's `facts_class`.

    Attributes:
        family: Name of the policy family.
        max_prompt: Longest prompt in tokens; longer ones are refused, never cut.
        canvas_length: Columns of the canvas.
        line_width: Columns of a line; None for free-running lines.
        slot_size: Tokens of a slot (slot family).
        block_size: Tokens of a block (block family).
        block_sizes: Sizes that a warm start samples from, if the policy knows several.
        is_prompt_causal: Within the prompt each token reads those before it, else all of them (block family).
        prompt_blocks: The prompt is read block by block too, counted `from_prompt` (SDAR, LLaDA2) or `from_canvas`
            (BD3-LM); see `BlockCausal` (block family).
        schedule_power: kappa_t = t ** power, as trained (flow family).
        is_shifted: Logits at position i are of token i + 1 in a bidirectional model (Dream, Fast-dLLM v2).
        mask_id: Id of MASK. Default: the tokenizer's.
        end_ids: Ids that end a text, which count as one: the first stands for all of them. Default: the tokenizer's
            EOS.
        chat_template: The prompt is a turn of the user in the tokenizer's chat template; else plain text.
        system_prompt: The turn before it, with a chat template.
        adds_bos: Plain text begins with the tokenizer's BOS, as base models such as Gemma's and Llama's need it. A chat
            template has its own.
        plan_after: The plan is what follows the last place of this text, such as "</think>": what stands before it is
            drawn and scored like all else, and never executed. A text without it is a plan as a whole.
    """

    family: str
    max_prompt: Size = 384
    canvas_length: Size = 128
    line_width: Size | None = None
    slot_size: Size = 4
    block_size: Size = 32
    block_sizes: tuple[Size, ...] = ()
    is_prompt_causal: bool = False
    prompt_blocks: PromptBlocks = None
    schedule_power: Power = 1.0
    is_shifted: bool = False
    mask_id: TokenId | None = None
    end_ids: tuple[TokenId, ...] = ()
    chat_template: bool = False
    system_prompt: str | None = None
    adds_bos: bool = False
    plan_after: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read facts from plain data. Raises ConfigError for an unknown one, a wrong type or a value out of range."""
        return construct(cls, values, owner="policy facts", given={})

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return asdict(self)


def read_config(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json, its facts under `policy`.

    Raises CheckpointError where it is not a JSON object, or its facts are not.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}. Give a folder written by save_policy.") from error
    if not isinstance(config, dict) or not isinstance(config.get("policy", {}), dict):
        raise CheckpointError(
            f"{path} is not a JSON object whose 'policy' is an object of facts. Give a folder written by save_policy."
        )
    return config


class BasePolicy:
    """A model with its tokenizer and facts.

    A family is a registered subclass: it says how a canvas is read (`reading`), by which forward process views are
    drawn (`make_process`), and which sampler usually writes with it. A sampler or an objective that is defined for a
    family is defined for families that derive from it.

    process: the family's forward process.
    interface: which inputs the model's forward takes.
    reads_in_tiles: with `scored`, `score` and `forward` return what the output head reads, and not logits
        (`dllm_rl.policies.tiles`).
    """

    # Name of the family.
    family: ClassVar[str] = ANY
    # Name of the sampler that is taken where none is given.
    usual_sampler: ClassVar[str]
    # Whether the family writes over a mask token.
    needs_mask: ClassVar[bool] = False
    # Whether a stock decoder is built with attention in both directions.
    is_bidirectional: ClassVar[bool] = True
    # Whether the built-in model of this family is told the noise level.
    reads_time: ClassVar[bool] = False
    # The record of facts that a checkpoint's configuration is read into.
    facts_class: ClassVar[type[PolicyFacts]] = PolicyFacts
    # Facts of `PolicyFacts` that the family reads, beside those that all read.
    own_facts: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[int] = 2
    # Every likelihood is exact, in one view.
    is_exact: ClassVar[bool] = False
    # Under a grammar a step's draws are constrained by the whole canvas, not by a part that is known so far.
    constrains_whole_canvas: ClassVar[bool] = True

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        self.model, self.tokenizer, self.facts = model, tokenizer, facts
        refuse_text_facts(tokenizer, facts)
        self.canvas = Canvas(CanvasConfig(length=facts.canvas_length, line_width=facts.line_width), tokenizer)
        self.mask_id: int | None = facts.mask_id if facts.mask_id is not None else tokenizer.mask_token_id
        self.vocab_size = int(model.config.vocab_size)  # type: ignore[union-attr]
        self.interface = ModelInterface.of(model, self.canvas.pad_id)
        # Whether what is scored is read from the head in tiles; set to False where the model turns out not to allow it.
        self.reads_in_tiles = self.vocab_size >= LARGE_VOCABULARY
        self._banned = torch.zeros(self.vocab_size, dtype=torch.bool)
        self._banned[list(self.banned_ids)] = True
        self.process: ForwardProcess = self.make_process()

    @classmethod
    def lineage(cls) -> tuple[str, ...]:
        """Return the name of the family, those that it derives from, and `any`."""
        return tuple(ancestor.family for ancestor in cls.__mro__ if "family" in vars(ancestor))

    @property
    def reading(self) -> Reading:
        """How the family reads a canvas."""
        raise NotImplementedError

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that are never written: MASK, ends that another one stands for, and ids beyond the tokenizer's own."""
        own = () if self.mask_id is None else (self.mask_id,)
        return own + self.facts.end_ids[1:] + tuple(range(len(self.tokenizer), self.vocab_size))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def make_process(self) -> ForwardProcess:
        """Return the family's forward process. Raises ConfigError where the facts do not allow it."""
        raise NotImplementedError

    @property
    def masked_facts(self) -> dict[str, Any]:
        """Return the arguments of this policy's `MaskedProcess`. Raises ConfigError if it has no mask token."""
        if self.mask_id is None:
            raise ConfigError(f"the {self.family} family needs a mask token; this tokenizer has none. Set mask_id.")
        return {
            "pad_id": self.canvas.pad_id,
            "eos_id": self.canvas.eos_id,
            "banned_ids": self.banned_ids,
            "mask_id": self.mask_id,
        }

    def prompts(self, texts: Sequence[str], row_ids: Sequence[int]) -> Prompts:
        """Tokenise prompts, left-padded to the longest. Raises ConfigError where one exceeds max_prompt."""
        encoded = [self.encode_prompt(text) for text in texts]
        longest = max(map(len, encoded))
        if longest > self.facts.max_prompt:
            text = texts[[len(ids) for ids in encoded].index(longest)]
            raise ConfigError(
                f"a prompt of {longest} tokens exceeds max_prompt={self.facts.max_prompt}; nothing is ever cut. "
                f"Use smaller forms or a policy with a longer prompt. It starts: {text[:80]!r}"
            )
        return Prompts.left_padded(encoded, row_ids=row_ids, pad_id=self.canvas.pad_id)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt: as it is, or as a turn of the chat that the policy answers."""
        if not self.facts.chat_template:
            bos = [self.tokenizer.bos_token_id] if self.facts.adds_bos else []
            return bos + encode_text(self.tokenizer, text)
        turns = [{"role": "user", "content": text}]
        if self.facts.system_prompt is not None:
            turns.insert(0, {"role": "system", "content": self.facts.system_prompt})
        return encode_chat(self.tokenizer, turns)

    def plan_of(self, ids: Int[Tensor, " l"]) -> str:
        """The text of a canvas that counts: what follows `plan_after`, or all of it."""
        return plan_in(self.canvas.decode(ids), self.facts.plan_after)

    def fits(self, text: str) -> bool:
        """Whether a prompt is short enough."""
        return len(self.encode_prompt(text)) <= self.facts.max_prompt

    def alignment(self, prompts: Prompts) -> Int[Tensor, " b"]:
        """Return a number for each row. Rows of other numbers are not written in one batch."""
        return torch.zeros(len(prompts.ids), dtype=torch.long)

    def empty_canvas(self, num_rows: int) -> Int[Tensor, "b l"]:
        """A canvas before anything is written."""
        return torch.full((num_rows, self.facts.canvas_length), self.process.blank_id, dtype=torch.long)

    def logits(
        self,
        prompts: Prompts,
        canvas: Int[Tensor, "b l"],
        *,
        columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None = None,
        time: Float[Tensor, " b"] | None = None,
        order: Int[Tensor, "b l"] | None = None,
        cache: Any = None,
        lens: LayerLens | None = None,
    ) -> Float[Tensor, "b c v"]:
        """Float32 logits of the distribution of each column (all, or the given ones); banned ids are -inf.

        They stay on the model's device: a vocabulary is wide, and canvases and records live on the CPU, to which only
        what is taken of them should go. Rows that are equal share a forward, unless a cache or a lens is given.

        Args:
            columns: The same for all rows, or one index tensor a row.
            cache: What `read_prompts` returned for these rows.
            lens: Reads the layers of this forward, too.
        """
        feed = Feed(prompt_ids=prompts.ids, prompt_mask=prompts.mask, canvas=canvas, time=time, order=order)
        if lens is not None:
            return lens.read(self, feed, columns)
        if cache is not None:
            return self.score(feed, columns=columns, cache=cache)
        return self._score_once(feed, columns)

    def learning_loss(
        self,
        batch: Batch,
        canvas: Int[Tensor, "b l"],
        where: Bool[Tensor, "b l"],
        *,
        time: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a batch's tokens at these columns, given what this canvas shows."""
        feed = Feed(prompt_ids=batch.prompts.ids, prompt_mask=batch.prompts.mask, canvas=canvas, time=time)
        if self.reads_in_tiles:
            return cross_entropy(self, self.score(feed, scored=where), batch.canvas[where])
        return cross_entropy(self, self._score_once(feed, None)[where][None], batch.canvas[where])

    def _score_once(self, feed: Feed, columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None) -> Float[Tensor, "b c v"]:
        """Score rows that are equal once."""
        by_row = (columns,) if columns is not None and columns.dim() == 2 else ()
        shared = feed.shared(also=by_row)
        if not shared.is_any:
            return self.score(feed, columns=columns)
        own = by_row[0][shared.first] if by_row else columns
        scored = self.score(feed.rows(shared.first), columns=own)
        return scored[shared.place.to(scored.device)]

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

        Args:
            columns: Columns that are asked, the same for all rows or each row its own. Default: all.
            reading: How the canvas is read. Default: as the family does.
            cache: Keys and values that then are not fed again. A cache of the prompt is left as it came.
            scored: Which of the columns are wanted in each row; their logits come row after row, as one row, and no
                others are computed. Not with a cache. Where `reads_in_tiles`, hidden states come in their place.
        """
        reading = reading or self.reading
        keep = places_of(feed, columns, is_shifted=reading.is_shifted)
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
        """Return the model's logits at these positions of the tokens, without banned ids; see `ModelInterface`.

        With `scored` and where `reads_in_tiles`, hidden states.
        """
        if scored is not None and self.reads_in_tiles:
            states = self.interface.states(self.model, tokens, keep, scored=scored)
            if states is not None:
                return states
            self.reads_in_tiles = False
        return self.without_banned(self.interface.forward(self.model, tokens, keep, cache=cache, scored=scored))

    def without_banned(self, logits: Float[Tensor, "... v"]) -> Float[Tensor, "... v"]:
        """Return logits of the model as those of the policy, in place: ends are one, and banned ids -inf."""
        if len(self.facts.end_ids) > 1:
            ends = logits[..., list(self.facts.end_ids)].logsumexp(dim=-1, keepdim=True)
            logits = logits.index_copy(-1, torch.tensor([self.canvas.eos_id], device=logits.device), ends)
        # In place: these are the widest tensors of an update.
        return logits.masked_fill_(self._banned.to(logits.device), -torch.inf)

    def read_head(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Return float32 logits of the policy from what its output head reads."""
        head: Any = output_head(self.model)
        return self.without_banned(at_least_float32(head(states)))

    def continue_from(
        self, cache: Any, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"], width: int
    ) -> Float[Tensor, "b c v"]:
        """Return logits at these positions, where a cache holds keys and values of the prompt (of this width)."""
        total = tokens.ids.shape[1]
        logits = self.forward(tokens.between(width, total), keep - width, cache=cache)
        cache.crop(width - total)
        return logits

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Return the likelihood terms of each view, unweighted: float32, 0 where not scored."""
        every = torch.arange(views.num_views)
        return torch.stack([view_terms(self, rollouts, views.views(index)) for index in every.split(1)])

    def view_feed(self, rollouts: Rollouts, view: Views) -> Feed:
        """Return all that a forward of a view, alone, reads. Rows whose feeds are equal share a forward."""
        return Feed.of_view(rollouts, view)
