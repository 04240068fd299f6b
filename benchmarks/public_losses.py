"""Losses of public code on scores that are given: the text of a few functions of a checkout, run with stand-ins.

Nothing of a trainer is needed (`public_code`). Where the public code asks its model, the stand-in answers with logits
of two tokens under which the token that stands there has exactly the given log-probability.

Legend: k views, b rows, l canvas, p prompt length.
"""

from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks import public_code
from dllm_rl.records.types import Rollouts

MASK_ID, TOKEN = 1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a public loss is asked at.

    Attributes:
        new: The scores that its gradient is taken of.
        options: Those of our method that it has, too.
    """

    rollouts: Rollouts
    advantages: Float[Tensor, " b"]
    new: Float[Tensor, "k b l"]
    old: Float[Tensor, "k b l"]
    ref: Float[Tensor, "k b l"]
    options: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """What trainers built on TRL hand to their loss."""
        rows, length = self.rollouts.completion_mask.shape
        prompt = torch.full((rows, 1), TOKEN)
        return {
            "prompt_ids": prompt,
            "prompt_mask": torch.ones_like(prompt),
            "completion_ids": torch.full((rows, length), TOKEN),
            "completion_mask": self.rollouts.completion_mask.long(),
            "advantages": self.advantages,
            "num_items_in_batch": self.rollouts.completion_mask.sum(),
            "reward_mask": self.advantages >= 0,
        }


@dataclass(slots=True, kw_only=True)
class Hidden:
    """What the public code hid, as it was asked: masks of the canvas, and levels where it drew one."""

    masks: list[Bool[Tensor, "b l"]] = field(default_factory=list)
    level: float | None = None


class Trainer(SimpleNamespace):
    """Stands in for a trainer: what nobody set is None."""

    def __getattr__(self, name: str) -> None:
        return None


def trainer_of(asked: Asked, **facts: Any) -> Trainer:
    """A trainer with our method's options, two inner steps, and nobody to send metrics to."""
    options = asked.options
    args = Trainer(
        num_iterations=2,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        mask_id=MASK_ID,
        use_bias_correction_kl=False,
        p_mask_prompt=0.0,
        cfg_scale=0.0,
    )
    return Trainer(
        args=args,
        num_iterations=2,
        _step=0,
        beta=options["beta"],
        epsilon=options.get("clip_low"),
        epsilon_low=options.get("clip_low"),
        epsilon_high=options.get("clip_high"),
        control=Trainer(should_evaluate=False),
        model=Trainer(training=True),
        processing_class=Trainer(mask_token_id=MASK_ID),
        accelerator=Trainer(
            gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x, num_processes=1
        ),
        _metrics=defaultdict(lambda: defaultdict(list)),
        **facts,
    )


