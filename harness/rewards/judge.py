"""The learned judge: logistic regression on features of the evidence, calibrated on labels that it was not fitted to.

It is distilled from the truth, with as many labels as one can pay for. Its file is a few numbers in JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.files import sha256, write_json
from dllm_rl.records.evidence import Evidence
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score
from dllm_rl.seeding import python_random
from harness.rewards.features import features

# Share of the labels that calibrate, and the fewest of either kind that a judge is fitted to.
_HELD_OUT, _LEAST = 0.2, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeModel:
    """Weights by feature.

    Attributes:
        slope, shift: Calibration of the logit.
        num_labels: What it was distilled from.
    """

    weights: dict[str, float]
    bias: float
    slope: float
    shift: float
    num_labels: int
    version: int

    def claims(self, episodes: Sequence[Evidence]) -> np.ndarray:
        """Probability of success of each episode."""
        rows = [features(item) for item in episodes]
        logits = np.array([sum(self.weights[key] * value for key, value in row.items()) for row in rows]) + self.bias
        return _sigmoid(self.slope * logits + self.shift)


def fit_judge(
    episodes: Sequence[Evidence], success: Sequence[bool], *, penalty: float = 1.0, seed: int = 0
) -> JudgeModel:
    """Fit a judge to labels; a fifth of them, of other instructions than the rest, calibrate it.

    Args:
        penalty: Of squared weights, against the sum of log losses.

    Raises ConfigError where there are too few successes or failures to tell them apart.
    """
    truth = np.array(success, dtype=float)
    if min(truth.sum(), len(truth) - truth.sum()) < _LEAST:
        raise ConfigError(
            f"{int(truth.sum())} successes among {len(truth)} labels; a judge needs at least {_LEAST} successes and "
            f"{_LEAST} failures. Collect rollouts of more policies."
        )
    rows = [features(item) for item in episodes]
    names = list(rows[0])
    matrix = np.array([[row[name] for name in names] for row in rows])
    is_held = _held_out([item.instruction for item in episodes], seed)
    held, fitted = np.flatnonzero(is_held), np.flatnonzero(~is_held)
    weights = _logistic(matrix[fitted], truth[fitted], penalty)
    logits = matrix @ weights[:-1] + weights[-1]
    slope, shift = _logistic(logits[held][:, None], truth[held], 1e-2, towards=np.array([1.0, 0.0]))
    return JudgeModel(
        weights=dict(zip(names, map(float, weights[:-1]), strict=True)),
        bias=float(weights[-1]),
        slope=float(slope),
        shift=float(shift),
        num_labels=len(truth),
        version=Judge.version,
    )


def _held_out(instructions: Sequence[str], seed: int) -> np.ndarray:
    """Which labels calibrate: those of instructions drawn at random, or, where all have the same, any fifth."""
    names = list(instructions) if len(set(instructions)) > 1 else [str(number) for number in range(len(instructions))]
    order = sorted(set(names))
    python_random(seed, "judge-calibration").shuffle(order)
    counts, chosen, wanted = Counter(names), set[str](), max(1, int(_HELD_OUT * len(names)))
    for name in order[:-1]:
        if sum(counts[item] for item in chosen) >= wanted:
            break
        chosen.add(name)
    return np.array([name in chosen for name in names])


def _logistic(
    matrix: np.ndarray, truth: np.ndarray, penalty: float, *, towards: np.ndarray | None = None
) -> np.ndarray:
    """Weights, and last the bias, of least log loss.

    Args:
        towards: Where the penalty pulls; 0 without it, bias left free.
    """
    from scipy.optimize import minimize

    columns = np.column_stack([matrix, np.ones(len(matrix))])
    centre = np.zeros(columns.shape[1]) if towards is None else towards
    strength = np.full(columns.shape[1], penalty)
    if towards is None:
        strength[-1] = 0.0

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits, away = columns @ weights, weights - centre
        value = np.logaddexp(0, logits).sum() - truth @ logits + 0.5 * strength @ away**2
        return float(value), columns.T @ (_sigmoid(logits) - truth) + strength * away

    return minimize(loss, centre, jac=True, method="L-BFGS-B").x


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def write_judge(path: Path, model: JudgeModel) -> None:
    """Write a judge's file."""
    write_json(path, asdict(model))


BUILTIN = "builtin:"
_SHIPPED = Path(__file__).parent / "judges"


def judge_path(name: str) -> Path:
    """Where a judge's file lies: one that ships (`builtin:forms_1000`), or the path as given."""
    if not name.startswith(BUILTIN):
        return Path(name)
    shipped = {path.stem: path for path in _SHIPPED.glob("*.json")}
    if name.removeprefix(BUILTIN) not in shipped:
        raise unknown_name("judge that ships", name.removeprefix(BUILTIN), shipped)
    return shipped[name.removeprefix(BUILTIN)]


def read_judge(path: Path) -> JudgeModel:
    """Read a judge's file. Raises ConfigError for one that is missing, damaged or of another version."""
    if not path.is_file():
        raise ConfigError(f"no judge at '{path}'. Train one: dllm-rl judge train EVIDENCE --out {path}")
    try:
        model = TypeAdapter(JudgeModel).validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ConfigError(f"'{path}' is not a judge: {error.errors()[0]['msg']}. Train it again.") from None
    if model.version != Judge.version:
        raise ConfigError(f"'{path}' is a judge of version {model.version}; this is {Judge.version}. Train it again.")
    return model


@register("reward", "judge")
@dataclass(frozen=True, kw_only=True)
class Judge(Reward):
    """The probability of success that a learned judge gives.

    Attributes:
        file: What `dllm-rl judge train` wrote, or a judge that ships: `builtin:forms_1000` or `builtin:forms_100`, by
            the number of labels, which are of rollouts of `grid16`.
    """

    version: ClassVar[int] = 2
    needs_truth: ClassVar[bool] = False

    file: str

    def __post_init__(self) -> None:
        # A file that cannot be read is refused before anything runs.
        _ = self._model

    @cached_property
    def _model(self) -> JudgeModel:
        return read_judge(judge_path(self.file))

    def ingredients(self) -> list[Any]:
        """Digest of the file."""
        return [sha256(judge_path(self.file))]

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Return the claims."""
        return [Score(value=float(claim), claim=float(claim)) for claim in self._model.claims(episodes)]
