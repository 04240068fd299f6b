"""Load a policy for a run: a checkpoint by name or folder, or the folder of a cell's seed that was trained."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records.canvas import EOS_TOKEN, FILL_TOKEN, MASK_TOKEN, PAD_TOKEN
from dllm_rl.records.tasks import render_prompt
from dllm_rl.roles import Role
from dllm_rl.training.calls import Team
from dllm_rl.training.checkpoint import load_weights
from dllm_rl.training.speaker import Speaker
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start
from experiments.design.config import build_sampler
from experiments.design.toys import CANVAS, NUM_COLUMNS, TOY, refuse_loading, toy_family, warm_steps
from experiments.design.turns import RolesSettings
from harness.environments import TextEnvironment

# Their progress bars would cut through ours.
logging.disable_progress_bar()


def load(checkpoint: str, *, facts: dict[str, Any] | None = None, options: LoadOptions | None = None) -> BasePolicy:
    """Load `builtin:<family>`, `toy:<environment>`, a checkpoint's folder or hub id, or what a cell's seed trained.

    Args:
        options: For a cell's seed only where and how it runs; what was trained is as its cell says.
    """
    options = options or LoadOptions()
    if checkpoint.startswith(TOY):
        return load_toy(checkpoint, facts or {}, options)
    record = Path(checkpoint) / "cell.json"
    if not record.is_file():
        return load_policy(checkpoint, facts=facts, options=options)
    _refuse_ignored(facts or {}, options)
    cell = json.loads(record.read_text(encoding="utf-8"))
    weights = Path(checkpoint) / "checkpoint" / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"'{checkpoint}' has no trained weights yet; `dllm-rl status` shows what is owed")
    loading = LoadOptions(**cell.get("loading", {})).model_copy(update={"device": options.device})
    policy = load(cell["checkpoint"], facts=cell["facts"], options=loading)
    load_weights(policy.model, weights)
    return policy


def _refuse_ignored(facts: dict[str, Any], options: LoadOptions) -> None:
    """Raise where something is asked of a cell's seed that its cell decided."""
    given = [f"facts.{name}" for name in facts]
    given += [name for name in options.model_dump(exclude_defaults=True) if name != "device"]
    if given:
        raise ConfigError(
            f"{', '.join(given)} was given, and the folder of a cell's seed is loaded as it was trained: only "
            "`device` may differ. Leave it out."
        )


def load_team(settings: RolesSettings | None, *, temperature: float) -> Team | None:
    """Who writes the turns of episodes role by role, with the policies that roles have of their own."""
    if settings is None:
        return None
    own: dict[Role, Speaker] = {
        role: Speaker(
            policy=load(item.checkpoint, facts=item.facts, options=item.loading),
            sampler=build_sampler(item.sampler, temperature=temperature),
        )
        for role, item in settings.own.items()
    }
    return Team(roles=settings.build(), own=own)


BATCH_SIZE = 64


def load_toy(checkpoint: str, facts: dict[str, Any], options: LoadOptions = LoadOptions()) -> BasePolicy:
    """The warm-started policy of `toy:<environment>`; facts must name the family. A fresh copy at every call."""
    refuse_loading(checkpoint, options)
    return copy.deepcopy(_warm_started(checkpoint.removeprefix(TOY), toy_family(checkpoint, facts)))


@functools.cache
def _warm_started(name: str, family: str) -> BasePolicy:
    environment = registry.get("environment", name)()
    tasks = environment.tasks("train")
    shown = [_demonstration(environment, task) for task in tasks]
    policy = _untrained(family, _tokenizer(shown), name)
    passes = (warm_steps(name, family) or 0) * BATCH_SIZE
    config = WarmStartConfig(passes=passes, batch_size=BATCH_SIZE, warmup_steps=20, is_mixed_precision=False)
    warm_start(policy, shown, config)
    return policy


def _demonstration(environment: TextEnvironment, task: Any) -> Demonstration:
    page = environment.page(task)
    return Demonstration(prompt=render_prompt(task, page), plan=environment.gold_plan(task, page))


def _untrained(family: str, words: PreTrainedTokenizerFast, name: str) -> BasePolicy:
    policy_class = registry.get("policy", family)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": len(words), "pad_token_id": words.pad_token_id, "num_columns": NUM_COLUMNS[name]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyForPlans(TinyConfig(has_time=policy_class.reads_time, **sizes))
    facts = policy_class.facts_class(family=family, max_prompt=96, canvas_length=CANVAS[name], slot_size=2)
    return policy_class(model.eval(), words, facts)


def _tokenizer(shown: list[Demonstration]) -> PreTrainedTokenizerFast:
    """Every word, control reference, digit and other character of the toy's texts is one token."""
    pieces = pre_tokenizers.Split(Regex(r"p\d\.e\d|[A-Za-z]+|\d|[^A-Za-z\d]"), behavior="isolated")
    words = sorted({piece for item in shown for text in (item.prompt, item.plan) for piece, _ in _split(pieces, text)})
    special = [PAD_TOKEN, EOS_TOKEN, MASK_TOKEN, FILL_TOKEN]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token=FILL_TOKEN))
    core.pre_tokenizer = pieces
    core.decoder = decoders.Fuse()
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        mask_token=MASK_TOKEN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _split(pieces: pre_tokenizers.Split, text: str) -> list[tuple[str, tuple[int, int]]]:
    return pieces.pre_tokenize_str(text)
