"""DiffusionGemma through transformers' own `generate`: entropy-bounded acceptance, the rest redrawn uniformly.

Its noise is torch's global generator, drawn for a whole batch. So that no row depends on another, rows are written one
by one, each with that generator seeded by (seed, row id) and put back afterwards. It writes whole canvases of its
configuration's length and returns more than was asked for: what stands behind the policy's canvas is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

from dllm_rl import seeding
from dllm_rl.errors import ConfigError
from dllm_rl.events import Kind
from dllm_rl.joining import join_completions
from dllm_rl.policies.renoise import RenoisePolicy
from dllm_rl.registry import register
from dllm_rl.types import Completions, Family, Prompts
from samplers._options import check_options, is_number
from samplers._record import Recorder

# transformers' temperatures of the last and the first step, for checkpoints that name none.
T_LAST, T_FIRST = 0.4, 0.8


@register("sampler", "diffusion_gemma")
@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionGemmaSampler:
    """DiffusionGemma's own decoding, one row after another; for evaluation and film, not for training.

    temperature: factor of the checkpoint's falling temperature; 0 leaves it as 1 does, since what is written in the end
    is the most likely token at any temperature, and only the way there is drawn. max_denoising_steps of a canvas and
    entropy_bound in nats: None is the checkpoint's own. keeps_confidence: also record probability and entropy of the
    tokens at the step since which they stand; it costs a copy of all logits a step. They are not those of draws.
    """

    name: ClassVar[str] = "diffusion_gemma"
    paper: ClassVar[str] = "2505.24857"
    families: ClassVar[tuple[Family, ...]] = ("renoise",)
    temperature: float = 1.0
    max_denoising_steps: int | None = None
    entropy_bound: float | None = None
    keeps_confidence: bool = False

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("max_denoising_steps", "entropy_bound"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise ConfigError(f"{name}={value}: give a positive number, or None for the checkpoint's own")
        steps = self.max_denoising_steps
        if steps is not None and not isinstance(steps, int):
            raise ConfigError(f"max_denoising_steps={steps}: the number of denoising steps is an integer")

    @torch.no_grad()
    def generate(self, policy: RenoisePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row. `nfe` counts encoder and decoder forwards, of the longest row."""
        rows = torch.arange(len(prompts.ids))
        return join_completions([self._one(policy, prompts.rows(row[None]), seed) for row in rows], rows)

    def _one(self, policy: RenoisePolicy, prompt: Prompts, seed: int) -> Completions:
        model: Any = policy.model
        ids = prompt.ids[:, prompt.mask[0]]
        film = _Film(policy, model.config.canvas_length, keeps_logits=self.keeps_confidence)
        with _seeded(seeding.derive(seed, "diffusion_gemma", int(prompt.row_ids[0])), policy.device):
            model.generate(
                ids.to(policy.device),
                streamer=film,
                max_new_tokens=policy.facts.canvas_length,
                max_length=None,
                pad_token_id=policy.canvas.pad_id,
                eos_token_id=film.end_ids,
                logits_processor=_without(policy),
                **self._settings(model.generation_config),
            )
        return film.completions(ids.shape[1])

    def _settings(self, own: Any) -> dict[str, Any]:
        """What differs from the checkpoint's generation settings."""
        settings: dict[str, Any] = {}
        if self.max_denoising_steps is not None:
            settings["max_denoising_steps"] = self.max_denoising_steps
        if self.entropy_bound is not None:
            from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

            settings["sampler_config"] = EntropyBoundSamplerConfig(entropy_bound=float(self.entropy_bound))
        if self.temperature not in (0.0, 1.0):
            settings["t_min"] = self.temperature * (T_LAST if own.t_min is None else own.t_min)
            settings["t_max"] = self.temperature * (T_FIRST if own.t_max is None else own.t_max)
        return settings


