"""`dllm-rl film`: sample one plan of one task and show how it was written."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dllm_rl.errors import ConfigError
from dllm_rl.training.engine import RolloutEngine
from experiments.cli.evaluate import REFERENCE_PRESET, usual_sampler
from experiments.design.components import build_reward, build_sampler, build_session
from experiments.design.config import load_preset
from experiments.report.film.page import render_film
from experiments.report.film.record import record_film
from experiments.report.film.terminal import print_film
from experiments.run import policies


def show_film(
    checkpoint: str, *, split: str, number: int, sampler: str | None, temperature: float, seed: int, out: Path | None
) -> int:
    """Print the film, and write it to `out` where one is given."""
    preset = load_preset(REFERENCE_PRESET)
    policy = policies.load(checkpoint)
    component = usual_sampler(sampler, policy.family, preset.policies)
    with build_session(preset.environment) as session:
        tasks = session.tasks(split)
        if number >= len(tasks):
            raise ConfigError(f"there is no task {number} in {split}: it has {len(tasks)}, counted from 0")
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(component, temperature=temperature),
            environment=session,
            reward=build_reward(preset.reward),
        )
        (completion,) = engine.write([tasks[number]], [number], seed=seed)
    options = ", ".join(f"{key} {value}" for key, value in component.options.items())
    film = record_film(
        policy,
        completion,
        title=tasks[number].id,
        instruction=tasks[number].instruction,
        sampler=f"{component.name} ({options})" if options else component.name,
    )
    print_film(film, Console())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_film(film), encoding="utf-8")
        print(f"wrote {out}")
    return 0
