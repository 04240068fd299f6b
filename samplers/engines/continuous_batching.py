"""transformers' continuous batching: rows that end make room for others, and keys and values lie in pages (2309.06180).

It runs the policy's own model with its adapter, so no weights have to be copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field

from dllm_rl.errors import ConfigError
from dllm_rl.policies.autoregressive import AutoregressivePolicy
from dllm_rl.seeding import derive
from samplers.engines.base import Request, Written, stock_model

if TYPE_CHECKING:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

PAGE = 256
# Prompt tokens of a forward, at most. Its attention mask grows with them.
MAX_FED = 2048
_ATTENTION = ("sdpa", "eager")
_LOGGER = logging.getLogger("ContinuousBatchingLogger")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousBatching:
    """Writes in this process, on the policy's device.

    Its noise is that of a batch: the same rows in another batch, or shared among another number of processes, are drawn
    otherwise.

    Attributes:
        max_rows: Rows that are written at a time. Keys and values of so many whole rows are held.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: Literal["transformers"] = "transformers"
    max_rows: Annotated[int, Field(ge=1)] = 256

    def require(self) -> None:
        """transformers is always there."""

    def write(self, policy: AutoregressivePolicy, request: Request) -> list[Written]:
        """Write one row a prompt."""
        model = stock_model(policy, self.name)
        attention = model.config._attn_implementation
        if attention not in _ATTENTION:
            raise ConfigError(
                f"engine '{self.name}' was given with attention={attention}; it takes {' or '.join(_ATTENTION)}."
            )
        with _quiet(), _own_noise(policy.device):
            manager = model.init_continuous_batching(
                generation_config=_generation(request), continuous_batching_config=self._batching(request)
            )
            # Before it starts, so that no batch depends on how fast requests come in.
            names = manager.add_requests(list(map(list, request.prompts)), max_new_tokens=request.max_tokens)
            found: dict[str, Any] = {}
            manager.start()
            try:
                while len(found) < len(names):
                    result = manager.get_result(timeout=1)
                    if result is not None and result.is_finished():
                        found[result.request_id] = result
                    elif result is None and not manager.is_running():
                        raise self._failed(manager.background_thread_status.fatal_error)
            finally:
                manager.stop(hard_stop=len(found) < len(names))
                manager.destroy()
        for result in found.values():
            if result.error is not None:
                raise self._failed(result.error)
        rows = (found[name] for name in names)
        return [Written(tokens=tuple(row.generated_tokens), log_probs=tuple(row.logprobs)) for row in rows]

    def _batching(self, request: Request) -> ContinuousBatchingConfig:
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        rows = min(self.max_rows, len(request.prompts))
        width = max(map(len, request.prompts)) + request.max_tokens
        return ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=rows * -(-width // PAGE),
            max_batch_tokens=max(rows, min(MAX_FED, sum(map(len, request.prompts)))),
            max_requests_per_batch=rows,
            return_logprobs=True,
            seed=derive(request.seeds[0], "batch", *request.seeds[1:]),
            auto_switch_to_flash=False,
        )

    def _failed(self, error: Any) -> ConfigError:
        return ConfigError(
            f"engine '{self.name}' failed: {error}. Lower its max_rows where memory lacks, or leave the engine out."
        )


def _generation(request: Request) -> GenerationConfig:
    from transformers import GenerationConfig

    is_greedy = request.temperature == 0
    return GenerationConfig(
        do_sample=not is_greedy,
        temperature=None if is_greedy else request.temperature,
        # Its own default keeps 50.
        top_k=None if is_greedy else 0,
        max_new_tokens=request.max_tokens,
        eos_token_id=request.eos_id,
        suppress_tokens=list(request.banned_ids) or None,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its warning about banned tokens, which it bans all the same, and without the traces of what is raised."""
    level = _LOGGER.level
    _LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        _LOGGER.setLevel(level)


def _own_noise(device: torch.device) -> Any:
    """Leave PyTorch's generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
