"""What became of a training run, and what failed first: alarms and departures put together into one of a few kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.analysis.collapse.departures import OUTCOMES, SIGNALS, Departure, departures, near_departures
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.rewards import is_at_its_best, rise
from experiments.analysis.collapse.series import MIN_TREND_STEPS, Pace, component_names, pace_of, trailing_mean, uniform
from experiments.analysis.collapse.watches import WATCHES, Check, Run

Kind = Literal[
    "healthy",
    "too_short",
    "never_alive",
    "starved",
    "saturated",
    "truncated",
    "estimator_noise",
    "off_policy",
    "concentration",
    "entropy_explosion",
    "drift",
    "reward_hacking",
    "overfitting",
    "numerical",
    "environment",
    "unexplained",
]

# Signals whose departure tells one cause of a fall from another. KL rises in every run that learns: no evidence.
# Entropy is evidence of one cause where it falls and of another where it rises.
_EVIDENCE: dict[Kind, tuple[str, ...]] = {
    "off_policy": ("ratio_spread", "clip_ratio/region_mean", "ess", "grad_norm"),
    "concentration": ("entropy", "unique_completions"),
    "entropy_explosion": ("entropy",),
    "drift": ("parse_valid", "completion_length", "eos_share", "cut_share", "masks_left"),
}
# Ratios are measured while a batch is learned, its effects on the next one: of what moves together these are the cause.
_RATIOS = ("ratio_spread", "clip_ratio/region_mean", "ess")
# Longer completions and larger gradients come with learning, too.
_DRIFTS = ("completion_length", "grad_norm")
USUAL_CAUSE: dict[Kind, str] = {
    "healthy": "nothing found",
    "too_short": "a run this short shows no trend",
    "never_alive": "warm start too weak, tasks too easy or too hard, or parser or harness broken",
    "starved": "tasks that are all too easy or all too hard by now, or a policy that writes one completion a task",
    "saturated": "success; stop, or take harder tasks",
    "truncated": "the cap on length is too small, or length pays and nothing ends a completion",
    "estimator_noise": "masks not shared between current and old policy, too few masks, or a wrong normalisation",
    "off_policy": "too many inner updates, learning rate or clip too large",
    "concentration": "no entropy or KL pressure, or advantages divided by their spread",
    "entropy_explosion": "an entropy bonus too large, or tokens of bad completions pushed down without KL",
    "drift": "no KL, or a reward that can be gamed",
    "reward_hacking": "something that is paid is easier to gain than success: weigh it less, multiply, or audit it",
    "overfitting": "a reward that can be gamed, or too many passes over too few tasks",
    "numerical": "half precision, log of zero, or division by a noise level",
    "environment": "the browser, the site or the judge, not the policy",
    "unexplained": "the reward fell and no watched signal says why",
}
_OWN_DOING: tuple[Kind, ...] = (
    "off_policy",
    "concentration",
    "entropy_explosion",
    "drift",
    "reward_hacking",
    "overfitting",
    "unexplained",
    "numerical",
)
# Alarms of a reward that claims what the truth does not bear out; a fall that they come with is explained by them.
_GAMING = ("gap_opens", "opposed_trends", "agreement_lost", "degenerate_length")
# Faults of number, machine and estimator: they make what comes after them unreadable.
_FAULTS: dict[str, Kind] = {
    "non_finite": "numerical",
    "faults": "environment",
    "off_policy_at_start": "estimator_noise",
}
# What an alarm that decides alone makes of a run; of several, the first in this order.
_DECIDED_BY: dict[str, Kind] = {
    **dict.fromkeys(_GAMING, "reward_hacking"),
    "component_lost": "reward_hacking",
    "evaluation_falls": "overfitting",
    "saturation": "saturated",
    "dead_run": "never_alive",
    "no_exploration": "starved",
    "starvation": "starved",
}
_KIND_OF: dict[str, Kind] = {**_FAULTS, **_DECIDED_BY, "truncation": "truncated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The diagnosis of one run.

    Attributes:
        is_collapsed: The policy lost what it had, by its own doing.
        onset: Step at which that began.
        first_signal: The earliest that left its healthy band.
        departures: The onset timeline.
        checks: Everything looked for, found or not.
        num_steps: Training steps that the log covers, up to last_step.
        num_rows: Logged steps, which may be fewer.
        window: In rows.
    """

    kind: Kind
    is_collapsed: bool
    onset: int | None
    first_signal: str | None
    alarms: tuple[Alarm, ...]
    departures: tuple[Departure, ...]
    checks: tuple[Check, ...]
    num_steps: int
    num_rows: int
    last_step: int
    window: int
    sentence: str


