"""Properties of an objective: invariances, true flags, a pure loss, documented metrics, finite numbers, lost rows.

Legend: b rows, l canvas, k views.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch
from torch import Tensor

from dllm_rl.errors import DllmRlError
from dllm_rl.records.types import MeanOver, Replays, Views
from dllm_rl.testing._learning import Case, close, noise, off_policy, parameter_gradient, random_state
from dllm_rl.training.config import refuse_unrecorded
from dllm_rl.training.metrics import LOSS_METRICS


def same_generator(case: Case) -> None:
    """A generator of the same seed gives the same views, and no global random state is read or moved."""
    before = random_state()
    first, second = case.draw(case.rollouts, 3), case.draw(case.rollouts, 3)
    assert before == random_state(), "views() moves a global random state; draw from `generator` only"
    _same_views(first, second, "two draws from generators of one seed")


def _same_views(given: Views, expected: Views, what: str) -> None:
    for item in fields(Views):
        left, right = getattr(given, item.name), getattr(expected, item.name)
        is_same = torch.equal(left, right) if isinstance(left, Tensor) and isinstance(right, Tensor) else left == right
        assert is_same, f"{what} differ in `{item.name}`"


def permutation(case: Case) -> None:
    """The order of rows, and what the groups are called, change nothing."""
    order = torch.randperm(case.rollouts.num_rows, generator=torch.Generator().manual_seed(1))
    shuffled = case.rollouts.rows(order)
    close(case.objective.advantages(shuffled), case.advantages[order], "advantages of permuted rows")
    renamed = replace(case.rollouts, group_ids=100 - case.rollouts.group_ids)
    close(case.objective.advantages(renamed), case.advantages, "advantages of renamed groups")
    inputs = case.inputs(*off_policy(case))
    close(case.loss(inputs.rows(order)).value, case.loss(inputs).value, "loss of permuted rows")


def micro_batches(case: Case) -> None:
    """Losses of micro-batches add up to the loss of the whole step; whole groups together where group_coupled."""
    inputs = case.inputs(*off_policy(case))
    whole = case.loss(inputs).value
    if case.objective.group_coupled:
        ids = case.rollouts.group_ids
        parts = [(ids == group).nonzero()[:, 0] for group in ids.unique()]
    else:
        parts = list(torch.arange(case.rollouts.num_rows).tensor_split(3))
    losses = torch.stack([case.loss(inputs.rows(index)).value for index in parts])
    close(losses.sum(), whole, "sum of the micro-batch losses (divide by rollouts.totals)")


def two_passes(case: Case) -> None:
    """Scoring without gradient and then going backward chunk by chunk gives the gradient of one joint pass."""
    joint = parameter_gradient(case, lambda: case.policy.view_log_probs(case.rollouts, case.views))
    new = case.new
    leaf_gradient = case.gradient(case.inputs(new, new))
    parameters = [p for p in case.policy.model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for view in torch.arange(case.views.num_views):
        scores = case.policy.view_log_probs(case.rollouts, case.views.views(view[None]))
        parts = torch.autograd.grad(scores, parameters, leaf_gradient[view[None]], allow_unused=True)
        total = [t if part is None else t + part for t, part in zip(total, parts, strict=True)]
    for one, two in zip(joint, total, strict=True):
        close(two, one, "gradient of the policy's parameters in two passes")


def left_padding(case: Case) -> None:
    """More padding on the left of the prompt changes nothing: not the views that are drawn, and not the loss."""
    pad = (3, 0)
    ids = torch.nn.functional.pad(case.rollouts.prompt_ids, pad, value=case.policy.process.pad_id)
    mask = torch.nn.functional.pad(case.rollouts.prompt_mask, pad, value=False)
    views = case.views
    if views.prompt_tokens is not None:
        filled = torch.nn.functional.pad(views.prompt_tokens, pad, value=case.policy.process.pad_id)
        views = replace(views, prompt_tokens=filled)
    padded = replace(case.rollouts, prompt_ids=ids, prompt_mask=mask)
    _same_views(case.draw(padded), views, "views drawn with more left padding")
    old = case.new + noise(case)
    inputs = case.inputs(case.new, old)
    other = replace(inputs, rollouts=padded, views=views, new=case.score(padded, views))
    close(case.loss(other).value, case.loss(inputs).value, "loss with more left padding")


def tail(case: Case) -> None:
    """What stands behind EOS and is not scored has no influence."""
    ids = case.rollouts.completion_ids
    is_tail = ~case.policy.process.editable(case.rollouts)
    changed = replace(case.rollouts, completion_ids=torch.where(is_tail, ids.max(), ids))
    old = case.new + noise(case)
    views = case.draw(changed)
    inputs = case.inputs(case.new, old)
    other = replace(inputs, rollouts=changed, views=views, new=case.score(changed, views))
    close(case.loss(other).value, case.loss(inputs).value, "loss with other tokens after EOS")


def flags(case: Case) -> None:
    """The class says what it is, in terms that the trainer knows, and the fields it requires exist."""
    objective = case.objective
    assert objective.level in ("token", "step", "sequence"), f"level is {objective.level!r}"
    assert isinstance(objective.paper, str), "paper is no text"
    refuse_unrecorded(objective, is_episodic=True)
    lacking = sorted(name for name in objective.requires if getattr(case.rollouts, name) is None)
    assert not lacking, f"it requires {', '.join(lacking)}, which these rollouts lack. Give `policies` that have it"
    assert isinstance(objective.mean_over, MeanOver), f"mean_over is {objective.mean_over!r}"
    assert isinstance(objective.replays, Replays), f"replays is {objective.replays!r}"
    assert isinstance(objective.version, int), f"version is {objective.version!r}"
    assert objective.min_inner_steps >= 1
    assert objective.max_inner_steps is None or objective.max_inner_steps >= objective.min_inner_steps


def declared_views(case: Case) -> None:
    """There are no more views than the class declares: num_views, one where likelihoods are exact."""
    declared = 1 if case.views.is_exact else case.objective.num_views
    given = case.views.num_views
    assert declared is None or given <= declared, f"num_views is {declared}, but views() draws {given}"


def replays(case: Case) -> None:
    """Views score the sampler's own draws exactly where the class says so (replays), and at the sampler's temperature.

    Where likelihoods are exact, the view of every objective does.
    """
    declared, views = case.objective.replays, case.views
    if not case.policy.is_exact:
        does = "scores" if views.is_replay else "does not score"
        assert views.is_replay == (declared is not Replays.NONE), (
            f"replays is {declared}, but views() {does} the sampler's own draws; the trainer refuses samplers by it"
        )
    assert views.at_temperature or not (views.is_replay or views.step is not None), (
        "what the policy drew at the sampler's temperature is scored at 1. Give the views at_temperature=True"
    )


def mean_over(case: Case) -> None:
    """The loss divides the sum of its rows by what the class says (mean_over); turns are weighed by it."""
    inputs = case.inputs(case.new, case.new)
    rollouts, once = case.rollouts, case.gradient(inputs)
    sizes = rollouts.totals
    longer = {"rows": 2 * sizes.rows, "tokens": 2 * sizes.tokens}

    def factor(index: Tensor, **changed: int) -> float:
        """Size of the summed gradient of these rows, with other totals, against that of all rows once."""
        rows = inputs.rows(index)
        rows = replace(rows, rollouts=replace(rows.rollouts, totals=replace(sizes, **changed)))
        summed = torch.zeros_like(once).index_add(1, index, case.gradient(rows))
        return float(summed.norm() / once.norm())

    every = torch.arange(rollouts.num_rows)
    by_rows, by_groups = factor(every, **longer), factor(every, groups=2 * sizes.groups)
    # A sum over a group grows with its rows, a mean over it does not.
    grows = factor(torch.cat([every, every]), **longer) > 1.5
    halved = (by_rows < 0.75, by_groups < 0.75)
    found = {(True, False): MeanOver.STEP, (False, True): MeanOver.NONE if grows else MeanOver.GROUP}.get(halved)
    assert found is not None, (
        f"with twice as many rows and tokens the gradient is {by_rows:.3g} times as large, and with twice as many "
        f"groups {by_groups:.3g} times; divide by the rows, the tokens or the groups of rollouts.totals"
    )
    assert found is case.objective.mean_over, f"mean_over is {case.objective.mean_over}, but the loss is a {found}"


def advantage_shape(case: Case) -> None:
    """Advantages are one a row, one a row and recorded step where views name steps, or one a row and column."""
    assert case.inputs(case.new, case.new).term_advantages.shape == case.views.score.shape


def old_scores(case: Case) -> None:
    """The old policy's scores matter exactly where the class says so (needs_old): else the trainer scores in vain."""
    if not case.objective.needs_old:
        case.loss(case.inputs(*off_policy(case)))
        return
    new, old = off_policy(case)
    inputs = replace(case.inputs(new, new), ref=new if case.objective.needs_ref else None)
    first, second = case.loss(inputs), case.loss(replace(inputs, old=old))
    assert not torch.equal(first.value, second.value) or first.metrics != second.metrics, (
        "needs_old is True, but neither the loss nor its metrics depend on the old scores. Declare needs_old = False"
    )


