"""The comparison of exploring rules: what its text judge calls right, and what its table says of known draws."""

from __future__ import annotations

from benchmarks.exploration import ARMS, TextWorld, _slipped, table
from dllm_rl import registry
from harness.sites import gold_plan


def test_the_text_judge_tells_right_fields_from_a_finish():
    world = TextWorld(3)
    for number, (task, page) in enumerate(zip(world.tasks, world.pages, strict=True)):
        gold = gold_plan(task, page)
        body, _, finish = gold.rpartition("\n")
        wrong = "\n".join([*body.splitlines()[1:], finish])
        plans = [gold, _slipped(gold, True), body, wrong, f"{finish}\n{body}"]
        verdicts = world.judge([number] * len(plans), plans)
        assert [(item.is_right, item.is_success) for item in verdicts] == [
            (True, True),
            (True, False),
            (True, False),
            (False, False),
            (False, False),
        ]


def test_the_table_tells_a_finish_that_the_draw_decides_from_one_that_the_task_decides():
    """Four groups of four right plans, half of them finished: two of each group, or two whole groups."""
    rest = {"group": [number for number in range(4) for _ in range(4)], "right": [True] * 16, "forwards": [8] * 16}
    drawn = {**rest, "success": [True, False] * 8, "seconds": 1.6}
    given = {**rest, "success": [True] * 8 + [False] * 8, "seconds": 1.6}
    lines = table({"draw": drawn, "task": given}, ["draw", "task"]).splitlines()
    names, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    draw, task = (dict(zip(names, row, strict=True)) for row in cells)
    assert draw["conversion"] == task["conversion"] == "0.50"
    assert (draw["mixed right groups"], draw["live groups"], draw["within-group share"]) == ("1.00", "1.00", "1.25")
    assert (task["mixed right groups"], task["live groups"], task["within-group share"]) == ("0.00", "0.00", "0.00")
    assert draw["forwards a plan"] == "8.0" and draw["ms a plan"] == "100"


def test_every_arm_is_a_sampler_of_its_family():
    for family, arms in ARMS.items():
        for name, options in arms.values():
            sampler = registry.get("sampler", name)
            assert family in sampler.families
            sampler(**options)
