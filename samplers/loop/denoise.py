"""The one denoise loop of the masked and the block family: rules differ in what they unmask and what they remask.

A step: forced tokens are written; the model is asked at the masked positions of the active block; the rule chooses
positions by a statistic of their distributions (a rule that may idle chooses before that, by noise); only then are
tokens drawn there (choose-then-sample, 2510.04525), so that the recorded log-probability is exactly that of the draw.
Ranking by the probability of the *drawn* token, as LLaDA does, would hide a lower temperature. The block family writes
its own blocks in order, with exact keys and values of those that are finished (`samplers.loop.readers`).

Legend: b rows of the batch, n rows of the step, c columns asked about, l canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.policies.blocks import Blocks
from dllm_rl.records.events import BEFORE_ALL, Kind
from dllm_rl.records.types import Completions, Prompts
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import Keys, Prediction, StepDistribution, Unasked, project
from samplers.loop.context import BlockStep, RemaskContext, StepContext, Watcher
from samplers.loop.readers import CACHES, Guided, Reader, without_prompt
from samplers.loop.record import ForcedTokens, Recorder, columns_of, is_finished
from samplers.loop.sampling import REMASK, uniform_at

if TYPE_CHECKING:
    from samplers.rules.base import UnmaskingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Columns of rows that the model is asked about; rows with fewer are padded.

    Attributes:
        unscored_from: First column that the policy cannot score yet; None if it scores all.
        chosen: Columns to unmask, where that is known before the model is asked.
    """

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, "n c"]
    is_asked: Bool[Tensor, "n c"]
    unscored_from: int | None
    chosen: Bool[Tensor, "n c"] | None = None

    def select(self, which: Bool[Tensor, " n"]) -> Query:
        """These rows, as wide as they need."""
        width = int(self.is_asked[which].sum(dim=1).amax()) if which.any() else 0
        columns, is_asked = self.columns[which, :width], self.is_asked[which, :width]
        chosen = None if self.chosen is None else self.chosen[which, :width]
        return replace(self, rows=self.rows[which], columns=columns, is_asked=is_asked, chosen=chosen)


