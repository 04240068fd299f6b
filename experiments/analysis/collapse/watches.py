"""What is looked for in a run: each watch runs a detector, and knows how many values of which metrics it needs.

Alarms and the list of what was checked come from the same table, so that what has no data, or too few, is never "not
found".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.analysis.collapse import detectors, gaming, needs, rewards
from experiments.analysis.collapse.departures import OUTCOMES
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.needs import Needs
from experiments.analysis.collapse.run import Run

_COUNTS_OF_NON_FINITE = ("nonfinite_log_probs", "nonfinite_gradients")
_FINITE_SIGNALS = ("reward", "grad_norm", "kl", "ratio/mean", "entropy", "loss", "ess")


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
        needs: What it cannot do without. Below the least length nothing was looked for, so nothing is "not found".
    """

    detector: str
    title: str
    find: Callable[[Run], Iterable[Alarm | None]]
    needs: Needs

    def alarms(self, run: Run) -> list[Alarm]:
        """Alarms that this watch raises."""
        return [alarm for alarm in self.find(run) if alarm is not None] if self._has_data(run) else []

    def check(self, run: Run, alarms: Sequence[Alarm]) -> Check:
        """What came of this watch, given all alarms of the run."""
        hit = next((alarm for alarm in alarms if alarm.detector == self.detector), None)
        if hit is not None:
            return Check(name=self.title, outcome="found", detail=hit.message)
        if not self._has_data(run):
            return Check(name=self.title, outcome="no data")
        short = next((need for need in self.needs(run) if need.length < need.least), None)
        if short is not None:
            detail = f"needs {short.least} values of {short.name}, and there are {short.length}"
            return Check(name=self.title, outcome="too short to tell", detail=detail)
        return Check(name=self.title, outcome="not found")

    def _has_data(self, run: Run) -> bool:
        return all(need.length for need in self.needs(run))


def _non_finite(run: Run) -> Iterable[Alarm | None]:
    for name in _FINITE_SIGNALS:
        yield detectors.non_finite(run.series(name), is_over=run.is_over)
    for name in _COUNTS_OF_NON_FINITE:
        yield detectors.non_finite(run.series(name), is_count=True, is_over=run.is_over)


def _surge(run: Run) -> Iterable[Alarm | None]:
    if run.falls:
        fall = min(alarm.onset for alarm in run.falls)
        yield detectors.surge(run.series("ratio/far_share"), fall, run.pace.resolution)


def _component_lost(run: Run) -> Iterable[Alarm | None]:
    """Where success is known, rose and stands at its peak, no part that was lost cost any of it."""
    if not rewards.is_at_its_best(run.series("success"), run.pace.window):
        yield rewards.component_lost(run.series("reward"), run.parts, run.pace.window)


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
        needs=needs.trend_of_any(*OUTCOMES),
    ),
    Watch(
        detector="cusum",
        title="reward or success slid below its peak",
        find=lambda run: [detectors.cusum(run.series(name), run.pace.window) for name in OUTCOMES],
        needs=needs.trend_of_any(*OUTCOMES),
    ),
    Watch(
        detector="component_lost",
        title="a part of the reward lost behind a growing one",
        find=_component_lost,
        needs=needs.parts_and_reward,
    ),
    Watch(
        detector="gap_opens",
        title="claims of the reward outgrow the truth",
        find=lambda run: [
            gaming.gap_opens(
                run.series("reward_gap"), run.series("claim"), run.series("rank_agreement"), run.pace.window
            )
        ],
        needs=needs.gap_beside_agreement,
    ),
    Watch(
        detector="opposed_trends",
        title="claims rise while success falls",
        find=lambda run: [gaming.opposed_trends(run.series("claim"), run.series("success"), run.pace.window)],
        needs=needs.trend_together("claim", "success"),
    ),
    Watch(
        detector="agreement_lost",
        title="claims no longer tell success from failure",
        find=lambda run: [gaming.agreement_lost(run.series("rank_agreement"), run.pace.window)],
        needs=needs.first_agreements,
    ),
    Watch(
        detector="degenerate_length",
        title="completions of another length, paid and no better",
        find=lambda run: [
            gaming.degenerate_length(
                run.series("completion_length"), run.series("claim"), run.series("success"), run.pace.window
            )
        ],
        needs=needs.trend_together("completion_length", "claim", "success"),
    ),
    Watch(
        detector="evaluation_falls",
        title="evaluation falls while training does not",
        find=lambda run: [
            rewards.evaluation_falls(run.series("eval_reward"), run.series("reward"), run.pace.window),
        ],
        needs=needs.evaluations,
    ),
    Watch(
        detector="dead_run",
        title="never anything to learn from",
        find=lambda run: [rewards.dead_run(run.series("reward"), run.without_spread, run.pace.window)],
        needs=needs.start,
    ),
    Watch(
        detector="saturation",
        title="every group succeeds",
        find=_saturation,
        needs=needs.success_of_groups,
    ),
    Watch(
        detector="starvation",
        title="groups without spread, tasks unsolved",
        find=_starvation,
        needs=needs.spread_and_reward,
    ),
    Watch(
        detector="no_exploration",
        title="groups without different completions",
        find=lambda run: [
            rewards.no_exploration(
                run.series("frac_reward_zero_std"), run.series("unique_completions"), run.pace.window
            )
        ],
        needs=needs.trends_of("frac_reward_zero_std", "unique_completions"),
    ),
    Watch(
        detector="entropy_explosion",
        title="entropy explodes",
        find=lambda run: [detectors.entropy_explosion(run.series("entropy"), run.pace.window)],
        needs=needs.trends_of("entropy"),
    ),
    Watch(
        detector="truncation",
        title="completions cut off at the cap",
        find=lambda run: [detectors.truncation(run.series("cut_share"), run.pace.window)],
        needs=needs.trends_of("cut_share"),
    ),
    Watch(
        detector="non_finite",
        title="values that are not finite",
        find=_non_finite,
        needs=needs.values_of_any(*_FINITE_SIGNALS, *_COUNTS_OF_NON_FINITE),
    ),
    Watch(
        detector="off_policy_at_start",
        title="ratio other than 1 before an update",
        find=lambda run: [detectors.off_policy_at_start(run.series("ratio_dev_u0"))],
        needs=needs.values_of_any("ratio_dev_u0"),
    ),
    Watch(
        detector="far_off_policy",
        title="steps that end far off policy",
        find=lambda run: [detectors.far_off_policy(run.series("ratio/far_share"))],
        needs=needs.values_of_any("ratio/far_share"),
    ),
    Watch(
        detector="surge",
        title="a jump of the ratios right before a fall",
        find=_surge,
        needs=needs.values_of_any("ratio/far_share"),
    ),
    Watch(
        detector="faults",
        title="rollouts lost to the environment or the judge",
        find=lambda run: [
            detectors.faults(run.series(name), run.pace.window, is_over=run.is_over)
            for name in ("fault_share", "judge_fault_share")
        ],
        needs=needs.shares_of_faults,
    ),
)
