"""The metric row of a training step; names as TRL's where the meaning is the same, explained in docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import EQUAL_REWARDS
from dllm_rl.records.canvas import Canvas
from dllm_rl.records.rollout import Rollout
from dllm_rl.records.tasks import Ending, Fault
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.training.conversion import conversion_metrics
from dllm_rl.training.engine import RolloutBatch
from dllm_rl.training.gaming import reward_metrics
from dllm_rl.training.unscored import unscored_entropy_share

# What a loss may report; docs/metrics.md says what each means and how to read it.
LOSS_METRICS = frozenset(
    f"{group}/{name}"
    for group, names in {
        "ratio": "mean q05 q50 q95 min max positive/max negative/max ess far_share",
        "clip_ratio": "low_mean high_mean region_mean unclipped_negative_share",
    }.items()
    for name in names.split()
) | {"ratio_dev", "kl", "kl_k1", "kl_k2", "kl_k3", "kl_clamped_share"}
_MAXIMA = ("ratio_dev", "ratio_dev_u0", "ratio/max", "grad_norm", "nonfinite_log_probs", "nonfinite_gradients")
_MINIMA = ("ratio/min",)


def describe(
    batch: RolloutBatch, groups: Sequence[Sequence[Rollout]], rollouts: Rollouts, *, canvas: Canvas
) -> dict[str, float]:
    """Everything that follows from the rollouts alone. Rates are over valid rollouts; lost ones are counted apart.

    A step of which everything was lost has no rates: they are absent.

    Args:
        groups: The batch's rollouts by task.
        rollouts: The same, stacked.
    """
    outcomes = [rollout.outcome for rollout in batch.rollouts]
    valid = torch.tensor([outcome.is_valid for outcome in outcomes])
    kept = torch.tensor([outcome.fault is not Fault.ENVIRONMENT for outcome in outcomes])
    rewards = torch.tensor([rollout.reward.value for rollout in batch.rollouts], dtype=torch.float32)
    group_ids = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    success = torch.tensor([outcome.is_success for outcome in outcomes]) & valid
    trajectory = rollouts.trajectory
    assert trajectory is not None
    drawn = trajectory.commit_step >= 0
    read = drawn & canvas.visible(rollouts.completion_ids)
    path = -(trajectory.log_probs * drawn).sum(dim=1)
    entropies = (trajectory.entropy * drawn).sum(dim=1)
    has_eos = (rollouts.completion_ids == canvas.eos_id).any(dim=1)
    return {
        **_rates([rollout for rollout in batch.rollouts if rollout.outcome.is_valid]),
        **reward_metrics(batch.rollouts, group_ids.tolist()),
        **conversion_metrics(outcomes, group_ids),
        "fault_share": 1.0 - float(kept.float().mean()),
        "executed_share": 1.0 - sum(outcome.is_reused for outcome in outcomes) / max(1, len(outcomes)),
        "num_rechecked": float(sum(outcome.recheck != "" for outcome in outcomes)),
        "num_disagreements": float(sum(outcome.recheck == "different" for outcome in outcomes)),
        **_groups(rewards, group_ids, valid, success, [rollout.plan for rollout in batch.rollouts]),
        "entropy": float((trajectory.entropy * read).sum()) / max(1, int(read.sum())),
        "path_entropy": float(path.mean()),
        "unscored_entropy_share": unscored_entropy_share(rollouts),
        # A flow draws a position again and again, and its record has the entropy of the draws that moved it alone.
        **({} if trajectory.time is not None else {"selection_gap": float((entropies - path).mean())}),
        "eos_share": float(has_eos.float().mean()),
        "masks_left": masks_left(rollouts, canvas),
        "nfe": float(batch.nfe),
        "token_forwards": float(batch.token_forwards),
        "num_rollouts": float(len(outcomes)),
        **episode_metrics(batch.rollouts),
    }


def _rates(valid: Sequence[Rollout]) -> dict[str, float]:
    """Means over valid rollouts; nothing where there is none."""
    if not valid:
        return {}
    rewards = torch.tensor([rollout.reward.value for rollout in valid], dtype=torch.float32)
    outcomes = [rollout.outcome for rollout in valid]
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(unbiased=False)),
        "success": sum(outcome.is_success for outcome in outcomes) / len(valid),
        "submitted": sum(outcome.is_submitted for outcome in outcomes) / len(valid),
        "parse_valid": sum(outcome.is_parsed for outcome in outcomes) / len(valid),
        "completion_length": float(torch.tensor([rollout.num_tokens for rollout in valid]).float().mean()),
    }


def episode_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How episodes ended and how long they were; nothing for whole plans. Lengths are over valid episodes."""
    if all(rollout.outcome.ending is None for rollout in rollouts):
        return {}
    valid = [rollout for rollout in rollouts if rollout.outcome.is_valid]
    lengths = {
        "turns/mean": [len(item.turns) for item in valid],
        "turns/success": [len(item.turns) for item in valid if item.outcome.is_success],
        "turns/failure": [len(item.turns) for item in valid if not item.outcome.is_success],
    }
    endings = Counter(rollout.outcome.ending for rollout in rollouts)
    return {name: sum(counts) / len(counts) for name, counts in lengths.items() if counts} | {
        f"ending/{ending.value}": endings[ending] / len(rollouts) for ending in Ending
    }


