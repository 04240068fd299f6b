"""Films: frames that lead to the plan, in the terminal and on a page that works in a real browser without a network."""

from __future__ import annotations

import asyncio
import io

import pytest
import torch
from rich.console import Console

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion
from dllm_rl.records.trajectory import commit_order, confidence, frames, retakes, states, step_map
from dllm_rl.records.types import SampledRow
from dllm_rl.testing.policies import prompts_of
from experiments.report.film import MASK, print_film, record_film, render_film


def completions_of(policy, name, rows=(0, 1), **options):
    return registry.get("sampler", name)(**options).generate(policy, prompts_of(policy, rows), seed=1)


def film_of(policy, name, **options):
    prompts = prompts_of(policy, (0,))
    out = registry.get("sampler", name)(**options).generate(policy, prompts, seed=1)
    row = SampledRow(prompts=prompts, completions=out, row=0)
    completion = Completion(plan=policy.canvas.decode(out.ids[0]), sampled=row)
    return record_film(policy, completion, title="a task", instruction="Name: </script><b>", sampler=name)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("masked", "low_confidence"),
        ("masked", "remdm"),
        ("block", "threshold"),
        ("slot", "slots"),
        ("flow", "flow_exact"),
        ("autoregressive", "ar"),
    ],
)
def test_the_last_frame_is_the_plan(tiny_policies, family, name):
    policy = tiny_policies[family]
    film = film_of(policy, name)
    assert len({len(words) for words in film.words}) == 1
    assert MASK not in film.words[-1]
    assert len(film.words) >= film.nfe
    if family in ("masked", "block", "slot", "autoregressive"):
        assert set(film.words[0]) == {MASK}


def test_readings_of_a_trajectory(tiny_policies):
    policy = tiny_policies["masked"]
    out = completions_of(policy, "low_confidence", num_steps=9)
    shown = frames(out, policy.canvas.pad_id)
    order = commit_order(out, 0)
    steps = [int(out.trajectory.commit_step[0, column]) for column in order]
    assert steps == sorted(steps)
    assert torch.equal(states(out, torch.tensor([2, 3]))[1], shown[1, 3])
    assert torch.equal(step_map(out), out.trajectory.commit_step)
    assert (confidence(out) <= 1.0001).all()
    moved = completions_of(policy, "rcr", num_steps=6)
    assert retakes(moved).any()
    with pytest.raises(ConfigError, match="last=True"):
        step_map(moved)
    assert torch.equal(step_map(moved, last=True), moved.trajectory.commit_step)


def test_left_to_right_frames_grow_by_a_token(tiny_policies):
    policy = tiny_policies["autoregressive"]
    out = completions_of(policy, "ar")
    written = (frames(out, -1)[0] >= 0).sum(-1)
    assert written.tolist() == sorted(written.tolist()) and written[0] == 0
    with pytest.raises(ConfigError, match="left to right"):
        states(out, torch.tensor([0, 0]))


def test_the_terminal_shows_frames_and_the_plan(tiny_policies):
    stream = io.StringIO()
    film = film_of(tiny_policies["masked"], "low_confidence", grammar=True)
    print_film(film, Console(file=stream, width=100), num_frames=3)
    text = stream.getvalue()
    assert text.count("step ") == 3 and MASK in text and film.plan.split("\n")[0] in text and "\nparses" in text


@pytest.mark.browser
def test_the_page_moves_in_a_browser(tiny_policies, tmp_path):
    from playwright.async_api import async_playwright

    from harness.browser import chromium

    film = film_of(tiny_policies["masked"], "low_confidence", num_steps=6)
    path = tmp_path / "film.html"
    path.write_text(render_film(film), encoding="utf-8")

    async def look() -> tuple[list[str], int, int, str, str]:
        errors: list[str] = []
        async with async_playwright() as playwright:
            browser = await chromium.launch(playwright)
            page = await browser.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: errors.append(request.url) if request.url != path.as_uri() else None)
            await page.goto(path.as_uri())
            before = await page.locator(".cell.mask").count()
            await page.locator("#step").focus()
            await page.keyboard.press("End")
            after = await page.locator(".cell.mask").count()
            count = await page.inner_text("#count")
            await page.set_content(film._repr_html_())
            frame = page.frame_locator("iframe")
            await frame.locator("#step").press("End")
            in_notebook = await frame.locator("#count").inner_text()
            await browser.close()
        return errors, before, after, count, in_notebook

    errors, before, after, count, in_notebook = asyncio.run(look())
    assert errors == []
    assert before == 36 and after == 0
    assert count == in_notebook == f"step {len(film.words) - 1} of {len(film.words) - 1}"
