"""How much of which metric a detector needs: below that nothing can be found, so nothing was looked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.analysis.collapse import gaming, rewards
from experiments.analysis.collapse.run import Run
from experiments.analysis.collapse.series import MIN_TREND_STEPS, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A series that a detector reads.

    Attributes:
        length: Values that it has.
        least: Values that the detector needs.
    """

    name: str
    length: int
    least: int = 1


Needs = Callable[[Run], Sequence[Need]]


def _trend(run: Run, *series: Series) -> list[Need]:
    """Series that a trend is looked for in."""
    least = max(MIN_TREND_STEPS, 2 * run.pace.window)
    return [Need(name=item.name, length=len(item.finite()), least=least) for item in series]


def trends_of(*names: str) -> Needs:
    """A trend of each of these."""
    return lambda run: _trend(run, *(run.series(name) for name in names))


def trend_together(*names: str) -> Needs:
    """A trend at the steps at which all of these are known."""

    def found(run: Run) -> Sequence[Need]:
        shared = gaming.aligned(*(run.series(name) for name in names))[0]
        return _trend(run, Series(name=" and ".join(names), steps=shared.steps, values=shared.values))

    return found


def gap_beside_agreement(run: Run) -> Sequence[Need]:
    """The gap of a window beyond its baseline, which is shorter where agreement inside groups is known."""
    gap = gaming.aligned(run.series("reward_gap"), run.series("claim"))[0]
    is_told = gaming.is_still_told(run.series("rank_agreement"), len(gap), run.pace.window)
    first = 2 * run.pace.window if is_told is None else gaming.FEW_ROWS
    return [Need(name="reward_gap and claim", length=len(gap), least=first + run.pace.window)]


def first_agreements(run: Run) -> Sequence[Need]:
    """Agreement inside groups at first, and of a window after that."""
    known = run.series("rank_agreement").finite()
    return [Need(name="rank_agreement", length=len(known), least=gaming.FEW_ROWS + run.pace.window)]


def _longest(run: Run, names: Sequence[str]) -> Series:
    return max((run.series(name) for name in names), key=lambda item: len(item.finite()))


def trend_of_any(*names: str) -> Needs:
    """A trend of one of these: of the one that is logged most often."""
    return lambda run: _trend(run, _longest(run, names))


def values_of_any(*names: str) -> Needs:
    """A value of any of these, be it one that is not finite."""
    return lambda run: [Need(name=" or ".join(names), length=max(len(run.series(name)) for name in names))]


def spread_and_reward(run: Run) -> Sequence[Need]:
    """A trend of the reward, and of the share of groups without spread."""
    return _trend(run, run.series("reward"), run.without_spread)


def start(run: Run) -> Sequence[Need]:
    """The reward and the spread of a run's first window; a reward that never changes tells by itself."""
    reward, spread = run.series("reward").finite(), run.without_spread.finite()
    of_reward = Need(name="reward", length=len(reward), least=max(MIN_TREND_STEPS, run.pace.window))
    if not len(spread) and rewards.is_constant(reward):
        return [of_reward]
    return [of_reward, Need(name=spread.name, length=len(spread), least=MIN_TREND_STEPS)]


def success_of_groups(run: Run) -> Sequence[Need]:
    """Whether groups succeed; where that is not recorded, the spread of their rewards tells."""
    all_good = run.series("all_good").finite()
    if not len(all_good):
        return spread_and_reward(run)
    return [Need(name="all_good", length=len(all_good), least=max(MIN_TREND_STEPS, run.pace.window))]


def parts_and_reward(run: Run) -> Sequence[Need]:
    """A trend of the reward, and of two parts or more that it is a sum of."""
    parts = [part for part in run.parts if len(part.finite())]
    if len(parts) < 2:
        return [Need(name="parts of the reward", length=0)]
    return _trend(run, run.series("reward"), *parts)


def evaluations(run: Run) -> Sequence[Need]:
    """A trend of the reward, and evaluations beside it."""
    num_evaluations = len(run.series("eval_reward").finite())
    found = Need(name="eval_reward", length=num_evaluations, least=rewards.MIN_EVALUATIONS)
    return [found, *_trend(run, run.series("reward"))]


def shares_of_faults(run: Run) -> Sequence[Need]:
    """Shares of lost rollouts; while a run goes on, those of a whole window."""
    series = _longest(run, ("fault_share", "judge_fault_share"))
    return [Need(name=series.name, length=len(series.finite()), least=1 if run.is_over else run.pace.window)]
