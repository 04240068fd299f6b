"""Supervised warm start on demonstrations, the same demonstrations and sequence passes for all families.

The loss is that of the family's forward process (`ForwardProcess.warm_start_loss`). FILL, EOS and the padding after it
are learned here and nowhere else.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dllm_rl import seeding
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts
from dllm_rl.training.checkpoint import load_state, save_state
from dllm_rl.training.optimiser import adamw
from dllm_rl.training.ranks import ALONE, Ranks
from dllm_rl.training.sharding import shard
from dllm_rl.training.update import generator

STEPS_PER_STATE = 100
_LEARNED_FILE = "demonstrations.sha256"


class WarmStartConfig(BaseModel):
    """Settings of a warm start.

    Attributes:
        passes: Sequences seen in all (rows x epochs), the budget that families share.
        accumulation_steps: Batches whose mean loss a step is taken on, where a larger batch does not fit into memory.
        decay_share: The last share of the steps, over which the learning rate falls to zero along a cosine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    passes: int = Field(default=100_000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-3, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    decay_share: float = Field(default=0.5, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = 0
    is_mixed_precision: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A prompt and the plan that solves it, as text."""

    prompt: str
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts with the canvases to be learned, (b, l)."""

    prompts: Prompts
    canvas: Int[Tensor, "b l"]


def warm_start(
    policy: BasePolicy,
    demonstrations: Sequence[Demonstration],
    config: WarmStartConfig,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
    state_dir: Path | None = None,
    ranks: Ranks = ALONE,
    loading: LoadOptions = LoadOptions(),
) -> None:
    """Train the policy's model in place. on_step gets (step, number of steps, loss).

    Args:
        state_dir: Where the state is kept every STEPS_PER_STATE steps; a run that was cut off goes on there, step for
            step as if it had not been. It is removed at the end.
        ranks: Processes that do this together: each takes its share of the batches of a step, which are those of one
            process. The first alone calls on_step and writes.
        loading: How the policy was loaded: of it, in how many shards what is trained is kept (`training.sharding`), in
            the end too, and by which optimiser.

    Raises ConfigError where any prompt or plan would be cut (the length check of the data set), where processes would
    have different numbers of batches, and where the state was kept by a run on other demonstrations.
    """
    refuse_uneven(config, ranks)
    prompts, canvases = encode(policy, demonstrations)
    is_sharded = loading.shards > 1
    if is_sharded:
        shard(policy.model)
    model = policy.model.train()
    num_steps = max(1, config.passes // (config.batch_size * config.accumulation_steps))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "betas": (0.9, 0.98)}
    optimiser = adamw(trained, kind=loading.optimiser, **settings)
    stream = generator(config.seed, "warmstart", policy.family)
    state = _State(folder=state_dir, stream=stream, ranks=ranks, learned=_hash(demonstrations))
    done = state.resume(model, optimiser)
    parts = config.accumulation_steps
    batches = itertools.islice(_batches(prompts, config, num_steps * parts), done * parts, None)
    for step in range(done, num_steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, num_steps, config)
        total = 0.0
        for number, index in list(enumerate(itertools.islice(batches, parts)))[ranks.share(parts)]:
            batch = collate(policy, [prompts[i] for i in index], canvases[index])
            # Of several batches each has noise of its own, so that any process may take any of them.
            noise = generator(config.seed, "warmstart", policy.family, step, number) if parts > 1 else state.stream
            with torch.autocast(policy.device.type, torch.bfloat16, enabled=config.is_mixed_precision):
                loss = policy.process.warm_start_loss(policy, batch, noise) / parts
            loss.backward()
            total += float(loss.detach())
        if not is_sharded:
            ranks.sum_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        total = sum(ranks.gather(total))
        if on_step is not None and ranks.is_first:
            on_step(step + 1, num_steps, total)
        if (step + 1) % STEPS_PER_STATE == 0:
            state.keep(step + 1, model, optimiser)
    state.remove()
    model.eval()


def _hash(demonstrations: Sequence[Demonstration]) -> str:
    text = json.dumps([(item.prompt, item.plan) for item in demonstrations])
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_uneven(config: WarmStartConfig, ranks: Ranks) -> None:
    """Raise ConfigError where processes would have different numbers of the batches of a step."""
    if config.accumulation_steps % ranks.count:
        raise ConfigError(
            f"accumulation_steps={config.accumulation_steps} was given, the batches of a step that {ranks.count} "
            f"processes share. Give a multiple of {ranks.count}, and so much smaller a batch_size, if steps should see "
            "as many rows as before."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What a run that was cut off goes on from: weights, optimiser, and the stream of noise.

    Attributes:
        folder: Where it is kept; None to keep none.
        learned: Hash of the demonstrations.
    """

    folder: Path | None
    stream: torch.Generator
    ranks: Ranks
    learned: str

    def keep(self, step: int, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the state; the noise's own file is named by its step, so that it always fits the weights."""
        if self.folder is None:
            return
        if self.ranks.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _LEARNED_FILE).write_text(self.learned)
            torch.save(self.stream.get_state(), self.folder / f"noise-{step}.pt")
        save_state(self.folder, step=step, model=model, optimiser=optimiser, ranks=self.ranks)
        for path in self.folder.glob("noise-*.pt") if self.ranks.is_first else ():
            if path.name != f"noise-{step}.pt":
                path.unlink()

    def resume(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Restore a kept state in place; the number of steps done, 0 where there is none.

        Raises ConfigError for the state of a run on other demonstrations.
        """
        step = 0 if self.folder is None else load_state(self.folder, model=model, optimiser=optimiser)
        if step:
            assert self.folder is not None
            record = self.folder / _LEARNED_FILE
            if not record.is_file() or record.read_text() != self.learned:
                raise ConfigError(
                    f"'{self.folder}' was kept by a warm start on other demonstrations than there are now. Give those "
                    "back, or remove that folder to begin anew."
                )
            self.stream.set_state(torch.load(self.folder / f"noise-{step}.pt", weights_only=True))
        return step

    def remove(self) -> None:
        """Remove it, once the run is done."""
        if self.folder is not None and self.ranks.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)


def encode(policy: BasePolicy, demonstrations: Sequence[Demonstration]) -> tuple[list[list[int]], Int[Tensor, "n l"]]:
    """Token ids of all prompts and canvases. Raises ConfigError where one does not fit."""
    policy.prompts([max((d.prompt for d in demonstrations), key=len)], [0])
    prompts = [policy.encode_prompt(item.prompt) for item in demonstrations]
    for tokens, item in zip(prompts, demonstrations, strict=True):
        if len(tokens) > policy.facts.max_prompt:
            policy.prompts([item.prompt], [0])
    return prompts, torch.tensor([policy.canvas.encode(item.plan) for item in demonstrations])


def collate(policy: BasePolicy, tokens: Sequence[list[int]], canvas: Int[Tensor, "b l"]) -> Batch:
    """Left-pad token ids to the longest prompt of the batch."""
    prompts = Prompts.left_padded(tokens, row_ids=range(len(tokens)), pad_id=policy.canvas.pad_id)
    return Batch(prompts=prompts, canvas=canvas)


def _schedule(step: int, num_steps: int, config: WarmStartConfig) -> float:
    """Linear warm-up, a plateau, then a cosine to zero over the last `decay_share` of the steps."""
    rising = (step + 1) / max(1, config.warmup_steps)
    decay = config.decay_share * num_steps
    left = (num_steps - step) / decay if decay else 1.0
    return min(1.0, rising, 0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


def _batches(prompts: Sequence[list[int]], config: WarmStartConfig, num_steps: int) -> Iterator[list[int]]:
    """Batches of similar prompt length, shuffled anew each epoch."""
    made, epoch = 0, 0
    while made < num_steps:
        random = seeding.python_random(config.seed, "warmstart-order", epoch)
        order = list(range(len(prompts)))
        random.shuffle(order)
        window = config.batch_size * 16
        pools = [order[start : start + window] for start in range(0, len(order), window)]
        batches = []
        for pool in pools:
            pool.sort(key=lambda i: len(prompts[i]))
            batches += [pool[start : start + config.batch_size] for start in range(0, len(pool), config.batch_size)]
        random.shuffle(batches)
        for batch in batches[: num_steps - made]:
            yield batch
            made += 1
        epoch += 1
