"""vLLM (2309.06180) in this process, beside the policy on its GPU.

It has a copy of the weights, which are handed over before each batch, an adapter added to what it was put on. Written
from vLLM's documentation (`LLM`, `SamplingParams`, `LLM.apply_model`), and not run on a GPU: see docs/samplers.md.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakSet

from pydantic import ConfigDict, Field
from torch import nn

from dllm_rl.errors import ConfigError
from dllm_rl.policies.autoregressive import AutoregressivePolicy
from dllm_rl.policies.head import dtype_of
from samplers.engines.base import Request, Written, stock_model
from samplers.engines.weights import named_weights

# Added to the logit of a banned token: as far as vLLM's interface goes.
_BAN = -100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngine:
    """Writes with vLLM's kernels. Noise is keyed by the row, up to how its kernels round in another batch.

    Attributes:
        memory_share: Of the GPU's memory, for its copy of the weights and for keys and values.
        max_rows: Rows that are written at a time.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: Literal["vllm"] = "vllm"
    memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_rows: Annotated[int, Field(ge=1)] = 256

    def require(self) -> None:
        """Raise ConfigError where vLLM is not installed."""
        if find_spec("vllm") is None:
            raise ConfigError(
                "engine 'vllm' needs the package vllm, which is not installed: pip install 'dllm-rl[vllm]'"
            )

    def write(self, policy: AutoregressivePolicy, request: Request) -> list[Written]:
        """Hand over the policy's weights, and write one row a prompt."""
        self.require()
        stock_model(policy, self.name)
        _refuse_place(policy)
        llm = self._running(policy)
        weights = list(named_weights(policy.model))
        llm.apply_model(lambda model: model.load_weights(weights))
        # Keys and values of prompts that it kept are of other weights.
        llm.reset_prefix_cache()
        prompts = [{"prompt_token_ids": list(ids)} for ids in request.prompts]
        outputs = llm.generate(prompts, [_parameters(request, seed) for seed in request.seeds], use_tqdm=False)
        return [_written(output.outputs[0]) for output in outputs]

    def _running(self, policy: AutoregressivePolicy) -> Any:
        """The engine of policies of this architecture; one is started where there is none."""
        model: Any = policy.model
        key = (self, model.config.to_json_string(), str(dtype_of(model)), policy.facts.max_prompt, policy.vocab_size)
        if key not in _STARTED:
            for other in [other for other, started in _STARTED.items() if not started.users]:
                del _STARTED[other]
            _STARTED[key] = _Started(llm=self._start(policy), users=WeakSet())
        _STARTED[key].users.add(model)
        return _STARTED[key].llm

    def _start(self, policy: AutoregressivePolicy) -> Any:
        # Weights are handed over as they are, which they cannot be to another process. Read when it is imported.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM  # pyright: ignore[reportMissingImports]

        model = stock_model(policy, self.name)
        with tempfile.TemporaryDirectory() as folder:
            config = type(model.config).from_dict({**model.config.to_dict(), "architectures": [type(model).__name__]})
            config.save_pretrained(folder)
            return LLM(
                model=folder,
                # Whatever they are, those of the policy take their place.
                load_format="dummy",
                skip_tokenizer_init=True,
                generation_config="vllm",
                dtype=str(dtype_of(model)).removeprefix("torch."),
                max_model_len=policy.facts.max_prompt + policy.facts.canvas_length,
                max_num_seqs=self.max_rows,
                gpu_memory_utilization=self.memory_share,
                # With bans and temperature in them.
                logprobs_mode="processed_logprobs",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    llm: Any
    users: WeakSet[nn.Module]


# Starting one takes minutes, and weights are handed over anyway: all policies of an architecture share it.
_STARTED: dict[Any, _Started] = {}


def _refuse_place(policy: AutoregressivePolicy) -> None:
    """Raise ConfigError where vLLM would run on another GPU than the policy, or take other processes for its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "engine 'vllm' was given, and several processes were launched, which it would take for its own. Launch "
            "one, or take the engine 'transformers'."
        )
    if policy.device.type == "cuda" and policy.device.index not in (None, 0):
        raise ConfigError(
            f"engine 'vllm' was given for a policy on {policy.device}, and it runs on the first GPU that it sees. Give "
            f"the process that GPU alone: CUDA_VISIBLE_DEVICES={policy.device.index}, with device=cuda."
        )


def _parameters(request: Request, seed: int) -> Any:
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    return SamplingParams(
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        seed=seed,
        # That of the drawn token alone.
        logprobs=0,
        # The checkpoint's own ends are tokens like others; the policy says which one ends a row.
        ignore_eos=True,
        stop_token_ids=[request.eos_id],
        logit_bias=dict.fromkeys(request.banned_ids, _BAN) or None,
        detokenize=False,
    )


def _written(output: Any) -> Written:
    tokens = tuple(output.token_ids)
    found = zip(tokens, output.logprobs, strict=True)
    return Written(tokens=tokens, log_probs=tuple(known[token].logprob for token, known in found))