def purity(case: Case) -> None:
    """The loss reads no randomness, changes none of its arguments, and its metrics are finite Python floats."""
    new, old = off_policy(case)
    before, copies = random_state(), (new.clone(), old.clone(), case.advantages.clone())
    inputs = case.inputs(new, old)
    first, second = case.loss(inputs), case.loss(inputs)
    assert torch.equal(first.value, second.value), "two calls with the same arguments differ"
    assert before == random_state(), "loss() moves a global random state"
    for name, copy, given in zip(("new", "old", "advantages"), copies, (new, old, case.advantages), strict=True):
        assert torch.equal(copy, given), f"loss() changes `{name}` in place"
    for name, value in first.metrics.items():
        assert type(value) is float, f"metric {name} is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric {name} is {value}"


def metric_names(case: Case) -> None:
    """Every metric has a meaning: one of docs/metrics.md, or one that the class gives in `own_metrics`."""
    given = set(case.loss(case.inputs(*off_policy(case))).metrics)
    unknown = sorted(given - LOSS_METRICS - set(case.objective.own_metrics))
    assert not unknown, (
        f"metrics without a documented meaning: {', '.join(unknown)}. Use the names of docs/metrics.md, or say what "
        "they mean in the class attribute own_metrics (name: meaning)"
    )


