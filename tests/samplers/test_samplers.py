"""The invariants of every registered sampler, on random-weight policies of its families."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.transitions import ExactJump, transition_log_prob
from dllm_rl.registry import families_of
from dllm_rl.testing import SAMPLER_PROPERTIES, PropertyError, check_sampler
from dllm_rl.testing._sampler_rows import SamplerCase
from dllm_rl.testing.policies import prompts_of
from samplers.loop.sampling import TOKEN, entropy, log_odds, pick, uniform
from tests.samplers.several_a_step import SEVERAL_A_STEP
from tests.tiny_policies import PROMPTS, make_tiny_policy

NAMES = registry.names("sampler")


def draw(policy, name, *, temperature=1.0, seed=3, rows=(0, 1, 2), **options):
    sampler = registry.get("sampler", name)(temperature=temperature, **options)
    prompts = policy.prompts([PROMPTS[row % 3] for row in rows], rows)
    return sampler.generate(policy, prompts, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_public_suite(tiny_policies, name):
    cls = registry.get("sampler", name)
    checked = check_sampler(cls, policies=tiny_policies, **SEVERAL_A_STEP.get(name, {}))
    assert len(checked) == len(SAMPLER_PROPERTIES) * len(cls.families)


def test_a_draw_behind_an_end_that_the_same_step_takes_back_is_scored():
    policy = make_tiny_policy("block", canvas_length=28)
    case = SamplerCase(sampler_class=registry.get("sampler", "remdm"), policy=policy, options={"num_steps": 12})
    SAMPLER_PROPERTIES["draws_are_scored"](case)


class Careless(registry.get("sampler", "random")):
    """Ranks by noise that depends on the batch."""

    name = "careless"

    def choose(self, context):
        return context.best(torch.rand(context.log_odds.shape), context.quota)


def test_the_public_suite_finds_ambient_noise(tiny_policies):
    with pytest.raises(PropertyError, match=r"rows_are_independent|seeds_decide"):
        check_sampler(Careless, policies=tiny_policies)


def test_autoregressive_record_equals_a_full_forward(tiny_policies):
    policy = tiny_policies["autoregressive"]
    out = draw(policy, "ar")
    logits = policy.logits(policy.prompts(PROMPTS, (0, 1, 2)), out.ids)
    replay = logits.log_softmax(-1).gather(-1, out.ids[..., None])[..., 0]
    torch.testing.assert_close(replay[out.mask], out.trajectory.log_probs[out.mask], atol=5e-5, rtol=1e-4)


def test_flow_record_is_the_sum_of_its_transitions(tiny_policies):
    policy = tiny_policies["flow"]
    prompts = policy.prompts(PROMPTS, (0, 1, 2))
    out = draw(policy, "flow_exact", num_steps=5)
    trajectory, total = out.trajectory, torch.zeros(3, 36)
    for step in range(5):
        now, after = trajectory.time[step].expand(3), trajectory.time[step + 1].expand(3)
        x, y = trajectory.canvases[:, step], trajectory.canvases[:, step + 1]
        log_p = policy.logits(prompts, x, time=now).log_softmax(-1).gather(-1, y[..., None])[..., 0]
        total += transition_log_prob(log_p, x == y, ExactJump().jump_probability(now, after)[:, None])
    torch.testing.assert_close(total, trajectory.log_probs, atol=1e-4, rtol=1e-4)


def test_flow_transition_probabilities_sum_to_one():
    log_p = torch.randn(2, 7).log_softmax(-1)
    for q in (0.2, 0.7, 1.0):
        same = torch.zeros(2, 7, dtype=torch.bool)
        same[:, 3] = True
        total = transition_log_prob(log_p, same, torch.full((2, 1), q)).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones(2), atol=1e-5, rtol=0)


def test_exact_jump_composes_over_the_grid():
    """At a frozen prediction, redrawing over any grid leaves the same law; at t = 1 nothing stays."""
    grid = torch.linspace(0, 1, 9)
    stays = [1 - ExactJump().jump_probability(grid[i : i + 1], grid[i + 1 : i + 2]) for i in range(8)]
    upto = torch.stack(stays[:4]).prod()
    torch.testing.assert_close(upto, torch.tensor(0.5), atol=1e-6, rtol=0)
    assert stays[-1].item() == 0.0


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_exact_jump_is_the_matrix_exponential_of_its_rates(power):
    """At a frozen prediction p the generator is kappa' / (1 - kappa) (1 p - I); its integral over a step is A (1 p - I)
    with A = log((1 - kappa_t) / (1 - kappa_s)).
    """
    transition = ExactJump(power=power)
    generator = torch.Generator().manual_seed(0)
    law = torch.randn(6, generator=generator).double().softmax(-1)
    for start, end in ((0.0, 0.125), (0.4, 0.5), (0.75, 0.99)):
        now, after = torch.tensor([start]).double(), torch.tensor([end]).double()
        integral = ((1 - now**power) / (1 - after**power)).log()
        expected = torch.linalg.matrix_exp(integral * (law.expand(6, 6) - torch.eye(6)))
        is_same = torch.eye(6, dtype=torch.bool)
        found = transition_log_prob(
            law.log().expand(6, 6), is_same, transition.jump_probability(now, after)[:, None]
        ).exp()
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("steps", [36, 12, 5, 1])
def test_masked_quota_spends_at_most_its_steps(tiny_policies, steps):
    out = draw(tiny_policies["masked"], "low_confidence", num_steps=steps)
    assert out.nfe <= steps
    assert out.trajectory.num_steps == out.nfe
    assert out.token_forwards <= steps * 3 * (36 + 96)


def test_blocks_are_written_in_order(tiny_policies):
    out = draw(tiny_policies["masked"], "low_confidence", num_steps=12, block_length=10)
    step = out.trajectory.commit_step
    for start in (0, 10, 20):
        for row in range(3):
            here, later = step[row, start : start + 10], step[row, start + 10 :]
            if (here >= 0).any() and (later >= 0).any():
                assert here.max() < later[later >= 0].min()


def test_low_confidence_at_zero_temperature_is_the_plain_loop(tiny_policies):
    """One token a step, greedy: the same tokens as a loop written out over the whole canvas."""
    policy = tiny_policies["masked"]
    prompts = policy.prompts(PROMPTS, (0, 1, 2))
    canvas = policy.empty_canvas(3)
    for _ in range(36):
        logits = policy.logits(prompts, canvas)
        confidence, best = logits.double().softmax(-1).max(-1)
        confidence = confidence.masked_fill(canvas != policy.mask_id, -1)
        chosen = confidence.argmax(1)
        canvas[torch.arange(3), chosen] = best[torch.arange(3), chosen]
    out = draw(policy, "low_confidence", temperature=0.0, num_steps=36)
    assert torch.equal(out.ids, policy.canvas.close(canvas))


def test_slots_with_no_thresholds_take_two_forwards_at_most(tiny_policies):
    out = draw(tiny_policies["slot"], "slots", slot_threshold=0.0, token_threshold=0.0)
    assert out.nfe <= 2


def test_slots_at_full_thresholds_write_one_token_a_forward(tiny_policies):
    out = draw(tiny_policies["slot"], "slots", slot_threshold=1.0, token_threshold=1.0)
    step = out.trajectory.commit_step
    for row in range(3):
        used = step[row][step[row] >= 0]
        assert used.unique().numel() == used.numel()


def test_slot_canvas_must_be_whole(tiny_policies):
    policy = tiny_policies["slot"]
    odd = type(policy)(policy.model, policy.tokenizer, replace(policy.facts, canvas_length=34))
    with pytest.raises(Exception, match="whole number of slots"):
        draw(odd, "slots")


def test_log_odds_separate_what_probabilities_cannot():
    gaps = torch.linspace(20, 24, 10)
    logits = torch.stack([gaps, torch.zeros(10)], dim=-1)[None]
    assert log_odds(logits)[0].unique().numel() == 10


def test_pick_matches_softmax_by_chi_square():
    logits = torch.tensor([[[1.0, 0.0, -1.0, 2.0, -torch.inf]]]).expand(1, 20_000, 5)
    noise = uniform(0, torch.tensor([7]), torch.arange(20_000), 0, TOKEN)
    tokens, log_probs = pick(logits, 1.0, noise)
    counts = torch.bincount(tokens.flatten(), minlength=5).double()
    expected = logits[0, 0].double().softmax(-1) * 20_000
    assert counts[4] == 0
    statistic = ((counts - expected)[:4] ** 2 / expected[:4]).sum()
    assert statistic < 16.3  # 99.9 % quantile, 3 degrees of freedom
    torch.testing.assert_close(log_probs[0, 0], logits[0, 0].log_softmax(-1)[tokens[0, 0]])


def test_noise_is_uniform_and_keyed():
    noise = uniform(1, torch.arange(50), torch.arange(200), 3, TOKEN)
    assert noise.min() > 0
    assert noise.max() < 1
    assert abs(noise.mean().item() - 0.5) < 0.01
    assert noise.unique().numel() == noise.numel()
    assert torch.equal(noise[7:8, 4:5], uniform(1, torch.tensor([7]), torch.tensor([4]), 3, TOKEN))


def test_entropy_ignores_banned_ids():
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]]])
    torch.testing.assert_close(entropy(logits)[0, 0], torch.tensor(2.0).log())


def test_every_familys_usual_sampler_writes_with_it():
    for family, policy_class in registry.items("policy"):
        assert family in families_of(registry.get("sampler", policy_class.usual_sampler))


def in_numbers(policy, dtype):
    other = copy.copy(policy)
    other.model = copy.deepcopy(policy.model).to(dtype)
    return other


@pytest.mark.parametrize("name", NAMES)
def test_a_model_in_double_precision_is_written_with(tiny_policies, name):
    cls = registry.get("sampler", name)
    for family in cls.families:
        policy = in_numbers(tiny_policies[family], torch.float64)
        for grammar in (False, True):
            sampler = cls(grammar=grammar, **SEVERAL_A_STEP.get(name, {}))
            out = sampler.generate(policy, prompts_of(policy, (0, 1)), seed=3)
            assert out.trajectory.log_probs[out.mask].isfinite().all()


@pytest.mark.parametrize("family", ["autoregressive", "masked", "block", "slot", "flow"])
def test_a_model_in_half_precision_is_written_with(tiny_policies, family):
    policy = in_numbers(tiny_policies[family], torch.bfloat16)
    sampler = registry.get("sampler", policy.usual_sampler)()
    out = sampler.generate(policy, prompts_of(policy, (0, 1)), seed=3)
    assert out.trajectory.log_probs[out.mask].isfinite().all()


@pytest.mark.parametrize(("name", "family"), [("ar", "autoregressive"), ("slots", "slot"), ("flow_euler", "flow")])
def test_tokens_that_are_given_are_refused_where_a_canvas_begins_empty(tiny_policies, name, family):
    policy = tiny_policies[family]
    prompts = replace(prompts_of(policy, (0,)), given=policy.empty_canvas(1))
    with pytest.raises(ConfigError, match=f"sampler '{name}' begins with an empty canvas"):
        registry.get("sampler", name)().generate(policy, prompts, seed=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("entropy_bound", {"gamma": -0.1}),
        ("factor", {"factor": float("nan")}),
        ("klass", {"confidence": 1.5}),
        ("klass", {"max_kl": -1.0}),
        ("klass", {"history": 0}),
        ("annealed", {"order_temperature": -1.0}),
        ("remdm", {"eta": 2.0}),
        ("remdm", {"schedule": "capp"}),
        ("slots", {"slot_threshold": 60.0}),
        ("slots", {"token_threshold": -0.1}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    (option,) = options
    with pytest.raises(ConfigError, match=f"{option}="):
        registry.get("sampler", name)(**options)
