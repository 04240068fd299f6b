"""Rollouts of one policy: tasks to prompts, prompts to turns, turns to outcomes, outcomes to rewards; and evaluation.

Training, evaluation, snapshots and films take this one path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dllm_rl import seeding
from dllm_rl.episodes import TOO_LONG, Modes, Situation, Stop, play
from dllm_rl.notebook import Notebook
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Sampler
from dllm_rl.records.rollout import Completion, Rollout
from dllm_rl.records.tasks import Task
from dllm_rl.repair import Repair, refuse_repair
from dllm_rl.reward import Reward
from dllm_rl.session import Session
from dllm_rl.threads import warn_if_spinning
from dllm_rl.training.calls import Team
from dllm_rl.training.ranks import ALONE, Ranks
from dllm_rl.training.sharding import gathered
from dllm_rl.training.speaker import Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """Rollouts that were sampled together, and what that cost.

    Attributes:
        nfe: Model forwards, one after another; of the slowest process.
        token_forwards: Summed over the processes.
    """

    rollouts: tuple[Rollout, ...]
    nfe: int
    token_forwards: int
    seconds_sampling: float
    seconds_browser: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEngine:
    """Makes rollouts of one policy, drawn by one sampler, in one environment.

    Attributes:
        ranks: Processes that share the rows of a batch; all of them get all rollouts.
        isolation, executor: How the environment runs plans, in its own words; None for its default.
        notebook: What the policy reads of earlier turns.
        repair: How much of its last plan a turn begins with; None to write every turn anew.
        max_turns: Turns after which an episode ends, where its environment would go on; None to leave it to that.
        team: Who writes the turns of episodes, role by role; None where each is written at once.
    """

    policy: BasePolicy
    sampler: Sampler
    environment: Session
    reward: Reward
    ranks: Ranks = ALONE
    isolation: str | None = None
    executor: str | None = None
    notebook: Notebook = field(default_factory=Notebook)
    repair: Repair | None = None
    max_turns: int | None = None
    team: Team | None = None

    def __post_init__(self) -> None:
        if self.repair is not None:
            facts = self.policy.facts
            refuse_repair(facts.family, is_aligned=facts.line_width is not None)

    def at_temperature(self, temperature: float) -> RolloutEngine:
        """The same engine, its sampler at another temperature; 0 is greedy."""
        team = None if self.team is None else self.team.at_temperature(temperature)
        return replace(self, sampler=self.speaker.at_temperature(temperature).sampler, team=team)

    def at_step(self, step: int) -> RolloutEngine:
        """The same engine, paying as at this training step."""
        return replace(self, reward=self.reward.at(step))

    def write(self, situations: Sequence[Situation], row_ids: Sequence[int], *, seed: int) -> list[Completion]:
        """Sample one turn an episode, on this process alone.

        Args:
            row_ids: Names of the rows, by which noise is keyed.
        """
        texts = [self._prompt(item) for item in situations]
        pages = tuple(item.observation for item in situations)
        instructions = tuple(item.task.instruction or item.observation.instruction for item in situations)
        prompts = replace(self.policy.prompts(texts, row_ids), pages=pages, instructions=instructions)
        if self.repair is not None:
            prompts = self.repair.begin(self.policy, prompts, situations)
        return self.speaker.say(prompts, texts, seed=seed)

    @property
    def speaker(self) -> Speaker:
        """The policy with its sampler."""
        return Speaker(policy=self.policy, sampler=self.sampler)

    def write_in_roles(
        self, team: Team, situations: Sequence[Situation], row_ids: Sequence[int], *, seed: int
    ) -> list[Completion | Stop]:
        """Write one turn an episode in the calls of a team, on this process alone; otherwise as `write`."""
        limits = [limit for limit in (self.max_turns, self.environment.max_turns) if limit is not None]
        return team.write(
            self.speaker, self.notebook, situations, row_ids, seed=seed, max_turns=min(limits, default=None)
        )

    def can_read(self, item: Situation) -> bool:
        """Whether a page, with as much of the notebook as there is room for, fits into the policy's prompt."""
        return self.policy.fits(self._prompt(item))

    def _prompt(self, item: Situation) -> str:
        return self.notebook.prompt(item.task, item.turns, item.observation, self.policy.fits)

    def run(self, tasks: Sequence[Task], row_ids: Sequence[int], *, seed: int) -> RolloutBatch:
        """Play one episode a task and reward it; rows are shared among the processes."""
        warn_if_spinning()
        started = time.perf_counter()
        share = self.ranks.share(len(tasks))
        mine = list(tasks[share])
        sampling = _Sampling(self, list(row_ids[share]), seed)
        modes = Modes(isolation=self.isolation, executor=self.executor)
        with gathered(self.policy.model):
            reward = self.reward.of_policy(self.policy)
            rollouts = play(self.environment, reward, mine, sampling, modes, self.max_turns) if mine else []
        seconds = time.perf_counter() - started
        parts = self.ranks.gather((rollouts, sampling.nfe, sampling.token_forwards))
        return RolloutBatch(
            rollouts=tuple(rollout for part, _, _ in parts for rollout in part),
            nfe=max(count for _, count, _ in parts),
            token_forwards=sum(count for _, _, count in parts),
            seconds_sampling=sampling.seconds,
            seconds_browser=seconds - sampling.seconds,
        )


