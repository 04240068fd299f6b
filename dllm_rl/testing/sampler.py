"""The promises that every sampler keeps, checked on random-weight policies of the families it declares.

`check_sampler(sampler_class)` raises `PropertyError` with the name of the property, the family and what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.plan import PRESSABLE_KEYS, VERBS_BY_KIND, parse_plan
from dllm_rl.records.tasks import Observation
from dllm_rl.testing._sampler_claims import given_tokens_stand, positions_are_drawn_as_it_says, says_what_it_is
from dllm_rl.testing._sampler_record import (
    done_rows_stay,
    draws_follow_the_distribution,
    grammar_replay_is_exact,
    greedy_replay_is_exact,
    record_is_whole,
    replay_is_exact,
    states_lead_to_the_text,
    tempered_replay_is_exact,
)
from dllm_rl.testing._sampler_rows import (
    ROWS,
    SamplerCase,
    counts_are_honest,
    draws_are_scored,
    early_ends_save,
    every_forward_writes,
    left_padding,
    padding_follows_the_end,
    rows_are_independent,
    seeds_decide,
    the_prompt_is_text,
)
from dllm_rl.testing.objective import PropertyError, checked_families
from dllm_rl.testing.policies import PAGES, random_policy


def check_sampler(
    sampler_class: Any, *, policies: dict[str, BasePolicy] | None = None, **options: Any
) -> list[tuple[str, str]]:
    """Check every property on every declared family; returns the (family, property) pairs that were checked.

    Args:
        policies: By family; None makes tiny ones with random weights. Raises PropertyError where a property does not
            hold.
    """
    checked = []
    for family in checked_families("sampler", sampler_class):
        policy = random_policy(family) if policies is None else policies[family]
        case = SamplerCase(sampler_class=sampler_class, policy=policy, options=options)
        for name, check in SAMPLER_PROPERTIES.items():
            try:
                check(case)
            except AssertionError as error:
                where = f"sampler '{sampler_class.name}' on the {family} family, property '{name}'"
                raise PropertyError(f"{where}: {error}") from error
            checked.append((family, name))
    return checked


def complete(case: SamplerCase) -> None:
    """No MASK and no other banned id is left, and what is scored was drawn."""
    out, policy = case.kept(), case.policy
    assert out.ids.shape == (len(ROWS), policy.facts.canvas_length), f"completions have shape {tuple(out.ids.shape)}"
    banned = torch.tensor([token for token in policy.banned_ids if token != policy.canvas.pad_id])
    assert not torch.isin(out.ids, banned).any(), "a banned id (MASK, or beyond the tokenizer) was written"
    if not case.has_grammar:
        assert (out.trajectory.commit_step[out.mask] >= 0).all(), "a scored token has no commit step"


def grammar_holds(case: SamplerCase) -> None:
    """With grammar=True, where it is an option, every plan parses and acts on its page, whatever the weights."""
    if not case.takes_grammar:
        return
    rows = tuple(range(7))
    for temperature in (0.0, 1.0):
        out = case.draw(rows, seed=5, temperature=temperature, grammar=True)
        for row, ids in zip(rows, out.ids, strict=True):
            plan = case.policy.canvas.decode(ids)
            assert is_grounded(PAGES[row % len(PAGES)], plan), f"a plan does not ground: {plan!r}"


def is_grounded(page: Observation, text: str) -> bool:
    """Every line is an action on a control of the page, with a verb and a value that fit; one submit, last."""
    plan = parse_plan(text)
    if not plan.is_parsed or not plan.actions:
        return False
    for action in plan.actions:
        control = page.control(action.ref)
        if control is None or action.verb not in VERBS_BY_KIND[control.kind]:
            return False
        if action.verb == "select" and action.value not in control.options:
            return False
        if action.verb == "press" and action.value not in PRESSABLE_KEYS:
            return False
    verbs = [action.verb for action in plan.actions]
    return verbs.count("submit") == 1 and verbs[-1] == "submit"


SAMPLER_PROPERTIES: dict[str, Callable[[SamplerCase], None]] = {
    check.__name__: check
    for check in (
        says_what_it_is,
        complete,
        padding_follows_the_end,
        draws_are_scored,
        the_prompt_is_text,
        rows_are_independent,
        left_padding,
        seeds_decide,
        states_lead_to_the_text,
        done_rows_stay,
        replay_is_exact,
        tempered_replay_is_exact,
        greedy_replay_is_exact,
        grammar_replay_is_exact,
        draws_follow_the_distribution,
        positions_are_drawn_as_it_says,
        given_tokens_stand,
        record_is_whole,
        counts_are_honest,
        every_forward_writes,
        early_ends_save,
        grammar_holds,
    )
}
