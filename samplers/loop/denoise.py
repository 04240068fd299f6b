"""The one denoise loop of the masked and the block family: rules differ in what they commit and what they mask again.

A step: forced tokens are written; the model is asked at the masked positions of the active block; the rule chooses
positions by a statistic of their laws (one that may wait chooses before that, by noise); only then are tokens drawn
there (choose-then-sample, 2510.04525), so that the recorded log-probability is exactly that of the draw. Ranking by the
probability of the *drawn* token, as LLaDA does, would hide a lower temperature. The block family writes its own blocks
in order, with exact keys and values of those that are finished (`samplers.loop.readers`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.events import BEFORE_ALL, Kind
from dllm_rl.policies.base import BasePolicy
from dllm_rl.types import Completions, Prompts
from samplers.grammar.compile import constraint_of
from samplers.grammar.forcing import Forcing
from samplers.grammar.projection import Projection, project
from samplers.loop.context import View, Watcher, Written
from samplers.loop.readers import Guided, Reader, reader_of, without_prompt
from samplers.loop.record import Recorder, columns_of, is_finished
from samplers.loop.sampling import REMASK, uniform_at

if TYPE_CHECKING:
    from samplers.rules.base import UnmaskingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """A step of a block: which columns the block has, and what its plain schedule commits now."""

    in_block: Bool[Tensor, " l"]
    quota: int
    index: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Which columns of which rows are asked for; rows with fewer are filled up.

    end: the column from which on there are no laws yet. chosen: what is written, where that is known already.
    """

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, "n c"]
    is_asked: Bool[Tensor, "n c"]
    end: int | None
    chosen: Bool[Tensor, "n c"] | None = None

    def part(self, which: Bool[Tensor, " n"]) -> _Asked:
        """These rows, as wide as they need."""
        width = int(self.is_asked[which].sum(dim=1).amax()) if which.any() else 0
        columns, is_asked = self.columns[which, :width], self.is_asked[which, :width]
        chosen = None if self.chosen is None else self.chosen[which, :width]
        return replace(self, rows=self.rows[which], columns=columns, is_asked=is_asked, chosen=chosen)


