"""`dllm-rl judge`: collect evidence, distil a judge from the truth, score with it, and say how far it errs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dllm_rl.errors import ConfigError
from experiments.cli.sites import JsonFlag

if TYPE_CHECKING:
    import numpy as np

    from dllm_rl.records.evidence_file import Labelled
    from dllm_rl.reward import Reward
    from dllm_rl.session import Session
    from experiments.analysis.judges import JudgeAudit

judge_app = typer.Typer(help="Train a judge on the truth, score with it, and measure its errors.", no_args_is_help=True)

EnvironmentOption = Annotated[
    str | None, typer.Option(help="Environment, as YAML. Default: that of the run, else that of grid16.")
]
Files = Annotated[list[Path], typer.Argument(metavar="EVIDENCE...", help="Files that `judge collect` wrote.")]
JudgeArgument = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE",
        help="A judge's file, one that ships (builtin:forms_1000), a .yaml file with a `reward`, a reward's name, or "
        "{name: flip, options: {...}}.",
    ),
]


@judge_app.command("collect")
def collect(
    run: Annotated[
        Path, typer.Argument(help="Folder of a grid or a cell, a rollouts.jsonl, or a table that `eval --out` wrote.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    count: Annotated[int, typer.Option(min=1, help="Different plans, drawn evenly from cells and seeds.")] = 1000,
    environment: EnvironmentOption = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Run recorded plans again and write what can be seen of them, labelled by the truth."""
    from experiments.cli.counter import counter
    from experiments.run.evidence import evidence_of, recorded_plans
    from experiments.run.folder import refuse_unwritable

    refuse_unwritable(out, example="evidence.jsonl")
    plans = recorded_plans(run, count, seed=seed)
    with _session(environment, run) as session, counter("plans") as played:
        found = evidence_of(session, plans, on_result=played)
    _keep(found, out)


@judge_app.command("damage")
def damage(
    out: Annotated[Path, typer.Option(help="File to write.")],
    split: Annotated[str, typer.Option(help="Whose tasks.")] = "val",
    count: Annotated[int, typer.Option(min=1, help="Tasks; each gives up to six episodes.")] = 100,
    environment: EnvironmentOption = None,
    seed: Annotated[int, typer.Option(help="Of the choice of fields.")] = 0,
) -> None:
    """Run gold plans and versions with one thing wrong each: values, their places, the submission, an echo."""
    from experiments.cli.counter import counter
    from experiments.run.damage import damaged_evidence
    from experiments.run.folder import refuse_unwritable

    refuse_unwritable(out, example="evidence.jsonl")
    with _session(environment, None) as session, counter("plans") as played:
        found = damaged_evidence(session, session.tasks(split)[:count], seed=seed, on_result=played)
    _keep(found, out)


def _session(environment: str | None, run: Path | None) -> Session:
    """The environment that a user names; else that of the run, else the forms of the study preset."""
    from experiments.cli.evaluate import REFERENCE_PRESET, chosen_environment
    from experiments.design.config import build_session
    from experiments.design.presets import load_preset
    from experiments.run.folder import RunFolder

    above = None if run is None else RunFolder.above(run / "any")
    usual = load_preset(REFERENCE_PRESET).environment
    usual = usual if above is None else above.config.component("environment", default=usual.name)
    return build_session(chosen_environment(environment, usual))


def _keep(found: Sequence[Labelled], out: Path) -> None:
    from dllm_rl.records.evidence_file import write_evidence

    write_evidence(out, found)
    num_right, sources = sum(bool(item.success) for item in found), {item.source for item in found}
    print(f"wrote {out}: {len(found)} episodes of {len(sources)} sources, {num_right} successes")


