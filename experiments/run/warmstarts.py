"""`dllm-rl warmstart`: make the policies of a recipe: demonstrations, tokenizer, then one policy a stage.

Families that wait for no other train side by side, each in a process with one thread; stages that start from a
checkpoint which is not built-in, one after another. Processes that `accelerate launch` started work on each stage
together. What is finished is kept, and of a stage that was cut off the last state: the same command goes on there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from dllm_rl import registry
from dllm_rl.errors import ConfigError, DllmRlError, MissingFileError
from dllm_rl.files import replace_folder, write_json
from experiments.design.config import Component, PolicyLevel, build_reward, validate
from experiments.run.availability import refuse_unavailable
from experiments.run.origins import is_done, keep_origins, refuse_changed_origins, state_of
from experiments.run.recipe import (
    DEFAULT_RECIPE,
    Demonstrations,
    ModelSizes,
    Recipe,
    demonstrations,
    inversions,
    is_builtin,
    is_foreign,
    load_recipe,
    recipe_names,
    refuse_wrong_stages,
    with_derived,
)
from experiments.run.status import claim

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.training.ranks import Ranks
    from dllm_rl.training.warmstart import Demonstration, WarmStartConfig

POLL_SECONDS = 2.0
SHOW_SECONDS = 5.0
RECIPE_FILE = "recipe.json"


def run_warm_starts(families: list[str], overrides: list[str], *, out: Path, name: str = DEFAULT_RECIPE) -> int:
    """Train the families (default: all) of a recipe that `out` does not hold yet; 1 where one fails."""
    recipe = with_derived(load_recipe(name, overrides), families)
    refuse_wrong_stages(recipe)
    wanted = _with_origins(families or list(recipe.families), recipe)
    for stage in wanted:
        refuse_unavailable(f"stage '{stage}'", recipe.families[stage].init, recipe.families[stage])
    ranks = _launched(recipe)
    if ranks.is_first:
        for stage in wanted:
            refuse_changed_origins(stage, recipe, out)
        out.mkdir(parents=True, exist_ok=True)
        keep_recipe(recipe, out)
        print(f"warm starts of {', '.join(wanted)} in {out}")
        _make_tokenizer(recipe, out)
    return _run_side_by_side(wanted, recipe, out) if ranks.is_alone else _run_together(wanted, out, ranks)


def _launched(recipe: Recipe) -> Ranks:
    """The processes that `accelerate launch` started, this one among them; refused where they cannot do this recipe."""
    from dllm_rl.training.ranks import launched_ranks
    from dllm_rl.training.warmstart import refuse_uneven

    ranks = launched_ranks(own.device for own in recipe.families.values())
    for stage, own in recipe.families.items():
        ranks.refuse_shards(own.shards, f"stage '{stage}'")
        ranks.refuse_shared(own.device)
        refuse_uneven(_settings(stage, recipe), ranks)
    return ranks


def _settings(stage: str, recipe: Recipe) -> WarmStartConfig:
    from dllm_rl.training.warmstart import WarmStartConfig

    return validate(WarmStartConfig, recipe.families[stage].train, source=f"warm-start settings of {stage}")


def _run_together(wanted: list[str], out: Path, ranks: Ranks) -> int:
    """Train the stages one after another, each by all processes."""
    for stage in ranks.from_first([name for name in wanted if not is_done(out, name)]):
        train_stage(stage, out, ranks)
    ranks.leave()
    return 0


USUAL_OUT = Path("runs/warmstart")


def refuse_missing_starts(levels: Iterable[PolicyLevel]) -> None:
    """Raise ConfigError for a policy that is to be trained from a folder which is not there."""
    for level in levels:
        if level.is_missing:
            raise ConfigError(
                f"checkpoint '{level.checkpoint}' was given, and this folder does not exist. "
                f"{_way_to_make(Path(level.checkpoint))}"
            )


def refuse_missing_files(rewards: Iterable[Component]) -> None:
    """Raise ConfigError for a reward that reads a file or a folder which is not there."""
    for reward in rewards:
        try:
            build_reward(reward)
        except MissingFileError as error:
            raise ConfigError(f"{error} {_command_for(error.path) or ''}".strip()) from None


def _way_to_make(folder: Path) -> str:
    return _command_for(folder) or "Give one that `dllm-rl warmstart` or `save_policy` wrote, or a hub id (owner/name)."


def _command_for(folder: Path) -> str | None:
    """The command that makes a checkpoint, by the name of its folder, where a recipe that ships has such a stage."""
    for name in recipe_names():
        if folder.name in load_recipe(name).families:
            out = "" if folder.parent == USUAL_OUT else f" --out {folder.parent}"
            return f"Make it first: dllm-rl warmstart {folder.name} --recipe {name}{out}"
    return None


def _with_origins(families: list[str], recipe: Recipe) -> list[str]:
    """The families and those that they start from, in the recipe's order."""
    needed = set(families)
    for family in families:
        init = recipe.families[family].init
        if init in recipe.families:
            needed |= set(_with_origins([init], recipe))
    return [family for family in recipe.families if family in needed]


