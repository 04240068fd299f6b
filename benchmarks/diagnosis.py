"""How often `diagnose` is right: labelled runs scored, the first half and the half that was never looked at.

python -m benchmarks.diagnosis                  # docs/results/bench_diagnosis.md, both halves
python -m benchmarks.diagnosis --half first     # print the first half and each mistake in it
python -m benchmarks.diagnosis --trained DIR    # with real training runs, which are made in DIR (ten minutes)
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import get_args

from scipy.stats import binomtest

from benchmarks.diagnosis_corpus import Case, Half, corpus
from dllm_rl.files import read_rows
from experiments.analysis.collapse import Diagnosis, Kind, diagnose

PAGE = Path("docs/results/bench_diagnosis.md")
# Seeds of the real runs. Ten seeds from 0 were used while the detectors were first written.
TRAINED_SEEDS: dict[Half, range] = {"first": range(3), "second": range(100, 103)}
_HEALTHY_A_SEED = 3
_COLLAPSES = frozenset({"off_policy", "concentration", "entropy_explosion", "drift", "reward_hacking", "overfitting"})
_COLLAPSES |= {"numerical", "unexplained"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A labelled run with what was said about it."""

    case: Case
    diagnosis: Diagnosis


def score(cases: Iterator[Case] | Sequence[Case]) -> list[Scored]:
    """Diagnose every case."""
    return [Scored(case=case, diagnosis=diagnose(case.rows)) for case in cases]


def trained_cases(half: Half, folder: Path) -> Iterator[Case]:
    """Real runs of seconds, broken on purpose, and healthy ones: those of the tests, on seeds of their own."""
    from tests.experiments.analysis.collapse.test_real_runs import BROKEN, rows_of

    for seed in TRAINED_SEEDS[half]:
        healthy = [("healthy", {}, 10 * seed + index) for index in range(_HEALTHY_A_SEED)]
        broken = [(name, case.settings, seed) for name, case in BROKEN.items()]
        for name, settings, number in healthy + broken:
            place = folder / f"{name.replace(' ', '_')}-{number}"
            done = place / "done"
            if not done.is_file():
                rows_of(place, settings, number)
                done.touch()
            label: Kind = BROKEN[name].kind if name in BROKEN else "healthy"
            yield Case(label=label, shape=name, dialect="trained", rows=read_rows(place / "metrics.jsonl"))


def confusion(scored: Sequence[Scored]) -> str:
    """Labels down, diagnoses across, as a table in Markdown; only kinds that occur."""
    kinds = [kind for kind in get_args(Kind) if any(kind in (s.case.label, s.diagnosis.kind) for s in scored)]
    counts = Counter((item.case.label, item.diagnosis.kind) for item in scored)
    lines = ["| label | runs | " + " | ".join(kinds) + " |", "|---|---|" + "---|" * len(kinds)]
    for label in kinds:
        total = sum(counts[label, kind] for kind in kinds)
        if total:
            cells = (str(counts[label, kind] or "") for kind in kinds)
            lines.append(f"| **{label}** | {total} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(hits: int, of: int) -> str:
    """A share in percent, with the exact interval of 95 % (Clopper and Pearson 1934)."""
    interval = binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{hits} of {of}, {hits / of:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def summary(scored: Sequence[Scored]) -> str:
    """False alarms, missed collapses and right names."""
    healthy = [item for item in scored if item.case.label == "healthy"]
    collapses = [item for item in scored if item.case.label in _COLLAPSES]
    others = [item for item in scored if item.case.label not in _COLLAPSES | {"estimator_noise"}]
    rows = (
        ("healthy runs given any other name (false alarms)", [i.diagnosis.kind != "healthy" for i in healthy]),
        ("healthy runs called collapsed", [i.diagnosis.is_collapsed for i in healthy]),
        ("runs that did not collapse, called collapsed", [i.diagnosis.is_collapsed for i in others]),
        ("collapses not called so", [not i.diagnosis.is_collapsed for i in collapses]),
        (
            "runs other than healthy named rightly",
            [i.diagnosis.kind == i.case.label for i in scored if i not in healthy],
        ),
    )
    lines = ["| | runs, share [95 % interval] |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {share(sum(hits), len(hits))} |" for name, hits in rows if hits])


def mistakes(scored: Sequence[Scored]) -> list[str]:
    """A line a mistake."""
    return [
        f"{item.case.label} ({item.case.shape}, {item.case.dialect}, {len(item.case.rows)} rows): "
        f"{item.diagnosis.sentence}"
        for item in scored
        if item.diagnosis.kind != item.case.label
    ]


def page(halves: dict[Half, list[Scored]], trained: dict[Half, list[Scored]]) -> str:
    """The results page."""
    titles = {
        "first": "First half: looked at while the detectors were written",
        "second": "Second half: only ever scored",
    }
    parts = [_HEAD.format(day=date.today())]
    for half, scored in halves.items():
        parts += [f"## {titles[half]}", summary(scored), confusion(scored)]
        if trained:
            parts += ["### Real runs of this half", summary(trained[half]), confusion(trained[half])]
    return "\n\n".join(parts) + "\n"


_HEAD = """# `diagnose` measured

By `python -m benchmarks.diagnosis --trained runs/bench_diagnosis`, {day}; synthetic runs are the same at every call.

Labelled runs in two halves. The first may be looked at while detectors are written, and so were four more draws of its
shapes. The second has seeds of its own, four shapes of healthy runs and one of a fall that the first does not have, and
is only scored: no detector or threshold was changed after its numbers were seen.

Shapes are drawn at random (`benchmarks/diagnosis_corpus.py`): length of the run, distance between logged
steps, scale and sign of the reward, noise that is white, drags along, is binomial or heavy-tailed. The background
moves as in healthy runs: entropy falls by up to 70 % or rises by 60 %, lengths grow by up to 150 %, single gradients
spike or are infinite, every tenth log has an abandoned branch. Names are those of our trainer, TRL, d1 and verl, with
no more metrics than each logs. *Real runs* are trained: those of
`tests/experiments/analysis/collapse/test_real_runs.py`, on other seeds.

A label is what the run was made to be. Some cannot be told from its log: a reward between -1 and 0 that loses nine
tenths of a small success moves by a tenth of its distance from zero, and is left alone on purpose. Synthetic runs are
milder judges than the field; the shares say how the detectors behave on shapes like these, not how often they are
right on yours."""


def main() -> None:
    """Score, and write the page or print the first half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["first"], help="print this half with its mistakes, and write nothing")
    parser.add_argument(
        "--trained", type=Path, metavar="DIR", help="score real training runs, too; kept in this folder"
    )
    options = parser.parse_args()
    if options.half:
        scored = score(corpus(options.half))
        if options.trained:
            scored += score(trained_cases(options.half, options.trained))
        print(summary(scored), confusion(scored), *mistakes(scored), sep="\n")
        return
    halves: dict[Half, list[Scored]] = {half: score(corpus(half)) for half in ("first", "second")}
    trained: dict[Half, list[Scored]] = {}
    if options.trained:
        trained = {half: score(trained_cases(half, options.trained)) for half in ("first", "second")}
    PAGE.write_text(page(halves, trained), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