class Denoising:
    """One batch of canvases under one rule."""

    def __init__(self, rule: UnmaskingRule, policy: BasePolicy, prompts: Prompts, seed: int, watcher: Watcher) -> None:
        self.rule, self.policy, self.prompts, self.seed, self.watcher = rule, policy, prompts, seed, watcher
        self.canvas = policy.empty_canvas(len(prompts.ids))
        self.is_masked = torch.ones_like(self.canvas, dtype=torch.bool)
        self.constraint = constraint_of(policy, prompts) if rule.grammar else None
        self.reader = self._reader()
        self.memory: dict[str, Tensor] = {}
        # Noise is keyed by a row's own steps: how long others take in a block must not reach its draws.
        self.step, self.taken = 0, torch.zeros(len(prompts.ids), dtype=torch.long)
        self.record = Recorder(self.canvas, keeps_states=True)
        self.forcing = Forcing(self.constraint, self.record, pads=True)
        self.log_probs = torch.zeros(self.canvas.shape) if rule.remasks else None
        self.forcing.force(torch.arange(len(self.canvas)), self.canvas, self.is_masked, BEFORE_ALL)

    def run(self) -> Completions:
        """Write block after block."""
        length = self.canvas.shape[1]
        block = self._block_length()
        blocks = [(start, min(start + block, length)) for start in range(0, length, block)]
        steps = self.rule.steps_of([end - start for start, end in blocks])
        for (start, end), num_steps in zip(blocks, steps, strict=True):
            self._block(start, end, max(1, num_steps))
            self._stop(self.watcher.block_done(self.canvas, start, end))
        return self.record.finish(
            self.policy,
            self.canvas,
            num_steps=self.step,
            constraint=self.constraint,
            is_approximate=self.rule.approximation is not None,
        )

    def _reader(self) -> Reader:
        """How the rule asks the model."""
        rule, policy, prompts, block = self.rule, self.policy, self.prompts, self._block_length()
        reader = reader_of(policy, prompts, rule.cache, block)
        if rule.guidance:
            assert policy.mask_id is not None
            blind = reader_of(policy, without_prompt(prompts, policy.mask_id), rule.cache, block)
            return Guided(reader, blind, rule.guidance)
        return reader

    def _block_length(self) -> int:
        """Columns that are written before any later one."""
        wanted, length = self.rule.block_length, self.canvas.shape[1]
        if self.policy.family != "block":
            return wanted or length
        size = self.policy.facts.block_size
        if wanted is not None and size % wanted:
            raise ConfigError(
                f"block_length={wanted} does not divide the policy's blocks of {size} columns. Leave it out, give a "
                f"divisor of {size}, or set the policy's facts.block_size."
            )
        return wanted or size

    def _horizon(self, start: int) -> int | None:
        """The column from which on the policy cannot be asked yet: the end of the block family's active block."""
        if self.policy.family != "block":
            return None
        size = self.policy.facts.block_size
        return min((start // size + 1) * size, self.canvas.shape[1])

    def _block(self, start: int, end: int, num_steps: int) -> None:
        if not self.rule.remasks and not self.rule.may_wait:
            num_steps = min(num_steps, end - start)
        in_block = torch.zeros(self.canvas.shape[1], dtype=torch.bool)
        in_block[start:end] = True
        for index, quota in enumerate(spread(end - start, num_steps)):
            is_done = is_finished(self.canvas, self.is_masked, self.policy.canvas.eos_id)
            is_open = self.is_masked & in_block & ~is_done[:, None]
            rows = is_open.any(dim=1).nonzero().squeeze(1)
            if not len(rows):
                break
            alive = (~is_done).nonzero().squeeze(1)
            turn = _Turn(in_block=in_block, quota=quota, index=index, num_steps=num_steps)
            self._one_step(rows, alive, is_open, turn)
            self.watcher.wrote(self.canvas, self.step)
            self.step += 1

    def _stop(self, rows: Tensor) -> None:
        """What these rows have not written stays empty."""
        unwritten = rows[:, None] & self.is_masked
        self.canvas[unwritten] = self.policy.canvas.pad_id
        row, column = unwritten.nonzero(as_tuple=True)
        self.record.write_at(row, column, self.step, self.canvas[row, column], Kind.EOS_FILL)
        self.is_masked &= ~unwritten

    def _one_step(self, rows: Tensor, alive: Tensor, is_open: Tensor, turn: _Turn) -> None:
        """Ask the model, let the rule choose, draw, write, mask again. A rule that may wait chooses first."""
        asked = self._asked(rows, is_open, turn)
        if self.rule.may_wait:
            asked = self._without_waiting(asked, turn)
            if not len(asked.rows):
                return
        projection = self._laws(asked, alive)
        view = self._view(asked, turn, projection)
        self._write(view, projection, self._chosen(view) if asked.chosen is None else asked.chosen, turn)

    def _asked(self, rows: Tensor, is_open: Tensor, turn: _Turn) -> _Asked:
        """The open columns of these rows; under a grammar all masked ones, on whose laws one another's depend."""
        end = self._horizon(int(turn.in_block.long().argmax()))
        where = is_open[rows] if self.constraint is None else self.is_masked[rows, :end]
        columns, is_asked = columns_of(where)
        return _Asked(rows=rows, columns=columns, is_asked=is_asked, end=end)

    def _without_waiting(self, asked: _Asked, turn: _Turn) -> _Asked:
        """The rows that write now, and what they write; all of them where the forward keeps what others will read."""
        chosen = self._chosen(self._view(asked, turn, None))
        goes_on = chosen.any(dim=1)
        if goes_on.any() and self.reader.begins(asked.columns):
            goes_on = torch.ones_like(goes_on)
        self.taken[asked.rows[~goes_on]] += 1
        return replace(asked, chosen=chosen).part(goes_on)

    def _laws(self, asked: _Asked, alive: Tensor) -> Projection:
        """Of the asked columns, as the grammar leaves them."""
        rows, columns = asked.rows, asked.columns
        # Rows with fewer open positions ask for their first one again.
        wanted = torch.where(asked.is_asked, columns, columns[:, :1])
        logits = self.reader.logits(rows, alive, self.canvas, wanted, self.record)
        logits = self.watcher.logits(rows, self.prompts.rows(rows), self.canvas[rows], columns, logits)
        return project(
            self.forcing.automata(rows),
            logits,
            columns,
            self.canvas[rows],
            self.is_masked[rows],
            self.rule.temperature,
            self.watcher.truncate,
            asked.end,
        )

    def _write(self, view: View, projection: Projection, chosen: Tensor, turn: _Turn) -> None:
        """Draw what was chosen, mask again what the rule takes back, and write what is forced then."""
        rows = view.rows
        draw = projection.draw(chosen, self.seed, self.prompts.row_ids[rows], self.taken[rows])
        was_visible = ~self.is_masked[rows]
        row = rows[draw.row]
        self.canvas[row, draw.column] = draw.tokens
        self.is_masked[row, draw.column] = False
        kept = chosen
        if self.log_probs is not None:
            self.log_probs[row, draw.column] = draw.log_probs.float()
            if turn.index < turn.num_steps - max(1, turn.num_steps // 8):
                kept = chosen & ~self._remask(view, was_visible, turn.in_block).gather(1, view.columns)
        stays = kept[chosen]
        self.record.commit_at(
            row[stays],
            draw.column[stays],
            self.step,
            draw.tokens[stays],
            draw.log_probs[stays],
            projection.entropy(kept),
        )
        self.taken[rows] += 1
        self.forcing.force(rows, self.canvas, self.is_masked, self.step)

    def _view(self, asked: _Asked, turn: _Turn, projection: Projection | None) -> View:
        """What the rule sees of these rows."""
        return View(
            projection=projection,
            columns=asked.columns,
            is_open=asked.is_asked & turn.in_block[asked.columns],
            quota=turn.quota,
            step=turn.index,
            num_steps=turn.num_steps,
            rows=asked.rows,
            noise=self._noise,
            memory=self.memory,
        )

    def _chosen(self, view: View) -> Tensor:
        """What the rule chose; everything at the last permitted step; at least one, unless it remasks or may wait."""
        if view.step + 1 == view.num_steps:
            return view.is_open
        chosen = self.rule.choose(view) & view.is_open
        has_none = ~chosen.any(dim=1)
        if self.rule.remasks or self.rule.may_wait or not has_none.any():
            return chosen
        return chosen | (has_none[:, None] & view.best(view.odds, 1))

    def _remask(self, view: View, was_visible: Tensor, in_block: Tensor) -> Bool[Tensor, "b l"]:
        """Mask what the rule takes back. Only what stood before the step is an event: drafts of it are in no state."""
        assert self.log_probs is not None
        rows, columns = view.rows, torch.arange(self.canvas.shape[1])
        written = Written(
            view=view,
            was_visible=was_visible & in_block,
            log_probs=self.log_probs[rows],
            in_block=in_block,
            noise=self._noise(rows, columns.expand(len(rows), -1), REMASK),
        )
        again = self.rule.remask(written)
        assert again is not None
        again = again & in_block & ~self.is_masked[rows]
        place, column = again.nonzero(as_tuple=True)
        row, is_event = rows[place], was_visible[place, column]
        self.canvas[row, column] = self.policy.process.mask_id or 0
        self.is_masked[row, column] = True
        self.log_probs[row, column] = 0.0
        row, column = row[is_event], column[is_event]
        self.record.write_at(row, column, self.step, self.canvas[row, column], Kind.REMASK)
        return again

    def _noise(self, rows: Tensor, columns: Tensor, stream: int) -> Float[Tensor, "b n"]:
        row_ids = self.prompts.row_ids[rows][:, None].expand_as(columns)
        steps = self.taken[rows][:, None].expand_as(columns)
        flat = uniform_at(self.seed, row_ids.flatten(), columns.flatten(), steps.flatten(), stream)
        return flat.reshape(columns.shape)


def spread(total: int, parts: int) -> list[int]:
    """Equal shares of a count; the first ones take the remainder."""
    return [total // parts + (index < total % parts) for index in range(parts)]
