"""The promises that every sampler keeps, checked on random-weight policies of the families it declares.

`check_sampler(sampler_class)` raises `PropertyError` with the name of the property, the family and what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dllm_rl.events import Events
from dllm_rl.plan import PRESSABLE_KEYS, VERBS_BY_KIND, parse_plan
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.flow import rate_log_prob, transition_log_prob
from dllm_rl.tasks import Page
from dllm_rl.testing.objective import PropertyError
from dllm_rl.testing.policies import PAGES, prompts_of, random_policy
from dllm_rl.trajectory_file import from_jsonl, to_jsonl
from dllm_rl.types import Completions, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerCase:
    """One sampler class on one policy. options: passed to every instance."""

    sampler_class: Any
    policy: BasePolicy
    options: dict[str, Any]

    def draw(self, rows: tuple[int, ...] = (0, 1, 2), *, seed: int = 3, temperature: float = 1.0) -> Completions:
        """Completions of these row ids."""
        sampler = self.sampler_class(temperature=temperature, **self.options)
        return sampler.generate(self.policy, prompts_of(self.policy, rows), seed=seed)


def check_sampler(
    sampler_class: Any, *, policies: dict[str, BasePolicy] | None = None, **options: Any
) -> list[tuple[str, str]]:
    """Check every property on every declared family; returns the (family, property) pairs that were checked.

    policies: by family; None makes tiny ones with random weights. Raises PropertyError where a property does not hold.
    """
    checked = []
    for family in sampler_class.families:
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


def is_complete(case: SamplerCase) -> None:
    """No MASK and no other banned id is left, everything behind EOS is padding, and what is scored was drawn."""
    out, policy = case.draw(), case.policy
    assert out.ids.shape == (3, policy.facts.canvas_length), f"completions have shape {tuple(out.ids.shape)}"
    banned = torch.tensor([token for token in policy.banned_ids if token != policy.canvas.pad_id])
    assert not torch.isin(out.ids, banned).any(), "a banned id (MASK, or beyond the tokenizer) was written"
    is_eos = (out.ids == policy.canvas.eos_id).long()
    after = is_eos.cumsum(1) - is_eos > 0
    assert (out.ids[after] == policy.canvas.pad_id).all(), "something other than PAD stands behind EOS"
    assert not out.mask[after].any(), "a position behind EOS is scored"
    if "grammar" not in case.options:
        assert (out.trajectory.commit_step[out.mask] >= 0).all(), "a scored token has no commit step"


def rows_are_independent(case: SamplerCase) -> None:
    """A row's text does not depend on the rows beside it, on their order or on padding, greedy or sampled."""
    for temperature in (0.0, 1.0):
        together = case.draw((0, 1, 2, 4), temperature=temperature)
        swapped = case.draw((4, 2, 1, 0), temperature=temperature)
        assert torch.equal(together.ids, swapped.ids.flip(0)), f"row order changes text at temperature {temperature}"
        alone = case.draw((2,), temperature=temperature)
        assert torch.equal(alone.ids[0], together.ids[2]), f"the batch changes text at temperature {temperature}"


def seeds_decide(case: SamplerCase) -> None:
    """Equal seeds give equal text, other seeds other text, and torch's global random state is untouched."""
    before = torch.get_rng_state()
    first, again, other = case.draw(), case.draw(), case.draw(seed=4)
    assert torch.equal(before, torch.get_rng_state()), "the global random state was used; draw with keyed noise"
    assert torch.equal(first.ids, again.ids), "the same seed gave two texts"
    assert not torch.equal(first.ids, other.ids), "another seed gave the same text"


def states_lead_to_the_text(case: SamplerCase) -> None:
    """The last recorded state is the completion up to its EOS; each token is in all states after its commit step."""
    out = case.draw()
    trajectory = out.trajectory
    if trajectory.canvases is None:
        return
    last = trajectory.canvases[:, -1]
    assert torch.equal(case.policy.canvas.close(last), out.ids), "the last state is not the completion"
    assert trajectory.canvases.shape[1] == trajectory.num_steps + 1, "one state a step, and the first, are missing"
    if case.policy.family == "flow":
        return
    for step in range(trajectory.num_steps):
        fixed = (trajectory.commit_step >= 0) & (trajectory.commit_step <= step)
        assert (trajectory.canvases[:, step + 1] == last)[fixed].all(), f"a token changed after its commit ({step})"


def replay_is_exact(case: SamplerCase) -> None:
    """Recorded log-probabilities are the policy's at the recorded states (1e-4 absolute; no grammar)."""
    if case.options.get("grammar"):
        return
    rows = (0, 1, 2)
    out, prompts = case.draw(rows), prompts_of(case.policy, rows)
    replayed = _replay(case.policy, prompts, out)
    where = out.mask
    gap = (replayed - out.trajectory.log_probs)[where].abs().max().item()
    assert gap < 1e-4, f"a replay of the record differs by {gap:.2g} nats"