def keep_recipe(recipe: Recipe, out: Path) -> None:
    """Write the recipe beside its policies, with stages that were made before and that this command does not name.

    Raises ConfigError where the folder holds policies of another recipe.
    """
    path = out / RECIPE_FILE
    stages = dict(recipe.families)
    if path.is_file():
        known = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        shared = known.families.keys() & stages.keys()
        differing = [name for name in stages if name in shared and known.families[name] != stages[name]]
        if differing or known.model_copy(update={"families": {}}) != recipe.model_copy(update={"families": {}}):
            what = f"of another recipe ({', '.join(differing)})" if differing else "of another recipe"
            raise ConfigError(f"{out} holds warm starts {what}. Choose another --out, or remove that folder.")
        stages = known.families | stages
    write_json(path, recipe.model_copy(update={"families": stages}).model_dump(mode="json", exclude_unset=True))


def _run_side_by_side(wanted: list[str], recipe: Recipe, out: Path) -> int:
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: set[str] = set()
    shown = ""
    try:
        while True:
            for family in [name for name, process in running.items() if process.poll() is not None]:
                if running.pop(family).returncode:
                    failed.add(family)
                    print(f"{family}: failed: {_last_line(out, family)} See {out / family}.log")
            owed = [name for name in wanted if not is_done(out, name) and name not in failed and name not in running]
            ready = [name for name in owed if _origin_is_done(recipe, out, name)]
            most = 1 if any(is_foreign(recipe.families[name].init) for name in wanted) else os.cpu_count() or 1
            for family in ready[: most - len(running)]:
                running[family] = _start(family, recipe, out)
            if not running:
                return 1 if failed or owed else 0
            time.sleep(POLL_SECONDS)
            line = " · ".join(f"{name}: {_last_line(out, name)}" for name in running)
            if line != shown:
                print(line, flush=True)
                shown = line
    finally:
        for process in running.values():
            process.terminate()


def _origin_is_done(recipe: Recipe, out: Path, family: str) -> bool:
    init = recipe.families[family].init
    return init not in recipe.families or is_done(out, init)