def functions(path: Path, names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """Functions of a file by name, which know what losses call. Raises ConfigError where one is not there."""
    return public_code.functions(path, names, _KNOWN)


def _set_seed(seed: int) -> None:
    random.seed(int(seed))
    torch.manual_seed(int(seed))


_KNOWN = {
    "torch": torch,
    "F": F,
    "np": np,
    "random": random,
    "defaultdict": defaultdict,
    "nanmin": torch.min,
    "nanmax": torch.max,
    "set_seed": _set_seed,
}


def logits_of(log_probs: Float[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """Logits of two tokens, the first of which has these log-probabilities."""
    return torch.stack([log_probs, torch.log1p(-log_probs.exp())], dim=-1)


def trl(path: Path, asked: Asked, hidden: Hidden, *, loss_type: str = "grpo", level: str = "token") -> Tensor:
    """TRL's GRPOTrainer, whose loss has several types."""
    loss = functions(path, ["_compute_loss"])["_compute_loss"]
    given = {**asked.inputs, "old_per_token_logps": asked.old[0], "ref_per_token_logps": asked.ref[0]}
    trainer = trainer_of(
        asked,
        loss_type=loss_type,
        importance_sampling_level=level,
        top_entropy_quantile=1.0,
        current_gradient_accumulation_steps=1,
        max_completion_length=asked.new.shape[-1],
        _get_per_token_logps_and_entropies=lambda *_, **__: (asked.new[0], torch.zeros_like(asked.new[0]), None),
    )
    if loss_type == "cispo":
        trainer.epsilon_high = asked.options["ratio_cap"]
    return loss(trainer, None, given)


def trl_rloo(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """TRL's RLOOTrainer."""
    loss = functions(path, ["_compute_loss"])["_compute_loss"]
    given = {**asked.inputs, "old_logps": (asked.old[0] * asked.rollouts.completion_mask).sum(-1)}
    scores = (asked.new[0], torch.zeros_like(asked.new[0]), None)
    return loss(trainer_of(asked, _get_per_token_logps_and_entropies=lambda *_, **__: scores), None, given)


def d1(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """d1's diffu-GRPO, on one fully hidden view."""
    loss = functions(path, ["compute_loss"])["compute_loss"]
    given = {
        **asked.inputs,
        "mask_seeds": [0, 1],
        "old_per_token_logps": [asked.old],
        "ref_per_token_logps": [asked.ref],
    }
    return loss(trainer_of(asked, _get_per_token_logps=lambda *_: asked.new), None, given)


def wd1(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """wd1, on one group."""
    loss = functions(path, ["compute_loss"])["compute_loss"]
    trainer = trainer_of(asked, _get_per_token_logps=lambda *_: asked.new)
    return loss(trainer, None, {**asked.inputs, "mask_seeds": [0, 1]})


def coupled(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """DiffuCoder's coupled-GRPO, with the masks that it draws."""
    named = functions(path, ["compute_loss", "forward_process", "_get_per_token_logps", "selective_log_softmax"])
    width = asked.new.shape[-1]

    def forward_process(*given: Any, **options: Any) -> Any:
        noisy, weights, chosen = named["forward_process"](trainer, *given, **options)
        hidden.masks, hidden.level = [chosen[:, -width:]], 1 / weights[1]
        return noisy, weights, chosen

    def scored(scores: Tensor) -> Callable[..., Tensor]:
        def per_token(*given: Any) -> Tensor:
            trainer.get_logits = lambda *_: logits_of(scores).flatten(0, 1)
            return named["_get_per_token_logps"](trainer, *given)

        return per_token

    trainer = trainer_of(asked, forward_process=forward_process)
    trainer.args.num_iterations = 1
    ids = torch.full((1, len(asked.advantages), width + 1), TOKEN)
    with torch.no_grad():
        old, ref = (scored(scores)(None, ids, width, [0]) for scores in (asked.old, asked.ref))
    trainer._get_per_token_logps = scored(asked.new)
    given = {**asked.inputs, "mask_seeds": [0], "old_per_token_logps": old, "ref_per_token_logps": ref}
    return named["compute_loss"](trainer, None, given)


def espo(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """ESPO, with the masks that it draws; view 2 j + 1 is the complement of view 2 j."""
    names = ["compute_loss", "_get_elbo_mc", "_get_elbo", "forward_process", "compute_approx_kl"]
    named = functions(path, names)
    width, num_draws = asked.new.shape[-1], len(asked.new) // 2

    def scored(scores: Tensor) -> Callable[..., Tensor]:
        def elbo(*given: Any, **options: Any) -> Tensor:
            views = iter(scores)
            hidden.masks = []

            def get_logits(_: Any, perturbed: Tensor) -> Tensor:
                hidden.masks.append((perturbed == MASK_ID)[:, -width:])
                # Its sums are float32.
                return logits_of(next(views).float())

            trainer.get_logits = get_logits
            trainer._get_elbo = lambda *args, **more: named["_get_elbo"](trainer, *args, **more)
            return named["_get_elbo_mc"](trainer, *given, **options)

        return elbo

    trainer = trainer_of(asked, num_mc=num_draws)
    trainer._step = 1
    seeds = torch.arange(2 * num_draws).view(2, num_draws)
    ids = torch.full((1, len(asked.advantages), width + 1), TOKEN)
    with torch.no_grad():
        old, ref = (scored(scores)(None, ids, width, seeds[:1], num_mc=num_draws) for scores in (asked.old, asked.ref))
    trainer._get_elbo_mc = scored(asked.new)
    given = {**asked.inputs, "mask_seeds": [seeds], "old_per_token_logps": old, "ref_per_token_logps": ref}
    return named["compute_loss"](trainer, None, given)


def spg(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """SPG's mixed bound at random levels, with the masks that it draws."""
    named = functions(path, ["compute_loss", "_get_per_seq_logps", "forward_process"])
    width = asked.new.shape[-1]

    def forward_process(*given: Any, **options: Any) -> Any:
        noisy, blocks = named["forward_process"](trainer, *given, **options)
        is_hidden = (noisy == MASK_ID)[..., -width:] & asked.rollouts.completion_mask[:, None]
        hidden.masks = list(is_hidden.transpose(0, 1))
        return noisy, blocks

    trainer = trainer_of(asked, forward_process=forward_process)
    trainer.get_logits = lambda *_: logits_of(asked.new.transpose(0, 1))
    trainer._get_per_seq_logps = lambda *args, **more: named["_get_per_seq_logps"](trainer, *args, **more)
    trainer.args = Trainer(
        num_iterations=1,
        mask_id=MASK_ID,
        forward_type="random",
        num_t=len(asked.new),
        min_t=0,
        max_t=1,
        use_mask_prompt=False,
        logp_estimation="mix",
        eubo_beta=asked.options["power"],
        mix_weight=asked.options["mix"],
    )
    return named["compute_loss"](trainer, None, {**asked.inputs, "mask_seeds": [0]})


def cj_grpo(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """CJ-GRPO: view k is denoising step k, which commits the k-th equal share of the canvas."""
    loss = functions(path, ["compute_loss"])["compute_loss"]
    share = asked.new.shape[-1] // len(asked.new)
    step = torch.arange(asked.new.shape[-1]) // share
    hidden.masks = [(step == k).expand(asked.new.shape[1:]) for k in range(len(asked.new))]
    given = {
        **asked.inputs,
        "reversed_traj": None,
        "reversed_traj_unmask_positions": [mask.long() for mask in hidden.masks],
        "reversed_traj_old_per_token_logps": list(asked.old),
        "reversed_traj_ref_per_token_logps": list(asked.ref),
    }
    return loss(trainer_of(asked, _get_per_token_logps=lambda *_: list(asked.new)), None, given)


def just_grpo(path: Path, asked: Asked, hidden: Hidden) -> Tensor:
    """JustGRPO, on policy: view t hides every column from t on."""
    loss = functions(path, ["logprob_loss"])["logprob_loss"]
    parts: list[Tensor] = []
    views = iter(asked.new)
    accelerator = Trainer(gather=lambda x: x, backward=parts.append)
    rows, width = asked.new.shape[1:]

    def model(_: Tensor) -> Trainer:
        scores = next(views)
        return Trainer(logits=logits_of(torch.cat([scores[:, :1], scores], dim=1)))

    given = {
        "advantages": asked.advantages,
        "generated_ids": torch.full((rows, width + 1), TOKEN),
        "prompt_len": 1,
        "rewards": asked.rollouts.rewards,
    }
    is_valid = torch.ones(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss(model, given, is_valid, gain=1 / rows, accelerator=accelerator, gen_length=width, mask_id=MASK_ID)
    return torch.stack(parts).sum()
