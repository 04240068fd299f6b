"""Episodes: a task is worked on turn by turn, and each turn answers with the page as it is then.

`play` is the one path of every episode: of policies, of oracles and of replays. A whole plan for a scouted site is the
episode of one turn, which every environment has; one of several turns is what `Environment.begin` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from dllm_rl.errors import HarnessError
from dllm_rl.records.rollout import Attempt, Completion, Rollout, Turn, rewarded, split_turns
from dllm_rl.records.tasks import Ending, Fault, Observation, Outcome, Task
from dllm_rl.reward import Reward

if TYPE_CHECKING:
    from dllm_rl.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an environment says at the start of an episode and after each turn.

    Attributes:
        observation: The page as it is now; None where the episode has ended.
        outcome: What has come of the episode so far. Its `actions` are those of the turn, its `ending` says how the
            episode ended.
    """

    observation: Observation | None
    outcome: Outcome


class Episode(ABC):
    """One run of a task under way."""

    @abstractmethod
    async def start(self) -> Reply:
        """Open the first page. An episode that the environment loses here has no turn."""

    @abstractmethod
    async def step(self, plan: str) -> Reply:
        """Run one turn's actions.

        What the environment loses is tried again inside, the whole episode from its start, unless something was
        submitted; lost for good, the outcome's fault says so.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back what the episode holds. Safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where an episode stands when its next turn is to be written.

    Attributes:
        row: Number of the episode among those that are played together.
        task: The task.
        turns: The turns so far.
        observation: The page as it is now.
    """

    row: int
    task: Task
    turns: tuple[Turn, ...]
    observation: Observation

    @property
    def id(self) -> str:
        """Tells it from the other situations of the episodes that are played together."""
        return f"{self.task.id} {self.row}.{len(self.turns)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """What a writer says instead of a turn that it cannot write; the episode ends so, as the agent's.

    Attributes:
        ending: How the episode ends.
        reason: Why, in words.
    """

    ending: Ending
    reason: str


TOO_LONG = Stop(ending=Ending.TOO_LONG, reason="the page did not fit into the policy's max_prompt")


# Writes the next turn of each episode; None ends an episode where it stands.
Writer = Callable[[Sequence[Situation]], Sequence[Completion | Stop | None]]


class Episodes(Protocol):
    """Episodes of several tasks side by side, as a caller without an event loop sees them."""

    def start(self) -> Sequence[Reply]:
        """Open the first page of each."""
        ...

    def step(self, plans: Mapping[int, str]) -> Mapping[int, Reply]:
        """Run a turn of the episodes with these numbers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """How an environment runs plans, in its own words; None for its default."""

    isolation: str | None = None
    executor: str | None = None


class _WholePlans:
    """Episodes of one turn: a site that was scouted, and a whole plan for it."""

    def __init__(self, session: Session, tasks: Sequence[Task], modes: Modes) -> None:
        self.session, self.tasks, self.modes = session, tasks, modes

    def start(self) -> list[Reply]:
        unique = {task.id: task for task in self.tasks}
        pages = dict(zip(unique, self.session.observe_many(list(unique.values())), strict=True))
        return [Reply(observation=pages[task.id], outcome=Outcome(task_id=task.id)) for task in self.tasks]

    def step(self, plans: Mapping[int, str]) -> dict[int, Reply]:
        outcomes = self.session.run_many(
            [(self.tasks[row], plan) for row, plan in plans.items()],
            isolation=self.modes.isolation,
            executor=self.modes.executor,
        )
        replies = (Reply(observation=None, outcome=outcome) for outcome in outcomes)
        return dict(zip(plans, replies, strict=True))


class OneTurn:
    """Gives a session of whole plans the episodes of one turn. Mixed into `Session`."""

    @property
    def is_episodic(self) -> bool:
        """Whether a task is worked on in several turns."""
        return False

    @property
    def max_open(self) -> int | None:
        """Episodes that may be under way at a time; None for any number."""
        return None

    @property
    def max_turns(self) -> int | None:
        """Turns after which an episode ends; None where that is not said."""
        return None

    @contextmanager
    def episodes(self, tasks: Sequence[Task], modes: Modes) -> Iterator[Episodes]:
        """Episodes of these tasks, which end with the context."""
        yield _WholePlans(self, tasks, modes)  # type: ignore[arg-type]


def play(
    session: Session | OneTurn,
    reward: Reward,
    tasks: Sequence[Task],
    write: Writer,
    modes: Modes | None = None,
    max_turns: int | None = None,
) -> list[Rollout]:
    """Play one episode a task to its end and reward it, in order.

    Args:
        session: The environment.
        reward: Of whole episodes; it scores those that are played side by side at once.
        tasks: One task an episode.
        write: Writes the turns. It is asked for all episodes that go on at once, so that a policy samples in batches.
        modes: How plans are run; default: as the environment does.
        max_turns: Turns after which an episode ends, where the environment would go on.
    """
    size = session.max_open or max(1, len(tasks))
    parts = [range(start, min(start + size, len(tasks))) for start in range(0, len(tasks), size)]
    known = modes or Modes()
    return [rollout for part in parts for rollout in _played(session, reward, tasks, part, write, known, max_turns)]


