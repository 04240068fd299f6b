"""A judge behind an OpenAI-compatible endpoint: asked once for each different episode, recorded, and paid for.

A call that fails, times out or cannot be read is a fault, so the episode has no reward; it is never scored as 0.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from dllm_rl.errors import ConfigError
from dllm_rl.options import unkeyed
from dllm_rl.records.evidence import Evidence, executed_state, render_state
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score
from harness.rewards.answers import Answer, Answers

PROMPT = """\
A user asked an agent to do something on a website. Decide whether it was done, from the actions, the feedback and the
state of the page alone. Every value must be right, in its own field, and the form must have been accepted.
Answer with one word in the last line: SUCCESS or FAILURE.

Task: {instruction}

Actions and feedback:
{actions}

What the fields were set to:
{state}
"""
# The word alone, however it is set off, as in "Answer: **SUCCESS**." A sentence may say the opposite of its last word.
_VERDICT = re.compile(
    r"(?:\W*(?:ANSWER|VERDICT|RESULT)\W*:)?\W*(NOT SUCCESS|UNSUCCESSFUL|FAILURE|SUCCESS)\W*", re.IGNORECASE
)


class NoVerdictError(Exception):
    """The endpoint gave no verdict."""


@register("reward", "endpoint_judge")
@dataclass(frozen=True, kw_only=True)
class EndpointJudge(Reward):
    """1 where a model behind an endpoint says SUCCESS, 0 where it says FAILURE.

    Results are keyed by the endpoint, the model and the prompt; not by recorded answers, nor by how answers are got.

    Attributes:
        url: Of the endpoint, up to and including `/v1`.
        model: Name of the model there.
        answers: SQLite file of recorded answers; what stands there is not asked again.
        key_variable: Environment variable that holds the key; "" for an endpoint without one.
        prompt: What is asked, with `{instruction}`, `{actions}`, `{state}` and, of an errand for an answer, `{answer}`.
        timeout: Seconds that an answer may take.
        concurrency: Questions at a time.
        prices: Of a million tokens read and written, in any currency.
    """

    version: ClassVar[int] = 3
    needs_truth: ClassVar[bool] = False

    url: str
    model: str
    answers: str = unkeyed()
    key_variable: str = unkeyed("")
    prompt: str = PROMPT
    timeout: Annotated[float, Field(gt=0)] = unkeyed(60.0)
    concurrency: Annotated[int, Field(ge=1)] = unkeyed(8)
    prices: tuple[float, float] = unkeyed((0.0, 0.0))

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url={self.url!r}; expected one that begins with http:// or https://.")
        if not Path(self.answers).parent.is_dir():
            raise ConfigError(f"answers='{self.answers}' lies in no folder. Make it first: mkdir -p its folder.")
        if self.key_variable and self.key_variable not in os.environ:
            raise ConfigError(f"the environment variable {self.key_variable} is not set. Set it to the endpoint's key.")
        # A file of something else is refused before anything is asked.
        _ = self._recorded
        try:
            self.prompt.format(instruction="", actions="", state="", answer="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"prompt cannot be filled in: {error}. Use instruction, actions, state and answer."
            ) from None

    @cached_property
    def _recorded(self) -> Answers:
        return Answers(Path(self.answers))

    @property
    def cost(self) -> float:
        """Price of all recorded answers."""
        return sum(price * count / 1e6 for price, count in zip(self.prices, self._recorded.tokens, strict=True))

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Ask about the different episodes that are not recorded, several at a time."""
        prompts = [self.ask_about(item) for item in episodes]
        with ThreadPoolExecutor(self.concurrency) as pool:
            different = dict.fromkeys(prompts)
            scored = dict(zip(different, pool.map(self._scored, different), strict=True))
        return [scored[prompt] for prompt in prompts]

    def ask_about(self, episode: Evidence) -> str:
        """The question about an episode."""
        lines = [f"{item.text or '(not an action)'} -> {item.note or item.status}" for item in episode.actions]
        return self.prompt.format(
            instruction=episode.instruction,
            actions="\n".join(lines) or "(none)",
            state=render_state(executed_state(episode)) or "(nothing)",
            answer=episode.answer or "(none)",
        )

    def _scored(self, prompt: str) -> Score:
        try:
            verdict = self._verdict(prompt)
        except NoVerdictError as error:
            return Score(fault=str(error))
        return Score(value=verdict, claim=verdict)

    def _verdict(self, prompt: str) -> float:
        key = hashlib.sha256(json.dumps([self.url, self.model, prompt]).encode()).hexdigest()
        try:
            known = self._recorded.get(key)
            if known is not None:
                return verdict_of(known.text)
            answer = self._asked(prompt)
            verdict = verdict_of(answer.text)
            self._recorded.add(key, answer)
        except sqlite3.Error as error:
            raise NoVerdictError(f"recorded answers in '{self.answers}' cannot be read or written: {error}") from None
        return verdict

    def _asked(self, prompt: str) -> Answer:
        """Ask the endpoint. Raises NoVerdictError where it does not answer as it should."""
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", data=json.dumps(body).encode(), headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                answer = json.load(reply)
            usage = answer.get("usage") or {}
            return Answer(
                text=str(answer["choices"][0]["message"]["content"]),
                prompt_tokens=int(usage.get("prompt_tokens", 0)),
                completion_tokens=int(usage.get("completion_tokens", 0)),
            )
        except TimeoutError:
            raise NoVerdictError(f"the judge did not answer within {self.timeout:g} s") from None
        except (urllib.error.URLError, OSError) as error:
            raise NoVerdictError(f"the judge cannot be reached: {error}") from None
        except http.client.HTTPException as error:
            raise NoVerdictError(f"the judge's reply broke off or is not HTTP: {error!r}") from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise NoVerdictError(f"the judge's answer is not a chat completion: {error!r}") from None


def verdict_of(answer: str) -> float:
    """Read the last line of an answer. Raises NoVerdictError where that is not one verdict."""
    lines = [line for line in answer.splitlines() if line.strip()]
    found = _VERDICT.fullmatch(lines[-1]) if lines else None
    if found is None:
        raise NoVerdictError(f"the judge gave no verdict in its last line: {answer[-80:]!r}")
    return float(found[1].upper() == "SUCCESS")
