"""Judges: words on the page, one that is learned from labels, and one behind an endpoint, which may be silent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence, SeenTurn
from dllm_rl.records.evidence_file import labelled, read_evidence, write_evidence
from dllm_rl.records.rollout import rewarded
from dllm_rl.records.tasks import ActionResult
from dllm_rl.reward import scores
from dllm_rl.session import Session
from dllm_rl.testing import check_reward
from dllm_rl.testing.reward import ATTEMPTS, NOTHING, PAGE, SUCCESS, evidence_of
from experiments.analysis.judges import auroc
from experiments.run.evidence import RecordedPlan
from experiments.run.evidence import evidence_of as evidence_of_plans
from experiments.run.results import RolloutsLostError, refuse_lost
from harness.rewards.endpoint_judge import EndpointJudge, NoVerdictError, verdict_of
from harness.rewards.features import features
from harness.rewards.judge import Judge, _held_out, fit_judge, judge_path, read_judge, write_judge
from harness.rewards.success_words import SuccessWords


def spoilt_plans(num_tasks: int, split: str = "train") -> list:
    """Labelled evidence of gold plans of a toy, and of ones with a wrong value, swapped values, and no submission."""
    with Session(registry.build("environment", "toy_copy")) as session:
        tasks, plans = session.tasks(split)[:num_tasks], []
        for task in tasks:
            lines = session.gold_plan(task).split("\n")
            one, two = (item.wanted[0] for item in task.gold)
            swapped = [lines[0].replace(one, two), lines[1].replace(two, one), lines[2]]
            wrong = [lines[0].replace(one, "Zoe"), *lines[1:]]
            for variant in (lines, swapped, wrong, lines[:-1]):
                plans.append(RecordedPlan(task_id=task.id, plan="\n".join(variant), source="made"))
        return evidence_of_plans(session, plans)


def test_the_classes_of_errors_are_told_apart() -> None:
    assert [item.error for item in spoilt_plans(1)] == ["", "swapped values", "wrong value", "not submitted"]


def test_evidence_survives_the_disk_without_its_truth(tmp_path: Path) -> None:
    found = spoilt_plans(2)
    write_evidence(tmp_path / "e.jsonl", found)
    assert read_evidence([tmp_path / "e.jsonl"]) == found
    assert all(item.evidence.truth is None for item in found)
    (tmp_path / "bad.jsonl").write_text('{"no": 1}\n')
    with pytest.raises(ConfigError, match=r"bad\.jsonl, line 1, is not evidence"):
        read_evidence([tmp_path / "bad.jsonl"])


def test_success_words_believe_the_page_and_nothing_else() -> None:
    by_words = [score.claim for score in scores(SuccessWords(), list(map(evidence_of, ATTEMPTS)))]
    assert by_words == [float(item.outcome.is_submitted) for item in ATTEMPTS]
    with pytest.raises(ConfigError, match="not a regular expression"):
        SuccessWords(success="(")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ('select p1.e2 "submitted"', 'no option "submitted" in p1.e2; 2 options: "Rome", "Oslo"'),
        ('fill p1.e1 "a \\"submitted\\""', 'changed: p1.e1 shows "a \\"submitted", you wrote "a \\"submitted\\""'),
        ('upload p1.e1 "submitted"', 'no file "submitted"; 0 at hand: '),
    ],
)
def test_success_words_do_not_hear_the_policy(text: str, note: str) -> None:
    """The feedback quotes what was written; which is not the page speaking, and what failed says no success."""
    for status in ("failed", "ok"):
        action = ActionResult(line=1, text=text, status=status, note=note)
        episode = Evidence(instruction="x", turns=(SeenTurn(observation=PAGE, actions=(action,)),))
        assert [score.claim for score in scores(SuccessWords(), [episode])] == [0.0]
        assert features(episode)["accepted"] == 0.0
    refused = ActionResult(line=1, text="submit p1.e3", status="failed", note="not found: submitted")
    episode = Evidence(instruction="x", turns=(SeenTurn(observation=PAGE, actions=(refused,)),))
    assert scores(SuccessWords(), [episode])[0].claim == 0.0


def test_the_title_of_the_first_page_says_no_success() -> None:
    """It says what is to be done; and it still stands after a turn that led nowhere."""
    done = ActionResult(line=1, text="submit p1.e3", status="ok", note="page")
    first = SeenTurn(observation=replace(PAGE, titles=("Complete your registration",)), actions=(done,))
    thanks = SeenTurn(observation=replace(PAGE, titles=("Thank you",)), actions=())
    episodes = [Evidence(instruction="x", turns=turns) for turns in ((first,), (first, first), (first, thanks))]
    assert [score.claim for score in scores(SuccessWords(), episodes)] == [0.0, 0.0, 1.0]
    assert [features(episode)["accepted"] for episode in episodes] == [0.0, 0.0, 1.0]


def test_a_judge_is_calibrated_on_instructions_that_it_was_not_fitted_to() -> None:
    instructions = [f"task {number // 4}" for number in range(40)]
    held = _held_out(instructions, 0)
    assert held.sum() == 8 and not {*np.array(instructions)[held]} & {*np.array(instructions)[~held]}
    assert _held_out(["the same"] * 10, 0).sum() == 2


def test_a_learned_judge_tells_swapped_and_wrong_values_on_tasks_that_it_has_not_seen(tmp_path: Path) -> None:
    train, test = spoilt_plans(60), spoilt_plans(40, "test")
    model = fit_judge([item.evidence for item in train], [bool(item.success) for item in train])
    write_judge(tmp_path / "judge.json", model)
    assert read_judge(tmp_path / "judge.json") == model
    judge = registry.build("reward", "judge", {"file": str(tmp_path / "judge.json")})
    claims = np.array([score.claim for score in scores(judge, [item.evidence for item in test])])
    truth = np.array([bool(item.success) for item in test])
    by_words = np.array([score.claim for score in scores(SuccessWords(), [item.evidence for item in test])])
    assert auroc(claims, truth) > 0.98 > auroc(by_words, truth)
    assert check_reward(judge)


def test_a_judge_needs_both_kinds_of_labels_and_a_whole_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 5 successes"):
        fit_judge([evidence_of(SUCCESS)] * 9, [True] * 9)
    with pytest.raises(ConfigError, match="no judge at"):
        Judge(file=str(tmp_path / "none.json"))
    (tmp_path / "torn.json").write_text('{"weights": ')
    with pytest.raises(ConfigError, match="is not a judge"):
        Judge(file=str(tmp_path / "torn.json"))


def test_features_are_finite_and_named_alike_for_every_episode() -> None:
    rows = [features(evidence_of(item)) for item in ATTEMPTS]
    assert len({tuple(row) for row in rows}) == 1
    assert all(np.isfinite(list(row.values())).all() for row in rows)


class Endpoint(BaseHTTPRequestHandler):
    """Says SUCCESS where both values stand in the question; slow, broken or wordless where it is told to be."""

    mode = "well"
    asked: list[dict[str, Any]] = []  # noqa: RUF012 - of the class, which the server makes an instance of a request

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        if self.mode == "slow":
            time.sleep(0.6)
        if self.mode == "cut off":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')
            return
        if self.mode == "garbled":
            self.wfile.write(b"SUCCESS\r\n\r\n")
            return
        if self.mode == "broken":
            self.send_error(500)
            return
        question = body["messages"][0]["content"]
        is_right = "Name: Anna\nTown: Oslo" in question and "-> submitted" in question
        answer = "I cannot say." if self.mode == "wordless" else f"Let me see.\n{'' if is_right else 'NOT '}SUCCESS"
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        reply = json.dumps({"choices": [{"message": {"content": answer}}], "usage": usage}).encode()
        try:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)
        except BrokenPipeError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    Endpoint.mode, Endpoint.asked = "well", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def endpoint(url: str, tmp_path: Path, **options: Any) -> EndpointJudge:
    given = {"url": url, "model": "m", "answers": str(tmp_path / "answers.sqlite"), **options}
    return registry.build("reward", "endpoint_judge", given)


def test_an_endpoint_is_asked_once_and_its_cost_is_counted(url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge = endpoint(url, tmp_path, key_variable="JUDGE_KEY", prices=[2.0, 10.0])
    episodes = [evidence_of(SUCCESS), evidence_of(NOTHING), evidence_of(SUCCESS)]
    assert [score.claim for score in scores(judge, episodes)] == [1.0, 0.0, 1.0]
    assert len(Endpoint.asked) == 2, "equal episodes are asked about once"
    assert {(item["path"], item["key"]) for item in Endpoint.asked} == {("/v1/chat/completions", "Bearer secret")}
    assert judge.cost == pytest.approx((2 * 100 * 2.0 + 2 * 10 * 10.0) / 1e6)
    again = endpoint("http://127.0.0.1:9/v1", tmp_path)
    assert [score.fault != "" for score in scores(again, episodes[:1])] == [True], "another endpoint is another judge"
    recorded = endpoint(url, tmp_path)
    assert [score.claim for score in scores(recorded, episodes)] == [1.0, 0.0, 1.0]
    assert len(Endpoint.asked) == 2, "recorded answers are not asked for again"
    assert b"secret" not in (tmp_path / "answers.sqlite").read_bytes()


def test_what_another_process_records_is_not_asked_again(url: str, tmp_path: Path) -> None:
    """Two judges with the same file, each open before the other answers: a worker sees what the others were told."""
    one, two = endpoint(url, tmp_path), endpoint(url, tmp_path, concurrency=1)
    nothing, success = evidence_of(NOTHING), evidence_of(SUCCESS)
    assert [score.claim for judge in (one, two) for score in scores(judge, [nothing])] == [0.0, 0.0]
    assert [score.claim for judge in (two, one) for score in scores(judge, [success])] == [1.0, 1.0]
    assert len(Endpoint.asked) == 2 and one.cost == two.cost
    (tmp_path / "other.sqlite").write_text('{"key": "a file of something else"}\n' * 50)
    with pytest.raises(ConfigError, match=r"holds no recorded answers .* Name another file"):
        endpoint(url, tmp_path, answers=str(tmp_path / "other.sqlite"))


def test_how_answers_are_got_does_not_key_results(url: str, tmp_path: Path) -> None:
    options = {"url": url, "model": "m", "answers": str(tmp_path / "a.sqlite")}
    other = {**options, "answers": str(tmp_path / "b.sqlite"), "timeout": 3, "concurrency": 1, "prices": [1, 2]}
    keys = [registry.identity("reward", "endpoint_judge", item) for item in (options, other)]
    assert keys[0] == keys[1] != registry.identity("reward", "endpoint_judge", {**options, "prompt": "{state}?"})


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("slow", "did not answer within 0.2 s"),
        ("broken", "500"),
        ("wordless", "no verdict"),
        ("cut off", "broke off"),
        ("garbled", "broke off or is not HTTP"),
    ],
)
def test_no_answer_is_a_fault_and_no_zero(mode: str, reason: str, url: str, tmp_path: Path) -> None:
    Endpoint.mode = mode
    judge = endpoint(url, tmp_path, timeout=0.2 if mode == "slow" else 10.0)
    (rollout,) = rewarded(judge, [SUCCESS])
    assert not rollout.outcome.is_valid and reason in rollout.outcome.fault_reason
    Endpoint.mode = "well"
    (rollout,) = rewarded(endpoint(url, tmp_path), [SUCCESS])
    assert rollout.outcome.is_valid and rollout.reward.value == 1.0, "what failed is not recorded"


def test_what_a_judge_lost_is_told_as_the_judge_s(url: str, tmp_path: Path) -> None:
    Endpoint.mode = "wordless"
    rows = [rollout.to_row() for rollout in rewarded(endpoint(url, tmp_path), [SUCCESS, NOTHING])]
    with pytest.raises(RolloutsLostError, match=r"2 of 2 .*, 2 of them since the judge gave no answer .*no verdict"):
        refuse_lost(rows)


@pytest.mark.parametrize(("name", "num_labels"), [("forms_1000", 1000), ("forms_100", 100)])
def test_judges_that_ship_can_be_read_and_keep_every_promise(name: str, num_labels: int) -> None:
    assert read_judge(judge_path(f"builtin:{name}")).num_labels == num_labels
    assert check_reward(Judge(file=f"builtin:{name}"))


def test_a_judge_that_does_not_ship_names_those_that_do() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'forms_1000'"):
        Judge(file="builtin:form_1000")


def test_an_endpoint_keeps_every_promise(url: str, tmp_path: Path) -> None:
    assert check_reward(endpoint(url, tmp_path))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("SUCCESS", 1.0),
        ("not success", 0.0),
        ("Unsuccessful", 0.0),
        ("The town is wrong, so this is no success.\n\n**FAILURE**\n", 0.0),
        ("All is right, no FAILURE.\nVerdict: SUCCESS.", 1.0),
    ],
)
def test_a_verdict_is_the_last_line(answer: str, verdict: float) -> None:
    assert verdict_of(answer) == verdict


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "FAILURE. The form was rejected, so this is no success.",
        "First FAILURE, then SUCCESS",
        "SUCCESS\nas I see it",
    ],
)
def test_a_last_line_that_says_more_is_no_verdict(answer: str) -> None:
    with pytest.raises(NoVerdictError, match="no verdict in its last line"):
        verdict_of(answer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://x"}, "begins with http"),
        ({"key_variable": "NO_SUCH_VARIABLE"}, "is not set"),
        ({"prompt": "{task}"}, "cannot be filled in"),
        ({"answers": "no/such/folder/answers.sqlite"}, "lies in no folder"),
    ],
)
def test_a_wrong_endpoint_is_refused_before_it_is_asked(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        endpoint(options.pop("url", "http://127.0.0.1:9/v1"), tmp_path, **options)


def test_labels_say_what_the_truth_says() -> None:
    item = labelled(evidence_of(SUCCESS), source="a")
    assert (item.success, item.error, item.source) == (True, "", "a")
    assert isinstance(item.evidence, Evidence)