def _start(family: str, recipe: Recipe, out: Path) -> subprocess.Popen[bytes]:
    is_alone = is_foreign(recipe.families[family].init)
    environment = {**os.environ, **({} if is_alone else {"OMP_NUM_THREADS": "1"})}
    with (out / f"{family}.log").open("ab") as log:
        command = [sys.executable, "-m", "experiments.run.warmstarts", family, str(out)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _last_line(out: Path, family: str) -> str:
    lines = (out / f"{family}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "starting"


def _make_tokenizer(recipe: Recipe, out: Path) -> None:
    """Train the shared tokenizer once, where the recipe has one."""
    from dllm_rl.policies.tiny import train_tokenizer

    folder = out / "tokenizer"
    # Another command that begins at the same time waits, and finds it made.
    with FileLock(out / ".tokenizer.lock"):
        if recipe.tokenizer is None or (folder / "tokenizer.json").is_file():
            return
        shown = demonstrations(recipe.demonstrations)
        texts = [item.prompt for item in shown] + [item.plan for item in shown] * recipe.tokenizer.plan_weight
        with replace_folder(folder) as temporary:
            train_tokenizer(texts, recipe.tokenizer.vocab_size).save_pretrained(temporary)


def _new_policy(stage: str, recipe: Recipe, out: Path) -> BasePolicy:
    """The policy that a stage begins with: of random weights, or those of the checkpoint that it starts from."""
    from dllm_rl.policies.loading import load_policy

    own = recipe.families[stage]
    if is_foreign(own.init):
        return load_policy(str(own.init), facts=recipe.facts_of(stage), options=own.loading)
    return _new_tiny_policy(stage, recipe, out)


def _new_tiny_policy(stage: str, recipe: Recipe, out: Path) -> BasePolicy:
    from transformers import PreTrainedTokenizerFast

    from dllm_rl.policies.loading import load_policy
    from dllm_rl.policies.tiny import TinyConfig, TinyForPlans

    own = recipe.families[stage]
    family = own.family or stage
    policy_class = registry.get("policy", family)
    start = load_policy(own.init if is_builtin(own.init) else str(out / own.init)) if own.init else None
    sizes, facts = recipe.model, {"family": family, **recipe.facts}
    if start is not None:
        words = start.tokenizer
        sizes = {name: getattr(start.model.config, name) for name in ModelSizes.model_fields}
        # A family may lack a fact of the one that it starts from.
        known = {item.name for item in fields(policy_class.facts_class)}
        facts = {name: value for name, value in start.facts.to_dict().items() if name in known} | facts
    else:
        words = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    vocabulary = {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
    model = TinyForPlans(TinyConfig(has_time=policy_class.reads_time, **vocabulary, **sizes))
    if start is not None:
        # A time embedding has no counterpart where the start reads no time, and begins at zero.
        model.load_state_dict(start.model.state_dict(), strict=False)
    return policy_class(model, words, policy_class.facts_class.from_dict(facts))


def train_stage(stage: str, out: Path, ranks: Ranks | None = None) -> None:
    """Train one stage and save it; runs in a process of its own, with one thread where others run beside it.

    Args:
        ranks: Processes that do so together. Default: this one alone.

    Raises ConfigError where another command trains it now, or it was begun from other data or another checkpoint.
    """
    from dllm_rl.training.ranks import ALONE

    ranks = ranks or ALONE
    with claim(out / f".{stage}") if ranks.is_first else nullcontext(True) as is_mine:
        if not ranks.from_first(is_mine):
            raise ConfigError(
                f"'{out / stage}' is being trained by another command. Let it end, or choose another --out."
            )
        if not ranks.from_first(is_done(out, stage)):
            _train_stage(stage, out, ranks)


def _train_stage(stage: str, out: Path, ranks: Ranks) -> None:
    import torch
    from transformers.utils import logging

    from dllm_rl.inverters import save_inverter
    from dllm_rl.policies.checkpoints import refuse_other_files
    from dllm_rl.policies.loading import save_policy
    from dllm_rl.training.warmstart import warm_start

    # Its last line is shown as its progress.
    logging.disable_progress_bar()
    refuse_other_files(out / stage)
    recipe = Recipe.model_validate_json((out / RECIPE_FILE).read_text())
    is_alone = is_foreign(recipe.families[stage].init)
    if not is_alone:
        torch.set_num_threads(1)
    config, loading = _settings(stage, recipe), recipe.families[stage]
    torch.manual_seed(config.seed)
    policy = _new_policy(stage, recipe, out)
    if ranks.is_first:
        refuse_changed_origins(stage, recipe, out)
        keep_origins(stage, recipe, out)
    # Made once: an environment may lose another plan in another process.
    shown, inverted = ranks.from_first(_shown(recipe.demonstrations_of(stage), policy) if ranks.is_first else ([], []))
    state = state_of(out, stage)
    warm_start(policy, [*shown, *inverted], config, on_step=_Progress(), state_dir=state, ranks=ranks, loading=loading)
    if loading.shards > 1:
        policy = _whole(policy, lambda: _new_policy(stage, recipe, out), ranks)
    if ranks.is_first and inverted:
        save_inverter(policy, out / stage, [item.plan for item in inverted], half=not is_alone)
    elif ranks.is_first:
        save_policy(policy, out / stage, half=not is_alone)


def _shown(settings: Demonstrations, policy: BasePolicy) -> tuple[list[Demonstration], list[Demonstration]]:
    """What is to be written of pages, and of the states that plans lead to."""
    return demonstrations(settings, policy.fits), inversions(settings, policy)


def _whole(policy: BasePolicy, afresh: Callable[[], BasePolicy], ranks: Ranks) -> BasePolicy:
    """In the first process a policy with the whole weights of one that is sharded; in the others the same policy."""
    from dllm_rl.training.checkpoint import trained_weights
    from dllm_rl.training.sharding import whole

    weights = whole(trained_weights(policy.model), is_kept=ranks.is_first)
    if not ranks.is_first:
        return policy
    policy = afresh()
    # Names that share a tensor are stored once.
    policy.model.load_state_dict(weights, strict=False)
    return policy


class _Progress:
    """Prints a line every SHOW_SECONDS, and the last one."""

    def __init__(self) -> None:
        self.started, self.first, self.told = time.monotonic(), 0, 0.0

    def __call__(self, step: int, num_steps: int, loss: float) -> None:
        self.first = self.first or step
        if time.monotonic() - self.told > SHOW_SECONDS or step == num_steps:
            self.told = time.monotonic()
            left = (time.monotonic() - self.started) / (step - self.first + 1) * (num_steps - step)
            print(f"step {step}/{num_steps}, loss {loss:.4f}, about {left / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    try:
        train_stage(sys.argv[1], Path(sys.argv[2]))
    except DllmRlError as error:
        sys.exit(str(error))
