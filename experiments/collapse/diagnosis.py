"""What became of a training run, and what failed first: alarms and departures put together into one of a few kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.collapse import detectors
from experiments.collapse.departures import Departure, departures
from experiments.collapse.detectors import Alarm
from experiments.collapse.names import uniform
from experiments.collapse.series import MIN_TREND_STEPS, read_series, window_of

Kind = Literal[
    "healthy",
    "too_short",
    "never_alive",
    "saturated",
    "estimator_noise",
    "off_policy",
    "concentration",
    "drift",
    "numerical",
    "environment",
    "unexplained",
]

# Signals whose departure tells one cause of a fall from another. KL rises in every run that learns: no evidence.
_EVIDENCE: dict[Kind, tuple[str, ...]] = {
    "off_policy": ("ratio_spread", "clip_ratio/region_mean", "ess", "grad_norm"),
    "concentration": ("entropy", "unique_completions"),
    "drift": ("parse_valid", "completion_length", "eos_share", "masks_left"),
}
# Ratios are measured while a batch is learned, its effects on the next one: of what moves together these are the cause.
_RATIOS = ("ratio_spread", "clip_ratio/region_mean", "ess")
USUAL_CAUSE: dict[Kind, str] = {
    "healthy": "nothing found",
    "too_short": "a run this short shows no trend",
    "never_alive": "warm start too weak, or parser or harness broken",
    "saturated": "success; stop, or take harder tasks",
    "estimator_noise": "masks not shared between current and old policy, too few masks, or a wrong normalisation",
    "off_policy": "too many inner updates, learning rate or clip too large",
    "concentration": "no entropy or KL pressure, or advantages divided by their spread",
    "drift": "no KL, or a reward that can be gamed",
    "numerical": "half precision, log of zero, or division by a noise level",
    "environment": "the browser or the site, not the policy",
    "unexplained": "the reward fell and no watched signal says why",
}
_OWN_DOING: tuple[Kind, ...] = ("off_policy", "concentration", "drift", "unexplained", "numerical")
_COUNTS_OF_NON_FINITE = ("nonfinite_log_probs", "nonfinite_gradients")
_FINITE_SIGNALS = ("reward", "grad_norm", "kl", "ratio/mean", "entropy", "loss", "ess")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked for, and what came of it."""

    name: str
    outcome: Literal["found", "not found", "too short to tell", "no data"]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The diagnosis of one run.

    is_collapsed: the policy lost what it had, by its own doing. onset: step at which that began. first_signal: the
    earliest that left its healthy band. departures: the onset timeline. checks: everything looked for, found or not.
    """

    kind: Kind
    is_collapsed: bool
    onset: int | None
    first_signal: str | None
    alarms: tuple[Alarm, ...]
    departures: tuple[Departure, ...]
    checks: tuple[Check, ...]
    num_steps: int
    window: int
    sentence: str


def diagnose(metrics: Sequence[Mapping[str, Any]], *, is_over: bool = True) -> Diagnosis:
    """Diagnose a run from its rows of metrics, one a step: names as in `metrics.jsonl`, or as TRL or verl write.

    is_over: False for a run that still trains.
    """
    rows = uniform(metrics)
    window = window_of(len(rows))
    alarms = _alarms(rows, window, is_over)
    moved = departures(rows, window)
    kind, onset = _classify(rows, alarms, moved, window)
    has_fallen = any(alarm.detector == "drawdown" for alarm in alarms)
    is_collapsed = kind in _OWN_DOING or (kind == "estimator_noise" and has_fallen)
    first = _first_signal(kind, alarms, moved, window)
    return Diagnosis(
        kind=kind,
        is_collapsed=is_collapsed,
        onset=onset,
        first_signal=first,
        alarms=alarms,
        departures=moved,
        checks=_checks(rows, alarms, kind, window),
        num_steps=len(rows),
        window=window,
        sentence=_sentence(kind, onset, first, moved, alarms, len(rows)) + _blind_spot(rows, kind),
    )


def _alarms(rows: Sequence[Mapping[str, Any]], window: int, is_over: bool) -> tuple[Alarm, ...]:
    def series(name: str):
        return read_series(rows, name)

    found = [detectors.non_finite(series(name)) for name in _FINITE_SIGNALS]
    found += [detectors.non_finite(series(name), is_count=True) for name in _COUNTS_OF_NON_FINITE]
    found.append(detectors.off_policy_at_start(series("ratio_dev_u0")))
    found.append(detectors.far_off_policy(series("ratio/far_share")))
    found.append(detectors.faults(series("fault_share"), window, is_over=is_over))
    falls = [detectors.drawdown(series(name), window) for name in ("reward", "success")]
    onsets = [alarm.onset for alarm in falls if alarm is not None]
    if onsets:
        found.append(detectors.surge(series("ratio/far_share"), min(onsets), _resolution(window)))
    found += falls
    found += [detectors.cusum(series(name), window) for name in ("reward", "success")]
    found.append(detectors.dead_run(series("reward"), series("frac_reward_zero_std"), window))
    found.append(detectors.saturation(series("all_good"), window))
    found.append(detectors.no_exploration(series("frac_reward_zero_std"), series("unique_completions"), window))
    return tuple(sorted((alarm for alarm in found if alarm is not None), key=lambda alarm: alarm.raised))


def _classify(
    rows: Sequence[Mapping[str, Any]], alarms: tuple[Alarm, ...], moved: tuple[Departure, ...], window: int
) -> tuple[Kind, int | None]:
    """The kind and its onset. Faults of number, machine and estimator come first: they make the rest unreadable."""
    by_name = {alarm.detector: alarm for alarm in reversed(alarms)}
    fall = by_name.get("drawdown")
    if "non_finite" in by_name:
        return "numerical", by_name["non_finite"].onset
    if "faults" in by_name and (fall is None or by_name["faults"].onset <= fall.onset + window):
        return "environment", by_name["faults"].onset
    if "off_policy_at_start" in by_name:
        return "estimator_noise", by_name["off_policy_at_start"].onset
    if fall is not None:
        return _cause(moved, _far(alarms), fall.onset, window), fall.onset
    if "saturation" in by_name:
        return "saturated", by_name["saturation"].onset
    if "dead_run" in by_name:
        return "never_alive", by_name["dead_run"].onset
    if "no_exploration" in by_name:
        return "concentration", by_name["no_exploration"].onset
    return ("too_short" if len(rows) < MIN_TREND_STEPS else "healthy"), None


def _cause(moved: tuple[Departure, ...], far: Alarm | None, fall: int, window: int) -> Kind:
    """The cause whose evidence moved first, of what moved no later than a window after the fall began.

    A departure is dated to within half a window; ratios that left their band no later than that after the first sign
    are the cause of the rest. far: ratios far from 1 before the fall, which count from where they began.
    """
    steps = {item.signal: item.step for item in moved if item.step <= fall + window}
    if far is not None and far.onset <= fall:
        steps["ess"] = min(far.onset, steps.get("ess", far.onset))
    candidates = []
    for kind, signals in _EVIDENCE.items():
        seen = [steps[name] for name in signals if name in steps]
        if seen:
            candidates.append((min(seen), -len(seen), kind))
    if not candidates:
        return "unexplained"
    earliest, _, kind = min(candidates)
    is_off_policy = any(steps[name] <= earliest + _resolution(window) for name in _RATIOS if name in steps)
    return "off_policy" if is_off_policy else kind


def _far(alarms: tuple[Alarm, ...]) -> Alarm | None:
    """Where ratios first were far from 1: beyond the limit, or in a jump right before the fall."""
    found = [alarm for alarm in alarms if alarm.detector in ("far_off_policy", "surge")]
    return min(found, key=lambda alarm: alarm.onset, default=None)


def _resolution(window: int) -> int:
    """Steps within which departures cannot be told apart: they are dated by a mean over as many."""
    return max(3, window // 2)


def _first_signal(kind: Kind, alarms: tuple[Alarm, ...], moved: tuple[Departure, ...], window: int) -> str | None:
    """The first to leave its band; of those too close to tell apart, one that is evidence of the kind."""
    decisive = {
        "numerical": "non_finite",
        "environment": "faults",
        "estimator_noise": "off_policy_at_start",
        "saturated": "saturation",
        "never_alive": "dead_run",
    }
    if kind in decisive:
        return next(alarm.signal for alarm in alarms if alarm.detector == decisive[kind])
    if kind in ("healthy", "too_short"):
        return None
    # KL leaves its starting value of 0 in every run that learns.
    first = next((item for item in moved if item.signal != "kl"), None)
    far = _far(alarms) if kind == "off_policy" else None
    if first is None:
        return None if far is None else far.signal
    close = [item for item in moved if item.step <= first.step + _resolution(window)]
    evidence = next((item for item in close if item.signal in _EVIDENCE.get(kind, ())), None)
    until = first.step + _resolution(window) if evidence is None else evidence.step
    if far is not None and far.onset <= until:
        return far.signal
    return (evidence or first).signal


def _checks(rows: Sequence[Mapping[str, Any]], alarms: tuple[Alarm, ...], kind: Kind, window: int) -> tuple[Check, ...]:
    needs: dict[str, tuple[str, tuple[str, ...], bool]] = {
        "drawdown": ("reward or success fell under half of its peak", ("reward", "success"), True),
        "cusum": ("reward or success slid below its peak", ("reward", "success"), True),
        "dead_run": ("never anything to learn from", ("frac_reward_zero_std",), True),
        "saturation": ("every group succeeds", ("all_good",), True),
        "no_exploration": ("groups without different completions", ("frac_reward_zero_std",), True),
        "non_finite": ("values that are not finite", _FINITE_SIGNALS, False),
        "off_policy_at_start": ("ratio other than 1 before an update", ("ratio_dev_u0",), False),
        "far_off_policy": ("steps that end far off policy", ("ratio/far_share",), False),
        "surge": ("a jump of the ratios right before a fall", ("ratio/far_share",), False),
        "faults": ("rollouts lost to the environment", ("fault_share",), False),
    }
    known = set().union(*(row.keys() for row in rows)) if rows else set()
    checks = []
    for detector, (name, signals, is_trend) in needs.items():
        hit = next((alarm for alarm in alarms if alarm.detector == detector), None)
        if hit is not None:
            checks.append(Check(name=name, outcome="found", detail=hit.message))
        elif not known.intersection(signals):
            checks.append(Check(name=name, outcome="no data"))
        elif is_trend and len(rows) < max(MIN_TREND_STEPS, 2 * window):
            checks.append(Check(name=name, outcome="too short to tell", detail=f"needs {MIN_TREND_STEPS} steps"))
        else:
            checks.append(Check(name=name, outcome="not found"))
    return tuple(checks)


def _blind_spot(rows: Sequence[Mapping[str, Any]], kind: Kind) -> str:
    """A warning where nothing was found because the decisive signal is not there."""
    has_reward = any("reward" in row or "success" in row for row in rows)
    if kind != "healthy" or has_reward:
        return ""
    return " Neither reward nor success is recorded: a fall of either would go unseen."


_TITLES: dict[Kind, str] = {
    "healthy": "no sign of collapse",
    "too_short": "too short to tell",
    "never_alive": "never alive",
    "saturated": "saturated",
    "estimator_noise": "estimator noise",
    "off_policy": "off-policy blow-up",
    "concentration": "concentration",
    "drift": "drift to gibberish",
    "numerical": "numerical failure",
    "environment": "environment failure",
    "unexplained": "collapse without a visible cause",
}


def title_of(kind: Kind) -> str:
    """Name of a kind for people."""
    return _TITLES[kind]


def _sentence(
    kind: Kind,
    onset: int | None,
    first: str | None,
    moved: tuple[Departure, ...],
    alarms: tuple[Alarm, ...],
    num_steps: int,
) -> str:
    if kind == "healthy":
        return f"No sign of collapse in {num_steps} steps."
    if kind == "too_short":
        return f"{num_steps} steps are too few to tell a trend from noise ({MIN_TREND_STEPS} are needed)."
    text = f"{title_of(kind).capitalize()} from step {onset}"
    start = next((item for item in moved if item.signal == first), None)
    if start is not None:
        text += f": {first} moved first, at step {start.step} ({start.before:.3g} to {start.after:.3g})"
    elif first is not None:
        text += f": {next(alarm.message for alarm in alarms if alarm.signal == first)}"
    return f"{text}. Usual cause: {USUAL_CAUSE[kind]}."
