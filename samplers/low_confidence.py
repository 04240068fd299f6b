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
from dllm_rl.registry import register
from dllm_rl.types import Completions, Family, Prompts
from samplers._chunks import in_chunks
from samplers._noise import TOKEN, uniform_at
from samplers._record import Recorder, columns_of, is_finished
from samplers._statistics import entropy, log_odds, pick


@register("sampler", "low_confidence")
@dataclass(frozen=True, slots=True, kw_only=True)
class LowConfidenceSampler:
    """Commits an equal quota of masked positions a step, the most confident first.

    num_steps: denoising steps over the whole canvas (fewer forwards where rows end early).
    block_length: semi-autoregressive blocks of so many columns; None = one block.
    """

    name: ClassVar[str] = "low_confidence"
    families: ClassVar[tuple[Family, ...]] = ("masked",)
    temperature: float = 1.0
    num_steps: int = 32
    block_length: int | None = None

    @torch.no_grad()
    def generate(self, policy: BasePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row; rows leave the batch when nothing before their EOS is masked."""
        return in_chunks(policy, prompts, lambda part: self._write(policy, part, seed))

    def _write(self, policy: BasePolicy, prompts: Prompts, seed: int) -> Completions:
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
                is_open = is_masked & ~is_finished(canvas, is_masked, policy.canvas.eos_id)[:, None]
                is_open[:, :start] = is_open[:, end:] = False
                if not is_open.any():
                    break
                self._step(policy, prompts, canvas, is_masked, record, is_open, quota, step, seed)
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
        is_open: Tensor,
        quota: int,
        step: int,
        seed: int,
    ) -> None:
        rows = is_open.any(dim=1).nonzero().squeeze(1)
        columns, is_here = columns_of(is_open[rows])
        logits = policy.logits(prompts.rows(rows), canvas[rows], columns=columns)
        record.count(len(rows), prompts.ids.shape[1] + canvas.shape[1])
        chosen = choose(log_odds(logits), is_here, quota)
        row, column, laws = rows[chosen.nonzero()[:, 0]], columns[chosen], logits[chosen]
        noise = uniform_at(seed, prompts.row_ids[row], column, step, TOKEN)
        tokens, log_probs = pick(laws, self.temperature, noise)
        canvas[row, column] = tokens
        is_masked[row, column] = False
        record.commit_at(row, column, step, log_probs, entropy(laws))


def choose(score: Float[Tensor, "b c"], is_open: Bool[Tensor, "b c"], quota: int) -> Bool[Tensor, "b c"]:
    """The `quota` open positions of highest score, per row; ties go to the lowest position."""
    ranked = score.masked_fill(~is_open, -torch.inf)
    rank = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < quota) & is_open


def _spread(total: int, parts: int) -> list[int]:
    return [total // parts + (index < total % parts) for index in range(parts)]
