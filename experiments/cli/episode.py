"""`dllm-rl episode`: one episode of an oracle or a policy, shown turn by turn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dllm_rl import registry
from dllm_rl.episodes import Writer, oracle, play
from dllm_rl.errors import ConfigError
from dllm_rl.options import options_of
from dllm_rl.records.rollout import Rollout
from dllm_rl.session import Session
from experiments.cli.evaluate import REFERENCE_PRESET, chosen_environment, refuse_without_oracle, usual_sampler
from experiments.cli.policy_keys import read_policy_keys
from experiments.cli.trained import Trained
from experiments.cli.turns import TurnOptions, turns_of
from experiments.design.config import Component, build_reward, build_sampler, build_session
from experiments.design.presets import load_preset
from experiments.report.episode import print_episode, render_episode
from experiments.run.folder import refuse_unwritable


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePolicy:
    """Who plays.

    Attributes:
        what: "oracle", or a checkpoint.
        turns: What it reads of earlier turns, and what it begins one with.
        sampler: As YAML; None for the one that a cell was trained for, else the usual one of the family.
        temperature: Of the draws; 0 for the most likely tokens.
        seed: Of the sampling noise.
        keys: Of the policy level, as `key=value`.
    """

    what: str
    sampler: str | None
    temperature: float
    seed: int
    turns: TurnOptions
    keys: tuple[str, ...] = ()


def show_episode(player: EpisodePolicy, *, split: str, number: int, environment: str | None, out: Path | None) -> int:
    """Play the task with this number, print the episode, and write its page; 1 where it did not succeed."""
    refuse_unwritable(out, example="episode.html")
    trained = Trained.of(player.what)
    component = chosen_environment(environment, trained.environment or Component(name="episodes"))
    if not registry.get("environment", component.name).is_episodic:
        raise ConfigError(f"environment '{component.name}' takes whole plans. Use `dllm-rl eval`, or `film`.")
    if player.what == "oracle":
        refuse_without_oracle(component)
    with build_session(component if out is None else _with_pictures(component)) as session:
        tasks = session.tasks(split)
        if number >= len(tasks):
            raise ConfigError(f"there is no task {number} in {split}: it has {len(tasks)}, counted from 0")
        rollout = _played(session, player, split, number)
    print_episode(rollout, Console())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_episode(rollout), encoding="utf-8")
        print(f"wrote {out}")
    return 0 if rollout.outcome.is_success else 1


def _with_pictures(component: Component) -> Component:
    """The environment, taking pictures where it can."""
    if "takes_pictures" not in options_of(registry.get("environment", component.name)):
        return component
    return Component(name=component.name, options={**component.options, "takes_pictures": True})


def _played(session: Session, player: EpisodePolicy, split: str, number: int) -> Rollout:
    task, reward = session.tasks(split)[number], build_reward(Component(name="outcome"))
    if player.what == "oracle":
        player.turns.refuse_given("an oracle reads the page alone.")
        write: Writer = oracle(session)
        (rollout,) = play(session, reward, [task], write)
        return rollout
    from dllm_rl.training.engine import RolloutEngine
    from experiments.run import policies

    facts, options = read_policy_keys(player.keys)
    policy = policies.load(player.what, facts=facts, options=options)
    trained = Trained.of(player.what)
    sampler = usual_sampler(player.sampler, policy.family, load_preset(REFERENCE_PRESET).policies, trained)
    turns = turns_of(player.what, policy, player.turns, environment=session.environment, sampler=sampler)
    engine = RolloutEngine(
        policy=policy,
        sampler=build_sampler(sampler, temperature=player.temperature),
        environment=session,
        reward=reward,
        notebook=turns.notebook,
        repair=turns.repair,
        team=policies.load_team(turns.roles, temperature=player.temperature),
    )
    (rollout,) = engine.run([task], [number], seed=player.seed).rollouts
    return rollout
