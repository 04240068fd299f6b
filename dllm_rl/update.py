"""One training step's update: views drawn once, scored by all policies, and mu optimiser steps on one batch.

Legend: u inner step of mu; k views, b rows, l canvas. Views come from the stream ("masks", step, u). Old scores at
u = 0 are the first forward itself, detached, so that the ratio there is exactly 1 (spec/objectives section 1). Losses
divide by the sizes of the whole step, so that gradients of its parts add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.early_stop import Targets, Travelled
from dllm_rl.generators import generator
from dllm_rl.metrics import combine, inner_metrics
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Objective
from dllm_rl.ranks import Ranks
from dllm_rl.reference import Reference
from dllm_rl.types import Rollouts, Views


@dataclass(slots=True, kw_only=True)
class Updater:
    """Changes the policy by an objective's gradient on a batch.

    batch_rows: rows x views whose activations are held at a time; decides memory, not the result.
    """

    policy: BasePolicy
    objective: Objective
    reference: Reference | None
    optimiser: Any
    accelerator: Accelerator
    ranks: Ranks
    seed: int
    inner_steps: int
    batch_rows: int
    max_grad_norm: float
    targets: Targets

    def update(self, step: int, rollouts: Rollouts, *, rate: float) -> dict[str, float]:
        """mu optimiser steps at the learning rate, without the rows that have no gradient. Returns metrics."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        advantages = self.objective.advantages(rollouts)
        kept = _rows_with_gradient(rollouts, advantages, keeps_flat_groups=self.objective.needs_flat_groups)
        counted = {"rows_updated": float(kept.numel()), "rows_filtered": float(rollouts.num_rows - kept.numel())}
        if kept.numel() == 0:
            return counted
        advantages, rollouts = advantages[kept], _restrict(rollouts, kept)
        views = [self._views(step, inner, rollouts) for inner in range(self.inner_steps)]
        if not self.ranks.is_alone:
            mine = _rows_of(self.ranks, rollouts)
            advantages, rollouts, views = advantages[mine], rollouts.rows(mine), [view.rows(mine) for view in views]
        olds = [None] + [self._score(self.policy, rollouts, view) for view in views[1:]]
        refs = [self._score(self.reference, rollouts, view) if self.reference else None for view in views]
        rows = []
        for view, old, ref in zip(views, olds, refs, strict=True):
            rows.append(self._inner_step(rollouts, view, old, ref, advantages))
            if rows[-1].get("inner/stopped"):
                break
        if self.targets.is_set:
            # How far it went is the distance at the last inner step, not the mean over them.
            counted |= {name: rows[-1][name] for name in ("inner/log_ratio", "inner/kl", "inner/stopped")}
            counted["inner/steps"] = len(rows) - rows[-1]["inner/stopped"]
        return {**combine(rows), **counted}

    def _views(self, step: int, inner: int, rollouts: Rollouts) -> Views:
        noise = generator(self.seed, "masks", step, inner, 0)
        return self.objective.views(rollouts, self.policy.process, noise)

    def _inner_step(
        self,
        rollouts: Rollouts,
        views: Views,
        old: Float[Tensor, "k b l"] | None,
        ref: Float[Tensor, "k b l"] | None,
        advantages: Tensor,
    ) -> dict[str, float]:
        self.optimiser.zero_grad(set_to_none=True)
        total, travelled = 0.0, Travelled()
        parts: list[tuple[int, dict[str, float]]] = []
        for index in self._loss_batches(rollouts, views):
            rows, seen = rollouts.rows(index), views.rows(index)
            new = self._leaf(rows, seen)
            if not torch.isfinite(new).all():
                parts.append((len(index), {"nonfinite_log_probs": float((~torch.isfinite(new)).sum())}))
            loss = self.objective.loss(
                rows,
                seen,
                new,
                new.detach() if old is None else old[:, index],
                None if ref is None else ref[:, index],
                advantages[index],
            )
            # Views may hide nothing of these rows; then there is nothing to go backward from.
            if new.requires_grad:
                self.accelerator.backward(loss.value)
                if new.is_leaf:
                    self._second_pass(rows, seen, new)
            total += float(loss.value.detach())
            measured = dict(loss.metrics)
            if old is None:
                # A plug-in need not say what it estimates.
                is_elbo = bool(getattr(self.objective, "estimates_elbo", False))
                measured |= inner_metrics(rows, seen, new.detach(), estimates_elbo=is_elbo)
            elif self.targets.is_set:
                travelled.add(seen, new.detach(), old[:, index])
            parts.append((len(index), measured))
        total = sum(self.ranks.gather(total))
        parts = [part for of_rank in self.ranks.gather(parts) for part in of_rank]
        summary = combine([values for _, values in parts], weights=[count for count, _ in parts])
        summary |= self._stopping(travelled)
        if summary.get("inner/stopped"):
            self.optimiser.zero_grad(set_to_none=True)
            return {**summary, "loss": total}
        if old is None and "ratio_dev" in summary:
            summary["ratio_dev_u0"] = summary["ratio_dev"]
        return {**summary, "loss": total, **self._step()}

    def _step(self) -> dict[str, float]:
        """Follow the gradients that have been gathered; ones that are not finite are counted and not followed."""
        self.ranks.sum_gradients(self.policy.model.parameters())
        norm = self.accelerator.clip_grad_norm_(self.policy.model.parameters(), self.max_grad_norm)
        is_finite = bool(torch.isfinite(torch.as_tensor(norm)))
        if is_finite:
            self.optimiser.step()
        return {"grad_norm": float(norm or 0.0), "nonfinite_gradients": float(not is_finite)}

    def _stopping(self, travelled: Travelled) -> dict[str, float]:
        """How far the policy is from the one that sampled, and whether that ends the inner steps, on all ranks."""
        if not self.targets.is_set:
            return {}
        summed: Any = self.accelerator.reduce(travelled.total.to(self.accelerator.device), "sum")
        distance = travelled.distance(summed.cpu())
        is_passed = float(self.targets.is_passed(distance))
        return {"inner/log_ratio": distance.log_ratio, "inner/kl": distance.kl, "inner/stopped": is_passed}

    @torch.no_grad()
    def _score(self, policy: BasePolicy | Reference, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        if rollouts.num_rows == 0:
            return torch.zeros(views.score.shape)
        index = torch.arange(rollouts.num_rows).split(self.batch_rows)
        return torch.cat([policy.view_log_probs(rollouts.rows(i), views.rows(i)) for i in index], dim=1)

    def _loss_batches(self, rollouts: Rollouts, views: Views) -> Sequence[Int[Tensor, " n"]]:
        """Rows of one call of the loss: all where rows of a group are coupled, else what fits with all its views.

        None where other processes have all groups of the step.
        """
        if rollouts.num_rows == 0:
            return []
        index = torch.arange(rollouts.num_rows)
        fitting = max(1, self.batch_rows // views.num_views)
        return [index] if self.objective.group_coupled else index.split(fitting)

    def _leaf(self, rows: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Scores to go backward from; where their activations would not fit, a leaf for `_second_pass`."""
        if rows.num_rows * views.num_views > self.batch_rows:
            return self._score(self.policy, rows, views).requires_grad_()
        return self.policy.view_log_probs(rows, views)

    def _second_pass(self, rollouts: Rollouts, views: Views, leaf: Float[Tensor, "k b l"]) -> None:
        """Score again piece by piece and go backward with the leaf's gradient: exact, for one more forward."""
        assert leaf.grad is not None
        for index in torch.arange(rollouts.num_rows).split(self.batch_rows):
            for view in torch.arange(views.num_views):
                part = self.policy.view_log_probs(rollouts.rows(index), views.rows(index).views(view[None]))
                if part.requires_grad:
                    self.accelerator.backward((part * leaf.grad[view, index]).sum())


def _rows_of(ranks: Ranks, rollouts: Rollouts) -> Int[Tensor, " n"]:
    """The rows that this process goes backward from: whole groups, since a loss may couple the rows of one."""
    groups = rollouts.group_ids.unique()
    return torch.isin(rollouts.group_ids, groups[ranks.share(len(groups))]).nonzero().squeeze(1)


def _rows_with_gradient(rollouts: Rollouts, advantages: Tensor, *, keeps_flat_groups: bool) -> Int[Tensor, " n"]:
    """Valid rows, of groups in which any advantage is not zero unless flat groups count too."""
    if keeps_flat_groups:
        return rollouts.valid.nonzero().squeeze(1)
    is_live = (advantages.reshape(rollouts.num_rows, -1) != 0).any(dim=1) & rollouts.valid
    groups = rollouts.group_ids[is_live].unique()
    return (torch.isin(rollouts.group_ids, groups) & rollouts.valid).nonzero().squeeze(1)


def _restrict(rollouts: Rollouts, kept: Int[Tensor, " n"]) -> Rollouts:
    part = rollouts.rows(kept)
    return replace(part, totals=Rollouts.count_totals(part.valid, part.group_ids, part.completion_mask))
