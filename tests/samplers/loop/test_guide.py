"""A guide weighs canvases by what their whole lines would earn, and plans come out as it wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.canvas import Canvas, CanvasConfig
from dllm_rl.records.evidence import Evidence
from dllm_rl.reward import Reward, Score
from dllm_rl.testing import check_sampler
from dllm_rl.testing.policies import PLANS, prompts_of
from experiments.design.config import Component
from experiments.design.units import _sampler
from samplers import SMCSampler
from samplers.config import sampler_from_json, sampler_to_json
from samplers.loop.guide import Guide, whole_lines
from tests.tiny_policies import make_tiny_policy

PLAIN = Guide(reward="flip", options={"inverter": "plain"}, strength=40.0)
AS_DATA = {"reward": "flip", "options": {"inverter": "plain"}, "strength": 40.0}


@dataclass(frozen=True, kw_only=True)
class AsksForAPolicy(Reward):
    """Pays nothing, and remembers whose plans it was to pay."""

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    asked: list[Any]

    def of_policy(self, policy: Any) -> Reward:
        """The same."""
        self.asked.append(policy)
        return self

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Pay nothing."""
        return [Score(claim=0.0) for _ in episodes]


@dataclass(frozen=True, kw_only=True)
class Even(Reward):
    """Pays plans whose lines have an even number of characters together."""

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    @staticmethod
    def is_even(text: str) -> bool:
        """Whether a text is one of them."""
        return len(text) % 2 == 0

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Read the parsed lines."""
        return [Score(value=float(self.is_even("".join(a.text for a in item.actions)))) for item in episodes]


def written(policy: Any, text: str, *, open_columns: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([policy.canvas.encode(text)])
    is_masked = torch.zeros_like(ids, dtype=torch.bool)
    is_masked[0, list(open_columns)] = True
    return torch.where(is_masked, policy.mask_id, ids), is_masked


@pytest.mark.parametrize("width", [8, None])
def test_of_a_canvas_in_part_the_whole_lines_are_read(width: int | None) -> None:
    tokenizer = make_tiny_policy("masked").tokenizer
    canvas = Canvas(CanvasConfig(length=36, line_width=width), tokenizer)
    lines = PLANS[0].split("\n")
    ids = torch.tensor(canvas.encode(PLANS[0]))
    second = torch.tensor(canvas.encode("\n".join(lines[:1]))).tolist().index(canvas.eos_id) + 2
    is_masked = torch.zeros_like(ids, dtype=torch.bool)
    assert whole_lines(canvas, ids, is_masked) == PLANS[0]
    is_masked[second if width is None else 9] = True
    assert whole_lines(canvas, ids, is_masked) == "\n".join([lines[0], lines[2]])
    assert whole_lines(canvas, ids, torch.ones_like(is_masked)) == ""


def test_a_canvas_is_worth_what_its_whole_lines_would_earn() -> None:
    policy = make_tiny_policy("masked")
    potential = PLAIN.potentials(policy, 1)(prompts_of(policy, (0,)))
    values = [
        float(potential(*written(policy, text, open_columns=columns)))
        for text, columns in (
            (PLANS[0], ()),
            (PLANS[0], (9,)),
            (PLANS[0], (1, 9)),
            (PLANS[0].replace("Anna", "Karl"), ()),
        )
    ]
    assert values[0] == pytest.approx(40.0)
    assert values[0] > values[1] > values[2] == 0.0 and values[3] < values[0]


def test_particles_of_a_prompt_are_weighed_by_its_own_instruction() -> None:
    policy = make_tiny_policy("masked")
    potential = PLAIN.potentials(policy, 2)(prompts_of(policy, (0, 1)))
    ids, is_masked = written(policy, PLANS[1])
    first, second, third, fourth = potential(ids.repeat(4, 1), is_masked.repeat(4, 1)).tolist()
    assert first == second < 20.0 and third == fourth == pytest.approx(40.0)


def test_plans_come_out_as_the_guide_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of random weights are noise, so that about half of the plans have an even number of characters."""
    policy = make_tiny_policy("masked")
    prompts = prompts_of(policy, range(24))
    monkeypatch.setattr(Guide, "build", lambda self: Even())
    options: dict[str, Any] = {"threshold": 0.4, "grammar": True, "sharpness": 0.0, "num_particles": 8}
    free, guided = (SMCSampler(**options, guide=guide).generate(policy, prompts, seed=0) for guide in (None, PLAIN))
    shares = [
        sum(Even.is_even(policy.canvas.decode(ids).replace("\n", "")) for ids in out.ids) / len(out.ids)
        for out in (free, guided)
    ]
    assert shares[1] > 0.9 > 0.75 > shares[0], shares
    assert guided.trajectory.is_approximate


def test_a_guide_knows_whose_plans_it_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the live inverter reads with the policy's own weights."""
    asked: list[Any] = []
    monkeypatch.setattr(Guide, "build", lambda self: AsksForAPolicy(asked=asked))
    policy = make_tiny_policy("masked")
    SMCSampler(threshold=0.05, guide=PLAIN).generate(policy, prompts_of(policy, (0,)), seed=0)
    assert asked == [policy]


@pytest.mark.slow
def test_it_keeps_what_every_sampler_promises(tiny_policies: Any) -> None:
    check_sampler(SMCSampler, policies=tiny_policies, threshold=0.05, num_particles=3, guide=PLAIN)


def test_results_are_keyed_by_what_guides(tmp_path: Any) -> None:
    plain = {"num_particles": 4}
    keys = [
        _sampler(Component(name="smc", options=plain | ({"guide": guide} if guide else {})))
        for guide in (None, AS_DATA, AS_DATA | {"strength": 5.0}, {"reward": "success_words"})
    ]
    assert "ingredients" not in keys[0] and len({str(key) for key in keys}) == 4
    sampler = registry.build("sampler", "smc", plain | {"guide": AS_DATA})
    assert sampler == SMCSampler(guide=PLAIN) and sampler_from_json(sampler_to_json(sampler)) == sampler


@pytest.mark.parametrize(
    ("guide", "says"),
    [
        ({"reward": "outcome"}, "reads what the server received"),
        ({"reward": "flp"}, "Did you mean 'flip'"),
        ({"reward": "flip", "options": {"invertr": "plain"}}, "Did you mean 'inverter'"),
        ({"reward": "flip", "strenght": 3.0}, "guide="),
        ({"reward": "flip", "strength": 0.0}, "greater than 0"),
    ],
)
def test_impossible_guides_are_refused(guide: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        registry.build("sampler", "smc", {"guide": guide})


def test_a_guide_needs_pages_and_stands_alone() -> None:
    policy = make_tiny_policy("masked")
    prompts = prompts_of(policy, (0,))
    with pytest.raises(ConfigError, match="carry no pages"):
        SMCSampler(guide=PLAIN).generate(policy, replace(prompts, pages=None), seed=0)
    with pytest.raises(ConfigError, match="Leave one of them out"):
        SMCSampler(guide=PLAIN).generate(policy, prompts, seed=0, potential=lambda ids, masked: torch.zeros(len(ids)))
