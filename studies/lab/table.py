"""The table of a grid of short runs: which objectives learn, which collapse, which do neither.

A run *learns* where its sampled reward, which is what training pays for, ends above the warm start's by MARGIN. It
*collapses* where it ends below half of it, or where its curves are diagnosed as a collapse
(`experiments.analysis.collapse`). Otherwise it does neither. An instrument check on one toy, not a ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Literal

from dllm_rl.files import replace_file
from experiments.analysis.collapse import Alarm, diagnose
from experiments.run.folder import RunFolder
from experiments.run.results import UnitKey, is_lost

MARGIN, COLLAPSED_SHARE = 0.03, 0.5
Fate = Literal["learns", "collapses", "does not learn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One seed of a cell: rewards after training and before, of its metrics the extremes and the last entropy.

    Attributes:
        alarms: Of its diagnosis, in the order in which they were certain.
    """

    objective: str
    policy: str
    reward: float
    greedy: float
    warm_start: float
    warm_greedy: float
    is_collapsed: bool
    alarms: tuple[Alarm, ...]
    ratio_max: float | None
    grad_norm_max: float | None
    entropy: float | None

    @property
    def fate(self) -> Fate:
        """What became of it."""
        if self.is_collapsed or self.reward < COLLAPSED_SHARE * self.warm_start:
            return "collapses"
        return "learns" if self.reward >= self.warm_start + MARGIN else "does not learn"


def read_runs(run: RunFolder) -> list[Run]:
    """All finished seeds of a run folder."""
    run.require_results()
    rewards: dict[tuple[str, int, str], list[float]] = {}
    for row in run.results().select(["cell", "seed", "mode", "reward", "fault"]).to_pylist():
        if not is_lost(row["fault"]):
            rewards.setdefault((row["cell"], row["seed"], row["mode"]), []).append(row["reward"])

    def mean_of(key: UnitKey, mode: str) -> float | None:
        values = rewards.get((key.label, key.columns["seed"], mode))
        return None if values is None else mean(values)

    runs = []
    for unit in run.units():
        # Controls bear the names of the levels that they control.
        if unit.cell is None or unit.cell.role != "cell":
            continue
        before = UnitKey(policy=unit.cell.policy)
        ends = [mean_of(key, mode) for key in (unit.key, before) for mode in ("sampled", "greedy")]
        if None in ends:
            continue
        reward, greedy, warm_start, warm_greedy = (value or 0.0 for value in ends)
        metrics = unit.metrics()
        found = diagnose(metrics)
        runs.append(
            Run(
                objective=unit.cell.objective,
                policy=unit.cell.policy,
                reward=reward,
                greedy=greedy,
                warm_start=warm_start,
                warm_greedy=warm_greedy,
                is_collapsed=found.is_collapsed,
                alarms=found.alarms,
                ratio_max=_largest(metrics, "ratio/max"),
                grad_norm_max=_largest(metrics, "grad_norm"),
                entropy=metrics[-1].get("entropy") if metrics else None,
            )
        )
    return runs


def _largest(metrics: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in metrics if row.get(name) is not None]
    return max(values) if values else None


def markdown(runs: Sequence[Run]) -> str:
    """One row an objective; a policy's columns: rewards / ratio / gradient norm / entropy, and fates."""
    policies = list(dict.fromkeys(run.policy for run in runs))
    lines = [
        "| objective | "
        + " | ".join(f"{policy}: reward (greedy) / ratio / gradient / entropy | fate" for policy in policies)
    ]
    lines[0] += " |"
    lines.append("|---" * (1 + 2 * len(policies)) + "|")
    for objective in dict.fromkeys(run.objective for run in runs):
        cells = []
        for policy in policies:
            mine = [run for run in runs if (run.objective, run.policy) == (objective, policy)]
            cells += [_numbers(mine), _fates(mine)]
        lines.append(f"| {objective} | " + " | ".join(cells) + " |")
    firsts = {policy: next(run for run in runs if run.policy == policy) for policy in policies}
    starts = ", ".join(f"{name} {run.warm_start:.2f} ({run.warm_greedy:.2f})" for name, run in firsts.items())
    never = [name for name in dict.fromkeys(run.objective for run in runs) if not _ever_learns(runs, name)]
    lines += [
        "",
        f"Sampled (greedy) reward of the warm start: {starts}. Rewards are means over seeds, largest ratios and "
        "gradient norms over all steps and seeds.",
    ]
    lines.append(f"Known non-learners here: {', '.join(never) if never else 'none'}.")
    lines += ["", *_first_alarms(runs)]
    return "\n".join(lines) + "\n"


def _first_alarms(runs: Sequence[Run]) -> list[str]:
    """Which detector is certain first, in runs that collapse and in the others, with the median of the steps."""
    lines = ["| first alarm | runs that collapse | at step | other runs | at step |", "|---|--:|--:|--:|--:|"]
    kinds = [[run for run in runs if (run.fate == "collapses") == collapses] for collapses in (True, False)]
    steps = [
        {name: [a.raised for a in firsts if a.detector == name] for name in dict.fromkeys(a.detector for a in firsts)}
        for firsts in ([run.alarms[0] for run in kind if run.alarms] for kind in kinds)
    ]
    names = sorted(steps[0].keys() | steps[1].keys(), key=lambda name: -sum(len(each.get(name, [])) for each in steps))
    for name in names:
        cells = [f"{len(found)} | {median(found):g}" if (found := each.get(name)) else " | " for each in steps]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    silent = [sum(not run.alarms for run in kind) for kind in kinds]
    return [*lines, f"| none | {silent[0]} | | {silent[1]} | |"]


def _numbers(runs: Sequence[Run]) -> str:
    if not runs:
        return "owed"
    ratios, norms = ([getattr(run, name) for run in runs] for name in ("ratio_max", "grad_norm_max"))
    entropies = [run.entropy for run in runs if run.entropy is not None]
    ratio, norm = (f"{max(values):.2g}" if None not in values else "-" for values in (ratios, norms))
    rewards = f"{mean(run.reward for run in runs):.2f} ({mean(run.greedy for run in runs):.2f})"
    return f"{rewards} / {ratio} / {norm} / {mean(entropies):.2f}"


def _fates(runs: Sequence[Run]) -> str:
    fates = [run.fate for run in runs]
    return ", ".join(f"{fate} {fates.count(fate)}/{len(fates)}" for fate in dict.fromkeys(fates))


def _ever_learns(runs: Sequence[Run], objective: str) -> bool:
    return any(run.fate == "learns" for run in runs if run.objective == objective)


def write_table(run: RunFolder) -> str:
    """Write `lab.md` beside the report; returns the table."""
    text = markdown(read_runs(run))
    with replace_file(run.root / "lab.md") as temporary:
        temporary.write_text(text)
    return text
