"""The report of a synthetic run: the JSON twin, controls first, tables, and the page in real Chromium."""

from __future__ import annotations

import asyncio
import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.async_api import async_playwright
from rich.console import Console

from dllm_rl.errors import ConfigError
from dllm_rl.files import append_rows, read_rows, write_json
from experiments.analysis.collapse import diagnose
from experiments.analysis.collapse.sources import find_runs
from experiments.report import build_report, verdict_table, verdicts, write_report
from experiments.report.poster import average_of
from experiments.report.tables import all_cells, headline, negative_control, null_control, positive_control, word_of
from experiments.run.status import Status, write_status
from harness.browser.chromium import launch
from tests.experiments.synthetic import leave_out, metrics_of, write_run

KINDS = {"masked-grpo": "off_policy", "autoregressive-espo": "concentration"}
EFFECTS = {"autoregressive-grpo": 30.0, "masked-grpo": -30.0}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "grid16",
        seeds=(0, 1, 2),
        num_steps=40,
        num_tasks=30,
        kinds=KINDS,
        effects=EFFECTS,
        policies=("autoregressive", "masked"),
        objectives=("grpo", "espo"),
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "quick", preset="quick", seeds=(0,), num_steps=6, num_tasks=12, num_samples=2
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def part(grid, tmp_path_factory):
    """The grid with a cell and a control that have not begun, and a cell of which one seed is done."""
    folder = tmp_path_factory.mktemp("runs") / "part"
    shutil.copytree(grid, folder)
    leave_out(folder, "autoregressive-espo", "masked-espo/seed1", "masked-espo/seed2", "negative-masked-espo_unshared")
    write_report(folder)
    return folder


def twin(folder) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_the_twin_holds_one_verdict_for_each_cell_and_none_for_controls(grid, quick):
    report = twin(grid)
    assert {cell["id"]: cell["verdict"] for cell in report["cells"]} == {
        "autoregressive-grpo": "improved",
        "autoregressive-espo": "collapsed",
        "masked-grpo": "collapsed",
        "masked-espo": report["cells"][3]["verdict"],
    }
    assert report["cells"][3]["verdict"] in ("inconclusive", "equivalent")
    assert all(cell["is_provisional"] for cell in report["cells"])
    assert len(twin(quick)["cells"]) == 16
    assert {cell["verdict"] for cell in twin(quick)["cells"]} == {"single_seed"}


def test_the_headline_says_what_came_out(grid, quick):
    (cell,) = [cell for cell in twin(grid)["cells"] if cell["verdict"] == "improved"]
    change = f"autoregressive-grpo {cell['effect']:+.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"
    assert f"1 improved ({change})" in twin(grid)["headline"]
    assert "points of success" in twin(grid)["headline"]
    assert "2 collapsed" in twin(grid)["headline"]
    assert "provisional" in twin(grid)["headline"]
    assert "One seed: intervals are over tasks alone" in twin(quick)["headline"]


def test_the_headline_gives_each_policy_s_average_with_its_interval(quick):
    report = twin(quick)
    policies = [item for item in report["contrasts"] if item["kind"] == "policy"]
    assert len(policies) == 4
    for item in policies:
        assert f"{item['name']} {item['effect']:+.1f} [{item['low']:+.1f}, {item['high']:+.1f}]" in report["headline"]
    largest = max(policies, key=lambda item: item["effect"])
    assert f"averaged over 4 objectives, 1 seed: {largest['name']}" in report["headline"]


def test_averages_of_a_grid_that_is_not_finished_are_no_finding(grid, tmp_path):
    """Once the first seed is through, every cell has a result of one seed, and none has its verdict."""
    folder = tmp_path / "first"
    shutil.copytree(grid, folder)
    cells = [path.name.removesuffix("-abc") for path in (folder / "cells").iterdir()]
    leave_out(folder, *(f"{cell}/seed{seed}" for cell in cells for seed in (1, 2)))
    write_report(folder)
    report = twin(folder)
    policies = [item for item in report["contrasts"] if item["kind"] == "policy"]
    assert {item["num_seeds"] for item in policies} == {1}
    assert "Change of success" not in report["headline"] and "not finished" in report["headline"]
    assert [average_of(item["name"], report) for item in policies] == ["", ""]
    assert "over 1 of 3 seeds so far" in (folder / "report.html").read_text()


