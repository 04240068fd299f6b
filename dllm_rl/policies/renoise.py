"""The renoise family: DiffusionGemma, as transformers ships it (5.24 and later), for evaluation and film.

An encoder reads the prompt and all finished canvases into keys and values; a decoder denoises a canvas of
`config.canvas_length` columns that begins as uniform noise and reads its own last logits (self-conditioning). Which
positions are kept in a step depends on tokens that the model's own `generate` draws and does not hand out, so there is
no probability of a text that could be replayed: `samplers.diffusion_gemma` writes with it, and nothing trains it.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch

from dllm_rl.canvas import Canvas, CanvasConfig
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.terms import Attention
from dllm_rl.registry import register
from dllm_rl.types import Corruption, Family

MODEL_TYPE = "diffusion_gemma"


@register("policy", "renoise")
class RenoisePolicy(BasePolicy):
    """Holds the model and its words; its only way to write is the model's own `generate`."""

    family: ClassVar[Family] = "renoise"
    attention: ClassVar[Attention] = "full"

    def __init__(self, model: torch.nn.Module, tokenizer: Any, facts: PolicyFacts) -> None:
        config: Any = model.config
        if config.model_type != MODEL_TYPE:
            raise ConfigError(
                f"the renoise family is that of models of type {MODEL_TYPE}; this one is a {config.model_type}. Give "
                "the family that it was trained as: masked, block, slot, flow or autoregressive."
            )
        self.model, self.tokenizer, self.facts = model, tokenizer, facts
        self.canvas = Canvas(CanvasConfig(length=facts.canvas_length, line_width=facts.line_width), tokenizer)
        self.mask_id = facts.mask_id if facts.mask_id is not None else tokenizer.mask_token_id
        self.vocab_size = int(config.text_config.vocab_size)

    @property
    def corruption(self) -> Corruption:
        """Refused: views would score a law that its texts are not drawn from."""
        self._refuse("no view scores it")

    def logits(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the law of a step depends on that step's and the last step's own draws."""
        self._refuse("other samplers cannot ask it")

    def view_log_probs(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: no probability of a text is known."""
        self._refuse("it cannot be trained here")

    def _refuse(self, consequence: str) -> NoReturn:
        raise ConfigError(
            "DiffusionGemma writes through its own generate, which hands out no probabilities of what it drew, so "
            f"{consequence}. Evaluate or film it with the sampler diffusion_gemma; train another family."
        )

    def empty_canvas(self, num_rows: int) -> torch.Tensor:
        """PAD everywhere: what stands there before the first draft is noise that is not handed out."""
        return torch.full((num_rows, self.facts.canvas_length), self.canvas.pad_id, dtype=torch.long)
