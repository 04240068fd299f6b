"""How a step asks the model: over the whole canvas, block by block with exact keys and values of finished blocks, or
inside a block with stale ones of what stands around it; and guidance (LLaDA, 2502.09992), a reader around two others.

Legend: b rows of the batch, n rows of the step, c columns asked about, u unfinished rows, l canvas, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockCache, BlockPolicy
from dllm_rl.policies.masked import MaskedPolicy, StaleCache
from dllm_rl.records.types import Prompts
from samplers.loop.record import Recorder

_Cache = TypeVar("_Cache", BlockCache, StaleCache)


class Reader(Protocol):
    """Asks the policy for the logits of columns, and counts what was fed."""

    def logits(
        self,
        rows: Int[Tensor, " n"],
        unfinished: Int[Tensor, " u"],
        canvas: Int[Tensor, "b l"],
        columns: Int[Tensor, "n c"],
        record: Recorder,
    ) -> Float[Tensor, "n c v"]:
        """Return logits of these columns of these rows.

        Args:
            rows: The rows.
            unfinished: All rows that may still be asked about.
            canvas: The whole batch.
            columns: Columns of each row.
            record: Counts what is fed.
        """
        ...

    def begins(self, columns: Int[Tensor, "n c"]) -> bool:
        """Whether this forward fills a cache that later forwards of these rows read."""
        ...


class WholeCanvas:
    """Feeds prompt and canvas in every step."""

    def __init__(self, policy: BasePolicy, prompts: Prompts) -> None:
        self.policy, self.prompts = policy, prompts

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
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


class _KeptStale(_Kept[StaleCache]):
    """The same, and the logits of the block's first forward, for columns that its later ones do not feed."""

    def __init__(
        self, whole: StaleCache, rows: Int[Tensor, " n"], logits: Tensor, columns: Int[Tensor, "n c"], *, length: int
    ) -> None:
        super().__init__(whole, rows)
        is_needed = bool((columns >= whole.end).any())
        self.logits = logits if is_needed else logits[:, :0]
        place = torch.arange(columns.shape[1]).expand_as(columns)
        self.place = torch.zeros(len(rows), length, dtype=torch.long).scatter(1, columns, place)

    def first(self, rows: Int[Tensor, " m"], columns: Int[Tensor, "m c"]) -> Float[Tensor, "m c v"]:
        """Logits of the first forward at these columns."""
        row = torch.searchsorted(self.rows, rows)
        return self.logits[row[:, None], self.place[row].gather(1, columns)]


class BlockByBlock:
    """Feeds the active block; a finished one once more, together with the first step of the next, and never again.

    So a finished block costs no forward of its own, and the prompt is read in the first one. Idle rows, which have
    finished their block before others, are not fed; finished rows leave.
    """

    def __init__(self, policy: BlockPolicy, prompts: Prompts) -> None:
        self.policy, self.prompts, self.blocks = policy, prompts, policy.blocks(prompts.mask)
        # What stands before the active block, for all rows that were unfinished when it began.
        self.kept = _Kept(policy.read_prompts(prompts), torch.arange(len(prompts.ids)))

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over what is new up to the end of the block in which the columns lie."""
        start, length = self.blocks.start(int(columns.min())), self.kept.whole.length
        if length < self.policy.num_kept(self.prompts.ids.shape[1], start) or not length:
            return self._begin(rows, unfinished, canvas, columns, record)
        return self._forward(rows, canvas, columns, self.kept.of(rows), record)

    def begins(self, columns: Tensor) -> bool:
        """The cache holds all unfinished rows, whichever are asked about."""
        return False

    def _begin(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """The first step of a block: all unfinished rows are fed, so that the cache gets their finished blocks."""
        settled = self.kept.whole
        if len(unfinished) < len(self.kept.rows):
            settled = settled.rows(torch.searchsorted(self.kept.rows, unfinished))
        place = torch.searchsorted(unfinished, rows)
        asked = columns.min().expand(len(unfinished), columns.shape[1]).clone()
        asked[place] = columns
        output = self._forward(unfinished, canvas, asked, settled, record)
        self.kept = _Kept(settled, unfinished)
        return output[place]

    def _forward(self, rows: Tensor, canvas: Tensor, columns: Tensor, cache: BlockCache, record: Recorder) -> Tensor:
        end = min(self.blocks.start(int(columns.min())) + self.blocks.size, canvas.shape[1])
        record.count(len(rows), self.prompts.ids.shape[1] + end - cache.length)
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, cache=cache)


class StaleOutside:
    """Feeds everything in a block's first step, and in its others only the block (and what follows, `prefix`).

    What stands outside is read as it was in the first step: approximate (Fast-dLLM, 2505.22618). Under the
    grammar later columns are asked about as well; where these are not fed (`dual`), their logits are stale, too.
    """

    def __init__(self, policy: MaskedPolicy, prompts: Prompts, block_length: int, *, keeps_suffix: bool) -> None:
        self.policy, self.prompts, self.block_length, self.keeps_suffix = policy, prompts, block_length, keeps_suffix
        self.kept: _KeptStale | None = None

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward, over everything where the columns lie in a block that has not been asked for yet."""
        if self.begins(columns):
            return self._begin(self._start(columns), rows, canvas, columns, record)
        assert self.kept is not None
        cache = self.kept.of(rows)
        record.count(len(rows), self.policy.num_fed(cache))
        is_fed = columns < cache.end
        own = torch.where(is_fed, columns, columns[:, :1])
        fresh = self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=own, cache=cache)
        if is_fed.all():
            return fresh
        return torch.where(is_fed[..., None].to(fresh.device), fresh, self.kept.first(rows, columns))

    def begins(self, columns: Tensor) -> bool:
        """Whether this is the first forward of its block."""
        return self.kept is None or self.kept.whole.start != self._start(columns)

    def _start(self, columns: Tensor) -> int:
        """First column of the active block."""
        return int(columns.min()) // self.block_length * self.block_length

    def _begin(self, start: int, rows: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """The exact forward that fills the cache."""
        length = canvas.shape[1]
        end = min(start + self.block_length, length) if self.keeps_suffix else length
        cache = StaleCache(start=start, end=end)
        record.count(len(rows), self.prompts.ids.shape[1] + length)
        found = self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, cache=cache)
        self.kept = _KeptStale(cache, rows, found, columns, length=length)
        return found


