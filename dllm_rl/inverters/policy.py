"""A policy of any built-in family as an inverter, trained apart from the one that it rewards.

Trained apart and then frozen, it cannot agree with a policy on a private code, as one that learns along could.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from dllm_rl import registry
from dllm_rl.errors import ConfigError, MissingFileError
from dllm_rl.files import sha256
from dllm_rl.options import unkeyed
from dllm_rl.policies.base import BasePolicy, read_config
from dllm_rl.policies.checkpoints import refuse_other_files
from dllm_rl.policies.loading import checkpoint_digest, load_policy, save_policy
from dllm_rl.records.canvas import encode_text
from dllm_rl.records.evidence import as_planned, executed_state, render_state
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.records.words import WEIGHTS_FILE, weights_file
from dllm_rl.registry import register
from dllm_rl.session import Session
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionExample:
    """A state, `label: value` one a line, and the instruction that asks for it."""

    state: str
    instruction: str

    @classmethod
    def of(cls, instruction: str, page: Observation, plan: str) -> InversionExample:
        """The state that a plan leads to, as the page promises it; nothing is run."""
        evidence = as_planned(instruction, page, plan)
        return cls(state=render_state(executed_state(evidence)), instruction=instruction)


class Inverting:
    """A policy that writes instructions as an inverter: it writes greedily, and tells likelihoods if it knows them.

    Attributes:
        policy: The policy that writes.
        batch_rows: States that are read at a time; decides memory, not what is written.
    """

    policy: BasePolicy
    batch_rows: int

    def write(self, states: Sequence[str]) -> list[str]:
        """Return an instruction for each state, in order. A state that does not fit is shortened from its end."""
        written: list[str] = []
        for start in range(0, len(states), self.batch_rows):
            written += self._write(states[start : start + self.batch_rows])
        return written

    def normalized_pmi(self, states: Sequence[str], instructions: Sequence[str]) -> list[float | None]:
        """Pointwise mutual information over the instruction's surprise: 1 - log p(x | state) / log p(x | no state).

        At most 1; below 0 where the state speaks against the instruction; None where the instruction does not fit the
        canvas. Only for a family that knows likelihoods.
        """
        canvases = {text: self._on_canvas(text) for text in sorted(set(instructions))}
        known = {text: canvas for text, canvas in canvases.items() if canvas is not None}
        alone = dict(zip(known, self._surprises([""] * len(known), list(known.values())), strict=True))
        rows = [(state, text) for state, text in zip(states, instructions, strict=True) if text in known]
        told = iter(self._surprises([state for state, _ in rows], [known[text] for _, text in rows]))
        return [_share(next(told), alone[text]) if text in known else None for text in instructions]

    def _on_canvas(self, text: str) -> list[int] | None:
        """An instruction's tokens; None where the canvas cannot hold them."""
        try:
            return self.policy.canvas.encode(in_lines(self.policy, text))
        except ConfigError:
            return None

    @torch.no_grad()
    def _surprises(self, states: Sequence[str], canvases: Sequence[list[int]]) -> list[float]:
        """Minus the log-probability of each instruction after its state, up to the end of the text."""
        policy, found = self.policy, list[float]()
        for start in range(0, len(states), self.batch_rows):
            part = slice(start, start + self.batch_rows)
            prompts = policy.prompts(
                [_fitting(policy, state) for state in states[part]], list(range(len(states[part])))
            )
            canvas = torch.tensor(canvases[part])
            log_probs = policy.logits(prompts, canvas).float().log_softmax(-1)
            read = log_probs.gather(-1, canvas[..., None].to(log_probs.device))[..., 0].cpu()
            found += torch.where(policy.canvas.until_eos(canvas), -read, 0.0).sum(dim=1).tolist()
        return found

    def _write(self, states: Sequence[str]) -> list[str]:
        prompts = self.policy.prompts([_fitting(self.policy, state) for state in states], list(range(len(states))))
        sampler = registry.build("sampler", self.policy.usual_sampler, temperature=0.0)
        completions = sampler.generate(self.policy, prompts, seed=0)
        return [self.policy.plan_of(ids).replace("\n", " ").strip() for ids in completions.ids]


