"""What each likelihood surrogate of the registered objectives says of every completion, and how far off that is.

The surrogate of an objective is the weighted sum of the terms that its views score, by the package's own views and
scoring code; so is the change of it when the policy moves, on shared views, which is the log of the ratio that RL uses.
Legend: d draws of views, n completions.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Replays, Views
from studies.exact.laws import Law
from studies.exact.policy import EnumerablePolicy

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """A surrogate: the objective whose views define it, and the names of all that draw such views with such settings.

    Attributes:
        objective: None for the recorded path of the sampler itself, whose law is exact.
    """

    label: str
    used_by: str
    objective: Any


PATH = "recorded path"
FAMILY = EnumerablePolicy.family
# Further settings that the page compares, beside each objective's own.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (("espo", {"num_draws": 1}), ("espo", {"num_draws": 8}))


def surrogates(policy: EnumerablePolicy) -> list[Surrogate]:
    """The surrogates of all registered objectives that are defined here, each once, and of the further settings."""
    found: dict[str, Surrogate] = {}
    for name, objective in _studied():
        if reason_left_out(objective):
            continue
        key, label, drawing = PATH, PATH, None
        if objective.replays is Replays.NONE:
            asked = _Asked(policy.process)
            rows = policy.rollouts(policy.completions())
            key = _fingerprint(objective.views(rows, asked, torch.Generator().manual_seed(0)))
            label, drawing = asked.label or f"views of {name}", objective
        known = found.get(key)
        if known is None and any(item.label == label for item in found.values()):
            label = f"{label}, as {name} weighs them"
        users = name if known is None else f"{known.used_by}, {name}"
        found[key] = Surrogate(label=label, used_by=users, objective=drawing)
    return sorted(found.values(), key=lambda item: (item.objective is not None, item.label))


def reason_left_out(objective: Any) -> str:
    """Why an objective has no surrogate of a completion's likelihood to compare; "" where it has one."""
    if objective.replays is Replays.MERGED:
        return "scores draws of several steps at one recorded canvas"
    if objective.replays is Replays.NONE and objective.requires:
        return f"needs {', '.join(objective.requires)}"
    if "on_policy" in objective.exceptions:
        return "scores new and old policy on different views"
    return ""


def left_out() -> dict[str, str]:
    """The objectives that are defined here and stand in no table, with the reason."""
    return {name: reason for name, objective in _studied() if (reason := reason_left_out(objective))}


def _studied() -> Iterator[tuple[str, Any]]:
    for name, cls in registry.items("objective"):
        if FAMILY in registry.families_of(cls):
            yield name, registry.build("objective", name)
    for name, options in VARIANTS:
        settings = ", ".join(f"{key}={value}" for key, value in options.items())
        yield f"{name} ({settings})", registry.build("objective", name, options)


class _Asked:
    """A forward process that notes what an objective asks of it."""

    def __init__(self, process: ForwardProcess) -> None:
        self._process = process
        self._calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._process, name)
        if not callable(value):
            return value

        def noted(*args: Any, **options: Any) -> Any:
            bound = inspect.signature(value).bind(*args, **options)
            bound.apply_defaults()
            self._calls.append(_words(name, bound.arguments))
            return value(*args, **options)

        return noted

    @property
    def label(self) -> str:
        """The one kind of views that was asked for, with its settings; "" where the objective made its own."""
        return self._calls[0] if len(self._calls) == 1 else ""


def _words(method: str, arguments: Mapping[str, Any]) -> str:
    """A method and its settings, those that are off left out."""
    settings = {key: value for key, value in arguments.items() if isinstance(value, int | float) and value}
    said = [key if value is True else f"{key}={value}" for key, value in settings.items()]
    return ", ".join([method.replace("_", " ").replace("elbo", "ELBO"), *said])


