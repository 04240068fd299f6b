"""Turns that are written in several calls of roles (`dllm_rl.roles`), for many episodes at once.

Each call is sampled from a prompt of its own, and is a training row of its own: what was sampled is what is trained on.
The text of a turn is put together from them, and is never encoded again. Roles may have policies of their own, which
are asked and not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dllm_rl import seeding
from dllm_rl.episodes import TOO_LONG, Situation, Stop
from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.protocols import Objective
from dllm_rl.records.plan import MAX_ACTIONS, parse_turn, quote
from dllm_rl.records.rollout import Call, Completion
from dllm_rl.roles import (
    NO_REFLECTION,
    Asking,
    Instruction,
    Reflection,
    Role,
    Roles,
    grounder_prompt,
    noted,
    read_plan,
    read_reflection,
)
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.credit import NO_CREDIT
from dllm_rl.training.speaker import Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Who writes the turns of episodes, role by role.

    Attributes:
        own: Policies that some roles have of their own. Planner and actor have none: they are what is trained.
    """

    roles: Roles
    own: Mapping[Role, Speaker] = field(default_factory=dict)

    def at_temperature(self, temperature: float) -> Team:
        """The same team, its own policies' samplers at another temperature."""
        return replace(self, own={role: speaker.at_temperature(temperature) for role, speaker in self.own.items()})

    def write(
        self,
        trained: Speaker,
        notebook: Notebook,
        situations: Sequence[Situation],
        row_ids: Sequence[int],
        *,
        seed: int,
        max_turns: int | None,
    ) -> list[Completion | Stop]:
        """Write one turn an episode.

        Args:
            trained: Writes in every role that has no policy of its own.
            notebook: What is kept of earlier turns.
            row_ids: Names of the episodes, by which noise is keyed.
            max_turns: Turns after which the episodes end, where that is known.
        """
        written = _Writing(team=self, trained=trained, notebook=notebook, seed=seed)
        rows = [_Row(situation=item, id=row_id) for item, row_id in zip(situations, row_ids, strict=True)]
        if self.roles.reflector:
            written.reflect([row for row in rows if row.situation.turns])
        written.plan([row for row in rows if row.goes_on])
        if self.roles.grounder:
            written.ground([row for row in rows if row.goes_on])
        if self.roles.summarizer:
            written.summarise([row for row in rows if row.is_asked_for_an_answer(max_turns)])
        return [row.completion() for row in rows]


def refuse_roles(objective: Objective, config: TrainConfig, *, is_repaired: bool) -> None:
    """Raise ConfigError where calls of roles cannot be trained on as turns are."""
    if is_repaired:
        raise repaired_in_roles()
    if "step_rewards" in objective.requires:
        raise ConfigError(
            f"roles were given, and objective '{objective.name}' scores unfinished turns, which a call of a role is "
            "not. Leave roles out, or take another objective."
        )
    if config.step_credit != NO_CREDIT:
        raise ConfigError(
            f"roles and step_credit={config.step_credit} were given; credit is of turns, and a row is one of a turn's "
            "calls. Leave one of them out."
        )


def repaired_in_roles() -> ConfigError:
    """What is said where a turn of roles was to be repaired."""
    return ConfigError(
        "roles and repair were given; repair goes on from the last turn's text, which roles write in several calls. "
        "Leave one of them out."
    )


