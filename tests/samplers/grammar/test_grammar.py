"""The page-grounded grammar: whatever the weights, rule, order and batch, every plan parses and acts on the page."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.records.plan import parse_plan, render_plan
from dllm_rl.records.tasks import Observation
from dllm_rl.records.types import Rollouts
from dllm_rl.registry import families_of
from dllm_rl.testing.policies import PAGES, PLANS, prompts_of, random_policy
from dllm_rl.testing.sampler import is_grounded
from samplers.grammar.automaton import Automata
from samplers.grammar.compile import batch, compile_page
from samplers.grammar.projection import Constrained, ConstrainedUpTo, Keys, Prediction

CASES = [(name, family) for name, cls in registry.items("sampler") for family in families_of(cls)]


def generate(policy, name, rows, *, seed=3, temperature=1.0, **options):
    sampler = registry.get("sampler", name)(temperature=temperature, grammar=True, **options)
    return sampler.generate(policy, prompts_of(policy, rows), seed=seed)


def rollouts_of(policy, name, rows, temperature=1.0, **options):
    prompts, out = prompts_of(policy, rows), generate(policy, name, rows, temperature=temperature, **options)
    groups, valid = torch.zeros(len(rows), dtype=torch.long), torch.ones(len(rows), dtype=torch.bool)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(len(rows)),
        group_ids=groups,
        valid=valid,
        trajectory=out.trajectory,
        totals=Rollouts.count_totals(valid, groups, out.mask),
        temperature=temperature,
    )


@pytest.mark.parametrize(("name", "family"), CASES)
def test_every_plan_parses_and_grounds_from_random_weights(tiny_policies, name, family):
    """With the usual options of each rule; the public suite asks it of several tokens a step, and of greedy draws."""
    policy = tiny_policies[family]
    out = generate(policy, name, range(9))
    for row in range(9):
        plan = policy.canvas.decode(out.ids[row])
        assert is_grounded(PAGES[row % 3], plan), plan
    assert not torch.isin(out.ids, torch.tensor(policy.banned_ids[:1])).any()


@pytest.mark.parametrize(("length", "name", "family"), [(64, "threshold", "masked"), (128, "slots", "slot")])
def test_longer_canvases_and_larger_batches(length, name, family):
    policy = random_policy(family, seed=5, sharpness=60.0, canvas_length=length)
    out = generate(policy, name, range(32))
    assert all(is_grounded(PAGES[row % 3], policy.canvas.decode(out.ids[row])) for row in range(32))


def test_blocks_and_sharp_weights_keep_the_guarantee():
    policy = random_policy("masked", seed=7, sharpness=200.0)
    out = generate(policy, "low_confidence", range(6), num_steps=9, block_length=10)
    assert all(is_grounded(PAGES[row % 3], policy.canvas.decode(out.ids[row])) for row in range(6))


@pytest.mark.parametrize("kind", [Constrained, ConstrainedUpTo])
def test_entropies_of_draws_are_tempered_and_those_that_rules_rank_by_are_not(tiny_policies, kind):
    policy = tiny_policies["masked"]
    constraint = batch([compile_page(PAGES[0], policy.canvas)], policy)
    canvas = policy.empty_canvas(1)
    logits = policy.logits(prompts_of(policy, (0,)), canvas).detach()
    everywhere = torch.ones_like(canvas, dtype=torch.bool)

    def law(temperature, given):
        columns = torch.arange(canvas.shape[1])[None]
        asked = Prediction(logits=given, columns=columns, canvas=canvas, is_masked=everywhere, temperature=temperature)
        if kind is Constrained:
            return Constrained(Automata(constraint), asked)
        return ConstrainedUpTo(constraint, asked, canvas.shape[1])

    keys = Keys(seed=0, row_ids=torch.tensor([0]), step=0)
    sharp, plain, same = law(0.5, logits), law(1.0, logits), law(1.0, logits / 0.5)
    drawn = sharp.draw(everywhere, keys).entropy
    torch.testing.assert_close(drawn, same.entropy(everywhere), rtol=1e-4, atol=1e-4)
    assert float((drawn - plain.entropy(everywhere)).abs().max()) > 0.1
    torch.testing.assert_close(sharp.entropy(everywhere), plain.entropy(everywhere), rtol=1e-4, atol=1e-4)
    assert torch.equal(plain.draw(everywhere, keys).entropy, plain.entropy(everywhere))


@pytest.mark.parametrize("page", range(3))
def test_demonstrations_are_accepted(tiny_policies, page):
    policy = tiny_policies["masked"]
    constraint = batch([compile_page(PAGES[page], policy.canvas)], policy)
    canvas = torch.tensor([policy.canvas.encode(PLANS[page])])
    constraint.reachable(canvas, torch.zeros_like(canvas, dtype=torch.bool))


@pytest.mark.parametrize(
    "plan",
    [
        'fill p1.e1 "Anna"',
        'fill p1.e4 "Anna"\nsubmit p1.e3',
        'fill p1.e2 "Pro"\nsubmit p1.e3',
        'select p1.e2 "Anna"\nsubmit p1.e3',
        'submit p1.e3\nfill p1.e1 "Anna"',
        "submit p1.e1",
        "Anna",
    ],
)
def test_what_does_not_ground_is_refused(tiny_policies, plan):
    policy = tiny_policies["masked"]
    constraint = batch([compile_page(PAGES[0], policy.canvas)], policy)
    canvas = torch.tensor([policy.canvas.encode(plan)])
    with pytest.raises(ConfigError, match="accepts no canvas"):
        constraint.reachable(canvas, torch.zeros_like(canvas, dtype=torch.bool))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("name", "family"), [("low_confidence", "masked"), ("entropy_bound", "masked"), ("slots", "slot")]
)
def test_the_policy_replays_the_recorded_probabilities(tiny_policies, name, family, temperature):
    policy = tiny_policies[family]
    rollouts = rollouts_of(policy, name, range(6), temperature)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    with torch.no_grad():
        terms = policy.view_log_probs(rollouts, views).sum(0)
    drawn = rollouts.completion_mask & (rollouts.trajectory.commit_step >= 0)
    torch.testing.assert_close(terms[drawn], rollouts.trajectory.log_probs[drawn], atol=2e-5, rtol=1e-5)
    assert drawn.any()


def test_autoregressive_replay(tiny_policies):
    policy = tiny_policies["autoregressive"]
    rollouts = rollouts_of(policy, "ar", range(6))
    with torch.no_grad():
        terms = policy.view_log_probs(rollouts, policy.process.exact(rollouts))[0]
    mask = rollouts.completion_mask
    torch.testing.assert_close(terms[mask], rollouts.trajectory.log_probs[mask], atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["flow_exact", "flow_euler", "flow_cumulative"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_flow_replay_sums_to_the_record(tiny_policies, name, temperature):
    policy = tiny_policies["flow"]
    rollouts = rollouts_of(policy, name, range(6), temperature, num_steps=4)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    with torch.no_grad():
        terms = policy.view_log_probs(rollouts, views).sum(0)
    mask = rollouts.completion_mask
    torch.testing.assert_close(terms[mask], rollouts.trajectory.log_probs[mask], atol=1e-4, rtol=1e-4)


def test_the_replay_has_a_gradient(tiny_policies):
    policy = random_policy("masked", seed=2)
    rollouts = rollouts_of(policy, "low_confidence", range(3), num_steps=4)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    policy.view_log_probs(rollouts, views).sum().backward()
    gradient = policy.model.embed.weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("make", ["one_step", "elbo"])
def test_views_of_another_law_are_refused(tiny_policies, make):
    policy = tiny_policies["masked"]
    rollouts = rollouts_of(policy, "low_confidence", range(3))
    views = getattr(policy.process, make)(rollouts, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="do not score its distribution"):
        policy.view_log_probs(rollouts, views)


def test_rules_that_mask_again_are_refused_in_training(tiny_policies):
    policy = tiny_policies["masked"]
    rollouts = rollouts_of(policy, "rcr", range(3))
    with pytest.raises(ConfigError, match="masks tokens again"):
        policy.process.replay(rollouts, torch.Generator().manual_seed(0))


def mutants(page: Observation, plan: str, count: int, seed: int) -> Iterator[str]:
    """Texts near a plan that is right: characters, refs, verbs, options and lines changed, lost, put in, swapped."""
    rng = random.Random(seed)
    controls = [control.ref for control in page.controls] + ["p1.e99", "p2.e1"]
    options = [option for control in page.controls for option in control.options] + ["None such", ""]
    verbs = ["fill", "select", "check", "uncheck", "click", "press", "submit", "open"]
    for _ in range(count):
        lines = plan.split("\n")
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            words = lines[at].split(" ", 2)
            change = rng.randrange(7)
            if change == 0:
                words[0] = rng.choice(verbs)
            elif change == 1 and len(words) > 1:
                words[1] = rng.choice(controls)
            elif change == 2 and len(words) > 2:
                words[2] = f'"{rng.choice(options)}"'
            elif change == 3:
                text = lines[at]
                cut = rng.randrange(len(text) + 1)
                words = [text[:cut] + rng.choice(['"', " ", "a", "7", ".", ""]) + text[cut + rng.randint(0, 1) :]]
            lines[at] = " ".join(words)
            if change == 4 and len(lines) > 1:
                del lines[at]
            elif change == 5:
                lines.insert(at, lines[rng.randrange(len(lines))])
            elif change == 6:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        yield "\n".join(lines)


@pytest.mark.parametrize("page", range(3))
def test_the_automaton_accepts_what_the_parser_grounds_and_nothing_else(tiny_policies, page):
    policy = tiny_policies["masked"]
    constraint = batch([compile_page(PAGES[page], policy.canvas)], policy)
    seen = {True: 0, False: 0}
    for text in mutants(PAGES[page], PLANS[page], 400, seed=page):
        try:
            canvas = torch.tensor([policy.canvas.encode(text)])
        except ConfigError:
            continue
        try:
            constraint.reachable(canvas, torch.zeros_like(canvas, dtype=torch.bool))
            is_accepted = True
        except ConfigError:
            is_accepted = False
        plan = parse_plan(text)
        # The language of the grammar is that of the parser, but for what docs/samplers.md says it leaves out.
        has_empty = any(action.verb == "fill" and not action.value for action in plan.actions)
        is_plain = text == render_plan(plan.actions) and "\\" not in text and not has_empty
        assert is_accepted == (is_plain and is_grounded(PAGES[page], text)), text
        seen[is_accepted] += 1
    assert min(seen.values()) >= 20


def test_an_option_that_spells_a_special_token_is_text(tiny_policies):
    policy = tiny_policies["masked"]
    select = next(control for control in PAGES[0].controls if control.options)
    odd = replace(select, options=(*select.options, policy.tokenizer.eos_token))
    page = replace(PAGES[0], controls=tuple(odd if control is select else control for control in PAGES[0].controls))
    prompts = replace(prompts_of(policy, range(3)), pages=(page,) * 3)
    out = registry.get("sampler", "low_confidence")(num_steps=9, grammar=True).generate(policy, prompts, seed=0)
    assert all(is_grounded(page, policy.canvas.decode(ids)) for ids in out.ids)


def test_forced_tokens_cost_no_forward(tiny_policies):
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, range(3))
    rule = registry.get("sampler", "low_confidence")
    free = rule(num_steps=36, temperature=0.0).generate(policy, prompts, seed=0)
    bound = rule(num_steps=36, temperature=0.0, grammar=True).generate(policy, prompts, seed=0)
    assert bound.nfe < free.nfe == 36
    assert bound.trajectory.events.is_forced().any() and (bound.trajectory.commit_step[bound.mask] >= 0).all()


def test_pages_are_needed(tiny_policies):
    policy = tiny_policies["masked"]
    prompts = policy.prompts(["task"], [0])
    with pytest.raises(ConfigError, match="pages"):
        registry.get("sampler", "random")(grammar=True).generate(policy, prompts, seed=0)


def test_a_free_running_canvas_works_too(tiny_policies):
    tight = tiny_policies["masked"]
    facts = PolicyFacts(**{**tight.facts.to_dict(), "line_width": None})
    policy = type(tight)(tight.model, tight.tokenizer, facts)
    out = generate(policy, "entropy", range(6))
    plans = [policy.canvas.decode(row) for row in out.ids]
    assert all(is_grounded(PAGES[row % 3], plan) for row, plan in enumerate(plans))
    assert parse_plan(plans[0]).is_parsed


ONE_END = [
    ("random", "masked", {"num_steps": 18}),
    ("threshold", "block", {"threshold": 0.5}),
    ("slots", "slot", {}),
    ("flow_exact", "flow", {"num_steps": 3}),
    ("ar", "autoregressive", {}),
]


@pytest.mark.parametrize("line_width", [8, None])
@pytest.mark.parametrize(("name", "family", "options"), ONE_END)
def test_one_token_may_be_both_eos_and_pad(tiny_policies, name, family, options, line_width):
    """As in LLaDA. Padding is written before EOS and behind it, and replays give the probabilities of all draws."""
    base = tiny_policies[family]
    words, model = copy.deepcopy(base.tokenizer), copy.deepcopy(base.model)
    words.pad_token, model.config.pad_token_id = words.eos_token, words.eos_token_id
    policy = type(base)(model, words, replace(base.facts, line_width=line_width))
    rollouts = rollouts_of(policy, name, range(6), **options)
    ids = policy.canvas.close(rollouts.completion_ids)
    assert all(is_grounded(PAGES[row % 3], policy.canvas.decode(ids[row])) for row in range(6))
    with torch.no_grad():
        views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
        terms = policy.view_log_probs(rollouts, views).sum(0)
    drawn = rollouts.completion_mask & (rollouts.trajectory.commit_step >= 0)
    torch.testing.assert_close(terms[drawn], rollouts.trajectory.log_probs[drawn], atol=1e-4, rtol=1e-4)
    if family == "slot":
        behind = ~policy.canvas.until_eos(ids)
        assert not (rollouts.trajectory.events.is_forced() & behind).any(), "padding, which is fed last, was written"