def _played(
    session: Session | OneTurn,
    reward: Reward,
    tasks: Sequence[Task],
    part: range,
    write: Writer,
    modes: Modes,
    max_turns: int | None,
) -> list[Rollout]:
    """Play the episodes of a part of the tasks side by side."""
    turns: list[tuple[Turn, ...]] = [() for _ in part]
    with session.episodes([tasks[row] for row in part], modes) as episodes:
        replies = dict(enumerate(episodes.start()))
        going = {at: reply.observation for at, reply in replies.items() if reply.observation is not None}
        while going:
            situations = [
                Situation(row=part[at], task=tasks[part[at]], turns=turns[at], observation=page)
                for at, page in going.items()
            ]
            said = dict(zip(going, write(situations), strict=True))
            replies |= {at: _stopped(replies[at], what) for at, what in said.items() if isinstance(what, Stop)}
            written = {at: what for at, what in said.items() if isinstance(what, Completion)}
            answers = episodes.step({at: completion.plan for at, completion in written.items()}) if written else {}
            for at, reply in answers.items():
                turns[at] += (Turn(observation=going[at], completion=written[at], outcome=reply.outcome),)
                replies[at] = _out_of_turns(reply) if len(turns[at]) == max_turns else reply
            going = {at: page for at in answers if (page := replies[at].observation) is not None}
    outcomes = [whole_outcome(turns[at], replies[at].outcome) for at in range(len(part))]
    attempts = [Attempt(task=tasks[row], turns=turns[at], outcome=outcomes[at]) for at, row in enumerate(part)]
    return rewarded(reward, attempts)


def _out_of_turns(reply: Reply) -> Reply:
    """The reply, which ends the episode unless that has ended by itself."""
    if reply.observation is None:
        return reply
    return Reply(observation=None, outcome=replace(reply.outcome, ending=Ending.TURNS))


def _stopped(last: Reply, stop: Stop) -> Reply:
    outcome = replace(last.outcome, ending=stop.ending, fault=Fault.AGENT, fault_reason=stop.reason)
    return Reply(observation=None, outcome=outcome)


async def played(episode: Episode, write: Callable[[Sequence[Turn], Observation], str | None]) -> Outcome:
    """Play an episode alone and close it.

    Args:
        write: Gives the next turn; None ends the episode where it stands.
    """
    try:
        reply, turns = await episode.start(), []
        while reply.observation is not None:
            page, plan = reply.observation, write(turns, reply.observation)
            if plan is None:
                break
            reply = await episode.step(plan)
            turns.append(Turn(observation=page, completion=Completion(plan=plan), outcome=reply.outcome))
        return whole_outcome(turns, reply.outcome)
    finally:
        await episode.close()


async def played_again(episode: Episode, plan: str) -> Outcome:
    """Play the turns of a recorded episode; an empty line stands between two of them."""
    turns = iter(split_turns(plan))
    return await played(episode, lambda so_far, page: next(turns, None))


async def first_page(episode: Episode, task: Task) -> Observation:
    """What stands at the beginning of an episode, which is closed. Raises HarnessError where it cannot begin."""
    try:
        reply = await episode.start()
    finally:
        await episode.close()
    if reply.observation is None:
        raise HarnessError(f"{task.id}: the first page could not be opened: {reply.outcome.fault_reason}")
    return reply.observation


def whole_outcome(turns: Sequence[Turn], last: Outcome) -> Outcome:
    """The outcome of an episode: what the last turn came to, with the actions of all turns.

    An episode has the fault of the first turn that had one, unless the environment lost it.
    """
    if len(turns) < 2:
        return last
    earlier = [turn.outcome for turn in turns]
    first = next((item for item in earlier if item.fault is Fault.AGENT), last)
    blamed = last if last.fault is Fault.ENVIRONMENT else first
    return replace(
        last,
        fault=blamed.fault,
        fault_reason=blamed.fault_reason,
        is_parsed=all(item.is_parsed for item in earlier),
        actions=tuple(action for item in earlier for action in item.actions),
        seconds=_summed([item.seconds for item in earlier]),
    )


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


def given(completions: Sequence[Completion]) -> Writer:
    """A writer of one turn an episode, which is known beforehand."""
    return lambda situations: [None if item.turns else completions[item.row] for item in situations]


def recorded(plans: Sequence[Sequence[str]], last: Stop | None = None) -> Writer:
    """A writer that plays the turns of recorded episodes again, and ends them there.

    Args:
        plans: The turns of each episode.
        last: What is said after them.
    """

    def write(situations: Sequence[Situation]) -> list[Completion | Stop | None]:
        rest = [plans[item.row][len(item.turns) :] for item in situations]
        return [Completion(plan=turns[0]) if turns else last for turns in rest]

    return write


def oracle(session: Session) -> Writer:
    """A writer of what the environment's oracle does."""

    def write(situations: Sequence[Situation]) -> list[Completion | None]:
        plans = [session.environment.gold_turn(item.task, item.turns, item.observation) for item in situations]
        return [None if plan is None else Completion(plan=plan) for plan in plans]

    return write
