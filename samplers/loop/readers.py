"""How a step asks the model: over the whole canvas, block by block with exact keys and values of what is finished, or
inside a block with stale ones of what stands around it; and guidance (LLaDA, 2502.09992), a reader around two others.

Legend: b rows of the batch, n rows asked, c columns asked, l canvas, v vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockCache, BlockPolicy
from dllm_rl.policies.masked import MaskedPolicy, StaleCache
from dllm_rl.types import Prompts
from samplers.config import CacheKind
from samplers.loop.record import Recorder

_Cache = TypeVar("_Cache", BlockCache, StaleCache)


class Reader(Protocol):
    """Asks the policy for the laws of columns, and counts what was fed."""

    def logits(
        self,
        rows: Int[Tensor, " n"],
        alive: Int[Tensor, " a"],
        canvas: Int[Tensor, "b l"],
        columns: Int[Tensor, "n c"],
        record: Recorder,
    ) -> Float[Tensor, "n c v"]:
        """Logits of the columns of these rows. alive: all rows that are not finished, these among them."""
        ...

    def begins(self, columns: Int[Tensor, "n c"]) -> bool:
        """Whether a forward for these columns keeps something of the rows asked, which later ones of theirs read."""
        ...


class WholeCanvas:
    """Feeds prompt and canvas in every step."""

    def __init__(self, policy: BasePolicy, prompts: Prompts) -> None:
        self.policy, self.prompts = policy, prompts

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over everything."""
        record.count(len(rows), self.prompts.ids.shape[1] + canvas.shape[1])
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns)

    def begins(self, columns: Tensor) -> bool:
        """Nothing is kept."""
        return False


class _Kept(Generic[_Cache]):
    """The cache of all rows that were fed when a block began, and that of the rows of the last step."""

    def __init__(self, whole: _Cache, rows: Int[Tensor, " n"]) -> None:
        self.whole = self.last = whole
        self.rows = self.last_rows = rows

    def of(self, rows: Int[Tensor, " m"]) -> _Cache:
        """The cache of these rows; copied only where they are not those of the last step."""
        if not torch.equal(rows, self.last_rows):
            self.last = self.whole.rows(torch.searchsorted(self.rows, rows))
            self.last_rows = rows
        return self.last


