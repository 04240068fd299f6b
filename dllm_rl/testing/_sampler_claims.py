"""What a sampler says of itself: its protocol, whether records are exact, how positions are drawn, what it begins with.

Legend: b rows, l canvas.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.terms import top_log_odds
from dllm_rl.records.trajectory import Trajectory
from dllm_rl.testing._sampler_rows import LARGEST_DEVIATION, SamplerCase, ending
from dllm_rl.testing.policies import logits_changed, prompts_of

PROTOCOL = ("name", "families", "temperature", "grammar", "approximation")
# Rows of one prompt, which only their noise tells apart.
SAME_PROMPT = tuple(range(0, 108, 3))
# Factors of all logits, and steps of the draws that they are compared in.
FACTORS, NUM_STEPS = (0.5, 2.0), 6


def says_what_it_is(case: SamplerCase) -> None:
    """It has what the protocol asks for, and its records are approximate where it says so, and only there."""
    sampler = case.sampler()
    missing = [fact for fact in PROTOCOL if not hasattr(sampler, fact)]
    assert not missing, f"it lacks {', '.join(missing)}, which `dllm_rl.protocols.Sampler` asks for"
    is_approximate = case.kept().trajectory.is_approximate
    assert (sampler.approximation is not None) == is_approximate, (
        f"its approximation is {sampler.approximation!r}, and its record says is_approximate={is_approximate}"
    )


def given_tokens_stand(case: SamplerCase) -> None:
    """Tokens that stand before anything is drawn (`Prompts.given`) stay and are not scored; or they are refused."""
    policy, prompts = case.policy, prompts_of(case.policy, (0, 1))
    columns = slice(1, 4)
    with ending(policy, 0.0):
        given = policy.empty_canvas(2)
        given[:, columns] = case.draw(prompts=prompts).ids.flip(0)[:, columns]
        try:
            out = case.draw(prompts=replace(prompts, given=given))
        except ConfigError:
            return
    assert torch.equal(out.ids[:, columns], given[:, columns]), "tokens that were given were written over"
    assert not out.mask[:, columns].any(), "tokens that were given are scored"


def positions_are_drawn_as_it_says(case: SamplerCase) -> None:
    """Where positions are drawn, it is by noise alone, by the law that the record says, or the order is hidden.

    Rows of one prompt whose first steps differ draw positions. If these are drawn with probabilities that the policy
    moves, some change whenever its logits are scaled, and in each row otherwise. What no noise has a part in jumps in
    all rows alike, and not in both directions.
    """
    record = case.kept().trajectory
    if record.canvases is None or record.time is not None or record.is_approximate or record.hides_order:
        return
    if record.position_law is not None:
        _check_law(case)
        return
    few: dict[str, Any] = {"num_steps": NUM_STEPS} if case.has_steps else {}
    first = _first_step(case.draw(SAME_PROMPT, **few).trajectory)
    if (first == first[:1]).all():
        return
    moved = 0
    for factor in FACTORS:
        with logits_changed(case.policy, functools.partial(torch.mul, factor)):
            moved += _is_moved(first, _first_step(case.draw(SAME_PROMPT, **few).trajectory))
    assert moved < len(FACTORS), (
        "positions are drawn with probabilities that the policy moves, and the record says neither their law "
        "(`position_law`) nor that it hides them (`hides_order`)"
    )


def _check_law(case: SamplerCase) -> None:
    """The first step writes the most certain position, and the others as often as the law says."""
    out, policy = case.kept(), case.policy
    record, law = out.trajectory, out.trajectory.position_law
    assert record.canvases is not None and law is not None
    start = record.canvases[:, 0]
    with torch.no_grad():
        logits = policy.logits(prompts_of(policy, range(len(start))), start).cpu()
    odds = top_log_odds(logits.flatten(0, 1)).view(start.shape).double()
    is_open = (start == policy.process.blank_id) & (torch.arange(start.shape[1]) < law.block_length)
    best = odds.masked_fill(~is_open, -torch.inf).argmax(dim=1, keepdim=True)
    written = record.commit_step == 0
    assert written.gather(1, best).all(), "a step does not write the most certain position, as its law says"
    others = is_open.scatter(1, best, False)
    chance = law.logit(odds)[others].sigmoid()
    variance = (chance * (1 - chance)).sum().clamp(min=1e-12)
    deviation = float((written[others].double() - chance).sum() / variance.sqrt())
    assert abs(deviation) < LARGEST_DEVIATION, (
        f"the positions of a step lie {deviation:+.1f} standard deviations from draws of the recorded law"
    )


def _first_step(record: Trajectory) -> Bool[Tensor, "b l"]:
    """Which positions each row wrote in its first step that wrote any."""
    steps = torch.where(record.commit_step >= 0, record.commit_step, record.num_steps)
    return steps == steps.amin(dim=1, keepdim=True)


def _is_moved(before: Bool[Tensor, "b l"], after: Bool[Tensor, "b l"]) -> bool:
    """Whether rows changed, and not all of them alike."""
    changed = (before != after).any(dim=1)
    return any(len(some[changed].unique(dim=0)) > 1 for some in (before, after))
