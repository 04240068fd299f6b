"""What a report draws of one cell: curves thinned to what a page can draw, and commit orders as heat maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from experiments.analysis.collapse.series import read_series, uniform
from experiments.report.load import CellRun

MAX_POINTS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A metric shown as small multiples.

    Attributes:
        note: What is drawn, for the caption.
        reading: What it means and how it is read.
        reference: Field of the warm start's summary drawn as a dashed line.
        ceiling: Metric that this one cannot exceed; its mean over seeds is drawn as a dotted line.
    """

    name: str
    title: str
    note: str
    reading: str
    reference: str | None = None
    ceiling: str | None = None
    is_share: bool = False


CURVES: tuple[Curve, ...] = (
    Curve(
        name="reward",
        title="Reward",
        note="mean over a step's rollouts",
        reading="What the objective raises. Read it beside success: a reward that rises alone pays for something else.",
        reference="reward",
    ),
    Curve(
        name="success",
        title="Success",
        note="share of a step's rollouts whose payload is right; dotted: all fields right, the ceiling",
        reading="What a run is judged by, here on training tasks. Where it closes up to the dotted line, plans that "
        "were right are now submitted; where the dotted line rises, the policy learned to fill in fields.",
        reference="success",
        ceiling="right",
        is_share=True,
    ),
    Curve(
        name="conversion",
        title="Conversion",
        note="share accepted of a step's rollouts whose fields are all right; steps without any are left out",
        reading="Near 1, only the fields are missing. Low and flat, the groups do not compare what the last step is "
        "worth.",
        reference="conversion",
        is_share=True,
    ),
    Curve(
        name="near_miss",
        title="Near misses",
        note="share of a step's rollouts whose fields are all right, not accepted; dotted: all fields right",
        reading="Rising while success is flat: a problem of submission, and none of the fields.",
        reference="near_miss",
        ceiling="right",
        is_share=True,
    ),
    Curve(
        name="turns/success",
        title="Turns of a success",
        note="mean over a step's episodes that succeed",
        reading="Successes get shorter as a policy learns.",
    ),
    Curve(
        name="turns/failure",
        title="Turns of a failure",
        note="mean over a step's other episodes",
        reading="Failures that grow long repeat themselves.",
    ),
    Curve(
        name="entropy",
        title="Entropy",
        note="mean over drawn tokens, nats, of the distribution drawn from",
        reading="Falls in every run; trouble only where the reward does not rise. An early fall to zero ends "
        "exploration; a rise to several times its level comes before gibberish.",
    ),
    Curve(
        name="kl",
        title="KL to the warm start",
        note="k3 estimate a token; absent where the method scores no reference",
        reading="How far the policy went. It grows steadily in healthy runs; a jump is a step that went too far.",
    ),
    Curve(
        name="ratio_spread",
        title="Importance ratio",
        note="95 % minus 5 % quantile; 0 means fully on policy",
        reading="How far off policy the last update of a step was. A widening band comes before a fall of the reward, "
        "often by 5 to 20 steps.",
    ),
    Curve(
        name="likelihood_sd",
        title="Likelihood sd over masks",
        note="spread of a completion's log-likelihood over its drawn masks, nats; of ELBO methods only",
        reading="What the choice of one mask decides. Far above the clip's band over the length, masks that old and "
        "new policy do not share would drown the ratio.",
    ),
    Curve(
        name="grad_norm",
        title="Gradient norm",
        note="before clipping",
        reading="Spikes over five times the usual value are off-policy blow-ups, or numbers close to overflow.",
    ),
)
_DRAWN = tuple(dict.fromkeys([*(item.name for item in CURVES), *(item.ceiling for item in CURVES if item.ceiling)]))


def curves_of(cell: CellRun) -> dict[str, list[dict[str, Any]]]:
    """Steps and values of each curve for each seed; non-finite values become None."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in cell.seeds:
        rows = uniform(run.metrics)
        for name in _DRAWN:
            series = read_series(rows, name)
            if not len(series):
                continue
            stride = math.ceil(len(series) / MAX_POINTS)
            found.setdefault(name, []).append(
                {
                    "seed": run.seed,
                    "steps": series.steps[::stride].tolist(),
                    "values": series.values[::stride].tolist(),
                }
            )
    return found


_LEVELS = 5


def commits_of(cell: CellRun) -> list[dict[str, Any]]:
    """One record a kept training step of the first seed that has any: the share of each position's tokens by step.

    Empty for the autoregressive family, whose order is fixed, and for runs that have kept none.
    """
    kept = next((run.commits for run in cell.seeds if run.commits), [])
    if all(_is_left_to_right(row["counts"]) for row in kept):
        return []
    return [
        {
            "step": row["step"],
            "num_positions": row["num_positions"],
            "num_steps": row["num_steps"],
            "shares": [_shares(counts) for counts in row["counts"]],
        }
        for row in kept
    ]


def _is_left_to_right(counts: list[list[int]]) -> bool:
    """Whether every position has a step of its own."""
    return len(counts) == len(counts[0] if counts else []) and all(
        not count or position == step for position, row in enumerate(counts) for step, count in enumerate(row)
    )


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def heat_map(record: dict[str, Any], *, label: str) -> Markup:
    """Positions down, denoising steps across; the darker, the larger the share of the position's tokens.

    One path a shade instead of one box a cell, which keeps the page small.
    """
    shares = record["shares"]
    rows, columns = len(shares), len(shares[0]) if shares else 1
    highest = max((share for row in shares for share in row), default=0.0) or 1.0
    boxes: dict[int, list[str]] = {}
    for position, row in enumerate(shares):
        for step, share in enumerate(row):
            level = round(_LEVELS * share / highest)
            if level:
                boxes.setdefault(level, []).append(f"M{step} {position}h1v1h-1z")
    paths = "".join(f'<path class="heat{level}" d="{"".join(parts)}"/>' for level, parts in sorted(boxes.items()))
    return Markup(
        f'<svg class="heat" role="img" aria-label="{escape(label)}" viewBox="0 0 {columns} {rows}" '
        f'preserveAspectRatio="none"><title>{escape(label)}</title>{paths}</svg>'
    )


def commit_blocks(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Heat maps of each cell that has any."""
    blocks = []
    for cell in cells:
        maps = [
            (
                record["step"],
                heat_map(record, label=f"Commit order of {cell['id']} at training step {record['step']}"),
                record["num_steps"],
            )
            for record in cell["commit_order"]
            if record["shares"]
        ]
        if maps:
            blocks.append({"cell": cell, "maps": maps})
    return blocks
