"""How far a judge can be trusted: its errors against the truth, and a success rate corrected for them.

The corrected rate is Rogan and Gladen's (1978), with the variance of both the rate and the judge's error rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm, rankdata

from dllm_rl.errors import ConfigError

_NUM_BINS = 10
# A claim from here on is a verdict of success.
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorClass:
    """Failures of one kind.

    Attributes:
        false_positive_rate: Share of them that the judge takes for success.
        at_most: Upper end of its one-sided 95 % confidence interval (Clopper and Pearson).
        auroc: Of claims, against all successes.
    """

    name: str
    count: int
    false_positive_rate: float
    at_most: float
    auroc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAudit:
    """A judge against the truth. nan where nothing defines a figure, such as precision without a positive.

    Attributes:
        sensitivity: Of verdicts at 0.5; also called recall.
        specificity: Of verdicts at 0.5.
        auroc: Of the claims.
        brier: Of the claims as probabilities.
        calibration_error: Expected calibration error of the same, in ten bins.
        classes: Kinds of failures, the worst first: training finds the one that the judge misses, however rare it was.
    """

    num_successes: int
    num_failures: int
    precision: float
    sensitivity: float
    specificity: float
    f1: float
    auroc: float
    brier: float
    calibration_error: float
    classes: tuple[ErrorClass, ...]


def audit(claims: np.ndarray, success: np.ndarray, errors: Sequence[str]) -> JudgeAudit:
    """Compare claims with the truth.

    Args:
        errors: Class of each failure.
    """
    verdict, truth = claims >= THRESHOLD, success.astype(bool)
    hits = float((verdict & truth).sum())
    precision, sensitivity = _share(hits, verdict.sum()), _share(hits, truth.sum())
    return JudgeAudit(
        num_successes=int(truth.sum()),
        num_failures=int((~truth).sum()),
        precision=precision,
        sensitivity=sensitivity,
        specificity=_share(float((~verdict & ~truth).sum()), (~truth).sum()),
        f1=_share(2 * hits, verdict.sum() + truth.sum()),
        auroc=auroc(claims, truth),
        brier=float(np.mean((claims - truth) ** 2)),
        calibration_error=calibration_error(claims, truth),
        classes=_classes(claims, truth, errors),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def auroc(claims: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a success is claimed higher than a failure, ties counted half."""
    num_true, num_false = int(truth.sum()), int((~truth).sum())
    if not num_true or not num_false:
        return float("nan")
    ranks = rankdata(claims)
    return float((ranks[truth].sum() - num_true * (num_true + 1) / 2) / (num_true * num_false))


def calibration_error(claims: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of claims and success over ten equal bins of the claim, by their sizes."""
    bins = np.minimum((claims * _NUM_BINS).astype(int), _NUM_BINS - 1)
    parts = [bins == number for number in np.unique(bins)]
    return float(sum(part.mean() * abs(claims[part].mean() - truth[part].mean()) for part in parts))


def _classes(claims: np.ndarray, truth: np.ndarray, errors: Sequence[str]) -> tuple[ErrorClass, ...]:
    names = np.array(errors, dtype=object)
    kinds = sorted({str(item) for item in names[~truth]})
    found = [_class(name, ~truth & (names == name), claims, truth) for name in kinds]
    return tuple(sorted(found, key=lambda item: (-item.false_positive_rate, -item.at_most)))


def _class(name: str, members: np.ndarray, claims: np.ndarray, truth: np.ndarray) -> ErrorClass:
    taken, count = int((claims[members] >= THRESHOLD).sum()), int(members.sum())
    compared = truth | members
    return ErrorClass(
        name=name,
        count=count,
        false_positive_rate=taken / count,
        at_most=1.0 if taken == count else float(beta.ppf(0.95, taken + 1, count - taken)),
        auroc=auroc(claims[compared], truth[compared]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedRate:
    """A success rate that a judge told, corrected for its errors.

    Attributes:
        judged: What it told.
    """

    judged: float
    rate: float
    low: float
    high: float


def corrected_success(judged: float, num_judged: int, known: JudgeAudit, *, level: float = 0.95) -> CorrectedRate:
    """Correct a rate for the judge's errors, with an interval (delta method) around the rate as cut to [0, 1].

    Args:
        judged: Share of episodes that the judge takes for successes.
        known: Its errors on episodes of the same kind.

    Raises ConfigError where the audited episodes are of one kind, so that one of the error rates is not known, and
    where the judge is no better than chance, so that its word says nothing about the rate.
    """
    for count, kind in ((known.num_successes, "success"), (known.num_failures, "failure")):
        if not count:
            raise ConfigError(
                f"no {kind} is among the audited episodes; correcting a rate needs the judge's errors on both kinds. "
                f"Audit evidence that has a {kind}, too."
            )
    sensitivity, specificity = known.sensitivity, known.specificity
    gain = sensitivity + specificity - 1
    if not gain > 0.05:
        raise ConfigError(
            f"the judge's sensitivity {sensitivity:.2f} and specificity {specificity:.2f} sum to {gain + 1:.2f}; above "
            "1.05 is needed to correct a rate. Train it on more labels."
        )
    rate = (judged + specificity - 1) / gain
    inside = min(1.0, max(0.0, rate))
    variance = _spread(judged, num_judged)
    variance += (1 - inside) ** 2 * _spread(specificity, known.num_failures)
    variance += inside**2 * _spread(sensitivity, known.num_successes)
    half = float(norm.ppf(0.5 + level / 2)) * float(np.sqrt(variance)) / gain
    return CorrectedRate(judged=judged, rate=inside, low=max(0.0, inside - half), high=min(1.0, inside + half))


def _spread(share: float, count: int) -> float:
    """Variance of a share, with a count of one added on either side, so that 0 of few is not certain."""
    smooth = (share * count + 1) / (count + 2)
    return smooth * (1 - smooth) / max(1, count)
