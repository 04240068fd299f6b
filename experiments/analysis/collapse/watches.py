"""What is looked for in a run: each watch runs a detector, and knows which metrics it cannot do without.

Alarms and the list of what was checked come from the same table, so that what has no data is never "not found".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from experiments.analysis.collapse import detectors, gaming, rewards
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.series import MIN_TREND_STEPS, Pace, Series, component_names, read_series

_COUNTS_OF_NON_FINITE = ("nonfinite_log_probs", "nonfinite_gradients")
_FINITE_SIGNALS = ("reward", "grad_norm", "kl", "ratio/mean", "entropy", "loss", "ess")
_OUTCOMES = ("reward", "success")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as detectors see it: rows under uniform names, and how they were logged.

    Attributes:
        is_over: It does not train on.
    """

    rows: Sequence[Mapping[str, Any]]
    pace: Pace
    is_over: bool

    def series(self, name: str) -> Series:
        """One metric; empty where it is not logged."""
        return read_series(self.rows, name)

    @cached_property
    def without_spread(self) -> Series:
        """Share of groups without different rewards, as far as it is known."""
        return rewards.without_spread(self.rows)

    @cached_property
    def parts(self) -> tuple[Series, ...]:
        """Parts of the reward."""
        return tuple(self.series(name) for name in component_names(self.rows))

    @cached_property
    def falls(self) -> tuple[Alarm, ...]:
        """Falls of reward and success."""
        scales = {"reward": rewards.scale_of(self.rows), "success": detectors.NO_SCALE}
        found = (detectors.drawdown(self.series(name), self.pace.window, scale=scales[name]) for name in _OUTCOMES)
        return tuple(alarm for alarm in found if alarm is not None)