def test_averages_say_which_part_of_the_seeds_they_are_over(grid, tmp_path):
    """A seed that failed in one cell is in the average of none."""
    assert "averaged over 2 objectives, 3 seeds: autoregressive" in twin(grid)["headline"]
    folder = tmp_path / "failed"
    shutil.copytree(grid, folder)
    leave_out(folder, "masked-espo/seed1")
    write_status(folder / "cells" / "masked-espo-abc" / "seed1", Status(state="failed", cause="the page burned"))
    report = build_report(folder)
    assert report["is_complete"]
    assert "averaged over 2 objectives, 2 of 3 seeds: autoregressive" in report["headline"]
    assert average_of("masked", report).endswith("], 2 of 3 seeds")


def test_a_reward_is_compared_with_the_warm_start_s_only_where_it_is_the_same(grid, tmp_path):
    """The warm start of a policy is evaluated with the reward of the policy's first cell."""
    folder = tmp_path / "rewards"
    shutil.copytree(grid, folder)
    config = json.loads((folder / "config.json").read_text())
    levels = {"grpo": {"name": "grpo"}, "espo": {"name": "espo", "reward": {"name": "success_words", "options": {}}}}
    config["settings"] |= {"objectives": levels, "reward": {"name": "outcome", "options": {}}}
    write_json(folder / "config.json", config)
    write_report(folder)
    before, after = (twin(place)["cells"] for place in (grid, folder))
    for old, new in zip(before, after, strict=True):
        is_same = new["objective"] == "grpo"
        assert new["is_reward_comparable"] == is_same and old["is_reward_comparable"]
        assert (new["reward_effect"], new["reward_low"]) == (
            (old["reward_effect"], old["reward_low"]) if is_same else (None, None)
        )
        assert new["effect"] == old["effect"]
    pages = [(place / "report.html").read_text() for place in (grid, folder)]
    assert [page.count(">another reward<") for page in pages] == [0, 2]
    curves = [page.split('<figure id="curve-reward">')[1].split("</figure>")[0] for page in pages]
    assert curves[0].count('class="reference"') - curves[1].count('class="reference"') == 2


def test_a_seed_that_still_trains_is_not_diagnosed_as_over(part, tmp_path):
    folder = tmp_path / "training"
    shutil.copytree(part, folder)
    place = folder / "cells" / "masked-espo-abc" / "seed1"
    place.mkdir()
    append_rows(place / "metrics.jsonl", [*metrics_of("healthy", 20), {"step": 20, "grad_norm": None}])

    def kinds() -> list[str]:
        report = build_report(folder)
        (run,) = find_runs(place)
        return [report["cells"][3]["seeds"][1]["diagnosis"]["kind"], diagnose(run.metrics, is_over=run.is_over).kind]

    write_status(place, Status(state="owed", cause="interrupted"))
    assert kinds() == ["healthy", "healthy"]
    write_status(place, Status(state="failed"))
    assert kinds() == ["numerical", "numerical"]
    write_status(place, Status(state="owed", evaluations={"another": "hash"}))
    assert kinds() == ["numerical", "numerical"]


def test_many_changed_cells_are_counted_and_not_listed():
    cell = {"role": "cell", "verdict": "improved", "effect": 9.0, "low": 4.0, "high": 14.0, "is_provisional": False}
    few, many = ([{**cell, "id": f"ar-{number}"} for number in range(count)] for count in (4, 5))
    assert "4 improved (ar-0 +9 [4, 14]; ar-1" in headline(few, [], [], num_seeds=5, is_complete=True)
    assert headline(many, [], [], num_seeds=5, is_complete=True) == "Of 5 cells: 5 improved."