class Guided:
    """Classifier-free guidance: l_u + (s + 1) (l_c - l_u), where l_u is asked with every token of the prompt masked.

    Two forwards a step, both counted. What is drawn from the guided distribution cannot be replayed with the policy's
    own.
    """

    def __init__(self, conditional: Reader, unconditional: Reader, strength: float) -> None:
        self.conditional, self.unconditional, self.strength = conditional, unconditional, strength

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward of each kind; ids that are banned in one stay so."""
        known = self.conditional.logits(rows, unfinished, canvas, columns, record)
        unknown = self.unconditional.logits(rows, unfinished, canvas, columns, record)
        guided = unknown + (self.strength + 1) * (known - unknown)
        return guided.masked_fill(known.isinf() | unknown.isinf(), -torch.inf)

    def begins(self, columns: Tensor) -> bool:
        """As the two readers do, which are of one kind."""
        return self.conditional.begins(columns)


def without_prompt(prompts: Prompts, mask_id: int) -> Prompts:
    """The same rows with MASK for every token of the prompt; padding stays padding."""
    return replace(prompts, ids=torch.where(prompts.mask, mask_id, prompts.ids))


class Caching(Protocol):
    """Which keys and values are kept between the steps of a block.

    Attributes:
        is_approximate: Whether kept ones may differ from what a full forward gives.
        families: Families for which the cache is defined.
    """

    is_approximate: ClassVar[bool]
    families: ClassVar[tuple[str, ...]]

    def reader(self, policy: BasePolicy, prompts: Prompts, block_length: int) -> Reader:
        """Return what asks the policy about these prompts' canvases."""
        ...


class NoCaching:
    """Nothing is kept: a full forward in every step."""

    is_approximate: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...]] = ("masked", "block")

    def reader(self, policy: BasePolicy, prompts: Prompts, block_length: int) -> Reader:
        """Return a reader of the whole canvas."""
        return WholeCanvas(policy, prompts)


class ExactCaching(NoCaching):
    """What cannot change is kept: the finished blocks of the block family."""

    def reader(self, policy: BasePolicy, prompts: Prompts, block_length: int) -> Reader:
        """Return a reader of the active block; of the whole canvas for the masked family."""
        return BlockByBlock(policy, prompts) if isinstance(policy, BlockPolicy) else WholeCanvas(policy, prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleCaching:
    """What stands around the active block is kept as it was in the block's first step.

    Attributes:
        name: Name of the option.
        keeps_suffix: Whether what stands behind the block is kept too.
    """

    name: str
    keeps_suffix: bool
    is_approximate: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...]] = ("masked",)

    def reader(self, policy: BasePolicy, prompts: Prompts, block_length: int) -> Reader:
        """Return a reader of the active block. Raises ConfigError for policies of another family."""
        if not isinstance(policy, MaskedPolicy):
            raise ConfigError(
                f"cache='{self.name}' keeps keys and values that have changed, which only the masked family needs; "
                f"those of the {policy.family} family's finished blocks never change. Take cache='exact'."
            )
        return StaleOutside(policy, prompts, block_length, keeps_suffix=self.keeps_suffix)


CacheName = Literal["exact", "none", "prefix", "dual"]
CACHES: dict[CacheName, Caching] = {
    "exact": ExactCaching(),
    "none": NoCaching(),
    "prefix": StaleCaching(name="prefix", keeps_suffix=False),
    "dual": StaleCaching(name="dual", keeps_suffix=True),
}