def diagnose(metrics: Sequence[Mapping[str, Any]], *, is_over: bool = True) -> Diagnosis:
    """Diagnose a run from its rows of metrics, one a logged step: names as in `metrics.jsonl`, or as TRL or verl write.

    Args:
        is_over: False for a run that still trains.
    """
    rows = uniform(metrics)
    run = Run(rows=rows, pace=pace_of(_training_steps(rows)), is_over=is_over)
    found = [alarm for watch in WATCHES for alarm in watch.alarms(run)]
    alarms = tuple(sorted(found, key=lambda alarm: alarm.raised))
    moved = departures(rows, run.pace.window)
    verdict = _classify(run, alarms, moved)
    first = _first_signal(verdict, alarms, run.pace)
    return Diagnosis(
        kind=verdict.kind,
        is_collapsed=_is_collapsed(run, verdict.kind),
        onset=verdict.onset,
        first_signal=first,
        alarms=alarms,
        departures=moved,
        checks=tuple(watch.check(run, alarms) for watch in WATCHES),
        num_steps=run.pace.num_steps,
        num_rows=run.pace.num_rows,
        last_step=run.pace.last_step,
        window=run.pace.window,
        sentence=_sentence(run, verdict, first, alarms),
    )


def _is_collapsed(run: Run, kind: Kind) -> bool:
    """Whether the policy lost what it had. A reward may be gamed while success still rises: nothing is lost yet."""
    if kind == "estimator_noise":
        return bool(run.falls)
    if kind == "reward_hacking" and not run.falls:
        return not is_at_its_best(run.series("success"), run.pace.window)
    return kind in _OWN_DOING