def test_a_notebook_shows_the_verdicts_and_print_writes_them_as_markdown(grid):
    table = verdicts(grid)
    assert table._repr_html_().count("<tr>") == 1 + len(all_cells(twin(grid)))
    assert "collapsed (provisional)" in table._repr_html_()
    assert str(table) == (grid / "report_tables.md").read_text()


def test_a_long_name_of_an_objective_may_break_above_the_verdicts(quick):
    (head,) = re.findall(r'<table class="matrix">.*?</thead>', (quick / "report.html").read_text(), re.DOTALL)
    assert ">cj_<wbr>grpo</th>" in head


def test_every_region_has_a_name_of_its_own_and_every_column_a_title(grid):
    page = (grid / "report.html").read_text()
    names = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert len(names) > 5 and len(names) == len(set(names))
    assert "<th></th>" not in page


def test_controls_state(grid):
    states = {item["role"]: item["state"] for item in twin(grid)["controls"]}
    assert states == {"positive": "absent", "null": "ok", "negative": "ok"}


def test_a_positive_control_that_fails_stands_before_anything_else():
    cell = {"id": "ar-grpo", "role": "cell", "verdict": "inconclusive", "num_seeds": 3, "reason": "+1 point"}
    cell |= {"effect": 1.0, "low": -2.0, "high": 4.0, "detectable": 3.0, "is_provisional": True}
    state, sentence = positive_control(cell)
    control = {"state": state, "sentence": sentence}
    told = headline([cell], [control], [], num_seeds=3, is_complete=True)
    assert told.startswith("Positive control (ar-grpo) did not improve")
    assert "The largest change is ar-grpo +1 [-2, 4] points of success." in told
    assert positive_control(cell | {"num_seeds": 1, "verdict": "single_seed"})[0] == "not judged"


def test_the_negative_control_is_ok_only_where_every_seed_has_run():
    def seed(state: str, *, has_alarm: bool = True) -> dict:
        alarms = [{"detector": "off_policy_at_start"}] if has_alarm else []
        return {"state": state, "diagnosis": {"num_steps": 0 if state == "owed" else 9, "alarms": alarms}}

    def judged(*seeds: dict) -> tuple[str, str]:
        return negative_control({"id": "negative", "seeds": seeds})

    assert judged(seed("done"), seed("stopped"))[0] == "ok"
    state, sentence = judged(seed("done"), *[seed("owed")] * 4)
    assert (state, sentence.split(") ")[1]) == ("not judged", "is not judged: tripped in 1 of 1 seeds, 4 owed.")
    assert judged(seed("done"), seed("failed"), seed("owed"))[1].endswith("tripped in 2 of 2 seeds, 1 failed, 1 owed.")
    state, sentence = judged(seed("done", has_alarm=False), seed("owed"))
    assert state == "violated" and "tripped the alarm in 0 of 1 seeds" in sentence


def test_a_null_control_that_moves_is_told():
    cell = {"id": "null", "verdict": "improved", "effect": 9.0, "low": 4.0, "high": 14.0, "reason": ""}
    assert null_control(cell)[0] == "violated"
    for verdict in ("single_seed", "equivalent", "inconclusive"):
        state, sentence = null_control(cell | {"verdict": verdict, "effect": -3.1})
        assert (state, "-3.1 points" in sentence) == ("noted", True)
    # Rollouts that differ and cancel out are no reproduction.
    assert null_control(cell | {"verdict": "equivalent", "effect": 0.0, "low": -1.0, "high": 1.0})[0] == "noted"
    assert null_control(cell | {"verdict": "equivalent", "effect": 0.0, "low": 0.0, "high": 0.0})[0] == "ok"


def test_numbers_agree_between_twin_and_table(grid):
    report = twin(grid)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(verdict_table(report))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for cell in report["cells"]:
        assert f"{cell['effect']:+.1f}" in text
    assert "Provisional" in text


