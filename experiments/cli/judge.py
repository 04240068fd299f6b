"""`dllm-rl judge`: collect evidence, distil a judge from the truth, score with it, and say how far it errs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dllm_rl.errors import ConfigError
from experiments.cli.sites import JsonFlag

if TYPE_CHECKING:
    import numpy as np

    from dllm_rl.records.evidence_file import Labelled
    from dllm_rl.reward import Reward
    from experiments.analysis.judges import CorrectedRate, JudgeAudit

judge_app = typer.Typer(help="Train a judge on the truth, score with it, and measure its errors.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="EVIDENCE...", help="Files that `judge collect` wrote.")]
JudgeArgument = Annotated[
    str,
    typer.Argument(
        metavar="JUDGE", help="A judge's file, a reward's name, or YAML: {name: endpoint_judge, options: {...}}."
    ),
]


@judge_app.command("collect")
def collect(
    run: Annotated[Path, typer.Argument(help="Folder of a grid or a cell, or a rollouts.jsonl.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    count: Annotated[int, typer.Option(min=1, help="Different plans, drawn evenly from cells and seeds.")] = 1000,
    environment: Annotated[
        str | None, typer.Option(help="Environment, as YAML. Default: that of the run, else forms.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Run recorded plans again and write what can be seen of them, labelled by the truth."""
    from dllm_rl.records.evidence_file import write_evidence
    from experiments.cli.components import component_of
    from experiments.design.config import Component, build_session
    from experiments.run.evidence import evidence_of, recorded_plans
    from experiments.run.folder import RunFolder

    plans = recorded_plans(run, count, seed=seed)
    above = RunFolder.above(run / "any")
    if environment is not None:
        component = component_of(environment, "--environment", "{name: forms, options: {world: rich}}")
    else:
        component = Component(name="forms") if above is None else above.config.component("environment", default="forms")
    with build_session(component) as session:
        found = evidence_of(session, plans)
    write_evidence(out, found)
    num_right = sum(bool(item.success) for item in found)
    print(
        f"wrote {out}: {len(found)} episodes of {len({item.source for item in found})} sources, {num_right} successes"
    )


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
    from harness.rewards.judge import fit_judge, write_judge

    known = [item for item in read_evidence(files) if item.success is not None]
    if labels is not None and labels > len(known):
        raise ConfigError(f"{labels} labels were asked for; {len(known)} are there. Collect more, or ask for fewer.")
    python_random(seed, "judge-labels").shuffle(known)
    chosen = known[:labels]
    model = fit_judge([item.evidence for item in chosen], [bool(item.success) for item in chosen], seed=seed)
    write_judge(out, model)
    print(f"wrote {out}, from {len(chosen)} labels. How far it errs: dllm-rl judge audit {out} OTHER_EVIDENCE")


@judge_app.command("score")
def score(judge: JudgeArgument, files: Files, as_json: JsonFlag = False) -> None:
    """Print a judge's claim for every episode."""
    from dllm_rl.records.evidence_file import read_evidence

    episodes = read_evidence(files)
    claims = _claims(judge, episodes)
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
        typer.Option(help="Evidence whose truth is not known: its success rate is told, corrected for the errors."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a judge with the truth on labelled evidence that it was not trained on."""
    from dllm_rl.records.evidence_file import read_evidence
    from experiments.analysis.judges import corrected_success

    known, claims, num_faults = _answered(judge, [item for item in read_evidence(files) if item.success is not None])
    found = _audited(known, claims)
    corrected = None
    if judged:
        others, told, _ = _answered(judge, read_evidence(judged))
        corrected = corrected_success(float((told >= 0.5).mean()), len(others), found)
    if as_json:
        print(
            json.dumps(
                {"audit": _plain(asdict(found)), "faults": num_faults, "corrected": corrected and asdict(corrected)}
            )
        )
        return
    _show(found, num_faults, corrected)


def _audited(known: Sequence[Labelled], claims: np.ndarray) -> JudgeAudit:
    import numpy as np

    from experiments.analysis.judges import audit as compare

    return compare(claims, np.array([bool(item.success) for item in known]), [item.error for item in known])


def _answered(judge: str, episodes: Sequence[Labelled]) -> tuple[list[Labelled], np.ndarray, int]:
    """The episodes that the judge has a claim for, the claims, and how many it has none for."""
    import numpy as np

    pairs = [(item, claim) for item, claim in zip(episodes, _claims(judge, episodes), strict=True) if claim is not None]
    if not pairs:
        raise ConfigError(f"the judge has no claim for any of {len(episodes)} episodes. Look: dllm-rl judge score")
    return [item for item, _ in pairs], np.array([claim for _, claim in pairs]), len(episodes) - len(pairs)


def _claims(judge: str, episodes: Sequence[Labelled]) -> list[float | None]:
    """What a judge claims; None where it gave no answer."""
    from dllm_rl.reward import scores

    found = scores(_judge(judge), [item.evidence for item in episodes])
    return [None if item.fault else item.claim for item in found]


def _judge(given: str) -> Reward:
    from experiments.cli.components import component_of
    from experiments.design.config import Component, build_reward

    if Path(given).is_file():
        return build_reward(Component(name="judge", options={"file": given}))
    if Path(given).suffix == ".json":
        raise ConfigError(f"no judge at '{given}'. Train one: dllm-rl judge train EVIDENCE --out {given}")
    reward = build_reward(component_of(given, "JUDGE", "success_words, or {name: flip, options: {...}}"))
    if reward.needs_truth:
        raise ConfigError(f"the reward '{given}' reads the truth, so it is no judge. Take one that claims success.")
    return reward


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no word for what is undefined; null stands for it."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}


def _show(found: JudgeAudit, num_faults: int, corrected: CorrectedRate | None) -> None:
    print(f"{found.num_successes} successes, {found.num_failures} failures; {num_faults} without an answer")
    for name in ("precision", "sensitivity", "specificity", "f1", "auroc", "brier", "calibration_error"):
        print(f"  {name:<18}{getattr(found, name):.3f}")
    print("taken for successes, by kind of failure:")
    for item in found.classes:
        print(f"  {100 * item.false_positive_rate:5.1f} %  of {item.count:<5} {item.name}")
    if corrected is not None:
        span = f"{100 * corrected.low:.1f} to {100 * corrected.high:.1f} %"
        print(f"judged {100 * corrected.judged:.1f} % success; corrected {100 * corrected.rate:.1f} % ({span})")
