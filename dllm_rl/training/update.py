"""One training step's update: mu optimiser steps on one batch, each on views that all policies score.

Legend: u inner step of mu; k views, b rows, l canvas. Views come from the stream ("masks", step, u). Old scores at
u = 0 are the first forward itself, detached, so that the ratio there is exactly 1; where later views are the same as
the first, so are their old scores. Losses divide by the sizes of the whole step, rows without gradient
included, so that gradients of its parts add up, and beta 0 is the limit of small betas.

Inner updates on a batch may end early, where the policy has moved too far from the one that sampled it
(`training.distance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.scoring import distinct_inputs
from dllm_rl.protocols import Objective
from dllm_rl.records.types import LossInputs, Rollouts, Views
from dllm_rl.seeding import derive
from dllm_rl.training.config import Targets
from dllm_rl.training.correction import correction_metrics, importance_weights
from dllm_rl.training.credit import NO_CREDIT, StepCredit
from dllm_rl.training.distance import Travelled
from dllm_rl.training.inner_batch import InnerBatch, Piece, rows_of, rows_with_gradient
from dllm_rl.training.metrics import combine, inner_metrics
from dllm_rl.training.micro_batches import micro_batches, num_distinct
from dllm_rl.training.ranks import Ranks
from dllm_rl.training.reference import Reference
from dllm_rl.training.sharding import gathered, is_sharded, whole
from dllm_rl.training.turns import USUAL_NORMALISER, TurnNormaliser, turn_advantages, turn_weights, weigh


def generator(seed: int, stream: str, *indices: int | str) -> torch.Generator:
    """A CPU `torch.Generator` of its own for one purpose."""
    return torch.Generator().manual_seed(derive(seed, stream, *indices))


@dataclass(slots=True, kw_only=True)
class Updater:
    """Changes the policy by an objective's gradient on a batch.

    Attributes:
        normaliser, credit: How the turns of episodes weigh, and what each earns by itself; whole plans have none.
        importance_cap: Of the weights of an engine's draws; None where they all weigh 1.
        batch_rows: Distinct inputs whose activations are held at a time; decides memory, not the result.
    """

    policy: BasePolicy
    objective: Objective
    reference: Reference | None
    optimiser: Any
    ranks: Ranks
    seed: int
    inner_steps: int
    batch_rows: int
    max_grad_norm: float
    targets: Targets
    normaliser: TurnNormaliser = USUAL_NORMALISER
    credit: StepCredit = NO_CREDIT
    importance_cap: float | None = None

    @property
    def _is_sharded(self) -> bool:
        return is_sharded(self.policy.model)

    def update(self, step: int, rollouts: Rollouts, *, rate: float) -> dict[str, float]:
        """mu optimiser steps at the learning rate, without the rows that have no gradient. Returns metrics."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        advantages = turn_advantages(self.objective, rollouts, self.credit)
        kept = rows_with_gradient(rollouts, advantages, keeps_flat_groups=self.objective.needs_flat_groups)
        counted = {"rows_updated": float(kept.numel()), "rows_filtered": float(rollouts.num_rows - kept.numel())}
        if kept.numel() == 0:
            return counted | self._checked(rollouts)
        rows, first = [], None
        for batch in self._inner_batches(step, rollouts, advantages, kept):
            metrics, scores = self._inner_step(replace(batch, old=first) if batch.is_repeated else batch)
            first = scores if first is None else first
            rows.append(metrics)
            if metrics.get("inner/stopped"):
                break
        if self.targets.is_set:
            # How far it went is the distance at the last inner step, not the mean over them.
            counted |= {name: rows[-1][name] for name in ("inner/log_ratio", "inner/kl", "inner/stopped")}
            counted["inner/steps"] = len(rows) - rows[-1]["inner/stopped"]
        return {**combine(rows), **counted}

    def _checked(self, rollouts: Rollouts) -> dict[str, float]:
        """How far an engine's log-probabilities are off, at a step that updates nothing; {} without an engine."""
        recorded, valid = rollouts.trajectory, rollouts.valid.nonzero().squeeze(1)
        if recorded is None or not (recorded.is_approximate and self.policy.is_exact and valid.numel()):
            return {}
        rows = rollouts.rows(valid)
        views = self.policy.process.exact(rows)
        batch = InnerBatch(
            rollouts=rows,
            views=views,
            advantages=torch.zeros(rows.num_rows),
            mine=rows_of(self.ranks, rows),
            inputs=distinct_inputs(self.policy, rows, views),
            old=None,
            ref=None,
            weights=None,
            is_first=True,
            is_repeated=False,
        )
        return inner_metrics(rows, views, self._score_all(self.policy, batch), estimates_elbo=False)

    def _inner_batches(
        self, step: int, whole: Rollouts, advantages: Tensor, kept: Int[Tensor, " n"]
    ) -> list[InnerBatch]:
        """Views and fixed scores of all inner steps, before the first update.

        Views are drawn for all rows, and totals stay those of all, so that leaving out rows without gradient (`kept`
        are the others) changes nothing.
        """
        rollouts, advantages = whole.rows(kept), advantages[kept]
        weights = turn_weights(whole, self.normaliser, self.objective.mean_over)
        mine = rows_of(self.ranks, rollouts)
        batches: list[InnerBatch] = []
        for inner in range(self.inner_steps):
            noise = generator(self.seed, "masks", step, inner, 0)
            views = self.objective.views(whole, self.policy.process, noise).rows(kept)
            if batches and views.equals(batches[0].views):
                batches.append(replace(batches[0], is_first=False, is_repeated=True))
                continue
            batch = InnerBatch(
                rollouts=rollouts,
                views=views,
                advantages=advantages,
                mine=mine,
                inputs=distinct_inputs(self.policy, rollouts, views),
                old=None,
                ref=None,
                weights=None if weights is None else weights[kept],
                is_first=inner == 0,
                is_repeated=False,
            )
            is_read = self.objective.needs_old or self.targets.is_set or self.importance_cap is not None
            needs_old = inner > 0 and is_read
            old = self._score_all(self.policy, batch) if needs_old else None
            ref = self._score_all(self.reference, batch) if self.reference else None
            batches.append(replace(batch, old=old, ref=ref))
        return batches

    def _inner_step(self, batch: InnerBatch) -> tuple[dict[str, float], Float[Tensor, "k b l"]]:
        """Go one step; return its metrics, and the scores of all rows before it."""
        self.optimiser.zero_grad(set_to_none=True)
        total, travelled, scores = 0.0, Travelled(), []
        indices, pieces = self._loss_batches(batch), list[Piece]()
        with gathered(self.policy.model):
            for index in indices:
                part = batch.rows(index)
                new = self._leaf(part)
                loss = self.objective.loss(self._inputs(part, self._weighed(part, new)))
                # Views may hide nothing of these rows; then there is nothing to go backward from.
                if new.requires_grad:
                    loss.value.backward()
                    if new.is_leaf:
                        pieces += self._second_pass(part, new)
                total += float(loss.value.detach())
                scores.append(new.detach())
                if self.targets.is_set and part.old is not None:
                    travelled.add(part.views, new.detach(), part.old)
        if self._is_sharded:
            self._in_step(batch, pieces)
        total = sum(self.ranks.gather(total))
        every = self._of_all(batch.views, scores, torch.cat([batch.mine[:0], *indices]))
        summary = self._measured(batch, every) | self._stopping(travelled)
        if summary.get("inner/stopped"):
            self.optimiser.zero_grad(set_to_none=True)
            return {**summary, "loss": total}, every
        if batch.is_first and "ratio_dev" in summary:
            summary["ratio_dev_u0"] = summary["ratio_dev"]
        return {**summary, "loss": total, **self._step()}, every

    def _weighed(self, batch: InnerBatch, new: Float[Tensor, "k b l"]) -> Float[Tensor, "k b l"]:
        """Scores whose gradients weigh as their turns do, and as an engine's draws have to."""
        terms = weigh(new, batch.weights)
        if self.importance_cap is None:
            return terms
        old = new if batch.is_first else batch.old
        assert old is not None
        return weigh(terms, importance_weights(batch.rollouts, batch.views, old, self.importance_cap))

    def _inputs(self, batch: InnerBatch, new: Float[Tensor, "k b l"]) -> LossInputs:
        """What the loss of these rows is computed from. At u = 0 the old scores are the first forward itself."""
        old = new.detach() if batch.is_first else batch.old
        return LossInputs(
            rollouts=batch.rollouts,
            views=batch.views,
            new=new,
            old=old if self.objective.needs_old else None,
            ref=batch.ref,
            advantages=batch.advantages,
        )

    @torch.no_grad()
    def _measured(self, batch: InnerBatch, new: Float[Tensor, "k b l"]) -> dict[str, float]:
        """Metrics of the inner step, from the scores of all its rows at once.

        So they depend neither on the micro-batches nor on the number of processes.
        """
        metrics = dict(self.objective.loss(self._inputs(batch, new)).metrics)
        if batch.is_first:
            is_elbo = self.objective.estimates_elbo
            metrics |= inner_metrics(batch.rollouts, batch.views, new, estimates_elbo=is_elbo)
            if self.importance_cap is not None:
                weights = importance_weights(batch.rollouts, batch.views, new, self.importance_cap)
                metrics |= correction_metrics(batch.views, weights)
        if not new.isfinite().all():
            metrics["nonfinite_log_probs"] = float((~new.isfinite()).sum())
        return metrics

    def _of_all(
        self, views: Views, scores: Sequence[Float[Tensor, "k n l"]], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "k b l"]:
        """Scores of all rows, in their order, from those that each process has of these rows of its own."""
        none = torch.zeros(views.num_views, 0, views.score.shape[-1])
        parts = self.ranks.gather((rows, torch.cat([none, *scores], dim=1)))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([own for _, own in parts], dim=1)[:, order]

    def _step(self) -> dict[str, float]:
        """Follow the gradients that have been gathered; ones that are not finite are counted and not followed."""
        if not self._is_sharded:
            self.ranks.sum_gradients(self.policy.model.parameters())
        norm = whole(torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.max_grad_norm))
        is_finite = bool(torch.isfinite(torch.as_tensor(norm)))
        if is_finite:
            self.optimiser.step()
        return {"grad_norm": float(norm or 0.0), "nonfinite_gradients": float(not is_finite)}

    def _stopping(self, travelled: Travelled) -> dict[str, float]:
        """How far the policy is from the one that sampled, and whether that ends the inner steps, on all ranks."""
        if not self.targets.is_set:
            return {}
        distance = travelled.distance(torch.stack(self.ranks.gather(travelled.total)).sum(dim=0))
        is_passed = float(self.targets.is_passed(distance))
        return {"inner/log_ratio": distance.log_ratio, "inner/kl": distance.kl, "inner/stopped": is_passed}

    def _score_all(self, policy: BasePolicy | Reference, batch: InnerBatch) -> Float[Tensor, "k b l"]:
        """Scores without gradient of all rows; each process scores its own."""
        whole_model = gathered(policy.model) if isinstance(policy, BasePolicy) else nullcontext()
        with whole_model:
            scores = [self._score(policy, batch.rows(batch.mine))] if batch.mine.numel() else []
        return self._of_all(batch.views, scores, batch.mine)

    @torch.no_grad()
    def _score(self, policy: BasePolicy | Reference, batch: InnerBatch) -> Float[Tensor, "k n l"]:
        """Scores without gradient of these rows, one view after another."""
        indices = self._fitting(batch, holds_all_views=False)
        scores = [policy.view_log_probs(batch.rollouts.rows(index), batch.views.rows(index)) for index in indices]
        return torch.cat(scores, dim=1)[:, torch.cat(indices).argsort()]

    def _fitting(self, batch: InnerBatch, *, holds_all_views: bool) -> list[Int[Tensor, " n"]]:
        """Rows whose distinct inputs fit into memory together."""
        groups = batch.rollouts.group_ids
        return micro_batches(batch.inputs, groups, self.batch_rows, holds_all_views=holds_all_views)

    def _loss_batches(self, batch: InnerBatch) -> list[Int[Tensor, " n"]]:
        """Rows of one call of the loss: all where rows of a group are coupled, else what fits with all its views.

        None where other processes have all groups of the step.
        """
        if batch.mine.numel() == 0:
            return []
        if self.objective.group_coupled:
            return [batch.mine]
        return [batch.mine[index] for index in self._fitting(batch.rows(batch.mine), holds_all_views=True)]

    def _leaf(self, batch: InnerBatch) -> Float[Tensor, "k n l"]:
        """Scores to go backward from; a leaf for `_second_pass` where their activations would not fit.

        So, too, where weights are sharded, since then all processes have to go forward and backward in step.
        """
        if num_distinct(batch.inputs) > self.batch_rows or self._is_sharded:
            scores = self._score(self.policy, batch)
            return scores.requires_grad_() if batch.views.score.any() else scores
        return self.policy.view_log_probs(batch.rollouts, batch.views)

    def _second_pass(self, batch: InnerBatch, leaf: Float[Tensor, "k n l"]) -> list[Piece]:
        """Score again piece by piece and go backward with the leaf's gradient: exact, for one more forward.

        Returns the pieces that are left for later: all of them where weights are sharded.
        """
        assert leaf.grad is not None
        later = []
        for index in self._fitting(batch, holds_all_views=False):
            for view in torch.arange(batch.views.num_views):
                piece = Piece.of(batch, index, view, leaf.grad[view, index])
                if not piece.views.score.any():
                    continue
                if self._is_sharded:
                    later.append(piece)
                else:
                    self._go_backward(piece)
        return later

    def _go_backward(self, piece: Piece) -> None:
        scores = self.policy.view_log_probs(piece.rollouts, piece.views)
        (scores * piece.gradient).sum().backward()

    def _in_step(self, batch: InnerBatch, pieces: list[Piece]) -> None:
        """Go backward from the pieces, one at a time in all processes; who has fewer joins in with a zero gradient."""
        most = max(self.ranks.gather(len(pieces)))
        if len(pieces) < most:
            view, row = batch.views.score.any(dim=-1).nonzero()[0]
            idle = Piece.of(batch, row[None], view, torch.zeros(()))
            pieces = [*pieces, *[idle] * (most - len(pieces))]
        for piece in pieces:
            self._go_backward(piece)