def test_a_second_report_of_the_same_run_is_the_same(grid):
    before = (grid / "report.json").read_bytes(), (grid / "report.html").read_bytes()
    write_report(grid)
    assert ((grid / "report.json").read_bytes(), (grid / "report.html").read_bytes()) == before


def test_tables_for_papers(grid):
    markdown, latex = (grid / "report_tables.md").read_text(), (grid / "report_tables.tex").read_text()
    assert markdown.count("\n| ") == 1 + 4 + 2
    assert r"espo\_unshared" in latex
    assert latex.count(r"\\") == 1 + 4 + 2


def test_a_grid_that_still_runs_has_a_report(grid, tmp_path):
    folder = tmp_path / "running"
    shutil.copytree(grid, folder)
    (folder / "results.parquet").unlink()
    shutil.rmtree(folder / "cells")
    report = build_report(folder)
    assert not report["is_complete"]
    assert {(cell["verdict"], word_of(cell)) for cell in report["cells"]} == {("owed", "not run yet")}
    assert report["headline"] == "This grid is not finished: none of 4 cells has its verdict yet (4 not run yet)."
    write_report(folder)
    assert "This grid is not finished" in (folder / "report.html").read_text()


def test_cells_that_have_not_run_are_owed_and_the_others_have_their_verdict(part):
    report = twin(part)
    words = {cell["id"]: word_of(cell) for cell in all_cells(report)}
    assert {name: word for name, word in words.items() if name.startswith("masked")} == {
        "masked-grpo": "collapsed",
        "masked-espo": "1 of 3 seeds",
    }
    assert words["autoregressive-espo"] == words["negative-masked-espo_unshared"] == "not run yet"
    first = report["cells"][0]
    change = f"{first['effect']:+.0f} [{first['low']:.0f}, {first['high']:.0f}]"
    assert report["headline"] == (
        "This grid is not finished: 2 of 4 cells have their verdict, 2 still owed (1 begun, 1 not run yet). "
        f"Of the 2: 1 improved (autoregressive-grpo {change}), 1 collapsed (masked-grpo). "
        "Changes are points of success. Verdicts are provisional: under five seeds."
    )
    assert {item["role"]: item["state"] for item in report["controls"]}["negative"] == "not judged"
    page = (part / "report.html").read_text()
    assert "failed" not in page.split("<main>")[1].split("All verdicts, and why")[0]
    assert "Not run yet: autoregressive-espo, negative-masked-espo_unshared." in page


def test_an_unfinished_cell_gets_no_verdict_and_makes_nothing_significant(grid, part):
    finished, open_cells = twin(grid)["cells"], {cell["id"]: cell for cell in twin(part)["cells"]}
    assert open_cells["masked-espo"]["p_adjusted"] is None and open_cells["masked-espo"]["effect"] is not None
    for cell in finished:
        mine = open_cells[cell["id"]]
        if mine["verdict"] != "owed":
            assert (mine["effect"], mine["verdict"]) == (cell["effect"], cell["verdict"])
            assert mine["p_adjusted"] >= cell["p_adjusted"]


def test_the_effect_of_an_unfinished_cell_is_in_no_table(part):
    report = twin(part)
    cell = next(cell for cell in report["cells"] if cell["id"] == "masked-espo")
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(verdict_table(report | {"cells": [cell], "controls": []}))
    assert "1 of 3 seeds" in (text := console.export_text())
    assert f"{cell['effect']:+.1f}" not in text and f"{cell['high']:+.1f}" not in text
    for name in ("report_tables.md", "report_tables.tex"):
        (line,) = [line for line in (part / name).read_text().splitlines() if "1 of 3 seeds" in line]
        assert f"{cell['effect']:+.1f} [" not in line