def _training_steps(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Steps of the rows that hold a metric of training; evaluations have rows of their own in some logs."""
    known = {signal.name for signal in SIGNALS} | {"loss", *component_names(rows)}
    return [int(row.get("step", index)) for index, row in enumerate(rows) if known & row.keys()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The kind and its onset.

    Attributes:
        moved: Departures that it was told from.
    """

    kind: Kind
    onset: int | None = None
    moved: tuple[Departure, ...] = ()


def _classify(run: Run, alarms: tuple[Alarm, ...], moved: tuple[Departure, ...]) -> _Verdict:
    """What became of a run. Faults come first, but for those that begin after the run was lost already."""
    by_name = {alarm.detector: alarm for alarm in reversed(alarms)}
    fall = by_name.get("drawdown")
    lost = min((alarm.onset for alarm in alarms if alarm.severity == "collapse"), default=None)
    for detector, kind in _FAULTS.items():
        fault = by_name.get(detector)
        if fault is None or (lost is not None and fault.onset > lost + run.pace.window_steps):
            continue
        # Noise of the estimator is there from the start; where it ruins a run, that happens later.
        begin = fall if kind == "estimator_noise" and fall is not None else fault
        return _Verdict(kind=kind, onset=begin.onset)
    gamed = min((by_name[name].onset for name in _GAMING if name in by_name), default=None)
    if gamed is not None and (fall is None or gamed <= fall.onset + run.pace.window_steps):
        return _Verdict(kind="reward_hacking", onset=gamed, moved=moved)
    if fall is not None:
        return _explain(run, fall.onset, _far(alarms), moved)
    for detector, kind in _DECIDED_BY.items():
        if detector in by_name:
            return _Verdict(kind=kind, onset=by_name[detector].onset, moved=moved)
    # Completions that fill the cap may be what a task asks for: only a reward that is not at its best is worth a word.
    if "truncation" in by_name and not is_at_its_best(run.series("reward"), run.pace.window):
        return _Verdict(kind="truncated", onset=by_name["truncation"].onset)
    return _Verdict(kind="too_short" if run.pace.num_rows < MIN_TREND_STEPS else "healthy")


def _explain(run: Run, fall: int, far: Alarm | None, moved: tuple[Departure, ...]) -> _Verdict:
    """The cause of a fall: the one whose evidence moved first, of what moved no later than a window after it began.

    What moved in the three windows before the fall speaks first; what drifted away long before, only where nothing
    did, and length and gradient not at all: they drift in runs that learn.

    Args:
        far: Ratios far from 1 before the fall.
    """
    pace = run.pace
    since, until = fall - 3 * pace.window_steps, fall + 2 * pace.window_steps
    recent = {(item.signal, item.is_rise): item for item in moved if item.step >= since}
    near = near_departures(run.rows, pace.window, since=since, until=until)
    near = tuple(sorted((recent.get((i.signal, i.is_rise), i) for i in near), key=lambda item: item.step))
    kind = _first_cause(near, far, fall, pace)
    if kind is not None:
        return _Verdict(kind=kind, onset=fall, moved=near)
    early = tuple(item for item in moved if item.signal not in _DRIFTS)
    kind = _first_cause(early, far, fall, pace)
    if kind is not None:
        return _Verdict(kind=kind, onset=fall, moved=early)
    return _Verdict(kind="unexplained", onset=fall, moved=(*near, *(i for i in moved if i.signal in OUTCOMES)))


def _first_cause(moved: tuple[Departure, ...], far: Alarm | None, fall: int, pace: Pace) -> Kind | None:
    """The cause whose evidence moved first.

    A departure is dated to within half a window; ratios that left their band no later than that after the first sign
    are the cause of the rest.
    """
    early = [item for item in moved if item.step <= fall + pace.window_steps]
    steps = {item.signal: item.step for item in early if item.signal in _RATIOS}
    if far is not None and far.onset <= fall:
        steps["ess"] = min(far.onset, steps.get("ess", far.onset))
    candidates = []
    for kind in _EVIDENCE:
        seen = [item.step for item in early if _is_evidence(item, kind) and item.signal not in steps]
        seen += [step for name, step in steps.items() if name in _EVIDENCE[kind]]
        if seen:
            candidates.append((min(seen), -len(seen), kind))
    if not candidates:
        return None
    earliest, _, kind = min(candidates)
    is_off_policy = any(step <= earliest + pace.resolution for step in steps.values())
    return "off_policy" if is_off_policy else kind


def _is_evidence(item: Departure, kind: Kind) -> bool:
    """Whether a departure speaks for a kind. Entropy that rises and entropy that falls speak for different ones.

    Lengths grow in runs that learn to reason: half as long again, or half as long, is the least that speaks.
    """
    if item.signal == "completion_length" and abs(item.after - item.before) < abs(item.before) / 2:
        return False
    if item.signal == "entropy" and item.is_rise != (kind == "entropy_explosion"):
        return False
    return item.signal in _EVIDENCE.get(kind, ())


def _far(alarms: tuple[Alarm, ...]) -> Alarm | None:
    """Where ratios first were far from 1: beyond the limit, or in a jump right before the fall."""
    found = [alarm for alarm in alarms if alarm.detector in ("far_off_policy", "surge")]
    return min(found, key=lambda alarm: alarm.onset, default=None)


def _deciding(kind: Kind, alarms: tuple[Alarm, ...]) -> Alarm | None:
    """The first alarm that a kind was told from, where alarms decide it and not what moved."""
    return next((alarm for alarm in alarms if _KIND_OF.get(alarm.detector) == kind), None)


def _first_signal(verdict: _Verdict, alarms: tuple[Alarm, ...], pace: Pace) -> str | None:
    """The first to leave its band; of those too close to tell apart, one that is evidence of the kind."""
    kind, moved = verdict.kind, verdict.moved
    decided = _deciding(kind, alarms)
    if decided is not None:
        return decided.signal
    if kind in ("healthy", "too_short"):
        return None
    # KL leaves its starting value of 0 in every run that learns.
    first = min((item for item in moved if item.signal != "kl"), key=lambda item: item.step, default=None)
    far = _far(alarms) if kind == "off_policy" else None
    if first is None:
        return None if far is None else far.signal
    close = [item for item in moved if item.step <= first.step + pace.resolution]
    evidence = next((item for item in close if _is_evidence(item, kind)), None)
    until = first.step + pace.resolution if evidence is None else evidence.step
    if far is not None and far.onset <= until:
        return far.signal
    return (evidence or first).signal


_TITLES: dict[Kind, str] = {
    "healthy": "no sign of collapse",
    "too_short": "too short to tell",
    "never_alive": "never alive",
    "starved": "starved",
    "saturated": "saturated",
    "truncated": "cut off at the cap",
    "estimator_noise": "estimator noise",
    "off_policy": "off-policy blow-up",
    "concentration": "concentration",
    "entropy_explosion": "entropy explosion",
    "drift": "drift to gibberish",
    "reward_hacking": "reward hacking",
    "overfitting": "evaluation falls",
    "numerical": "numerical failure",
    "environment": "environment failure",
    "unexplained": "collapse without a visible cause",
}


def title_of(kind: Kind) -> str:
    """Name of a kind for people."""
    return _TITLES[kind]


def _sentence(run: Run, verdict: _Verdict, first: str | None, alarms: tuple[Alarm, ...]) -> str:
    kind, num_rows = verdict.kind, run.pace.num_rows
    if kind == "healthy":
        return f"No sign of collapse in {run.pace.num_steps} steps{_course(run)}.{_remarks(run, alarms)}"
    if kind == "too_short":
        return f"Too short to tell a trend from noise: {num_rows} of {MIN_TREND_STEPS} logged steps that it takes."
    is_late = kind == "estimator_noise" and run.falls
    text = f"{title_of(kind).capitalize()}{', and a fall' if is_late else ''} from step {verdict.onset}"
    start = next((item for item in verdict.moved if item.signal == first), None)
    decided, far = _deciding(kind, alarms), _far(alarms)
    if decided is not None:
        text += f": {decided.message}"
    elif start is not None:
        text += f": {first} moved first, at step {start.step} ({start.before:.3g} to {start.after:.3g})"
    elif first is not None and far is not None:
        text += f": {far.message}"
    return f"{text}. Usual cause: {USUAL_CAUSE[kind]}."


def _course(run: Run) -> str:
    """Where the reward went."""
    reward = run.series("reward").finite()
    if len(reward) < MIN_TREND_STEPS:
        return ""
    means = trailing_mean(reward.values, run.pace.window)
    word = "rose" if rise(reward, run.pace.window) > 0 else "went"
    return f"; reward {word} from {means[0]:.3g} to {means[-1]:.3g}"


def _remarks(run: Run, alarms: tuple[Alarm, ...]) -> str:
    """What is worth a look in a run without a verdict: warnings, or a decisive metric that is not there."""
    if not any(len(run.series(name)) for name in ("reward", "success")):
        return " Neither reward nor success is recorded: a fall of either would go unseen."
    told = [alarm.message for alarm in alarms if alarm.detector in ("entropy_explosion", "truncation", "cusum")]
    return f" Worth a look: {'; '.join(told)}." if told else ""