class BlockByBlock:
    """Feeds the active block; a finished one once more, together with the first step of the next, and never again.

    So a finished block costs no forward of its own, and the prompt is read in the first one. Rows that wait for others
    in a block are not fed; rows that are finished leave.
    """

    def __init__(self, policy: BlockPolicy, prompts: Prompts) -> None:
        self.policy, self.prompts = policy, prompts
        # What stands before the active block, for all rows that were alive when it began.
        self.kept = _Kept(policy.read_prompts(prompts), torch.arange(len(prompts.ids)))

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over what is new up to the end of the block in which the columns lie."""
        size, width = self.policy.facts.block_size, self.prompts.ids.shape[1]
        start = int(columns.min()) // size * size
        length = self.kept.whole.length
        if length < width + start or not length:
            return self._begin(rows, alive, canvas, columns, record)
        return self._forward(rows, canvas, columns, self.kept.of(rows), record)

    def begins(self, columns: Tensor) -> bool:
        """What is kept is that of all rows which are alive, whichever are asked."""
        return False

    def _begin(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """The first step of a block: all that are alive are fed, since their finished blocks are to be kept."""
        settled = self.kept.whole
        if len(alive) < len(self.kept.rows):
            settled = settled.rows(torch.searchsorted(self.kept.rows, alive))
        place = torch.searchsorted(alive, rows)
        asked = columns.min().expand(len(alive), columns.shape[1]).clone()
        asked[place] = columns
        output = self._forward(alive, canvas, asked, settled, record)
        self.kept = _Kept(settled, alive)
        return output[place]

    def _forward(self, rows: Tensor, canvas: Tensor, columns: Tensor, cache: BlockCache, record: Recorder) -> Tensor:
        size, width = self.policy.facts.block_size, self.prompts.ids.shape[1]
        end = min((int(columns.min()) // size + 1) * size, canvas.shape[1])
        record.count(len(rows), width + end - cache.length)
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, cache=cache)


class StaleOutside:
    """Feeds everything in a block's first step, and in its others only the block (and what follows, `prefix`).

    What stands outside is read as it was in the first step: approximate (Fast-dLLM, 2505.22618). Under the grammar laws
    of later columns are asked for as well; where these are not fed (`dual`), they are stale like the keys and values.
    """

    def __init__(self, policy: MaskedPolicy, prompts: Prompts, block_length: int, *, keeps_suffix: bool) -> None:
        self.policy, self.prompts, self.block_length, self.keeps_suffix = policy, prompts, block_length, keeps_suffix
        self.kept: _Kept[StaleCache] | None = None

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward, over everything where the columns lie in a block that has not been asked for yet."""
        if self.begins(columns):
            return self._begin(self._start(columns), rows, canvas, columns, record)
        assert self.kept is not None
        cache = self.kept.of(rows)
        record.count(len(rows), self.policy.num_fed(cache))
        is_fed = columns < cache.end
        own = torch.where(is_fed, columns, columns[:, :1])
        fresh = self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=own, cache=cache)
        return fresh if is_fed.all() else torch.where(is_fed[..., None], fresh, self._stale(rows, columns))

    def begins(self, columns: Tensor) -> bool:
        """Whether this is the first forward of its block."""
        return self.kept is None or self.kept.whole.start != self._start(columns)

    def _start(self, columns: Tensor) -> int:
        """Of the active block, in which asked columns begin, whatever else the grammar wants."""
        return int(columns.min()) // self.block_length * self.block_length

    def _begin(self, start: int, rows: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """The exact forward that fills the cache."""
        length = canvas.shape[1]
        end = min(start + self.block_length, length) if self.keeps_suffix else length
        cache = StaleCache(start=start, end=end)
        record.count(len(rows), self.prompts.ids.shape[1] + length)
        found = self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, cache=cache)
        self.kept = _Kept(cache, rows)
        if (columns >= end).any():
            place = torch.arange(columns.shape[1]).expand_as(columns)
            self.first = found, torch.zeros(len(rows), length, dtype=torch.long).scatter(1, columns, place)
        return found

    def _stale(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Laws of the block's first step at these columns."""
        assert self.kept is not None
        found, place = self.first
        row = torch.searchsorted(self.kept.rows, rows)
        return found[row[:, None], place[row].gather(1, columns)]


def reader_of(policy: BasePolicy, prompts: Prompts, cache: CacheKind, block_length: int) -> Reader:
    """The reader that this cache means for the policy's family. Raises ConfigError where it means nothing."""
    if cache in ("prefix", "dual"):
        if not isinstance(policy, MaskedPolicy):
            raise ConfigError(
                f"cache='{cache}' keeps keys and values that have changed, which only the masked family is in need of; "
                f"those of the {policy.family} family's finished blocks never change. Take cache='exact'."
            )
        return StaleOutside(policy, prompts, block_length, keeps_suffix=cache == "dual")
    if cache == "exact" and isinstance(policy, BlockPolicy):
        return BlockByBlock(policy, prompts)
    return WholeCanvas(policy, prompts)


class Guided:
    """Classifier-free guidance: l_u + (s + 1) (l_c - l_u), where l_u is asked with every token of the prompt masked.

    Two forwards a step, both counted. The logits are those of the guided law: what is drawn from it cannot be replayed
    with the policy's own.
    """

    def __init__(self, conditional: Reader, unconditional: Reader, strength: float) -> None:
        self.conditional, self.unconditional, self.strength = conditional, unconditional, strength

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward of each kind; ids that are banned in one stay so."""
        known = self.conditional.logits(rows, alive, canvas, columns, record)
        unknown = self.unconditional.logits(rows, alive, canvas, columns, record)
        guided = unknown + (self.strength + 1) * (known - unknown)
        return guided.masked_fill(known.isinf() | unknown.isinf(), -torch.inf)

    def begins(self, columns: Tensor) -> bool:
        """As of the two readers, which are of one kind."""
        return self.conditional.begins(columns)


def without_prompt(prompts: Prompts, mask_id: int) -> Prompts:
    """The same rows with MASK for every token of the prompt; padding stays padding."""
    return replace(prompts, ids=torch.where(prompts.mask, mask_id, prompts.ids))