class _Film:
    """A streamer that keeps every draft: what `generate` calls after each step and after each canvas."""

    def __init__(self, policy: RenoisePolicy, width: int, *, keeps_logits: bool) -> None:
        self.policy, self.width, self._takes_logits = policy, width, keeps_logits
        model: Any = policy.model
        own = model.generation_config.eos_token_id
        ends = [] if own is None else own if isinstance(own, list) else [own]
        self.end_ids = sorted({policy.canvas.eos_id, *ends})
        self.written: list[Tensor] = []
        self.drafts: list[Tensor] = []
        self.log_probs: list[Tensor] = []
        self.entropies: list[Tensor] = []
        self.num_puts = 0

    def put(self, value: Int[Tensor, "1 n"]) -> None:
        """The prompt, and then each canvas as it was finished."""
        self.num_puts += 1
        if self.num_puts > 1:
            self.written.append(value)
            self.drafts[-1] = torch.cat([*self.written[:-1], value], dim=1)

    def put_draft(self, value: Int[Tensor, "1 n"] | None = None, logits: Float[Tensor, "1 n v"] | None = None) -> None:
        """One denoising step: the canvas's most likely tokens, or its tempered logits."""
        if logits is not None:
            law = logits.float().log_softmax(dim=-1)
            best, value = law.max(dim=-1)
            before = [torch.zeros(1, self.width * len(self.written))]
            self.log_probs.append(torch.cat([*before, best], dim=1))
            self.entropies.append(torch.cat([*before, -(law.exp() * law.clamp(min=-1e4)).sum(dim=-1)], dim=1))
        assert value is not None
        self.drafts.append(torch.cat([*self.written, value], dim=1))

    def end(self) -> None:
        """Nothing is left to do."""

    def completions(self, prompt_length: int) -> Completions:
        """The record of the row: the drafts as states, and the step since which each token stands."""
        policy = self.policy
        start = policy.empty_canvas(1)
        states = torch.stack([self._canvas(draft) for draft in self.drafts], dim=1)
        final = states[:, -1]
        # The last step at which a position differed from its final token is the one before it was written.
        differs = states != final[:, None]
        step = torch.arange(1, len(self.drafts) + 1)[:, None]
        stands_since = (differs * step).amax(dim=1)
        is_eos = (final == policy.canvas.eos_id).long()
        is_behind = is_eos.cumsum(dim=1) - is_eos > 0
        record, before = Recorder(start, keeps_states=True), start
        for number, after in enumerate(states.unbind(dim=1)):
            is_event = (before != after) | (stands_since == number)
            is_over = (before != start) & (before != after)
            self._keep(record, number, after, is_event & ~is_behind & ~is_over, Kind.COMMIT)
            self._keep(record, number, after, is_event & ~is_behind & is_over, Kind.EDIT)
            row, column = (is_event & is_behind).nonzero(as_tuple=True)
            record.write_at(row, column, number, after[row, column], Kind.EOS_FILL)
            before = after
        num_canvases = len(self.written)
        # The encoder reads the prompt, and each finished canvas before the next one is begun.
        record.nfe = len(self.drafts) + num_canvases
        record.token_forwards = self.width * (len(self.drafts) + num_canvases - 1) + prompt_length
        return record.finish(policy, final, num_steps=len(self.drafts), is_approximate=True)

    def _keep(
        self, record: Recorder, step: int, draft: Int[Tensor, "1 l"], is_event: Bool[Tensor, "1 l"], kind: Kind
    ) -> None:
        """What this step's draft changed, with the probability of each token where logits were handed out."""
        parts = (self.log_probs[step], self.entropies[step]) if self.log_probs else None
        zeros = torch.zeros(draft.shape)
        log_probs, entropy = (zeros, zeros) if parts is None else (self._padded(part) for part in parts)
        row, column = is_event.nonzero(as_tuple=True)
        facts = (draft[is_event], log_probs[is_event], entropy[is_event])
        record.commit_at(row, column, step, *facts, kind=kind)

    def _canvas(self, draft: Int[Tensor, "1 n"]) -> Int[Tensor, "1 l"]:
        """Cut or filled up to the policy's canvas, with one id for all that end a text."""
        length, ends = self.policy.facts.canvas_length, torch.tensor(self.end_ids)
        draft = torch.where(torch.isin(draft, ends), self.policy.canvas.eos_id, draft)[:, :length]
        return torch.nn.functional.pad(draft, (0, length - draft.shape[1]), value=self.policy.canvas.pad_id)

    def _padded(self, values: Float[Tensor, "1 n"]) -> Float[Tensor, "1 l"]:
        length = self.policy.facts.canvas_length
        return torch.nn.functional.pad(values[:, :length], (0, max(0, length - values.shape[1])))


def _without(policy: RenoisePolicy) -> LogitsProcessorList:
    """Ids that are never written."""
    banned = list(policy.banned_ids)
    if not banned:
        return LogitsProcessorList()
    return LogitsProcessorList([SuppressTokensLogitsProcessor(banned, device=str(policy.device))])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators at this seed, and as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