def numerics(case: Case) -> None:
    """Far off policy the loss and its gradient stay finite; a log-probability of -inf gives that or a named error."""
    new = case.new
    for shift in (-60.0, 60.0):
        gradient = case.gradient(case.inputs(new + shift * case.views.score, new))
        assert bool(gradient.isfinite().all()), f"the gradient is not finite at log-ratios of {shift:+.0f} per token"
    broken = new.clone()
    broken[tuple(case.views.score.nonzero()[0])] = -torch.inf
    try:
        value = case.loss(case.inputs(broken, new)).value
    except DllmRlError:
        return
    assert bool(value.isfinite()), "a log-probability of -inf makes the loss non-finite; raise NonFiniteError instead"


def invalid_rows(case: Case) -> None:
    """A row lost to the environment has no gradient, and its reward moves no baseline."""
    valid = case.rollouts.valid.clone()
    lost = int(valid.nonzero()[0])
    valid[lost] = False
    step_rewards = case.rollouts.step_rewards
    other = replace(case.rollouts, valid=valid)
    rewards = case.rollouts.rewards.clone()
    rewards[lost] = torch.nan
    if step_rewards is not None:
        step_rewards = step_rewards.clone()
        step_rewards[lost] = 99.0
    garbled = replace(other, rewards=rewards, step_rewards=step_rewards)
    advantages = case.objective.advantages(garbled)
    close(advantages, case.objective.advantages(other), "advantages with a lost row of another reward")
    assert bool((advantages[lost] == 0).all()), "a lost row has an advantage"
    new = case.new
    inputs = replace(case.inputs(new, new - 0.1), rollouts=garbled, advantages=advantages)
    assert bool((case.gradient(inputs)[:, lost] == 0).all()), "a lost row has a gradient"
