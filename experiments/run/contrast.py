"""Training of two towers by contrast, as in Embed-RL's first stage (arXiv 2602.13823), on instructions and states.

Each instruction must be nearer to its state than to the other states of a batch, and each state nearer to its
instruction than to the other instructions and to counterfactual ones, in which one wish is another task's. Without the
last kind, telling one form from another would be enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dllm_rl.errors import ConfigError
from harness.rewards.towers import (
    NUM_BUCKETS,
    NUM_DIMENSIONS,
    Clauses,
    Tower,
    Towers,
    Wishes,
    clauses_of,
    counterfactuals,
    direction,
    features,
    wishes_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastConfig:
    """How towers are trained.

    Attributes:
        temperature: Of both softmaxes.
        num_counterfactuals: Drawn anew for each pair of a batch.
        penalty: Of how far a tower is from counting all words alike, which it starts from.
        num_others: Instructions that are kept as negatives of the reward.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-2
    temperature: float = 0.05
    num_counterfactuals: int = 4
    penalty: float = 1e-3
    num_others: int = 64
    seed: int = 0


class _Learner(nn.Module):
    """A tower that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(NUM_BUCKETS))
        self.change = nn.Parameter(torch.zeros(NUM_DIMENSIONS, NUM_DIMENSIONS))

    def forward(self, texts: Sequence[Clauses]) -> Float[Tensor, "n d"]:
        """Unit vectors."""
        found = [[direction(feature) for feature in features(text)] for text in texts]
        rows = torch.tensor([row for row, part in enumerate(found) for _ in part])
        vectors = torch.from_numpy(np.stack([vector for part in found for vector, _ in part]))
        buckets = torch.tensor([bucket for part in found for _, bucket in part])
        weighted = self.log_weights[buckets].exp()[:, None] * vectors
        sums = torch.zeros(len(texts), NUM_DIMENSIONS).index_add(0, rows, weighted)
        return functional.normalize(sums + sums @ self.change, dim=1)

    def away(self) -> Tensor:
        """Squared distance from the start."""
        return self.log_weights.square().sum() + self.change.square().sum()

    def frozen(self) -> Tower:
        """What was learned."""
        whole = torch.eye(NUM_DIMENSIONS) + self.change.detach()
        return Tower(weights=self.log_weights.detach().exp().numpy(), map=whole.numpy())


def train_towers(pairs: Sequence[tuple[str, str]], config: ContrastConfig, *, version: int) -> Towers:
    """Train two towers.

    Args:
        pairs: An instruction, and the state (`label: value`, one a line) that carries it out.

    Raises ConfigError for fewer pairs than a batch, or for one without words.
    """
    texts = [(clauses_of(instruction), clauses_of(state)) for instruction, state in pairs]
    if len(texts) < config.batch_size or not all(one and two for one, two in texts):
        raise ConfigError(
            f"{len(texts)} pairs of instruction and state; expected at least {config.batch_size}, each with words on "
            "both sides. Name a split with more tasks, or an environment whose tasks have instructions."
        )
    wishes = Wishes(clauses=tuple(dict.fromkeys(wish for one, two in texts for wish in wishes_of(one, two))))
    changed = [counterfactuals(one, wishes) for one, _ in texts]
    generator = torch.Generator().manual_seed(config.seed)
    learners = nn.ModuleList([_Learner(), _Learner()])
    optimiser = torch.optim.Adam(learners.parameters(), lr=config.learning_rate)
    for _ in range(config.epochs):
        order = torch.randperm(len(texts), generator=generator)
        for rows in order.split(config.batch_size):
            chosen = [_drawn(changed[row], config.num_counterfactuals, generator) for row in rows.tolist()]
            loss = _loss(learners, [texts[row] for row in rows.tolist()], chosen, config.temperature)
            loss = loss + config.penalty * sum(learner.away() for learner in learners)  # type: ignore[operator]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    instruction, state = (learner.frozen() for learner in learners)  # type: ignore[operator]
    others = tuple(dict.fromkeys(one for one, _ in texts))[: config.num_others]
    return Towers(instruction=instruction, state=state, others=others, wishes=wishes, version=version)


def _drawn(texts: Sequence[Clauses], count: int, generator: torch.Generator) -> list[Clauses]:
    return [texts[at] for at in torch.randperm(len(texts), generator=generator)[:count].tolist()]


def _loss(
    learners: nn.ModuleList,
    pairs: Sequence[tuple[Clauses, Clauses]],
    changed: Sequence[Sequence[Clauses]],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy in both directions, with counterfactual instructions among those that a state could belong to."""
    asked, done = learners[0]([one for one, _ in pairs]), learners[1]([two for _, two in pairs])
    target = torch.arange(len(pairs))
    # A pair with the same state is no negative.
    repeated = torch.tensor([[one[1] == other[1] for other in pairs] for one in pairs]) & ~torch.eye(len(pairs)).bool()
    near = (asked @ done.T / temperature).masked_fill(repeated, -torch.inf)
    by_state = near.T
    owners = torch.tensor([row for row, texts in enumerate(changed) for _ in texts])
    if len(owners):
        other = learners[0]([text for texts in changed for text in texts])
        wrong = (other * done[owners]).sum(dim=1) / temperature
        by_state = torch.cat([by_state, _in_rows(wrong, owners, len(pairs))], dim=1)
    return (functional.cross_entropy(near, target) + functional.cross_entropy(by_state, target)) / 2


def _in_rows(values: Float[Tensor, " n"], owners: Int[Tensor, " n"], num_rows: int) -> Float[Tensor, "b k"]:
    """Values in the rows that own them; the rest is minus infinity."""
    place = torch.cat([torch.arange(count) for count in owners.bincount(minlength=num_rows).tolist()])
    table = torch.full((num_rows, int(place.max()) + 1), -torch.inf)
    return table.index_put((owners, place), values)
