"""How likely a sampler is to write a text: its rule runs with the text's tokens told, and their probabilities multiply.

Rules choose positions from the canvas alone and draw tokens there (choose-then-sample). So the probability of a text is
the mean, over the rule's own choices on canvases that hold the text's tokens, of the product of the tokens'
probabilities: importance sampling with the rule itself as proposal, without bias. Columns behind the text's EOS are
drawn as the sampler would. A rule without noise on a text that fills its canvas has one path, and one is exact.

Legend: b texts, m paths of each, l canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockPolicy
from dllm_rl.records.types import Prompts
from samplers import BlockStep, Keys, Prediction, StepContext, UnmaskingRule, project, uniform_at
from samplers.loop.record import columns_of, is_finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Of texts, estimated from m paths each.

    Attributes:
        log_prob: Log of the mean probability.
        weights: of each path, log.
        error: Standard error of log_prob, by the delta method.
    """

    log_prob: Float[Tensor, " b"]
    weights: Float[Tensor, "m b"]

    @classmethod
    def of(cls, weights: Float[Tensor, "m b"]) -> Likelihood:
        """From the log-probabilities of the paths."""
        return cls(log_prob=weights.logsumexp(0) - math.log(len(weights)), weights=weights)

    @property
    def error(self) -> Float[Tensor, " b"]:
        """Standard deviation of the weights over their mean, over the root of their number; 0 for one path."""
        if len(self.weights) == 1:
            return torch.zeros_like(self.log_prob)
        share = (self.weights - self.log_prob).exp()
        return share.std(0) / len(self.weights) ** 0.5


def likelihood(
    policy: BasePolicy, rule: UnmaskingRule, prompts: Prompts, text: Int[Tensor, "b l"], *, num_paths: int, seed: int
) -> Likelihood:
    """The likelihood of texts (closed at their EOS) under a rule; equal seeds draw equal noise."""
    num = len(text)
    many = prompts.rows(torch.arange(num).repeat(num_paths))
    many = replace(many, row_ids=torch.arange(len(many.ids)))
    run = _Forced(policy, rule, many, text.repeat(num_paths, 1), seed)
    return Likelihood.of(run.log_probs().view(num_paths, num))


class _Forced:
    """One run of the rule on canvases that hold the texts' tokens wherever they are read."""

    def __init__(self, policy: BasePolicy, rule: UnmaskingRule, prompts: Prompts, text: Tensor, seed: int) -> None:
        self.policy, self.rule, self.prompts, self.text, self.seed = policy, rule, prompts, text, seed
        self.canvas = policy.empty_canvas(len(text))
        self.is_masked = torch.ones_like(self.canvas, dtype=torch.bool)
        self.is_told = policy.canvas.until_eos(text)
        self.total = torch.zeros(len(text), dtype=torch.float64)
        self.steps_taken = torch.zeros(len(text), dtype=torch.long)
        self.memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def log_probs(self) -> Float[Tensor, " b"]:
        """Write block after block, as the denoise loop does."""
        length = self.canvas.shape[1]
        size = self.rule.block_length or (
            self.policy.facts.block_size if isinstance(self.policy, BlockPolicy) else length
        )
        blocks = [(start, min(start + size, length)) for start in range(0, length, size)]
        steps = self.rule.steps_of([end - start for start, end in blocks])
        for (start, end), num_steps in zip(blocks, steps, strict=True):
            self._block(start, end, max(1, min(num_steps, end - start)))
        return self.total

    def _block(self, start: int, end: int, num_steps: int) -> None:
        in_block = torch.zeros(self.canvas.shape[1], dtype=torch.bool)
        in_block[start:end] = True
        quotas = self.rule.quotas(end - start, num_steps)
        for index, quota in enumerate(quotas):
            is_done = is_finished(self.canvas, self.is_masked, self.policy.canvas.eos_id)
            is_open = self.is_masked & in_block & ~is_done[:, None]
            rows = is_open.any(dim=1).nonzero().squeeze(1)
            if not len(rows):
                return
            self._step(
                rows, is_open[rows], BlockStep(in_block=in_block, quota=quota, index=index, num_steps=len(quotas))
            )

    def _step(self, rows: Int[Tensor, " n"], is_open: Bool[Tensor, "n l"], step: BlockStep) -> None:
        columns, is_asked = columns_of(is_open)
        wanted = torch.where(is_asked, columns, columns[:, :1])
        logits = self.policy.logits(self.prompts.rows(rows), self.canvas[rows], columns=wanted)
        prediction = Prediction(
            logits=logits,
            columns=columns,
            canvas=self.canvas[rows],
            is_masked=self.is_masked[rows],
            temperature=self.rule.temperature,
        )
        context = StepContext(
            rows=rows,
            columns=columns,
            is_open=is_asked,
            block_step=step,
            distribution=project(None, prediction),
            noise_at=self._noise,
            memory=self.memory,
        )
        chosen = is_asked
        if step.index + 1 < step.num_steps:
            chosen = self.rule.choose(context) & is_asked
            chosen = chosen | (~chosen.any(dim=1, keepdim=True) & context.best(context.log_odds, 1))
        self._write(context, chosen)
        self.steps_taken[rows] += 1

    def _write(self, context: StepContext, chosen: Bool[Tensor, "n c"]) -> None:
        """Tell the text's tokens and count their probabilities; draw what lies behind its EOS."""
        rows = context.rows
        keys = Keys(seed=self.seed, row_ids=self.prompts.row_ids[rows], step=self.steps_taken[rows])
        draw = context.distribution.draw(chosen, keys)
        row, place = chosen.nonzero(as_tuple=True)
        column = context.columns[row, place]
        at = rows[row]
        log_p = (context.logits[row, place] / self.rule.temperature).double().log_softmax(-1)
        is_told = self.is_told[at, column]
        told = self.text[at, column]
        self.total.index_add_(0, at[is_told], log_p[is_told].gather(1, told[is_told][:, None]).squeeze(1))
        self.canvas[at, column] = torch.where(is_told, told, draw.tokens)
        self.is_masked[at, column] = False

    def _noise(self, rows: Tensor, columns: Tensor, stream: int) -> Float[Tensor, "n c"]:
        row_ids = self.prompts.row_ids[rows][:, None].expand_as(columns)
        steps = self.steps_taken[rows][:, None].expand_as(columns)
        flat = uniform_at(self.seed, row_ids.flatten(), columns.flatten(), steps.flatten(), stream)
        return flat.reshape(columns.shape)
