"""vLLM's interface as its documentation has it (`LLM`, `SamplingParams`), with a model of transformers behind it.

What is not documented is refused, so that a misspelt argument fails here as it would there. That the real one behaves
so is not tested by it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

ARGUMENTS = {
    "model",
    "load_format",
    "skip_tokenizer_init",
    "generation_config",
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "gpu_memory_utilization",
    "logprobs_mode",
}


@dataclass(kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    logprobs: int | None = None
    ignore_eos: bool = False
    stop_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None
    detokenize: bool = True


class Worker:
    """The model of a worker, which loads weights by the names of the checkpoint."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> set[str]:
        own = dict(self.model.named_parameters())
        given = dict(weights)
        assert given.keys() == own.keys(), given.keys() ^ own.keys()
        with torch.no_grad():
            for name, weight in given.items():
                own[name].copy_(weight)
        return set(given)


class LLM:
    """Starts with weights of its own; draws row by row, each with its seed."""

    started = 0

    def __init__(self, **arguments: Any) -> None:
        assert set(arguments) <= ARGUMENTS, set(arguments) - ARGUMENTS
        assert arguments["load_format"] == "dummy" and arguments["logprobs_mode"] == "processed_logprobs"
        self.arguments = arguments
        config = AutoConfig.from_pretrained(arguments["model"])
        assert config.architectures == ["Qwen3ForCausalLM"]
        self.worker = Worker(AutoModelForCausalLM.from_config(config, dtype=getattr(torch, arguments["dtype"])).eval())
        self.is_cached = False
        type(self).started += 1

    def apply_model(self, function: Any) -> list[Any]:
        return [function(self.worker)]

    def reset_prefix_cache(self) -> bool:
        self.is_cached = False
        return True

    @torch.no_grad()
    def generate(self, prompts: list[dict[str, Any]], params: list[SamplingParams], *, use_tqdm: bool) -> list[Any]:
        assert not self.is_cached, "keys and values of other weights were kept"
        self.is_cached = True
        return [SimpleNamespace(outputs=[self._row(*pair)]) for pair in zip(prompts, params, strict=True)]

    def _row(self, prompt: dict[str, Any], params: SamplingParams) -> Any:
        generator = torch.Generator().manual_seed(params.seed or 0)
        ids, tokens, found = list(prompt["prompt_token_ids"]), [], []
        assert len(ids) + params.max_tokens <= self.arguments["max_model_len"]
        while len(tokens) < params.max_tokens:
            logits = self.worker.model(torch.tensor([ids])).logits[0, -1].float()
            for token, bias in (params.logit_bias or {}).items():
                logits[token] += bias
            law = (logits / (params.temperature or 1.0)).log_softmax(dim=-1)
            drawn = law.argmax() if not params.temperature else torch.multinomial(law.exp(), 1, generator=generator)[0]
            tokens.append(int(drawn))
            ids.append(int(drawn))
            found.append({int(drawn): SimpleNamespace(logprob=float(law[drawn]))})
            if int(drawn) in (params.stop_token_ids or ()):
                break
        return SimpleNamespace(token_ids=tokens, logprobs=found if params.logprobs is not None else None)


def install(monkeypatch: Any) -> None:
    """Put it where vLLM would be."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    vars(module).update(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(LLM, "started", 0)
