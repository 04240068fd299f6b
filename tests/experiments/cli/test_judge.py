"""`dllm-rl judge`, from recorded rollouts of a toy to a corrected success rate; a user's mistakes are one message."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence_file import read_evidence
from dllm_rl.reward import Score
from dllm_rl.session import Session
from experiments.cli.judge import audit, collect, damage, embedder, score, train
from experiments.run.evidence import evidence_of, recorded_plans
from experiments.run.results import write_rows
from harness.rewards.success_words import SuccessWords


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rollouts of two cells in a toy: right, wrong, and not submitted."""
    folder = tmp_path_factory.mktemp("run")
    with Session(registry.build("environment", "toy_copy")) as session:
        tasks = session.tasks("train")[:40]
        for cell in ("a", "b"):
            place = folder / "cells" / cell / "seed0"
            place.mkdir(parents=True)
            rows = []
            for task in tasks:
                gold = session.gold_plan(task)
                value = task.gold[0].wanted[0]
                rows += [gold, gold.replace(value, "Zoe"), "\n".join(gold.split("\n")[:-1])]
            lines = [json.dumps({"task_id": tasks[n // 3].id, "plan": plan}) for n, plan in enumerate(rows)]
            (place / "rollouts.jsonl").write_text("\n".join([*lines, '{"torn']))
    return folder


@pytest.fixture(scope="module")
def evidence(recorded: Path) -> Path:
    out = recorded / "evidence.jsonl"
    collect(recorded, out, count=100, environment="toy_copy", seed=0)
    return out


def test_from_a_run_to_a_judge_that_is_trusted_so_far(recorded: Path, evidence: Path, capsys) -> None:
    judge = recorded / "judge.json"
    train([evidence], judge, labels=80, seed=0)
    audit(str(judge), [evidence], judged=[evidence], as_json=True)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    truth = sum(json.loads(line)["success"] for line in evidence.read_text().splitlines()) / 100
    assert found["audit"]["sensitivity"] > 0.9 and found["audit"]["specificity"] > 0.9 and found["faults"] == 0
    assert found["corrected"]["low"] <= truth <= found["corrected"]["high"]
    audit("success_words", [evidence], judged=None, as_json=False)
    shown = capsys.readouterr().out
    assert re.search(r"100\.0 % \(95 % bound 100 %\) +of \d+ +wrong value", shown) and re.search(
        r" 0\.0 % \(95 % bound \d+ %\) +of \d+ +not submitted", shown
    )
    score(str(judge), [evidence], as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 100


def test_an_embedder_is_trained_and_audited(recorded: Path, evidence: Path, capsys) -> None:
    towers = recorded / "embedder.safetensors"
    embedder(towers, environment="toy_copy")
    assert "pairs" in capsys.readouterr().out
    audit(f"{{name: embedder, options: {{file: '{towers}'}}}}", [evidence], judged=None, as_json=True)
    found = json.loads(capsys.readouterr().out)["audit"]
    wrong, unsent = (
        {item["name"]: item for item in found["classes"]}[name] for name in ("wrong value", "not submitted")
    )
    assert wrong["auroc"] > 0.9 and abs(unsent["auroc"] - 0.5) < 0.2, "it does not see whether a form was sent"


def test_mistakes_are_told(evidence: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no judge at"):
        score("none.json", [evidence], as_json=False)
    with pytest.raises(ConfigError, match=r"no file 'none\.yaml'"):
        score("none.yaml", [evidence], as_json=False)
    options = f"url: 'http://127.0.0.1:9/v1', model: m, answers: '{tmp_path}/a.sqlite'"
    with pytest.raises(ConfigError, match="no claim for any of 100 episodes"):
        audit(f"{{name: endpoint_judge, options: {{{options}}}}}", [evidence], judged=None, as_json=False)
    with pytest.raises(ConfigError, match="reads the truth, so it is not a judge"):
        audit("outcome", [evidence], judged=None, as_json=False)
    with pytest.raises(ConfigError, match="500 labels were asked for; 100 are there"):
        train([evidence], tmp_path / "j.json", labels=500, seed=0)
    with pytest.raises(ConfigError, match="dllm-rl judge collect"):
        score("success_words", [tmp_path / "none.jsonl"], as_json=False)
    with pytest.raises(ConfigError, match=r"no rollouts\.jsonl under"):
        collect(tmp_path, tmp_path / "e.jsonl", count=10, environment="toy_copy", seed=0)


def test_a_file_of_something_else_is_named(evidence: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "mine.yaml").write_text("reward: {name: success_words\nmore: [")
    (tmp_path / "odd.yaml").write_bytes(b"reward: \xff")
    with pytest.raises(ConfigError, match=r"picture\.png' cannot be read as text in UTF-8"):
        score("success_words", [tmp_path / "picture.png"], as_json=False)
    with pytest.raises(ConfigError, match=r"mine\.yaml': not YAML, line 2: "):
        score(str(tmp_path / "mine.yaml"), [evidence], as_json=False)
    with pytest.raises(ConfigError, match=r"odd\.yaml' cannot be read as text in UTF-8"):
        score(str(tmp_path / "odd.yaml"), [evidence], as_json=False)


def test_a_line_of_evidence_may_hold_what_else_ends_a_line(evidence: Path, tmp_path: Path) -> None:
    first = json.loads(evidence.read_text().split("\n")[0])
    first["evidence"]["instruction"] = "one\u2028two\x85three"
    (tmp_path / "own.jsonl").write_text(json.dumps(first, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_evidence([tmp_path / "own.jsonl"])[0].evidence.instruction == "one\u2028two\x85three"


def test_judged_episodes_without_an_answer_are_counted(evidence: Path, monkeypatch, capsys) -> None:
    class Moody(SuccessWords):
        """Answers for what it audits, and for all but five of what it judges."""

        num_asked = 0

        def score(self, episodes):
            Moody.num_asked += 1
            silent = 5 if Moody.num_asked % 2 == 0 else 0
            found = super().score(episodes)
            return [Score(fault="no answer")] * silent + found[silent:]

    monkeypatch.setattr("experiments.cli.judge._judge", lambda given: Moody())
    audit("moody", [evidence], judged=[evidence], as_json=False)
    assert "of 100 episodes; 5 without an answer are left out of both" in capsys.readouterr().out
    audit("moody", [evidence], judged=[evidence], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["faults"], found["corrected"]["faults"]) == (0, 5)


def test_a_table_of_eval_is_a_source_of_plans(recorded: Path, tmp_path: Path) -> None:
    lines = (recorded / "cells" / "a" / "seed0" / "rollouts.jsonl").read_text().splitlines()[:6]
    write_rows(tmp_path / "rows.parquet", map(json.loads, lines), cell="builtin:masked")
    collect(tmp_path / "rows.parquet", tmp_path / "e.jsonl", count=10, environment="toy_copy", seed=0)
    found = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(found) == 6 and {item["source"] for item in found} == {"builtin:masked"}


def test_cells_and_seeds_of_a_table_are_drawn_alike(tmp_path: Path) -> None:
    cells = [("a", 0)] * 40 + [("a", 1)] * 4 + [("b", 0)] * 4
    rows = [
        {"task_id": f"val/{number}", "plan": f"plan {number}", "cell": cell, "seed": seed}
        for number, (cell, seed) in enumerate(cells)
    ]
    write_rows(tmp_path / "rows.parquet", rows)
    found = recorded_plans(tmp_path / "rows.parquet", 9)
    assert [sum(item.plan == f"plan {number}" for item in found) for number in range(40, 48)].count(1) == 6
    assert [item.source for item in found].count("b") == 3


def test_what_holds_no_plan_is_refused_and_replaces_nothing(recorded: Path, tmp_path: Path) -> None:
    out, begun = tmp_path / "e.jsonl", tmp_path / "run" / "cells" / "a" / "seed0"
    out.write_text("what was collected before")
    begun.mkdir(parents=True)
    (begun / "rollouts.jsonl").write_text("")
    (tmp_path / "notes.txt").write_text("some words\nand more\n")
    (tmp_path / "other.parquet").write_bytes(b"not a table")
    pq.write_table(pa.table({"task_id": ["a"], "plan": ["b"]}), tmp_path / "short.parquet")
    write_rows(tmp_path / "none.parquet", [])
    for name, says in {
        "run": "holds no plan: a file without a row that has task_id and plan",
        "notes.txt": "holds no plan",
        "none.parquet": "holds no plan",
        "other.parquet": "is not a table in Parquet",
        "short.parquet": "has no column cell, seed",
    }.items():
        with pytest.raises(ConfigError, match=says):
            collect(tmp_path / name, out, count=10, environment="toy_copy", seed=0)
    assert out.read_text() == "what was collected before"


def test_plans_that_give_no_evidence_are_counted(recorded: Path, caplog: pytest.LogCaptureFixture) -> None:
    plans = recorded_plans(recorded, 3)
    strange = [replace(plans[0], task_id="train/none"), replace(plans[0], task_id="nowhere/none")]
    with Session(registry.build("environment", "toy_copy")) as session:
        counted: list[tuple[int, int]] = []
        assert len(evidence_of(session, [*plans, *strange], on_result=lambda *at: counted.append(at))) == 3
        assert counted == [(3, 3)]
        assert "2 of 5 plans give no evidence: 2 of tasks that the environment does not have" in caplog.text
        with pytest.raises(ConfigError, match=r"2 of 2 plans give no evidence: .* --environment"):
            evidence_of(session, strange)


def test_a_judge_may_be_a_file_of_yaml(evidence: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text(
        'reward: {name: success_words, options: {success: "never", failure: "never"}}\n'
    )
    audit(str(tmp_path / "mine.yaml"), [evidence], judged=None, as_json=True)
    assert json.loads(capsys.readouterr().out)["audit"]["sensitivity"] == 0.0
    (tmp_path / "wrong.yaml").write_text("rewrad: success_words\n")
    with pytest.raises(ConfigError, match="Did you mean 'reward'"):
        audit(str(tmp_path / "wrong.yaml"), [evidence], judged=None, as_json=True)


def test_damaged_plans_probe_a_judge_by_the_kind_of_error(tmp_path: Path, capsys) -> None:
    out = tmp_path / "damaged.jsonl"
    damage(out, split="val", count=5, environment="toy_copy", seed=0)
    audit("success_words", [out], judged=None, as_json=True)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["audit"]["classes"]
    by_name = {item["name"]: item for item in found}
    assert by_name["swapped values"]["false_positive_rate"] == 1.0 and by_name["swapped values"]["auroc"] == 0.5
    assert by_name["not submitted"]["false_positive_rate"] == 0.0 and by_name["not submitted"]["auroc"] == 1.0
