"""Log-probabilities read from the output head in tiles of positions, so that logits of all positions never exist.

With a vocabulary of 100,000 and more, logits are the widest tensors of an update by far. Here a tile of them is
computed, what is asked is taken from it, and on the way back it is computed again (activation recomputation,
1604.06174). Numbers are those of whole logits, up to the rounding of another order of summation in the head's gradient.

Legend: m positions of distinct inputs, n scored positions, d width of the hidden states, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dllm_rl.likelihood.terms import TokenLogProbs, top_log_odds

# Smaller vocabularies, such as the built-in policies have, are read whole.
LARGE_VOCABULARY = 2**14
# Logits that exist at a time: 64 MiB in float32.
TILE = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledLogits(TokenLogProbs):
    """Every question goes over the head once more.

    Attributes:
        states: What the head reads.
        logits: Logits of the policy from such states, float32.
        vocab_size: v.
        place: Which of the states each scored position has.
    """

    states: Float[Tensor, "m d"]
    logits: Callable[[Float[Tensor, "t d"]], Float[Tensor, "t v"]]
    vocab_size: int
    place: Int[Tensor, " n"]

    def __call__(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the log-probabilities of one token a position."""
        order = self.place.argsort(stable=True)
        place, asked = self.place[order], tokens.to(self.place.device)[order]
        found = []
        for first, states in self._tiles():
            mine = (place >= first) & (place < first + len(states))
            found.append(self._read(self._log_probs, states, place[mine] - first, asked[mine]))
        return torch.cat(found)[order.argsort()].to(tokens.device)

    def log_odds(self, scale: float) -> Float[Tensor, " n"]:
        """Return the log-odds of the most likely token, of the logits times `scale`."""
        found = [
            self._read(lambda tile: top_log_odds(self.logits(tile) * scale), states) for _, states in self._tiles()
        ]
        return torch.cat(found)[self.place]

    def _tiles(self) -> Iterator[tuple[int, Float[Tensor, "t d"]]]:
        size = max(1, TILE // self.vocab_size)
        for first in range(0, len(self.states), size):
            yield first, self.states[first : first + size]

    def _log_probs(
        self, states: Float[Tensor, "t d"], place: Int[Tensor, " n"], tokens: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        logits = self.logits(states)
        return logits[place, tokens] - logits.logsumexp(dim=-1)[place]

    def _read(self, read: Callable[..., Tensor], *given: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return read(*given)
        return checkpoint(read, *given, use_reentrant=False, preserve_rng_state=False)