@dataclass(slots=True, kw_only=True)
class _Row:
    """One episode's turn as it comes about.

    Attributes:
        id: Name of the episode, by which noise is keyed.
        lines: The turn's text, line by line.
        is_too_long: Whether a prompt did not fit.
    """

    situation: Situation
    id: int
    calls: list[Call] = field(default_factory=list)
    reflection: Reflection = NO_REFLECTION
    lines: list[str] = field(default_factory=list)
    is_too_long: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the page is to be worked on."""
        return not self.is_too_long and self.reflection.status not in ("done", "blocked")

    def is_asked_for_an_answer(self, max_turns: int | None) -> bool:
        """Whether the Summarizer is asked: the Reflector or the Planner said done, or no turn follows."""
        if self.is_too_long or self.reflection.status == "blocked":
            return False
        is_last = max_turns is not None and len(self.situation.turns) + 1 >= max_turns
        return self.reflection.status == "done" or is_last or _says_done(self.lines)

    def completion(self) -> Completion | Stop:
        """The turn, with the calls that it was put together from."""
        if self.is_too_long:
            return TOO_LONG
        plan = "\n".join(self.lines) if self.goes_on or self.lines else "done"
        num_tokens = sum(call.completion.num_tokens for call in self.calls)
        return Completion(plan=plan, num_tokens=num_tokens, calls=tuple(self.calls))


def _says_done(lines: Sequence[str]) -> bool:
    return any(action.verb == "done" for action in parse_turn("\n".join(lines)).actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A prompt to a role.

    Attributes:
        number: Which one it is of its episode's turn, of those to this role.
    """

    row: _Row
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writing:
    """The calls of one turn of many episodes."""

    team: Team
    trained: Speaker
    notebook: Notebook
    seed: int

    def reflect(self, rows: Sequence[_Row]) -> None:
        """Ask what came of the last turn."""
        for question, said in self._ask("reflector", rows, Asking.reflector):
            question.row.reflection = read_reflection(said)

    def plan(self, rows: Sequence[_Row]) -> None:
        """Ask what is to be done."""
        role, prompt = ("planner", Asking.planner) if self.team.roles.planner else ("actor", Asking.actor)
        for question, said in self._ask(role, rows, prompt):
            question.row.lines = said.split("\n")

    def ground(self, rows: Sequence[_Row]) -> None:
        """Ask for the ref of each line about a control."""
        plans = [(row, read_plan("\n".join(row.lines))[:MAX_ACTIONS]) for row in rows]
        questions = [
            _Question(row=row, text=grounder_prompt(row.situation.observation, line), number=number)
            for row, lines in plans
            for number, line in enumerate(lines)
            if isinstance(line, Instruction)
        ]
        said = {(question.row.id, question.number): text for question, text in self._put("grounder", questions)}
        for row, lines in plans:
            row.lines = [
                line if isinstance(line, str) else line.grounded(said.get((row.id, number), ""))
                for number, line in enumerate(lines)
            ]

    def summarise(self, rows: Sequence[_Row]) -> None:
        """Ask for the answer, with which the episode ends."""
        for question, said in self._ask("summarizer", rows, Asking.summarizer):
            kept = [line for line in question.row.lines if not _says_done([line])]
            question.row.lines = [*kept, f"done {quote(said.strip())}" if said.strip() else "done"]

    def _ask(self, role: Role, rows: Sequence[_Row], prompt: Callable[[Asking], str]) -> list[tuple[_Question, str]]:
        fits = self._speaker(role).policy.fits
        return self._put(role, [_Question(row=row, text=prompt(self._asking(row, fits))) for row in rows])

    def _asking(self, row: _Row, fits: Callable[[str], bool]) -> Asking:
        situation = row.situation
        return Asking(
            task=situation.task,
            turns=situation.turns,
            page=situation.observation,
            notebook=self.notebook,
            fits=fits,
            notes=(*noted(situation.turns), *row.reflection.notes),
            reflection=row.reflection if self.team.roles.reflector else None,
        )

    def _speaker(self, role: Role) -> Speaker:
        return self.team.own.get(role, self.trained)

    def _put(self, role: Role, questions: Sequence[_Question]) -> list[tuple[_Question, str]]:
        """Ask all of them at once, and keep the calls; what does not fit ends its episode."""
        speaker = self._speaker(role)
        for question in questions:
            question.row.is_too_long |= not speaker.policy.fits(question.text)
        asked = [question for question in questions if not question.row.is_too_long]
        if not asked:
            return []
        texts = [question.text for question in asked]
        prompts = speaker.policy.prompts(texts, [item.row.id * MAX_ACTIONS + item.number for item in asked])
        stand = [item.row.situation for item in asked]
        pages = tuple(item.observation for item in stand)
        instructions = tuple(item.task.instruction or item.observation.instruction for item in stand)
        prompts = replace(prompts, pages=pages, instructions=instructions)
        turn = len(stand[0].turns)
        written = speaker.say(prompts, texts, seed=seeding.derive(self.seed, "call", turn, role))
        for question, completion in zip(asked, written, strict=True):
            is_trained = role not in self.team.own
            question.row.calls.append(Call(role=role, completion=completion, is_trained=is_trained))
        return [(question, completion.plan) for question, completion in zip(asked, written, strict=True)]