class Denoising:
    """One batch of canvases under one rule."""

    def __init__(self, rule: UnmaskingRule, policy: BasePolicy, prompts: Prompts, seed: int, watcher: Watcher) -> None:
        self.rule, self.policy, self.prompts, self.seed, self.watcher = rule, policy, prompts, seed, watcher
        self.blocks = _blocks_of(policy, prompts)
        self.canvas = policy.empty_canvas(len(prompts.ids))
        self.is_masked = torch.ones_like(self.canvas, dtype=torch.bool)
        self.constraint = constraint_of(policy, prompts) if rule.grammar else None
        self.reader = self._reader()
        self.memory: dict[str, Tensor] = {}
        # Noise is keyed by a row's own steps: how long others take in a block must not reach its draws.
        self.step, self.steps_taken = 0, torch.zeros(len(prompts.ids), dtype=torch.long)
        self.record = Recorder(self.canvas, keeps_states=True, constraint=self.constraint)
        self.forced = ForcedTokens(self.constraint, self.record, writes_padding=True)
        self.log_probs = torch.zeros(self.canvas.shape) if rule.remasks else None
        self.is_drawn = torch.zeros_like(self.is_masked)
        self.is_given = torch.zeros_like(self.is_masked)
        if prompts.given is not None:
            self._begin_with(prompts.given)
        self.forced.write(torch.arange(len(self.canvas)), self.canvas, self.is_masked, BEFORE_ALL)

    def _begin_with(self, given: Int[Tensor, "b l"]) -> None:
        """Put what is given onto the canvas. It is read like everything that stands, and was never drawn."""
        row, column = (given != self.policy.process.blank_id).nonzero(as_tuple=True)
        self.canvas[row, column] = given[row, column]
        self.is_masked[row, column] = False
        self.is_given[row, column] = True
        self.record.write_at(row, column, BEFORE_ALL, given[row, column], Kind.GIVEN)

    def run(self) -> Completions:
        """Write block after block, and return the record."""
        self._write_all()
        return self.record.finish(
            self.policy,
            self.canvas,
            num_steps=self.step,
            is_approximate=self.rule.approximation is not None or self.watcher.changes_draws,
            position_law=self.rule.position_law(self._block_length()),
            hides_order=self.rule.hides_order,
        )

    @property
    def noise_rows(self) -> Int[Tensor, " b"]:
        """What keys the noise of each row."""
        return self.prompts.row_ids

    def _write_all(self) -> None:
        """Write block after block."""
        blocks = self.blocks.divided(self._block_length()).edges(self.canvas.shape[1])
        steps = self.rule.steps_of([end - start for start, end in blocks])
        for (start, end), num_steps in zip(blocks, steps, strict=True):
            self._block(start, end, max(1, num_steps))
            self._stop(self.watcher.block_done(self.canvas, start, end))

    def _reader(self) -> Reader:
        """How the rule asks the model."""
        rule, policy, prompts, block = self.rule, self.policy, self.prompts, self._block_length()
        cache = CACHES[rule.cache]
        reader = cache.reader(policy, prompts, block)
        if not rule.guidance:
            return reader
        assert policy.mask_id is not None
        unconditional = cache.reader(policy, without_prompt(prompts, policy.mask_id), block)
        return Guided(reader, unconditional, rule.guidance)

    def _block_length(self) -> int:
        """Columns that are written before any later one."""
        wanted, size = self.rule.block_length, self.blocks.size
        if isinstance(self.policy, BlockPolicy) and wanted is not None and size % wanted:
            raise ConfigError(
                f"block_length={wanted} does not divide the policy's blocks of {size} columns. Leave it out, give a "
                f"divisor of {size}, or set the policy's facts.block_size."
            )
        return wanted or size

    def _unscored_from(self, start: int) -> int | None:
        """First column that the policy cannot score yet: behind the block family's active block."""
        if not isinstance(self.policy, BlockPolicy):
            return None
        return min(self.blocks.start(start) + self.blocks.size, self.canvas.shape[1])

    def _block(self, start: int, end: int, num_steps: int) -> None:
        num_columns = self._block_length() if self.rule.counts_whole_blocks else end - start
        if not self.rule.remasks and not self.rule.may_idle:
            num_steps = min(num_steps, num_columns)
        in_block = torch.zeros(self.canvas.shape[1], dtype=torch.bool)
        in_block[start:end] = True
        quotas = self.rule.quotas(num_columns, num_steps)
        for index, quota in enumerate(quotas):
            is_done = is_finished(self.canvas, self.is_masked, self.policy.canvas.eos_id)
            is_open = self.is_masked & in_block & ~is_done[:, None]
            rows = is_open.any(dim=1).nonzero().squeeze(1)
            if not len(rows):
                break
            unfinished = (~is_done).nonzero().squeeze(1)
            block_step = BlockStep(
                in_block=in_block,
                begins_block=self.blocks.start(start) == start,
                quota=quota,
                index=index,
                num_steps=len(quotas),
            )
            self._one_step(rows, unfinished, is_open, block_step)
            self._between_steps()
            self.watcher.wrote(self.canvas, self.step)
            self.step += 1

    def _between_steps(self) -> None:
        """What a subclass does to the canvases after each step."""

    def _stop(self, rows: Bool[Tensor, " b"]) -> None:
        """Leave empty what these rows have not written."""
        unwritten = rows[:, None] & self.is_masked
        self.canvas[unwritten] = self.policy.canvas.pad_id
        row, column = unwritten.nonzero(as_tuple=True)
        self.record.write_at(row, column, self.step, self.canvas[row, column], Kind.EOS_FILL)
        self.is_masked &= ~unwritten

    def _one_step(self, rows: Tensor, unfinished: Tensor, is_open: Tensor, block_step: BlockStep) -> None:
        """Ask the model, let the rule choose, draw, write, remask. A rule that may idle chooses first."""
        query = self._query(rows, is_open, block_step)
        if self.rule.may_idle:
            query = self._without_idle(query, block_step)
            if not len(query.rows):
                return
        context = self._context(query, block_step, self._distribution(query, unfinished))
        self._write(context, self._chosen(context) if query.chosen is None else query.chosen)

    def _query(self, rows: Tensor, is_open: Tensor, block_step: BlockStep) -> Query:
        """The open columns of these rows; under a grammar all masked ones, which depend on one another."""
        unscored_from = self._unscored_from(int(block_step.in_block.long().argmax()))
        where = is_open[rows] if self.constraint is None else self.is_masked[rows, :unscored_from]
        columns, is_asked = columns_of(where)
        return Query(rows=rows, columns=columns, is_asked=is_asked, unscored_from=unscored_from)

    def _without_idle(self, query: Query, block_step: BlockStep) -> Query:
        """The rows that unmask something now, and what; all rows where the forward fills a cache that others read."""
        chosen = self._chosen(self._context(query, block_step, Unasked()))
        is_active = chosen.any(dim=1)
        if is_active.any() and self.reader.begins(query.columns):
            is_active = torch.ones_like(is_active)
        self.steps_taken[query.rows[~is_active]] += 1
        return replace(query, chosen=chosen).select(is_active)

    def _distribution(self, query: Query, unfinished: Tensor) -> StepDistribution:
        """Of the tokens at the query's columns, as the grammar leaves it."""
        rows, columns, canvas = query.rows, query.columns, self.canvas[query.rows]
        # Rows with fewer open positions ask for their first one again.
        wanted = torch.where(query.is_asked, columns, columns[:, :1])
        logits = self.reader.logits(rows, unfinished, self.canvas, wanted, self.record)
        prediction = Prediction(
            logits=self.watcher.logits(rows, self.prompts.rows(rows), canvas, wanted, logits),
            columns=columns,
            canvas=canvas,
            is_masked=self.is_masked[rows],
            temperature=self.rule.temperature,
        )
        automata, truncate = self.forced.automata(rows), self.watcher.truncate
        return project(automata, prediction, unscored_from=query.unscored_from, truncate=truncate)

    def _write(self, context: StepContext, chosen: Bool[Tensor, "n c"]) -> None:
        """Draw what was chosen, remask what the rule says, and write the tokens that are forced then."""
        rows, step = context.rows, context.block_step
        keys = Keys(seed=self.seed, row_ids=self.noise_rows[rows], step=self.steps_taken[rows])
        draw = context.distribution.draw(chosen, keys)
        was_visible = ~self.is_masked[rows]
        row = rows[draw.row]
        self.canvas[row, draw.column] = draw.tokens
        self.is_masked[row, draw.column], self.is_drawn[row, draw.column] = False, True
        kept = chosen
        if self.log_probs is not None:
            self.log_probs[row, draw.column] = draw.log_probs.float()
            if step.index < step.num_steps - max(1, step.num_steps // 8):
                kept = chosen & ~self._remask(context, was_visible).gather(1, context.columns)
        stays = kept[chosen]
        self.record.commit_at(
            row[stays],
            draw.column[stays],
            self.step,
            draw.tokens[stays],
            draw.log_probs[stays],
            draw.entropy[stays],
        )
        self.steps_taken[rows] += 1
        self.forced.write(rows, self.canvas, self.is_masked, self.step)

    def _context(self, query: Query, block_step: BlockStep, distribution: StepDistribution) -> StepContext:
        """What the rule sees of these rows."""
        return StepContext(
            rows=query.rows,
            columns=query.columns,
            is_open=query.is_asked & block_step.in_block[query.columns],
            block_step=block_step,
            distribution=distribution,
            noise_at=self._noise,
            memory=self.memory,
        )

    def _chosen(self, context: StepContext) -> Bool[Tensor, "n c"]:
        """What the rule chose; everything at the last permitted step; at least one, unless it remasks or may idle."""
        if context.step + 1 == context.num_steps:
            return context.is_open
        chosen = self.rule.choose(context) & context.is_open
        has_none = ~chosen.any(dim=1)
        if self.rule.remasks or self.rule.may_idle or not has_none.any():
            return chosen
        return chosen | (has_none[:, None] & context.best(context.log_odds, 1))

    def _remask(self, context: StepContext, was_visible: Bool[Tensor, "n l"]) -> Bool[Tensor, "n l"]:
        """Remask what the rule says, but for what was given.

        Only tokens that stood before the step make events: others are in no state.
        """
        assert self.log_probs is not None
        rows, columns, in_block = context.rows, torch.arange(self.canvas.shape[1]), context.block_step.in_block
        is_masked = self.is_masked[rows]
        is_done = is_finished(self.canvas[rows], is_masked, self.policy.canvas.eos_id)
        seen = RemaskContext(
            step=context,
            was_visible=was_visible & in_block & ~self.is_given[rows],
            is_drawn=self.is_drawn[rows] & in_block,
            is_complete=is_done | ~(is_masked & in_block).any(dim=1),
            log_probs=self.log_probs[rows],
            noise=self._noise(rows, columns.expand(len(rows), -1), REMASK),
        )
        again = self.rule.remask(seen)
        assert again is not None
        again = again & in_block & ~self.is_masked[rows] & ~self.is_given[rows]
        place, column = again.nonzero(as_tuple=True)
        row, is_event = rows[place], was_visible[place, column]
        self.canvas[row, column] = self.policy.process.blank_id
        self.is_masked[row, column], self.is_drawn[row, column] = True, False
        self.log_probs[row, column] = 0.0
        row, column = row[is_event], column[is_event]
        self.record.write_at(row, column, self.step, self.canvas[row, column], Kind.REMASK)
        return again

    def _noise(self, rows: Tensor, columns: Tensor, stream: int) -> Float[Tensor, "n c"]:
        row_ids = self.noise_rows[rows][:, None].expand_as(columns)
        steps = self.steps_taken[rows][:, None].expand_as(columns)
        flat = uniform_at(self.seed, row_ids.flatten(), columns.flatten(), steps.flatten(), stream)
        return flat.reshape(columns.shape)


def _blocks_of(policy: BasePolicy, prompts: Prompts) -> Blocks:
    """Where the policy's own blocks lie; the whole canvas is one where it has none."""
    if isinstance(policy, BlockPolicy):
        return policy.blocks(prompts.mask)
    return Blocks(size=policy.facts.canvas_length, offset=torch.zeros(len(prompts.ids), dtype=torch.long))


def spread(total: int, parts: int) -> list[int]:
    """Equal shares of a count; the first ones take the remainder."""
    return [total // parts + (index < total % parts) for index in range(parts)]