Outcome = Literal["found", "not found", "too short to tell", "no data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked for, and what came of it."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One thing to look for.

    Attributes:
        detector: Name of its alarms.
        find: Finds them.
        has_data: Whether the run has everything it needs.
        is_trend: Whether a short run cannot show it.
    """

    detector: str
    title: str
    find: Callable[[Run], Iterable[Alarm | None]]
    has_data: Callable[[Run], bool]
    is_trend: bool = True

    def alarms(self, run: Run) -> list[Alarm]:
        """Alarms that this watch raises."""
        return [alarm for alarm in self.find(run) if alarm is not None] if self.has_data(run) else []

    def check(self, run: Run, alarms: Sequence[Alarm]) -> Check:
        """What came of this watch, given all alarms of the run."""
        hit = next((alarm for alarm in alarms if alarm.detector == self.detector), None)
        if hit is not None:
            return Check(name=self.title, outcome="found", detail=hit.message)
        if not self.has_data(run):
            return Check(name=self.title, outcome="no data")
        if self.is_trend and run.pace.num_rows < max(MIN_TREND_STEPS, 2 * run.pace.window):
            return Check(name=self.title, outcome="too short to tell", detail=f"needs {MIN_TREND_STEPS} logged steps")
        return Check(name=self.title, outcome="not found")


def _any_of(*names: str) -> Callable[[Run], bool]:
    return lambda run: any(len(run.series(name)) for name in names)


def _all_of(*names: str) -> Callable[[Run], bool]:
    return lambda run: all(len(run.series(name)) for name in names)


def _knows_spread(run: Run) -> bool:
    return bool(len(run.series("reward")) and len(run.without_spread))


def _non_finite(run: Run) -> Iterable[Alarm | None]:
    for name in _FINITE_SIGNALS:
        yield detectors.non_finite(run.series(name), is_over=run.is_over)
    for name in _COUNTS_OF_NON_FINITE:
        yield detectors.non_finite(run.series(name), is_count=True, is_over=run.is_over)


def _surge(run: Run) -> Iterable[Alarm | None]:
    if run.falls:
        fall = min(alarm.onset for alarm in run.falls)
        yield detectors.surge(run.series("ratio/far_share"), fall, run.pace.resolution)


def _exhausted(run: Run) -> Alarm | None:
    return rewards.exhausted(run.series("reward"), run.without_spread, run.pace.window)


def _saturation(run: Run) -> Iterable[Alarm | None]:
    """Success is known where `all_good` is recorded; elsewhere the spread of the rewards tells."""
    all_good = run.series("all_good")
    if len(all_good):
        yield rewards.success_everywhere(all_good, run.pace.window)
    elif (alarm := _exhausted(run)) is not None and alarm.detector == "saturation":
        yield alarm


def _starvation(run: Run) -> Iterable[Alarm | None]:
    """Where `all_good` is recorded, a reward that stands at its peak may still be starved."""
    if any(_saturation(run)):
        return
    if (alarm := _exhausted(run)) is not None and alarm.detector == "starvation":
        yield alarm
    else:
        yield rewards.starved(run.without_spread, run.series("all_good"), run.pace.window)


WATCHES: tuple[Watch, ...] = (
    Watch(
        detector="drawdown",
        title="reward or success fell under half of its peak",
        find=lambda run: run.falls,
        has_data=_any_of(*_OUTCOMES),
    ),
    Watch(
        detector="cusum",
        title="reward or success slid below its peak",
        find=lambda run: [detectors.cusum(run.series(name), run.pace.window) for name in _OUTCOMES],
        has_data=_any_of(*_OUTCOMES),
    ),
    Watch(
        detector="component_lost",
        title="a part of the reward lost behind a growing one",
        find=lambda run: [rewards.component_lost(run.series("reward"), run.parts, run.pace.window)],
        has_data=lambda run: len(run.parts) > 1 and bool(len(run.series("reward"))),
    ),
    Watch(
        detector="gap_opens",
        title="claims of the reward outgrow the truth",
        find=lambda run: [gaming.gap_opens(run.series("reward_gap"), run.series("claim"), run.pace.window)],
        has_data=_all_of("reward_gap", "claim"),
    ),
    Watch(
        detector="opposed_trends",
        title="claims rise while success falls",
        find=lambda run: [gaming.opposed_trends(run.series("claim"), run.series("success"), run.pace.window)],
        has_data=_all_of("claim", "success"),
    ),
    Watch(
        detector="agreement_lost",
        title="claims no longer tell success from failure",
        find=lambda run: [gaming.agreement_lost(run.series("rank_agreement"), run.pace.window)],
        has_data=_any_of("rank_agreement"),
    ),
    Watch(
        detector="degenerate_length",
        title="completions of another length, paid and no better",
        find=lambda run: [
            gaming.degenerate_length(
                run.series("completion_length"), run.series("claim"), run.series("success"), run.pace.window
            )
        ],
        has_data=_all_of("completion_length", "claim", "success"),
    ),
    Watch(
        detector="evaluation_falls",
        title="evaluation falls while training does not",
        find=lambda run: [
            rewards.evaluation_falls(run.series("eval_reward"), run.series("reward"), run.pace.window),
        ],
        has_data=_all_of("eval_reward", "reward"),
    ),
    Watch(
        detector="dead_run",
        title="never anything to learn from",
        find=lambda run: [rewards.dead_run(run.series("reward"), run.without_spread, run.pace.window)],
        has_data=lambda run: _knows_spread(run) or rewards.is_constant(run.series("reward")),
    ),
    Watch(
        detector="saturation",
        title="every group succeeds",
        find=_saturation,
        has_data=lambda run: bool(len(run.series("all_good"))) or _knows_spread(run),
    ),
    Watch(
        detector="starvation",
        title="groups without spread, tasks unsolved",
        find=_starvation,
        has_data=_knows_spread,
    ),
    Watch(
        detector="no_exploration",
        title="groups without different completions",
        find=lambda run: [
            rewards.no_exploration(
                run.series("frac_reward_zero_std"), run.series("unique_completions"), run.pace.window
            )
        ],
        has_data=_all_of("frac_reward_zero_std", "unique_completions"),
    ),
    Watch(
        detector="entropy_explosion",
        title="entropy explodes",
        find=lambda run: [detectors.entropy_explosion(run.series("entropy"), run.pace.window)],
        has_data=_any_of("entropy"),
    ),
    Watch(
        detector="truncation",
        title="completions cut off at the cap",
        find=lambda run: [detectors.truncation(run.series("cut_share"), run.pace.window)],
        has_data=_any_of("cut_share"),
    ),
    Watch(
        detector="non_finite",
        title="values that are not finite",
        find=_non_finite,
        has_data=_any_of(*_FINITE_SIGNALS),
        is_trend=False,
    ),
    Watch(
        detector="off_policy_at_start",
        title="ratio other than 1 before an update",
        find=lambda run: [detectors.off_policy_at_start(run.series("ratio_dev_u0"))],
        has_data=_any_of("ratio_dev_u0"),
        is_trend=False,
    ),
    Watch(
        detector="far_off_policy",
        title="steps that end far off policy",
        find=lambda run: [detectors.far_off_policy(run.series("ratio/far_share"))],
        has_data=_any_of("ratio/far_share"),
        is_trend=False,
    ),
    Watch(
        detector="surge",
        title="a jump of the ratios right before a fall",
        find=_surge,
        has_data=_any_of("ratio/far_share"),
        is_trend=False,
    ),
    Watch(
        detector="faults",
        title="rollouts lost to the environment or the judge",
        find=lambda run: [
            detectors.faults(run.series(name), run.pace.window, is_over=run.is_over)
            for name in ("fault_share", "judge_fault_share")
        ],
        has_data=_any_of("fault_share", "judge_fault_share"),
        is_trend=False,
    ),
)