@torch.no_grad()
def _replay(policy: Any, prompts: Any, out: Completions) -> Tensor:
    trajectory = out.trajectory
    if trajectory.canvases is None:
        law = policy.logits(prompts, out.ids).log_softmax(-1)
        return law.gather(-1, out.ids[..., None])[..., 0]
    total = torch.zeros(out.ids.shape)
    for step in range(trajectory.num_steps):
        state, after = trajectory.canvases[:, step], trajectory.canvases[:, step + 1]
        order = None if trajectory.order is None else trajectory.order[:, step]
        time = None if trajectory.time is None else trajectory.time[step].expand(len(state))
        law = policy.logits(prompts, state, time=time, order=order).log_softmax(-1)
        log_p = law.gather(-1, after[..., None])[..., 0]
        if trajectory.time is not None:
            end = trajectory.time[step + 1].expand(len(state))
            if trajectory.flow_law == "exact":
                jump = policy.jump_probability(time, end)[:, None]
                total += transition_log_prob(log_p, state == after, jump)
            else:
                seen = law.gather(-1, state[..., None]).squeeze(-1)
                rate = policy.rate(trajectory.flow_law, time, end)[:, None]
                total += rate_log_prob(log_p, seen, state == after, rate)
        else:
            total = torch.where(trajectory.commit_step == step, log_p, total)
    return total


def record_is_whole(case: SamplerCase) -> None:
    """The events rebuild every canvas (and feed order) that the policy was shown, and close into the completion.

    Rows of the record are the record of the rows, and as JSON lines it comes back bit for bit. Grammar on and off.
    """
    rows = (0, 1, 2, 4)
    for grammar in {bool(case.options.get("grammar")), True}:
        shown: dict[int, list[Tensor]] = {row: [] for row in rows}
        with mock.patch.object(case.policy, "logits", _looking(case.policy.logits, shown)):
            sampler = case.sampler_class(**{**case.options, "grammar": grammar})
            out = sampler.generate(case.policy, prompts_of(case.policy, rows), seed=3)
        record = out.trajectory
        assert torch.equal(record.events.text(), out.ids), "the events do not close into the completion"
        for row, states in enumerate(_states_of_rows(record)):
            seen = _without_repeats(shown[rows[row]])
            assert len(seen) <= len(states), "the policy was shown a state that the events do not give"
            assert all(map(torch.equal, seen, states)), "the events give another state than the policy was shown"
            assert not seen or len(states) - len(seen) <= 1, "the events give a state that the policy was not shown"
        some = record.rows(torch.tensor([3, 1]))
        assert torch.equal(some.events.text(), out.ids[[3, 1]]), "rows of the record are not the record of the rows"
        again = from_jsonl(to_jsonl(record), constraint=record.constraint)
        for item in fields(Events):
            mine, theirs = getattr(record.events, item.name), getattr(again.events, item.name)
            is_same = torch.equal(mine, theirs) if isinstance(mine, Tensor) else mine == theirs
            assert is_same, f"'{item.name}' of the events changes on its way through JSON lines"


def _looking(ask: Callable[..., Tensor], shown: dict[int, list[Tensor]]) -> Callable[..., Tensor]:
    """`policy.logits`, keeping the canvas of each row, and its feed order behind it where there is one."""

    def look(prompts: Any, canvas: Tensor, *args: Any, **facts: Any) -> Tensor:
        order = facts.get("order")
        whole = canvas.clone() if order is None else torch.cat([canvas, order], dim=1)
        for row_id, state in zip(prompts.row_ids.tolist(), whole, strict=True):
            shown[row_id].append(state)
        return ask(prompts, canvas, *args, **facts)

    return look


def _states_of_rows(record: Trajectory) -> list[list[Tensor]]:
    """Each row's states before its steps, without repeats, in the form of `_looking`."""
    if record.canvases is None:
        return []
    whole = record.canvases if record.order is None else torch.cat([record.canvases, record.order], dim=2)
    return [_without_repeats(list(states[:end])) for states, end in zip(whole, record.events.end.tolist(), strict=True)]


def _without_repeats(states: list[Tensor]) -> list[Tensor]:
    return [state for index, state in enumerate(states) if not index or not torch.equal(state, states[index - 1])]


def counts_are_honest(case: SamplerCase) -> None:
    """nfe is the number of forwards of the model for a batch of one row, and token_forwards the positions fed to it."""
    calls: list[int] = []

    def count(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(kwargs["input_ids"].numel())

    handle = case.policy.model.register_forward_hook(count, with_kwargs=True)
    try:
        out = case.draw((1,))
    finally:
        handle.remove()
    assert out.nfe == len(calls), f"nfe says {out.nfe}, and the model ran {len(calls)} times"
    assert out.token_forwards == sum(calls), f"token_forwards says {out.token_forwards}, fed were {sum(calls)}"


def grammar_holds(case: SamplerCase) -> None:
    """With grammar=True every plan parses and acts on its page, whatever the weights."""
    rows = tuple(range(7))
    for temperature in (0.0, 1.0):
        sampler = case.sampler_class(temperature=temperature, **{**case.options, "grammar": True})
        out = sampler.generate(case.policy, prompts_of(case.policy, rows), seed=5)
        for row, ids in zip(rows, out.ids, strict=True):
            plan = case.policy.canvas.decode(ids)
            assert is_grounded(PAGES[row % len(PAGES)], plan), f"a plan does not ground: {plan!r}"


def is_grounded(page: Page, text: str) -> bool:
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
    "complete": is_complete,
    "rows_are_independent": rows_are_independent,
    "seeds_decide": seeds_decide,
    "states_lead_to_the_text": states_lead_to_the_text,
    "replay_is_exact": replay_is_exact,
    "record_is_whole": record_is_whole,
    "counts_are_honest": counts_are_honest,
    "grammar_holds": grammar_holds,
}
