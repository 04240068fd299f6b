"""`dllm-rl warmstart`: recreate the built-in checkpoints: demonstrations, tokenizer, then one policy a family.

Families that wait for no other train side by side, each in a process with one thread. What is finished is kept, and of
a stage that was cut off the last state: the same command goes on there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.files import write_json
from experiments.design.config import Strict, apply_override, validate
from harness.sites.schema import Size

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Demonstration

POLL_SECONDS = 2.0
_RECIPE_FILE = "recipe.json"


class Demonstrations(Strict):
    """Tasks whose gold plans are imitated, as `harness.sites.make_tasks` takes them (split `train`)."""

    count: int = Field(ge=1)
    sites_per_kind: int | None = Field(default=None, ge=1)
    dials: tuple[Literal[0, 1, 2], ...] = Field(default=(0, 1), min_length=1)
    size: Size = "small"
    seed: int = 0


class Tokenizer(Strict):
    """The shared tokenizer. plan_weight: how often each plan counts beside its prompt."""

    vocab_size: int = Field(ge=300)
    plan_weight: int = Field(default=1, ge=1)


class ModelSizes(Strict):
    """What a recipe may say of the model; see `TinyConfig`."""

    hidden_size: int = Field(default=128, ge=1)
    intermediate_size: int = Field(default=344, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    rope_theta: float = Field(default=10_000.0, gt=0)
    num_columns: int = Field(default=0, ge=0)
    num_smeared: int = Field(default=3, ge=0)


class FamilyRecipe(Strict):
    """One stage.

    family: of the policy that is trained. Default: the stage's name.
    init: the stage it starts from.
    train: see `dllm_rl.training.warmstart.WarmStartConfig`.
    """

    family: str | None = None
    init: str | None = None
    train: dict[str, Any] = Field(default_factory=dict)


class Recipe(Strict):
    """Everything that decides the checkpoints. model: see `TinyConfig`. facts: see `PolicyFacts`."""

    demonstrations: Demonstrations
    tokenizer: Tokenizer
    model: dict[str, Any]
    facts: dict[str, Any]
    families: dict[str, FamilyRecipe]


def load_recipe(overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that ships, with overrides laid over it."""
    data = yaml.safe_load((resources.files("experiments.run") / "warmstart.yaml").read_text())
    for override in overrides:
        data = apply_override(data, override)
    return validate(Recipe, data, source="the warm-start recipe")


def run_warm_starts(families: list[str], overrides: list[str], *, out: Path) -> int:
    """Train the families (default: all) that `out` does not hold yet; 1 where one fails."""
    recipe = _with_derived(load_recipe(overrides), families)
    refuse_wrong_stages(recipe)
    wanted = _with_origins(families or list(recipe.families), recipe)
    out.mkdir(parents=True, exist_ok=True)
    _refuse_other_recipe(recipe, out)
    print(f"warm starts of {', '.join(wanted)} in {out}")
    _make_tokenizer(recipe, out)
    return _run_side_by_side(wanted, recipe, out)


def _with_derived(recipe: Recipe, families: list[str]) -> Recipe:
    """The recipe with these families; one that it does not have is trained as the family that it derives from."""
    stages = dict(recipe.families)
    for family in families:
        if family in stages:
            continue
        if family not in registry.names("policy"):
            raise unknown_name("family", family, {*stages, *registry.names("policy")})
        lineage = registry.get("policy", family).lineage()
        origin = next((name for name in lineage if name in stages), None)
        if origin is None:
            raise ConfigError(
                f"the warm-start recipe has no stage for the family '{family}', nor for one that it derives from. Give "
                f"one: families.{family}={{init: autoregressive, train: {{passes: 56000}}}}."
            )
        stages[family] = stages[origin].model_copy(update={"family": family})
    return recipe.model_copy(update={"families": stages})


def refuse_wrong_stages(recipe: Recipe) -> None:
    """Raise where sizes, facts or settings of a stage are wrong, or a stage starts from none that stands before it."""
    from dllm_rl.training.warmstart import WarmStartConfig

    validate(ModelSizes, recipe.model, source="model of the warm-start recipe")
    before: list[str] = []
    for stage, own in recipe.families.items():
        family = own.family or stage
        registry.get("policy", family).facts_class.from_dict({"family": family, **recipe.facts})
        validate(WarmStartConfig, own.train, source=f"warm-start settings of {stage}")
        if own.init is not None and own.init not in before:
            raise unknown_name(f"stage before '{stage}', which starts from it,", own.init, before)
        before.append(stage)


def _with_origins(families: list[str], recipe: Recipe) -> list[str]:
    """The families and those that they start from, in the recipe's order."""
    needed = set(families)
    for family in families:
        init = recipe.families[family].init
        if init is not None:
            needed |= set(_with_origins([init], recipe))
    return [family for family in recipe.families if family in needed]


