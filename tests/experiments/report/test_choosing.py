"""Filter, order and explanations of the page in real Chromium without a script, and the picture for slides."""

from __future__ import annotations

import asyncio
import json
import re
import struct

import pytest
from playwright.async_api import async_playwright

from dllm_rl.errors import ConfigError
from experiments.report import build_report, write_poster, write_report
from experiments.report.tables import all_cells
from harness.browser.chromium import launch
from tests.experiments.cli.test_cli import said
from tests.experiments.synthetic import leave_out, write_run


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "grid16",
        seeds=(0, 1),
        num_steps=20,
        num_tasks=12,
        kinds={"masked-grpo": "off_policy"},
        effects={"autoregressive-grpo": 20.0, "masked-espo": 40.0, "autoregressive-espo": -30.0},
        policies=("autoregressive", "masked"),
        objectives=("grpo", "espo"),
    )
    write_report(folder)
    return folder


def test_every_figure_links_to_what_it_means_and_back(grid) -> None:
    page = (grid / "report.html").read_text()
    assert "<script" not in page
    linked = re.findall(r'<h[23][^>]*>[^<]+<a class="meaning" href="#means-([\w-]+)"', page)
    defined = re.findall(r'<dt id="means-([\w-]+)"><a href="#([\w-]+)">', page)
    assert len(linked) > 12 and [(name, name) for name in linked] == defined
    assert all(page.count(f'id="{name}"') == 1 for name in linked)
    figures = re.findall(r"<figure[^>]*>\s*<h3>(.*?)</h3>", page)
    assert figures and all('class="meaning"' in title for title in figures)


@pytest.mark.browser
def test_the_page_shows_what_is_chosen_and_orders_its_verdicts(grid) -> None:
    asyncio.run(_choose((grid / "report.html").as_uri(), json.loads((grid / "report.json").read_text())))


_SHOWN = """kind => [...document.querySelectorAll(kind)].filter(one => one.checkVisibility())"""
_CELLS = f"""() => ({_SHOWN})(".ranked tbody tr")
  .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
  .map(row => row.cells[0].textContent.trim().split(" ")[0])"""


async def _choose(address: str, report: dict) -> None:
    effects = {cell["id"]: cell["effect"] for cell in all_cells(report)}

    async with async_playwright() as playwright:
        browser = await launch(playwright)
        page = await browser.new_page(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
        await page.goto(address)

        async def number(kind: str) -> int:
            return await page.evaluate(f"kind => ({_SHOWN})(kind).length", kind)

        assert await page.evaluate(_CELLS) == list(effects)
        await page.click("label:has(#by-change)")
        assert await page.evaluate(_CELLS) == sorted(effects, key=lambda name: -effects[name])
        everything = {kind: await number(kind) for kind in (".plot", ".forest-row", ".matrix td", "#faults tbody tr")}
        # From the keyboard: to the group's first choice, and on to the second policy.
        await page.focus("input[name=policy]")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        assert {name.split("-")[-2] for name in await page.evaluate(_CELLS)} == {"masked"}
        await page.click("label:has(#objective-1)")
        assert await page.evaluate(_CELLS) == ["masked-espo"]
        assert await number(".matrix td") == 1 and await number(".forest-row:not(.head)") == 1
        assert await number("#faults tbody tr") == 1
        assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
        await page.click("button[type=reset]")
        assert {kind: await number(kind) for kind in everything} == everything
        await browser.close()


def test_a_poster_is_a_slide_that_names_every_cell(grid, tmp_path, monkeypatch, capsys) -> None:
    code, shown, errors = said(("poster", str(grid), "--out", str(tmp_path / "new" / "slide.png")), monkeypatch, capsys)
    assert code == 0, errors
    assert "slide.png" in shown
    picture = (tmp_path / "new" / "slide.png").read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (1920, 1080)

    leave_out(grid, "masked-grpo")
    report = build_report(grid)
    write_poster(report, tmp_path / "slide.svg")
    # Texts are drawn as paths, each behind a comment with its words.
    drawn = re.findall(r"<!-- (.*?) -->", (tmp_path / "slide.svg").read_text())
    for cell in report["cells"]:
        assert cell["policy"] in drawn and cell["objective"] in drawn
        told = [words for words in drawn if cell["verdict"] == "owed" or words.startswith(f"{cell['effect']:+.1f} ")]
        assert told, cell["id"]
    assert any("not run yet" in words for words in drawn)
    with pytest.raises(ConfigError, match=r"slide.jpg: expected a name that ends in .png, .svg, .pdf"):
        write_poster(report, tmp_path / "slide.jpg")