def test_an_unfinished_cell_has_its_seeds_in_the_forest_and_no_interval(part):
    page = (part / "report.html").read_text().split('<section id="effects">')[1].split("</section>")[0]
    rows = {row.split("</title>")[0].split("<title>")[1].split(":")[0]: row for row in page.split("<svg")[1:]}
    assert 'class="interval"' in rows["masked-grpo"] and 'class="point"' in rows["masked-grpo"]
    row = rows["masked-espo"]
    assert "masked-espo: not finished" in row and row.count('class="tick"') == 1
    assert not any(f'class="{part}"' in row for part in ("interval", "bootstrap", "point"))


def test_the_time_of_a_seed_that_still_trains_is_part_of_the_total(part, tmp_path):
    folder = tmp_path / "training"
    shutil.copytree(part, folder)
    place = folder / "cells" / "masked-espo-abc" / "seed1"
    place.mkdir()
    append_rows(place / "metrics.jsonl", metrics_of("healthy", 10))
    before, after = build_report(part)["timing"], build_report(folder)["timing"]
    assert after["total"] - before["total"] == pytest.approx(10 * (1.1 + 2.4 + 1.6))
    assert after["evaluation"] == pytest.approx(before["evaluation"])


def test_a_cell_with_a_failed_seed_has_failed_even_if_others_are_owed(part, tmp_path):
    folder = tmp_path / "failed"
    shutil.copytree(part, folder)
    write_status(folder / "cells" / "masked-espo-abc" / "seed2", Status(state="failed", cause="the page burned"))
    cell = build_report(folder)["cells"][3]
    assert (cell["verdict"], cell["missing_seeds"]) == ("failed", [1, 2])


def test_a_cell_whose_warm_start_is_not_evaluated_is_owed(grid, tmp_path):
    folder = tmp_path / "cold"
    shutil.copytree(grid, folder)
    leave_out(folder, "warmstart/masked")
    report = build_report(folder)
    assert [cell["verdict"] for cell in report["cells"]] == ["improved", "collapsed", "owed", "owed"]
    assert word_of(report["cells"][2]) == "no warm start yet"
    write_status(folder / "warmstart" / "masked-abc", Status(state="failed", cause="burned"))
    assert [cell["verdict"] for cell in build_report(folder)["cells"]] == ["improved", "collapsed", "failed", "failed"]


def test_a_grid_whose_only_debt_is_a_warm_start_is_not_complete_and_says_so(grid, tmp_path):
    folder = tmp_path / "cold"
    shutil.copytree(grid, folder)
    leave_out(folder, "warmstart/masked", "warmstart/autoregressive")
    report = build_report(folder)
    assert not report["is_complete"]
    assert report["headline"].startswith("This grid is not finished: none of 4 cells has its verdict yet")


def test_units_of_other_versions_are_told_near_the_top_and_in_the_twin(grid, tmp_path):
    assert twin(grid)["mixed_versions"] is None
    folder = tmp_path / "mixed"
    shutil.copytree(grid, folder)
    places = sorted(path.parent for path in folder.rglob("status.json"))
    for number, place in enumerate(places):
        versions = {"torch": "2.9.1", "playwright": "1.50"} | ({"chromium": "140.0.1"} if number % 2 else {})
        write_json(place / "cell.json", {"digest": "abc", "versions": versions})
    assert build_report(folder)["mixed_versions"] is None
    other = folder / "cells" / "masked-grpo-abc" / "seed1"
    write_json(other / "cell.json", {"digest": "abc", "versions": {"torch": "2.8.0", "chromium": "141.0.2"}})
    write_report(folder)
    found = twin(folder)["mixed_versions"]
    assert [item["package"] for item in found["packages"]] == ["torch", "chromium"]
    assert [(item["version"], item["num_units"]) for item in found["packages"][0]["versions"]] == [
        ("2.9.1", len(places) - 1),
        ("2.8.0", 1),
    ]
    assert f"torch 2.9.1 in {len(places) - 1} units, 2.8.0 in 1 unit (masked-grpo seed 1)" in found["sentence"]
    page = (folder / "report.html").read_text()
    assert page.index("Mixed versions") < page.index('<ul class="facts">')
    assert "Mixed versions" not in (grid / "report.html").read_text()
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(verdict_table(twin(folder)))
    assert "made by different versions" in console.export_text()
    # One unit that was trained under two.
    trained_by = [{"torch": "2.7.0"}, {"torch": "2.9.1"}]
    record = {"digest": "abc", "versions": {"torch": "2.9.1"}, "trained_by": trained_by}
    write_json(other / "cell.json", record)
    assert "torch 2.9.1 in" in build_report(folder)["mixed_versions"]["sentence"]
    assert "2.7.0 in 1 unit (masked-grpo seed 1)" in build_report(folder)["mixed_versions"]["sentence"]
    # What has no result tells nothing yet.
    write_status(other, Status(state="running"))
    assert build_report(folder)["mixed_versions"] is None


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        write_report(tmp_path)