def _refuse_other_recipe(recipe: Recipe, out: Path) -> None:
    path, wanted = out / _RECIPE_FILE, recipe.model_dump(mode="json")
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise ConfigError(f"{out} holds warm starts of another recipe. Choose another --out, or remove that folder.")
    write_json(path, wanted)


def _run_side_by_side(wanted: list[str], recipe: Recipe, out: Path) -> int:
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: set[str] = set()
    shown = ""
    try:
        while True:
            for family in [name for name, process in running.items() if process.poll() is not None]:
                if running.pop(family).returncode:
                    failed.add(family)
                    print(f"{family}: failed; see {out / family}.log")
            owed = [name for name in wanted if not _is_done(out, name) and name not in failed and name not in running]
            ready = [name for name in owed if _origin_is_done(recipe, out, name)]
            for family in ready[: (os.cpu_count() or 1) - len(running)]:
                running[family] = _start(family, out)
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


def _is_done(out: Path, family: str) -> bool:
    return (out / family / "config.json").is_file()


def _origin_is_done(recipe: Recipe, out: Path, family: str) -> bool:
    init = recipe.families[family].init
    return init is None or _is_done(out, init)


def _start(family: str, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (out / f"{family}.log").open("ab") as log:
        command = [sys.executable, "-m", "experiments.run.warmstarts", family, str(out)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _last_line(out: Path, family: str) -> str:
    lines = (out / f"{family}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "starting"


def demonstrations(recipe: Recipe) -> list[Demonstration]:
    """Prompts and gold plans of the recipe's training tasks."""
    from dllm_rl.records.tasks import render_prompt
    from dllm_rl.training.warmstart import Demonstration
    from harness.sites import expected_page, gold_plan, make_site, make_tasks

    settings = recipe.demonstrations
    tasks = make_tasks(
        "train",
        count=settings.count,
        seed=settings.seed,
        size=settings.size,  # type: ignore[arg-type]
        dials=settings.dials,
        sites_per_kind=settings.sites_per_kind,
    )
    pages = {site: expected_page(make_site(site)) for site in {task.site for task in tasks}}
    return [
        Demonstration(prompt=render_prompt(task, pages[task.site]), plan=gold_plan(task, pages[task.site]))
        for task in tasks
    ]


def _make_tokenizer(recipe: Recipe, out: Path) -> None:
    """Train the shared tokenizer once."""
    from dllm_rl.policies.tiny import train_tokenizer

    folder = out / "tokenizer"
    if (folder / "tokenizer.json").is_file():
        return
    shown = demonstrations(recipe)
    texts = [item.prompt for item in shown] + [item.plan for item in shown] * recipe.tokenizer.plan_weight
    train_tokenizer(texts, recipe.tokenizer.vocab_size).save_pretrained(folder)


def train_stage(stage: str, out: Path) -> None:
    """Train one stage with one thread and save it; runs in a process of its own."""
    import torch
    from transformers import PreTrainedTokenizerFast

    from dllm_rl.policies.loading import load_policy, save_policy
    from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
    from dllm_rl.training.warmstart import WarmStartConfig, warm_start

    torch.set_num_threads(1)
    recipe = Recipe.model_validate_json((out / _RECIPE_FILE).read_text())
    own = recipe.families[stage]
    config = validate(WarmStartConfig, own.train, source=f"warm-start settings of {stage}")
    family = own.family or stage
    policy_class = registry.get("policy", family)
    words = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    torch.manual_seed(config.seed)
    sizes = {"vocab_size": len(words), "pad_token_id": words.pad_token_id, **recipe.model}
    model = TinyForPlans(TinyConfig(has_time=policy_class.reads_time, **sizes))
    if own.init is not None:
        # A time embedding has no counterpart, and starts at zero.
        model.load_state_dict(load_policy(str(out / own.init)).model.state_dict(), strict=False)
    policy = policy_class(model, words, policy_class.facts_class.from_dict({"family": family, **recipe.facts}))
    started, first = time.monotonic(), 0

    def show(step: int, num_steps: int, loss: float) -> None:
        nonlocal first
        first = first or step
        if step % 100 == 0 or step == num_steps:
            left = (time.monotonic() - started) / (step - first + 1) * (num_steps - step)
            print(f"step {step}/{num_steps}, loss {loss:.4f}, about {left / 60:.0f} min left", flush=True)

    warm_start(policy, demonstrations(recipe), config, on_step=show, state_dir=out / f"{stage}.state")
    save_policy(policy, out / stage, half=True)


if __name__ == "__main__":
    train_stage(sys.argv[1], Path(sys.argv[2]))