@judge_app.command("train")
def train(
    files: Files,
    out: Annotated[Path, typer.Option(help="File of the judge.")],
    labels: Annotated[
        int | None, typer.Option(min=10, help="Labels to learn from, drawn at random. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Distil a judge from labelled evidence."""
    from dllm_rl.records.evidence_file import read_evidence
    from dllm_rl.seeding import python_random
    from experiments.run.folder import refuse_unwritable
    from harness.rewards.judge import fit_judge, write_judge

    refuse_unwritable(out, example="judge.json")
    known = [item for item in read_evidence(files) if item.success is not None]
    if labels is not None and labels > len(known):
        raise ConfigError(f"{labels} labels were asked for; {len(known)} are there. Collect more, or ask for fewer.")
    python_random(seed, "judge-labels").shuffle(known)
    chosen = known[:labels]
    model = fit_judge([item.evidence for item in chosen], [bool(item.success) for item in chosen], seed=seed)
    write_judge(out, model)
    print(f"wrote {out}, from {len(chosen)} labels. How far it errs: dllm-rl judge audit {out} OTHER_EVIDENCE")


@judge_app.command("embedder")
def embedder(
    out: Annotated[Path, typer.Option(help="File to write.")],
    split: Annotated[str, typer.Option(help="Whose tasks.")] = "train",
    environment: EnvironmentOption = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
) -> None:
    """Train the two towers of the reward `embedder` on instructions and what gold plans leave on pages."""
    from dllm_rl.inverters import inversion_examples
    from experiments.run.contrast import ContrastConfig, train_towers
    from harness.rewards.embedder import Embedder
    from harness.rewards.towers import write_towers

    with _session(environment, None) as session:
        pairs = [(item.instruction, item.state) for item in inversion_examples(session, session.tasks(split))]
    write_towers(out, train_towers(pairs, ContrastConfig(seed=seed), version=Embedder.version))
    print(f"wrote {out}, from {len(pairs)} pairs. Take it: reward={{name: embedder, options: {{file: {out}}}}}")


@judge_app.command("score")
def score(judge: JudgeArgument, files: Files, as_json: JsonFlag = False) -> None:
    """Print a judge's claim for every episode."""
    from dllm_rl.records.evidence_file import read_evidence

    episodes = read_evidence(files)
    claims = _claims(_judge(judge), episodes)
    if as_json:
        print(
            json.dumps(
                [{"claim": claim, "success": item.success} for claim, item in zip(claims, episodes, strict=True)]
            )
        )
        return
    for claim, item in zip(claims, episodes, strict=True):
        print(f"{'fault' if claim is None else f'{claim:.3f}':>6}  {item.evidence.instruction[:100]}")


@judge_app.command("audit")
def audit(
    judge: JudgeArgument,
    files: Files,
    judged: Annotated[
        list[Path] | None,
        typer.Option(help="Evidence whose truth is not known. Prints its success rate, corrected for the errors."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a judge with the truth on labelled evidence that it was not trained on."""
    from dllm_rl.records.evidence_file import read_evidence
    from experiments.analysis.judges import THRESHOLD, corrected_success
    from experiments.report.build import plain

    reward = _judge(judge)
    known, claims, num_faults = _answered(reward, [item for item in read_evidence(files) if item.success is not None])
    found = _audited(known, claims)
    corrected, num_judged, num_unanswered = None, 0, 0
    if judged:
        others, told, num_unanswered = _answered(reward, read_evidence(judged))
        num_judged = len(others) + num_unanswered
        corrected = corrected_success(float((told >= THRESHOLD).mean()), len(others), found)
    if as_json:
        record = {"audit": asdict(found), "faults": num_faults, "corrected": None}
        if corrected is not None:
            record["corrected"] = {**asdict(corrected), "faults": num_unanswered}
        print(json.dumps(plain(record)))
        return
    _show(found, num_faults)
    if corrected is not None:
        span = f"{100 * corrected.low:.1f} to {100 * corrected.high:.1f} %"
        print(f"judged {100 * corrected.judged:.1f} % success; corrected {100 * corrected.rate:.1f} % ({span})")
        print(f"of {num_judged} episodes; {num_unanswered} without an answer are left out of both")


def _audited(known: Sequence[Labelled], claims: np.ndarray) -> JudgeAudit:
    import numpy as np

    from experiments.analysis.judges import audit as compare

    return compare(claims, np.array([bool(item.success) for item in known]), [item.error for item in known])


def _answered(judge: Reward, episodes: Sequence[Labelled]) -> tuple[list[Labelled], np.ndarray, int]:
    """The episodes that the judge has a claim for, the claims, and how many it has none for."""
    import numpy as np

    pairs = [(item, claim) for item, claim in zip(episodes, _claims(judge, episodes), strict=True) if claim is not None]
    if not pairs:
        raise ConfigError(
            f"no claim for any of {len(episodes)} episodes: no judge, or one without answers. Try dllm-rl judge score"
        )
    return [item for item, _ in pairs], np.array([claim for _, claim in pairs]), len(episodes) - len(pairs)


def _claims(judge: Reward, episodes: Sequence[Labelled]) -> list[float | None]:
    """What a judge claims; None where it gave no answer."""
    from dllm_rl.reward import scores

    found = scores(judge, [item.evidence for item in episodes])
    return [None if item.fault else item.claim for item in found]


def _judge(given: str) -> Reward:
    from experiments.cli.components import JudgeFile, component_of
    from experiments.design.config import Component, build_reward, validate
    from experiments.design.overrides import read_settings
    from harness.rewards.judge import BUILTIN

    path = Path(given)
    if given.endswith((".yaml", ".yml")):
        if not path.is_file():
            raise ConfigError(f"no file '{given}'. Give one that says reward: {{name: ..., options: {{...}}}}.")
        component = validate(JudgeFile, read_settings(path, source=f"judge '{given}'"), source=given).reward
    elif "{" not in given and (given.startswith(BUILTIN) or path.suffix == ".json" or path.is_file()):
        component = Component(name="judge", options={"file": given})
    else:
        component = component_of(given, "JUDGE", "success_words, or {name: flip, options: {...}}")
    reward = build_reward(component)
    if reward.needs_truth:
        raise ConfigError(f"the reward '{given}' reads the truth, so it is not a judge. Take one that claims success.")
    return reward


def _show(found: JudgeAudit, num_faults: int) -> None:
    print(f"{found.num_successes} successes, {found.num_failures} failures; {num_faults} without an answer")
    for name in ("precision", "sensitivity", "specificity", "f1", "auroc", "brier", "calibration_error"):
        print(f"  {name:<18}{getattr(found, name):.3f}")
    print("taken for successes, by kind of failure:")
    for item in found.classes:
        rate = f"{100 * item.false_positive_rate:5.1f} % (95 % bound {100 * item.at_most:.0f} %)"
        print(f"  {rate:<28} of {item.count:<5} {item.name:<28} auroc {item.auroc:.3f}")