def test_commit_orders_are_shown_where_the_order_is_the_policys_own(grid):
    orders = {cell["id"]: cell["commit_order"] for cell in twin(grid)["cells"]}
    assert orders["autoregressive-grpo"] == []
    assert [record["step"] for record in orders["masked-grpo"]] == [0, 19, 39]
    for record in orders["masked-grpo"]:
        assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in record["shares"])
    page = (grid / "report.html").read_text()
    # Of masked-grpo, masked-espo and the negative control, three each.
    assert page.count('<svg class="heat"') == 3 * 3


def test_plans_along_the_way_are_shown_and_their_films_exist(grid):
    page = (grid / "report.html").read_text()
    for cell in twin(grid)["cells"]:
        shown = cell["waypoints"]["tasks"]
        assert [task["task"] for task in shown] == ["val-0000", "val-0001", "val-0002"]
        assert all(plan["step"] in (0, 20, 40) for task in shown for plan in task["plans"])
        for task in shown:
            for plan in task["plans"]:
                assert (grid / plan["film"]).is_file()
                assert f'href="{plan["film"]}"' in page


def test_success_and_near_misses_have_their_ceiling_and_conversion_a_chart_of_its_own(grid):
    page = (grid / "report.html").read_text()
    figures = {part.split('"')[0]: part.split("</figure>")[0] for part in page.split('<figure id="curve-')[1:]}
    drawn = {name: figure.count('<polyline class="ceiling"') for name, figure in figures.items()}
    assert drawn["success"] == drawn["near_miss"] == len(all_cells(twin(grid)))
    assert drawn["conversion"] == drawn["reward"] == 0
    assert "right" not in figures


def test_cells_that_do_not_convert_are_told_why(grid, tmp_path):
    states = {cell["id"]: cell["conversion"] for cell in twin(grid)["cells"]}
    lost = states["masked-grpo"]
    assert lost["state"] == "falls short" and lost["reason"].startswith("Off-policy blow-up")
    section = (grid / "report.html").read_text().split('id="conversion"')[1].split("</table>")[0]
    assert lost["reason"].split(":")[0] in section
    # Runs of a toolkit that did not measure it have no reason, and no table.
    folder = tmp_path / "old"
    shutil.copytree(grid, folder)
    for path in folder.rglob("metrics.jsonl"):
        rows = [{name: value for name, value in row.items() if "right" not in name} for row in read_rows(path)]
        path.unlink()
        append_rows(path, rows)
    write_report(folder)
    assert "What keeps cells" not in (folder / "report.html").read_text()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280, 2560])
def test_the_page_in_chromium(grid, quick, part, width):
    """No console error, no request, every figure drawn, nothing wider than the screen, keyboard reaches sections."""
    asyncio.run(_look([grid, quick, part], width))


_UNREACHABLE = """() => [...document.querySelectorAll("main *")].filter(one =>
  one.scrollWidth > one.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(one).overflowX) &&
  one.tabIndex < 0 && !one.querySelector("a, summary, button")).map(one => one.outerHTML.slice(0, 80))"""

