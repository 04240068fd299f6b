"""The masked-diffusion loop with low-confidence remasking order (2502.09992), as choose-then-sample (2510.04525).

At each step the masked positions with the highest log-odds of their most likely token are chosen first, and only then
are tokens drawn there: the recorded probability is exactly that of the draw. Ranking by the probability of the *drawn*
token, as LLaDA does, would hide a lower temperature (spec/objectives section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts
from samplers.loop.sampling import TOKEN, uniform
from tests.samplers.plain.record import Recorder, Written, is_finished
from tests.samplers.plain.statistics import entropy, log_odds, pick


@dataclass(frozen=True, slots=True, kw_only=True)
class LowConfidenceSampler:
    """Commits an equal quota of masked positions a step, the most confident first.

    num_steps: denoising steps over the whole canvas (fewer forwards where rows end early).
    block_length: semi-autoregressive blocks of so many columns; None = one block.
    """

    name: ClassVar[str] = "low_confidence"
    families: ClassVar[tuple[str, ...]] = ("masked",)
    temperature: float = 1.0
    num_steps: int = 32
    block_length: int | None = None

    @torch.no_grad()
    def generate(self, policy: BasePolicy, prompts: Prompts, *, seed: int) -> Written:
        """Sample one completion a row; rows leave the batch when nothing before their EOS is masked."""
        length = policy.facts.canvas_length
        canvas = policy.empty_canvas(len(prompts.ids))
        is_masked = torch.ones_like(canvas, dtype=torch.bool)
        record = Recorder(canvas, keeps_states=True)
        block = self.block_length or length
        blocks = [(start, min(start + block, length)) for start in range(0, length, block)]
        step = 0
        for (start, end), num_steps in zip(blocks, _spread(self.num_steps, len(blocks)), strict=True):
            quotas = _spread(end - start, max(1, min(num_steps, end - start)))
            for quota in quotas:
                alive = ~is_finished(canvas, is_masked, policy.canvas.eos_id)
                alive &= is_masked[:, start:end].any(dim=1)
                if not alive.any():
                    break
                self._step(policy, prompts, canvas, is_masked, record, alive, (start, end), quota, step, seed)
                record.state(canvas)
                step += 1
        return record.finish(policy, canvas)

    def _step(
        self,
        policy: BasePolicy,
        prompts: Prompts,
        canvas: Tensor,
        is_masked: Tensor,
        record: Recorder,
        alive: Tensor,
        block: tuple[int, int],
        quota: int,
        step: int,
        seed: int,
    ) -> None:
        rows = alive.nonzero().squeeze(1)
        in_block = torch.zeros_like(is_masked)
        in_block[:, block[0] : block[1]] = True
        open_here = (is_masked & in_block)[rows]
        columns = open_here.any(dim=0).nonzero().squeeze(1)
        logits = policy.logits(prompts.rows(rows), canvas[rows], columns=columns)
        record.count(len(rows), prompts.ids.shape[1] + canvas.shape[1])
        chosen = choose(log_odds(logits), open_here[:, columns], quota)
        noise = uniform(seed, prompts.row_ids[rows], columns, step, TOKEN)
        tokens, log_probs = pick(logits, self.temperature, noise)
        where = torch.zeros_like(is_masked)
        where[rows[:, None], columns] = chosen
        canvas[rows[:, None], columns] = torch.where(chosen, tokens, canvas[rows[:, None], columns])
        is_masked &= ~where
        uncertainty = entropy(logits, self.temperature)
        record.commit(where, step, _place(log_probs, rows, columns, canvas), _place(uncertainty, rows, columns, canvas))


def choose(score: Float[Tensor, "b c"], is_open: Bool[Tensor, "b c"], quota: int) -> Bool[Tensor, "b c"]:
    """The `quota` open positions of highest score, per row; ties go to the lowest position."""
    ranked = score.masked_fill(~is_open, -torch.inf)
    rank = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < quota) & is_open


def _place(values: Tensor, rows: Tensor, columns: Tensor, canvas: Tensor) -> Tensor:
    full = torch.zeros(canvas.shape)
    full[rows[:, None], columns] = values
    return full


def _spread(total: int, parts: int) -> list[int]:
    return [total // parts + (index < total % parts) for index in range(parts)]