def masks_left(rollouts: Rollouts, canvas: Canvas) -> float:
    """Share of visible positions that neither a step nor a grammar wrote, and that were not given."""
    record = rollouts.trajectory
    assert record is not None
    is_written = (record.commit_step >= 0) | record.events.is_forced() | record.events.is_given()
    return (canvas.visible(rollouts.completion_ids) & ~is_written).float().mean().item()


def _groups(
    rewards: Tensor, group_ids: Tensor, valid: Tensor, success: Tensor, plans: Sequence[str]
) -> dict[str, float]:
    flat, good, bad, unique, counted = 0, 0, 0, 0.0, 0
    for group in group_ids.unique().tolist():
        index = ((group_ids == group) & valid).nonzero().squeeze(1)
        if index.numel() == 0:
            continue
        counted += 1
        own = rewards[index]
        flat += int(own.max() - own.min() < EQUAL_REWARDS)
        good += int(success[index].all())
        bad += int(not success[index].any())
        unique += len({plans[i] for i in index.tolist()}) / index.numel()
    if not counted:
        return {}
    return {
        "frac_reward_zero_std": flat / counted,
        "all_good": good / counted,
        "all_bad": bad / counted,
        "unique_completions": unique / counted,
    }


def inner_metrics(
    rollouts: Rollouts, views: Views, new: Float[Tensor, "k b l"], *, estimates_elbo: bool
) -> dict[str, float]:
    """Metrics of the first forward: likelihood of own samples, and the sampler's record against a recomputation.

    Args:
        estimates_elbo: Whether the views are drawn at random, so that their spread says what one mask decides.
    """
    metrics, share = {}, _share(views) * views.score
    # Terms of the flow family's ELBO and of its transitions are not log-probabilities of tokens.
    if share.sum() > 0 and views.term.is_log_prob:
        # By their own sum, since methods scale weights as their losses need them.
        metrics["nelbo_per_token"] = float(-(new * share).sum() / share.sum())
    if views.is_exact and rollouts.trajectory is not None and views.score.any():
        difference = (new[0] - rollouts.trajectory.log_probs).abs()[views.score[0]]
        metrics["sampling_logp_difference/mean"] = float(difference.mean())
        metrics["sampling_logp_difference/max"] = float(difference.max())
    if rollouts.trajectory is not None and views.is_replay and views.step is not None:
        metrics["unscored_entropy_share"] = unscored_entropy_share(rollouts, views)
    if estimates_elbo and views.num_views > 1:
        metrics["likelihood_sd"] = likelihood_sd(views, new)
    return metrics


def likelihood_sd(views: Views, new: Float[Tensor, "k b l"]) -> float:
    """Spread over a row's views of its sequence log-likelihood as each view alone estimates it; mean over rows, nats.

    The row's ELBO is the mean of these estimates. Pairs of opposite masks and stratified levels make that mean vary
    less than spread / sqrt(k). k must be 2 or more.
    """
    estimates = views.num_views * (_share(views) * views.score * new).sum(dim=-1)
    return float(estimates.std(dim=0, unbiased=True).mean())


def _share(views: Views) -> Float[Tensor, "k b l"]:
    """Weight of each term in the estimate that the views make together."""
    return views.weight if views.loss_weight is None else views.weight * views.loss_weight


def combine(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each metric over the inner steps that have it; maxima and minima stay what they are."""
    combined: dict[str, float] = {}
    for name in sorted({name for row in rows for name in row}):
        values = [row[name] for row in rows if name in row]
        if name in _MAXIMA or name.endswith("/max"):
            combined[name] = max(values)
        elif name in _MINIMA or name.endswith("/min"):
            combined[name] = min(values)
        else:
            combined[name] = sum(values) / len(values)
    return combined
