"""What a model's last layers would predict: their hidden states through its last norm and its output head.

Legend: b rows, t positions of the feed, c asked columns, v vocabulary, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dllm_rl.errors import ConfigError
from dllm_rl.policies.feed import places_of
from dllm_rl.policies.head import output_head, without_adapter

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.policies.feed import Feed

# Largest median difference between the model's logits and those of its last layer, read like the others. The median,
# since what bans or favours a few ids above the head changes nothing of what layers say.
ROUNDING, ROUNDING_IN_HALF = 1e-3, 0.2


class LayerLens:
    """Reads the last layers in a forward of `BasePolicy.logits`, which costs the head's products and no forward.

    Attributes:
        agreement: Number of last layers in a row, the final one included, whose most likely token is the final one's,
            in the last forward.
        drop: Largest probability of that token in these layers, less that in the final one, in the last forward.
    """

    agreement: Int[Tensor, "b c"]
    drop: Float[Tensor, "b c"]

    def __init__(self, model: nn.Module, num_layers: int) -> None:
        layers, self.norm, self.head = _parts(model)
        self.layers = list(layers)[-num_layers:]
        self.is_checked = False

    @torch.no_grad()
    def read(
        self, policy: BasePolicy, feed: Feed, columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None
    ) -> Float[Tensor, "b c v"]:
        """Return the logits of these columns, and keep what the layers below say of the most likely tokens.

        Raises ConfigError where the final logits are not those of the last layer, read like the others.
        """

        def at_layer(state: Tensor) -> Tensor:
            return policy.without_banned(self._logits(state, places))

        places = places_of(feed, columns, is_shifted=policy.reading.is_shifted)
        places = places.expand(len(feed.canvas), -1)
        with _outputs(self.layers) as states:
            logits = policy.score(feed, columns=columns)
        if not self.is_checked:
            self._check(at_layer(states[-1]), logits)
        best, token = logits.log_softmax(dim=-1).max(dim=-1, keepdim=True)
        stays, peak = torch.ones_like(token, dtype=torch.bool), best
        agreement = torch.ones_like(token)
        for state in reversed(states[:-1]):
            below = at_layer(state).log_softmax(dim=-1)
            stays = stays & (below.argmax(dim=-1, keepdim=True) == token)
            if not stays.any():
                break
            agreement += stays
            peak = torch.where(stays, torch.maximum(peak, below.gather(-1, token)), peak)
        self.agreement = agreement.squeeze(-1).to(feed.canvas.device)
        self.drop = (peak.exp() - best.exp()).squeeze(-1).to(feed.canvas.device)
        return logits

    def _logits(self, state: Tensor, places: Int[Tensor, "b c"]) -> Float[Tensor, "b c v"]:
        """The head's logits at these places; some models compute no others in their last layer."""
        if state.shape[1] != places.shape[1]:
            index = places.to(state.device)[..., None].expand(-1, -1, state.shape[-1])
            state = state.gather(1, index)
        return self.head(self.norm(state)).float()

    def _check(self, read: Float[Tensor, "b c v"], final: Float[Tensor, "b c v"]) -> None:
        allowed = (final > -torch.inf) & (read > -torch.inf)
        is_half = next(self.norm.parameters()).dtype in (torch.float16, torch.bfloat16)
        gap = float((read - final)[allowed].abs().median())
        if gap > (ROUNDING_IN_HALF if is_half else ROUNDING):
            raise ConfigError(
                "this model's logits are not its output embedding's of its last layer after the last norm (they differ "
                f"by {gap:.2g}), so what its other layers would predict is not known. Take a sampler that does "
                "not read layers."
            )
        self.is_checked = True


def num_layers(model: nn.Module) -> int:
    """Return how many layers a lens can read. Raises ConfigError where the model's layers are not known."""
    return len(_parts(model)[0])


def _parts(model: nn.Module) -> tuple[nn.ModuleList, nn.Module, nn.Module]:
    """The layers, the norm above them and the output head."""
    inner: Any = without_adapter(model)
    head, depth = output_head(model), getattr(inner.config, "num_hidden_layers", None)
    for module in inner.modules():
        children = list(module.children())
        stacks = [child for child in children if isinstance(child, nn.ModuleList) and len(child) == depth]
        norms = [child for child in children if "norm" in type(child).__name__.lower()]
        if head is not None and len(stacks) == 1 and norms:
            return stacks[0], norms[-1], head
    raise ConfigError(
        f"{type(inner).__name__} does not keep its layers (as many as num_hidden_layers) in one list beside a last "
        "norm, below an output embedding; so what they would predict cannot be read. Take a sampler that does not read "
        "layers."
    )


@contextmanager
def _outputs(layers: list[nn.Module]) -> Iterator[list[Float[Tensor, "b t d"]]]:
    """What these layers give in a forward while it is open, the lowest first."""
    states: list[Tensor] = []

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        yield states