# Texts whose contrast with their background is under 4.5 to 1 (WCAG 2.2, 1.4.3).
_PALE = """() => {
  const channels = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = one => {
    for (; one; one = one.parentElement) {
      const color = channels(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("h2, h3, p, td, th, .chip, .verdict, .effect, .soft, .good, .bad, a")]
    .filter(one => one.checkVisibility() && one.textContent.trim())
    .map(one => {
      const [a, b] = [light(channels(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
      return [(a + .05) / (b + .05), one.className + ": " + one.textContent.trim().slice(0, 40)];
    }).filter(([ratio]) => ratio < 4.5).slice(0, 5);
}"""


async def _look(folders, width):
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        for folder in folders:
            page = await browser.new_page(viewport={"width": width, "height": 900})
            messages, requests = [], []
            page.on("console", lambda message, seen=messages: seen.append(message.text))
            page.on("pageerror", lambda error, seen=messages: seen.append(str(error)))
            page.on("request", lambda request, seen=requests: seen.append(request.url))
            await page.goto((folder / "report.html").as_uri())
            assert messages == []
            assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
            sizes = await page.eval_on_selector_all(
                "svg", "all => all.map(one => one.getBoundingClientRect().toJSON())"
            )
            assert len(sizes) > 20
            assert all(size["width"] > 40 and size["height"] >= 15 for size in sizes)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.getAttribute('href')") == "#verdicts"
            # Whatever scrolls sideways can be reached, and so be scrolled, by keyboard.
            assert await page.evaluate(_UNREACHABLE) == []
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                assert await page.evaluate(_PALE) == [], scheme
            await page.close()
        await browser.close()


def test_episodes_are_told_by_length_and_by_ending(quick, tmp_path):
    """Before: two of four succeed, in 2 and 4 turns; after: three of four, in 1 turn each. A lost one has no length."""
    folder = tmp_path / "episodes"
    shutil.copytree(quick, folder)
    table = pq.read_table(folder / "results.parquet")
    cell, start = "masked-grpo", "warmstart:masked"
    kept = [row for row in table.to_pylist() if row["mode"] == "sampled" and row["cell"] in (cell, start)]
    parts = {name: [row for row in kept if row["cell"] == name][:5] for name in (cell, start)}
    told = {
        start: [(2, True, "finished"), (4, True, "done"), (8, False, "turns"), (6, False, "left")],
        cell: [(1, True, "finished")] * 3 + [(8, False, "turns")],
    }
    for name, rows in parts.items():
        for row, (num_turns, success, ending) in zip(rows, [*told[name], (3, False, "lost")], strict=True):
            fault = "environment" if ending == "lost" else "none"
            row |= {"num_turns": num_turns, "success": success, "ending": ending, "fault": fault}
    for path in folder.rglob("evaluation-*.parquet"):
        path.unlink()
    rows = pa.Table.from_pylist([row for rows in parts.values() for row in rows], schema=table.schema)
    pq.write_table(rows, folder / "results.parquet")
    (found,) = [item["episodes"] for item in build_report(folder)["cells"] if item["id"] == cell]
    before, after = found["before"], found["after"]
    assert (before["turns_success"], before["turns_failure"], before["turns_a_success"]) == (3.0, 7.0, 10.0)
    assert (after["turns_success"], after["turns_failure"]) == (1.0, 8.0)
    assert after["turns_a_success"] == pytest.approx(11 / 3, abs=1e-4)
    assert before["endings"]["finished"] == 0.2 and before["endings"]["lost"] == 0.2
    assert sum(before["endings"].values()) == pytest.approx(1)
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert '<section id="episodes">' in page and "10 → 3.67" in page
    assert '<section id="episodes">' not in (quick / "report.html").read_text()
    assert {item["episodes"] for item in twin(quick)["cells"]} == {None}