def rollout(engine: RolloutEngine, tasks: Sequence[Task], *, num_samples: int = 1, seed: int = 0) -> list[Rollout]:
    """Play `num_samples` episodes a task and reward them; ordered by task.

    Args:
        seed: Names the noise.
    """
    repeated = [task for task in tasks for _ in range(num_samples)]
    return list(engine.run(repeated, range(len(repeated)), seed=seed).rollouts)


class _Sampling:
    """A writer of episodes that samples from a policy, and counts what that costs.

    The noise of a row at its first turn is keyed by the seed, at later turns by seed and turn. An episode ends at a
    page that is too long for the policy; where whole plans are written, such a page is refused (`BasePolicy.prompts`).
    """

    def __init__(self, engine: RolloutEngine, row_ids: Sequence[int], seed: int) -> None:
        self.engine, self.row_ids, self.seed = engine, row_ids, seed
        self.nfe = self.token_forwards = 0
        self.seconds = 0.0

    def __call__(self, situations: Sequence[Situation]) -> list[Completion | Stop]:
        """Sample the next turn of each; all of them have had as many turns."""
        started = time.perf_counter()
        engine = self.engine
        if engine.team is not None:
            row_ids = [self.row_ids[item.row] for item in situations]
            said = engine.write_in_roles(engine.team, situations, row_ids, seed=self.seed)
        else:
            is_episodic = engine.environment.is_episodic
            readable = [item for item in situations if not is_episodic or engine.can_read(item)]
            written = dict(zip([item.row for item in readable], self._written(readable), strict=True))
            said = [written.get(item.row, TOO_LONG) for item in situations]
        self._count(said)
        self.seconds += time.perf_counter() - started
        return said

    def _written(self, situations: Sequence[Situation]) -> list[Completion]:
        if not situations:
            return []
        turn = len(situations[0].turns)
        seed = self.seed if turn == 0 else seeding.derive(self.seed, "turn", turn)
        return self.engine.write(situations, [self.row_ids[item.row] for item in situations], seed=seed)

    def _count(self, said: Sequence[Completion | Stop]) -> None:
        """Count the forwards of each batch that was drawn."""
        written = [item for item in said if isinstance(item, Completion)]
        parts = [call.completion for item in written for call in item.calls] + written
        batches = {id(part.sampled.completions): part.sampled.completions for part in parts if part.sampled is not None}
        self.nfe += sum(batch.nfe for batch in batches.values())
        self.token_forwards += sum(batch.token_forwards for batch in batches.values())


# Raised whenever the same policy would be evaluated with other numbers: results are keyed by it.
EVALUATION_VERSION = 1
_SAMPLE_STRIDE = 1_000_003


def evaluate(
    engine: RolloutEngine,
    tasks: Sequence[Task],
    *,
    num_samples: int,
    seed: int,
    batch_rows: int = 96,
    on_result: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the results table for one policy, ordered by task, then greedy before sampled.

    Args:
        engine: Its sampler's temperature is that of the sampled passes; its processes share the rollouts of each batch,
            and all of them return all rows.
        num_samples: Sampled rollouts a task.
        seed: Names the noise; equal seeds give equal noise in every cell.
        batch_rows: Rollouts that one process samples at a time.
        on_result: Gets (rollouts done, rollouts in all).
    """
    number = {task.id: index for index, task in enumerate(tasks)}
    passes = [
        ("greedy", engine.at_temperature(0.0), [(0, task) for task in tasks]),
        ("sampled", engine, [(sample, task) for sample in range(num_samples) for task in tasks]),
    ]
    rows: list[dict[str, Any]] = []
    for mode, drawing, jobs in passes:
        size = batch_rows * engine.ranks.count
        for part in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            row_ids = [sample * _SAMPLE_STRIDE + number[task.id] for sample, task in part]
            batch = drawing.run([task for _, task in part], row_ids, seed=noise_seed(seed))
            for (sample, _), rollout in zip(part, batch.rollouts, strict=True):
                rows.append(rollout.to_row(mode=mode, sample=sample))
            if on_result is not None:
                on_result(len(rows), len(tasks) * (1 + num_samples))
    return sorted(rows, key=lambda row: (number[row["task_id"]], row["mode"], row["sample"]))


def noise_seed(seed: int) -> int:
    """Seed of the samplers at an evaluation of this seed; the greedy row of a task is named by the task's number."""
    return seeding.derive(seed, "evaluation")
