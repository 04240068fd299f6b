"""The curves that a report shows, thinned to what a page can draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.analysis.collapse.names import uniform
from experiments.analysis.collapse.series import read_series
from experiments.report.load import CellRun

MAX_POINTS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A metric shown as small multiples. reference: field of the warm start's summary drawn as a dashed line."""

    name: str
    title: str
    note: str
    reference: str | None = None
    is_share: bool = False


CURVES: tuple[Curve, ...] = (
    Curve(name="reward", title="Reward", note="mean over a step's rollouts", reference="reward"),
    Curve(
        name="success",
        title="Success",
        note="share of a step's rollouts whose payload is right",
        reference="success",
        is_share=True,
    ),
    Curve(name="entropy", title="Entropy", note="mean over drawn tokens, nats, of the distribution drawn from"),
    Curve(
        name="kl", title="KL to the warm start", note="k3 estimate a token; absent where the method scores no reference"
    ),
    Curve(name="ratio_spread", title="Importance ratio", note="95 % minus 5 % quantile; 0 means fully on policy"),
    Curve(
        name="likelihood_sd",
        title="Likelihood sd over masks",
        note="spread of a completion's log-likelihood over its drawn masks, nats; of ELBO methods only",
    ),
    Curve(name="grad_norm", title="Gradient norm", note="before clipping"),
)


def curves_of(cell: CellRun) -> dict[str, list[dict[str, Any]]]:
    """Steps and values of each curve for each seed; non-finite values become None."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in cell.seeds:
        rows = uniform(run.metrics)
        for curve in CURVES:
            series = read_series(rows, curve.name)
            if not len(series):
                continue
            stride = math.ceil(len(series) / MAX_POINTS)
            found.setdefault(curve.name, []).append(
                {
                    "seed": run.seed,
                    "steps": series.steps[::stride].tolist(),
                    "values": series.values[::stride].tolist(),
                }
            )
    return found
