"""What `python -m studies.exact` writes: the tables of the microscope as a page of documentation, and its figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from statistics import mean

from studies.exact.laws import RULES, Law, law
from studies.exact.policy import EnumerablePolicy, moved, trained_policy
from studies.exact.surrogates import Estimates, Row, Surrogate, all_rows, estimate, left_out, surrogates

MOVE = 0.02
DEFAULT_RULE = "confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes of the microscope.

    Attributes:
        quotas: Columns revealed a step.
    """

    length: int = 6
    num_letters: int = 3
    num_policies: int = 2
    num_draws: int = 32
    quotas: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """One rule at one quota: rows by surrogate, means over the policies."""

    rule: str
    quota: int
    entropy: float
    selection_gap: float
    rows: dict[str, Row]


def examine(settings: Settings, on_progress: Callable[[str], None]) -> list[RuleResult]:
    """Every rule and quota, averaged over policies."""
    found: dict[tuple[str, int], list[tuple[Law, list[Row]]]] = {}
    for seed in range(settings.num_policies):
        policy = trained_policy(length=settings.length, num_letters=settings.num_letters, seed=seed)
        other = moved(policy, size=MOVE, seed=seed)
        drawn = _estimates(policy, other, settings, seed)
        for rule, choose in RULES.items():
            for quota in settings.quotas:
                on_progress(f"policy {seed + 1}/{settings.num_policies}: {rule}, {quota} a step")
                truth = law(policy, choose, quota=quota, other=other)
                after = law(other, choose, quota=quota)
                rows = all_rows(drawn, truth, after, seed=seed)
                found.setdefault((rule, quota), []).append((truth, rows))
    return [_average(rule, quota, parts) for (rule, quota), parts in found.items()]


def _estimates(
    policy: EnumerablePolicy, other: EnumerablePolicy, settings: Settings, seed: int
) -> list[tuple[Surrogate, Estimates | None]]:
    def one(item: Surrogate) -> Estimates | None:
        if item.objective is None:
            return None
        return estimate(item, policy, other, num_draws=settings.num_draws, seed=seed)

    return [(item, one(item)) for item in surrogates(policy)]


def _average(rule: str, quota: int, parts: list[tuple[Law, list[Row]]]) -> RuleResult:
    rows = {}
    for items in zip(*(rows for _, rows in parts), strict=True):
        numbers = {
            name: mean(getattr(item, name) for item in items)
            for name in ("bias", "distortion", "deviation", "rank", "change")
        }
        rows[items[0].label] = Row(label=items[0].label, used_by=items[0].used_by, **numbers)
    entropies = [-float((truth.log_prob * truth.log_prob.exp()).sum()) for truth, _ in parts]
    return RuleResult(
        rule=rule,
        quota=quota,
        entropy=mean(entropies),
        selection_gap=mean(truth.selection_gap for truth, _ in parts),
        rows=rows,
    )


def markdown(results: list[RuleResult], settings: Settings) -> str:
    """The page, all of it."""
    shown = next(item for item in results if item.rule == DEFAULT_RULE and item.quota == settings.quotas[0])
    one_each = [item for item in results if item.quota == settings.quotas[0]]
    template = (resources.files("studies.exact") / "page.md").read_text()
    return template.format(
        day=date.today(),
        move=f"{MOVE:.0%}",
        length=settings.length,
        letters=settings.num_letters,
        completions=settings.num_letters**settings.length,
        policies=settings.num_policies,
        draws=settings.num_draws,
        surrogates=_surrogate_table(shown),
        left_out="; ".join(f"`{name}` ({reason})" for name, reason in left_out().items()),
        changes=_grid_table(one_each, "change"),
        ranks=_grid_table(one_each, "rank"),
        rules=_rule_table(results),
    )


def _surrogate_table(result: RuleResult) -> str:
    lines = [
        "| surrogate | used by | bias | distortion | sd of one draw | rank | change |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in result.rows.values():
        numbers = (row.bias, row.distortion, row.deviation, row.rank, row.change)
        lines.append(f"| {row.label} | {row.used_by} | " + " | ".join(f"{value:.2f}" for value in numbers) + " |")
    return "\n".join(lines)


def _grid_table(results: list[RuleResult], column: str) -> str:
    lines = ["| surrogate | " + " | ".join(item.rule for item in results) + " |", "|---" + "|--:" * len(results) + "|"]
    for label in results[0].rows:
        cells = [f"{getattr(item.rows[label], column):.2f}" for item in results]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rule_table(results: list[RuleResult]) -> str:
    lines = ["| rule | columns a step | entropy of its law | selection gap |", "|---|--:|--:|--:|"]
    lines += [f"| {r.rule} | {r.quota} | {r.entropy:.2f} | {abs(r.selection_gap):.2f} |" for r in results]
    return "\n".join(lines)


def draw_figure(results: list[RuleResult], settings: Settings, path: Path) -> None:
    """Bias with one draw's standard deviation under the default rule, and how changes correlate under every rule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    one_each = [item for item in results if item.quota == settings.quotas[0]]
    shown = next(item for item in one_each if item.rule == DEFAULT_RULE)
    labels = list(shown.rows)
    places = list(range(len(labels)))[::-1]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    biases, deviations = ([getattr(shown.rows[label], name) for label in labels] for name in ("bias", "deviation"))
    left.errorbar(biases, places, xerr=deviations, fmt="o", color="#24527a", ecolor="#a9c1d6", capsize=3)
    left.axvline(0, color="#999999", linewidth=0.8)
    left.set_xlabel(f"surrogate less exact log-likelihood, nats ({DEFAULT_RULE})\nbar: standard deviation of one draw")
    left.set_yticks(places, labels)
    markers = ("<", "o", "s", "D", "^", "X")
    for marker, item in zip(markers, one_each, strict=True):
        right.plot([item.rows[label].change for label in labels], places, marker, label=item.rule, alpha=0.75)
    right.set_xlabel("correlation with the true change of log-likelihood\nafter a small step of all weights")
    right.axvline(1, color="#999999", linewidth=0.8)
    right.legend(title="sampler's rule", fontsize=8)
    for axes in (left, right):
        axes.grid(axis="y", color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_microscope(settings: Settings, out: Path) -> Path:
    """Write `microscope.md` and `images/microscope.png` under a folder; returns the page."""
    results = examine(settings, lambda line: print(line, flush=True))
    draw_figure(results, settings, out / "images" / "microscope.png")
    page = out / "microscope.md"
    page.write_text(markdown(results, settings))
    return page
