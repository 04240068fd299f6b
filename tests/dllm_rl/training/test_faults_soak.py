"""Ten thousand faults in episodes, and not one that a parameter could tell."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from dllm_rl.episodes import Episode, Reply
from dllm_rl.records.tasks import Ending, Fault, Outcome
from dllm_rl.session import Session
from tests.dllm_rl.training.test_turns import Walk, Walks, groups_of, stacked, trainer_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(14400)]

NUM_FAULTS = 10_000
SHARE, GROUP_SIZE = 0.6, 32


class FailingWalks(Walks):
    """Loses a share of its episodes, at the start or at one of the turns."""

    def __init__(self) -> None:
        self.chance, self.num_lost = random.Random(0), 0

    def begin(self, task, modes) -> Any:
        walk = Walk(task)
        if self.chance.random() > SHARE:
            return walk
        return Failing(walk, self, at=self.chance.randrange(3))


class Failing(Episode):
    """A walk that is lost at a turn, if it takes as many."""

    def __init__(self, walk: Walk, owner: FailingWalks, *, at: int) -> None:
        self.walk, self.owner, self.at = walk, owner, at

    async def start(self) -> Reply:
        return await self.walk.start() if self.at else self._lost()

    async def step(self, plan: str) -> Reply:
        reply = await self.walk.step(plan)
        return self._lost() if self.walk.turn == self.at else reply

    async def close(self) -> None:
        pass

    def _lost(self) -> Reply:
        self.owner.num_lost += 1
        outcome = Outcome(task_id=self.walk.task.id, fault=Fault.ENVIRONMENT, ending=Ending.LOST)
        return Reply(observation=None, outcome=outcome)


def weights_of(trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()])


@pytest.mark.parametrize("objective", ["grpo", "espo"])
def test_ten_thousand_faults_leave_every_parameter_as_without_those_episodes(objective, tmp_path) -> None:
    """Bit for bit, step after step. What was not lost is drawn alike beside lost episodes and without them."""
    environment, num_steps = FailingWalks(), 0
    with Session(environment) as failing, Session(Walks()) as sound:
        disturbed, undisturbed = (
            trainer_of(session, objective, tmp_path, inner_steps=1) for session in (failing, sound)
        )
        before = weights_of(undisturbed)
        while environment.num_lost < NUM_FAULTS:
            drawn = groups_of(disturbed.engine, size=GROUP_SIZE)
            whole = groups_of(undisturbed.engine, size=GROUP_SIZE)
            kept = [
                [rollout for rollout, other in zip(*pair, strict=True) if other.outcome.is_valid]
                for pair in zip(whole, drawn, strict=True)
            ]
            for trainer, groups in ((disturbed, drawn), (undisturbed, kept)):
                trainer.updater.update(num_steps, stacked(trainer.engine, groups), rate=1e-3)
            num_steps += 1
            assert torch.equal(weights_of(disturbed), weights_of(undisturbed)), num_steps
    print(environment.num_lost, "faults in", num_steps, "steps")
    assert not torch.equal(before, weights_of(undisturbed))