def _fingerprint(views: Views) -> str:
    """Equal where two objectives draw equal views from equal noise."""
    digest = hashlib.sha256(repr((views.reading, views.term, views.at_temperature)).encode())
    for tensor in (views.tokens, views.score, _weights(views), views.prompt_tokens, views.targets):
        digest.update(b"none" if tensor is None else tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Draws of a surrogate at the policy, and of its change to the moved policy on the same views; both (d, n)."""

    value: Float[Tensor, "d n"]
    change: Float[Tensor, "d n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How a surrogate does under one rule, over completions drawn from the rule's exact law, in nats.

    Attributes:
        bias: Mean of surrogate less truth.
        distortion: Standard deviation over completions of that difference's mean; a constant bias cancels in a ratio,
            this does not.
        deviation: Standard deviation of one draw.
        rank: Spearman's rho with the truth over a batch of completions, one draw each.
        change: Pearson correlation of its change with the true change when all weights move a little.
    """

    label: str
    used_by: str
    bias: float
    distortion: float
    deviation: float
    rank: float
    change: float


def estimate(
    surrogate: Surrogate, policy: EnumerablePolicy, other: EnumerablePolicy, *, num_draws: int, seed: int
) -> Estimates:
    """Draw views of all completions and score them under both policies."""
    rollouts = policy.rollouts(policy.completions())
    generator = torch.Generator().manual_seed(seed)
    values, changes = [], []
    for _ in range(num_draws):
        views = surrogate.objective.views(rollouts, policy.process, generator)
        now, then = (_weighted(views, each.view_log_probs(rollouts, views)) for each in (policy, other))
        values.append(now)
        changes.append(then - now)
    return Estimates(value=torch.stack(values), change=torch.stack(changes))


def compare(surrogate: Surrogate, drawn: Estimates, truth: Law, moved: Law, *, seed: int) -> Row:
    """Judge the draws against the exact law of a rule, before and after the policy moved."""
    weight = truth.log_prob.exp()
    error = drawn.value.mean(0) - truth.log_prob
    variance = drawn.value.var(0) if len(drawn.value) > 1 else torch.zeros_like(error)
    generator = torch.Generator().manual_seed(seed)
    index = torch.multinomial(weight, BATCH, replacement=True, generator=generator)
    correlations: list[Any] = [spearmanr(each[index], truth.log_prob[index]) for each in drawn.value]
    ranks = [float(each.statistic) for each in correlations]
    change = moved.log_prob - truth.log_prob
    return Row(
        label=surrogate.label,
        used_by=surrogate.used_by,
        bias=_mean(error, weight),
        distortion=_spread(error, weight),
        deviation=_mean(variance, weight) ** 0.5,
        rank=sum(ranks) / len(ranks),
        change=sum(_correlation(each, change, weight) for each in drawn.change) / len(drawn.change),
    )


def compare_path(surrogate: Surrogate, truth: Law, moved: Law, *, seed: int) -> Row:
    """The recorded path's log-probability, and its change on the recorded canvases: exact moments, nothing is drawn."""
    estimates = Estimates(value=truth.path_mean[None], change=truth.path_change[None])
    row = compare(surrogate, estimates, truth, moved, seed=seed)
    deviation = _mean(truth.path_var.clamp(min=0), truth.log_prob.exp()) ** 0.5
    return Row(**{**{name: getattr(row, name) for name in Row.__slots__}, "deviation": deviation})


def all_rows(drawn: list[tuple[Surrogate, Estimates | None]], truth: Law, moved: Law, *, seed: int) -> list[Row]:
    """One row a surrogate.

    Args:
        drawn: Each with its draws, None for the recorded path.
    """
    return [
        compare_path(item, truth, moved, seed=seed)
        if estimates is None
        else compare(item, estimates, truth, moved, seed=seed)
        for item, estimates in drawn
    ]


def _weighted(views: Views, terms: Float[Tensor, "k n l"]) -> Float[Tensor, " n"]:
    return (_weights(views) * torch.where(views.score, terms, 0.0)).sum((0, 2)).double()


def _weights(views: Views) -> Float[Tensor, "k n l"]:
    """What a term counts for in the mean over views, too."""
    return views.weight if views.loss_weight is None else views.weight * views.loss_weight


def _mean(values: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> float:
    return float((values * weight).sum() / weight.sum())


def _spread(error: Float[Tensor, " n"], weight: Float[Tensor, " n"]) -> float:
    return _mean((error - _mean(error, weight)).square(), weight) ** 0.5


def _correlation(one: Float[Tensor, " n"], two: Float[Tensor, " n"], weight: Int[Tensor, " n"]) -> float:
    one, two = one - _mean(one, weight), two - _mean(two, weight)
    scale = (_mean(one.square(), weight) * _mean(two.square(), weight)) ** 0.5
    return _mean(one * two, weight) / scale if scale > 0 else 0.0