@register("inverter", "policy")
@dataclass(frozen=True, kw_only=True)
class PolicyInverter(Inverting):
    """A policy that `train_inverter` made. It writes greedily; one of the autoregressive family knows likelihoods, too.

    Attributes:
        checkpoint: Its folder.
    """

    version: ClassVar[int] = 2

    checkpoint: str
    batch_rows: Annotated[int, Field(ge=1)] = unkeyed(64)

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            message = f"no inverter in the folder '{self.checkpoint}'. Give one that `train_inverter` wrote."
            raise MissingFileError(message, self.folder)

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(self.checkpoint)

    @property
    def knows_likelihood(self) -> bool:
        """Whether its family knows exact likelihoods; read from its facts, without its weights."""
        family = read_config(self.folder).get("policy", {}).get("family")
        return family is not None and registry.get("policy", family).is_exact

    @cached_property
    def policy(self) -> BasePolicy:  # type: ignore[override]
        """The policy, loaded when it is first needed."""
        return load_policy(self.checkpoint)

    def of_policy(self, policy: Any) -> PolicyInverter:
        """The same: it does not depend on the policy that is rewarded."""
        return self

    def ingredients(self) -> list[Any]:
        """Digest of its weights, and of those of words, which the similarity `idf` reads."""
        weights = self.folder / WEIGHTS_FILE
        return [checkpoint_digest(self.checkpoint), sha256(weights) if weights.is_file() else ""]


def _share(told: float, alone: float) -> float:
    """Share of a surprise that is gone; nothing can be gone where there was none."""
    return 1 - told / alone if alone > 0 else 0.0


def inversion_prompt(state: str) -> str:
    """What an inverter reads."""
    return f"state:\n{state}\ntask:\n"


def _fitting(policy: BasePolicy, state: str) -> str:
    """The prompt of as many lines of a state as fit, and of a first line that does not, of as much as fits."""
    lines = state.split("\n")
    while len(lines) > 1 and not policy.fits(inversion_prompt("\n".join(lines))):
        lines.pop()
    text = "\n".join(lines)
    if policy.fits(inversion_prompt(text)):
        return inversion_prompt(text)
    too_long = bisect.bisect_left(range(len(text)), True, key=lambda end: not policy.fits(inversion_prompt(text[:end])))
    return inversion_prompt(text[: max(0, too_long - 1)])


def in_lines(policy: BasePolicy, text: str) -> str:
    """Break a text into lines that the policy's canvas holds, between words; free-running canvases take it whole."""
    if policy.facts.line_width is None:
        return text
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and len(encode_text(policy.tokenizer, longer)) < policy.facts.line_width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def inversion_examples(session: Session, tasks: Sequence[Task]) -> list[InversionExample]:
    """States that the gold plans of tasks lead to, and the tasks' instructions; nothing is run.

    The untouched page is not among them: what an inverter writes of it is the wording that instructions share.
    """
    pages = session.observe_many(tasks)
    return [
        InversionExample.of(task.instruction, page, session.gold_plan(task))
        for task, page in zip(tasks, pages, strict=True)
    ]


def as_demonstrations(policy: BasePolicy, pairs: Sequence[InversionExample]) -> list[Demonstration]:
    """What a policy is shown that learns to invert; the instruction stands where it writes plans."""
    return [
        Demonstration(prompt=inversion_prompt(pair.state), plan=in_lines(policy, pair.instruction)) for pair in pairs
    ]


def train_inverter(
    policy: BasePolicy,
    pairs: Sequence[InversionExample],
    config: WarmStartConfig,
    folder: Path,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
) -> PolicyInverter:
    """Train a policy in place on states and their instructions, and save it as an inverter.

    Args:
        policy: Of random weights, or a warm start of another seed than the policy that will be rewarded.

    Raises ConfigError where an instruction does not fit the policy's canvas, and CheckpointError where the folder holds
    anything but a saved policy.
    """
    refuse_other_files(folder)
    warm_start(policy, as_demonstrations(policy, pairs), config, on_step=on_step)
    save_inverter(policy, folder, [pair.instruction for pair in pairs])
    return PolicyInverter(checkpoint=str(folder))


def save_inverter(policy: BasePolicy, folder: Path, instructions: Sequence[str], *, half: bool = False) -> None:
    """Save a policy that writes instructions, with the weights of their words; whole or not at all.

    Args:
        half: See `save_policy`.
    """
    save_policy(policy, folder, half=half, beside=weights_file(instructions))
