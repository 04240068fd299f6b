"""Each unmasking rule against its definition, written out row by row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.testing._sampler_rows import ending
from dllm_rl.testing.policies import prompts_of
from samplers import BlockStep, Prediction, StepContext, project
from samplers.loop.denoise import spread
from samplers.loop.sampling import uniform_at


def context(seed=0, *, memory=None, quota=3, step=0, num_steps=4, scale=4.0, rows=5, columns=7):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, columns, 6, generator=generator) * scale
    is_open = torch.rand(rows, columns, generator=generator) < 0.8
    is_open[:, 0] = True

    def noise(row, column, stream):
        ids = row[:, None].expand_as(column)
        return uniform_at(seed, ids.flatten(), column.flatten(), step, stream).reshape(column.shape)

    everywhere = torch.arange(columns).expand(rows, -1)
    return StepContext(
        rows=torch.arange(rows),
        columns=everywhere,
        is_open=is_open,
        block_step=BlockStep(
            in_block=torch.ones(columns, dtype=torch.bool),
            begins_block=True,
            quota=quota,
            index=step,
            num_steps=num_steps,
        ),
        distribution=distribution(logits, everywhere),
        noise_at=noise,
        memory={} if memory is None else memory,
    )


def distribution(logits, columns):
    masked = torch.ones_like(columns, dtype=torch.bool)
    prediction = Prediction(
        logits=logits, columns=columns, canvas=torch.zeros_like(columns), is_masked=masked, temperature=1.0
    )
    return project(None, prediction)


def choose(name, here, **options):
    return registry.get("sampler", name)(**options).choose(here) & here.is_open


def probabilities(here):
    return here.logits.double().softmax(-1)


def top(score, is_open, count):
    expected = torch.zeros_like(is_open)
    for row in range(len(score)):
        places = sorted(is_open[row].nonzero().flatten().tolist(), key=lambda place: -score[row, place].item())
        expected[row, places[:count]] = True
    return expected


@pytest.mark.parametrize("seed", range(3))
def test_quota_rules_take_the_best_of_their_score(seed):
    here = context(seed)
    p = probabilities(here)
    best = p.sort(-1, descending=True).values
    entropy = -(p * p.log()).sum(-1)
    for name, score in (
        ("low_confidence", best[..., 0]),
        ("margin", best[..., 0] - best[..., 1]),
        ("entropy", -entropy),
    ):
        assert torch.equal(choose(name, here), top(score, here.is_open, 3)), name


@pytest.mark.parametrize("seed", range(3))
def test_threshold_takes_all_that_pass_and_the_best(seed):
    here = context(seed)
    p1 = probabilities(here).amax(-1)
    expected = ((p1 >= 0.8) & here.is_open) | top(p1, here.is_open, 1)
    assert torch.equal(choose("threshold", here, threshold=0.8), expected)


@pytest.mark.parametrize("seed", range(5))
def test_factor_stops_before_the_first_failure(seed):
    here = context(seed, scale=6.0)
    p1 = probabilities(here).amax(-1)
    chosen = choose("factor", here, factor=0.5)
    for row in range(5):
        ranked = sorted((p1[row, i].item() for i in range(7) if here.is_open[row, i]), reverse=True)
        count = 1
        while count < len(ranked) and (count + 2) * (1 - ranked[count]) < 0.5:
            count += 1
        if count > 1 and 2 * (1 - ranked[0]) >= 0.5:
            count = 1
        assert chosen[row].sum() == count
        assert torch.equal(chosen[row], top(p1, here.is_open, count)[row])


def test_factor_excludes_the_first_failing_token():
    """Confidences .9 and .1: one token, not two (a bug of public implementations)."""
    here = context()
    columns, logits = torch.arange(2)[None], torch.log(torch.tensor([[[0.9, 0.1], [0.55, 0.45]]]))
    here = replace(
        here, is_open=torch.ones_like(columns).bool(), columns=columns, distribution=distribution(logits, columns)
    )
    assert choose("factor", here, factor=1.0).sum() == 1


@pytest.mark.parametrize("seed", range(5))
def test_entropy_bound_is_a_prefix_per_row(seed):
    here = context(seed, scale=3.0)
    p = probabilities(here)
    entropy = -(p * p.log()).sum(-1)
    chosen = choose("entropy_bound", here, gamma=0.3)
    for row in range(5):
        ranked = sorted(entropy[row, i].item() for i in range(7) if here.is_open[row, i])
        count = max(j for j in range(1, len(ranked) + 1) if sum(ranked[:j]) - max(ranked[:j]) <= 0.3)
        assert torch.equal(chosen[row], top(-entropy, here.is_open, count)[row])


def test_annealed_order_is_random_first_and_greedy_last():
    greedy = choose("low_confidence", context(1, step=3))
    assert torch.equal(choose("annealed", context(1, step=3), order_temperature=50.0), greedy)
    assert not torch.equal(choose("annealed", context(1, step=0), order_temperature=50.0), greedy)


def test_random_order_is_uniform():
    counts = sum(choose("random", context(0, step=step, quota=1)).long() for step in range(600))
    here = context(0)
    for row in range(5):
        expected = 600 / here.is_open[row].sum().item()
        assert (counts[row][here.is_open[row]] - expected).abs().max() < 5 * math.sqrt(expected)


def test_epsilon_greedy_draws_a_known_share_of_positions_uniformly():
    """Of n open ones each is taken with probability epsilon / n, and with 1 - epsilon more where it is sure."""
    here, epsilon, num_draws = context(0), 0.4, 2000
    sure = choose("threshold", here, threshold=0.8)
    steps = [context(0, step=step) for step in range(num_draws)]
    counts = sum(choose("epsilon_greedy", step, threshold=0.8, epsilon=epsilon).double() for step in steps)
    law = here.is_open * (epsilon / here.is_open.sum(dim=1, keepdim=True)) + (1 - epsilon) * sure
    error = (law * (1 - law) / num_draws).sqrt()
    assert ((counts / num_draws - law).abs() <= 4.5 * error).all()
    assert torch.equal(choose("epsilon_greedy", here, threshold=0.8, epsilon=0.0), sure)


@pytest.mark.parametrize("spread_of", [0.3, 2.0])
def test_soft_threshold_writes_the_best_and_each_other_by_a_coin_of_its_own(spread_of):
    here, num_draws = context(0), 3000
    drawn = torch.stack(
        [choose("soft_threshold", context(0, step=step), threshold=0.8, spread=spread_of) for step in range(num_draws)]
    ).double()
    best = top(probabilities(here).amax(-1), here.is_open, 1)
    assert drawn[:, best].all()
    law = ((here.log_odds.double() - math.log(4)) / spread_of).sigmoid() * here.is_open
    law = torch.where(best, 1.0, law)
    assert ((drawn.mean(0) - law).abs() <= 4.5 * (law * (1 - law) / num_draws).sqrt() + 1e-9).all()
    others = here.is_open & ~best
    pair = (others[:, :, None] & others[:, None]) & ~torch.eye(here.is_open.shape[1], dtype=torch.bool)
    both = torch.einsum("dbi,dbj->bij", drawn, drawn) / num_draws - law[:, :, None] * law[:, None]
    assert (both[pair].abs() < 5 * 0.25 / math.sqrt(num_draws)).all(), "the coins are independent"


def test_a_narrow_soft_threshold_is_the_threshold():
    here = context(1)
    soft = choose("soft_threshold", here, threshold=0.8, spread=1e-9)
    assert torch.equal(soft, choose("threshold", here, threshold=0.8))


def test_dilated_groups_halve_their_distance_and_leave_no_neighbours_until_the_end():
    length, written, distances = 16, torch.zeros(16, dtype=torch.bool), []
    rule = registry.get("sampler", "dilated")()
    assert rule.steps_of([length]) == [4]
    for step in range(4):
        here = context(0, step=step, num_steps=4, columns=length, rows=1)
        here = replace(here, is_open=~written[None])
        chosen = rule.choose(here)[0] & ~written
        places = chosen.nonzero().flatten()
        distances.append(int(places.diff().min()) if len(places) > 1 else length)
        written |= chosen
    assert written.all() and distances == [8, 8, 4, 2]


def test_dilated_keeps_to_its_steps_in_blocks_of_any_length(tiny_policies):
    policy = tiny_policies["masked"]
    for options, expected in (({}, 5), ({"base": 3}, 3), ({"block_length": 9}, 4 * 3), ({"num_steps": 2}, 2)):
        sampler = registry.get("sampler", "dilated")(**options)
        blocks = [options.get("block_length", 36)] * (36 // options.get("block_length", 36))
        assert sum(sampler.steps_of(blocks)) == expected
        assert sampler.generate(policy, prompts_of(policy, (1,)), seed=0).nfe <= expected


@pytest.mark.parametrize("rounds", [1, 9])
def test_revise_has_steps_for_every_round_where_nothing_is_certain(tiny_policies, rounds):
    """One column a step, and each one again in every round."""
    policy = tiny_policies["masked"]
    rule = registry.get("sampler", "revise")(threshold=0.999999, edit_threshold=1.0, rounds=rounds)
    with ending(policy, 0.0):
        out = rule.generate(policy, prompts_of(policy, (0,)), seed=0)
    assert out.nfe == 36 * (1 + rounds)


def test_revise_takes_back_what_was_written_in_doubt_once_the_rest_is_known(tiny_policies):
    policy = tiny_policies["masked"]
    rule = registry.get("sampler", "revise")(threshold=0.05, edit_threshold=0.2)
    out = rule.generate(policy, prompts_of(policy, (0, 1, 2)), seed=3)
    record = out.trajectory
    is_masked = record.canvases == policy.mask_id
    for row in range(3):
        states = is_masked[row, : int(record.events.end[row]) + 1].sum(dim=1)
        grows = (states.diff() > 0).nonzero().flatten().tolist()
        assert len(grows) == 1, "one round"
        step = grows[0]
        taken = record.canvases[row, step + 1] == policy.mask_id
        until = int(policy.canvas.until_eos(record.canvases[row, step][None])[0].sum())
        before = record.rows(torch.tensor([row])).events
        doubtful = {
            int(column)
            for column, kind, log_prob, at in zip(before.column, before.kind, before.log_prob, before.step, strict=True)
            if kind == 0 and at <= step and log_prob < math.log(0.2)
        }
        assert doubtful and set((taken & ~is_masked[row, step]).nonzero().flatten().tolist()) == doubtful
        assert not is_masked[row, step][:until].any() or not taken[:until].all()
    assert record.is_approximate


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dilated", {"base": 1}),
        ("soft_threshold", {"spread": 0.0}),
        ("revise", {"edit_threshold": 0.0}),
        ("revise", {"rounds": 0}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        registry.get("sampler", name)(**options)


def test_a_chance_to_explore_is_a_probability():
    with pytest.raises(ConfigError, match="epsilon"):
        registry.get("sampler", "epsilon_greedy")(epsilon=1.5)


def test_klass_waits_for_distributions_that_stopped_moving():
    rule = registry.get("sampler", "klass")(confidence=0.5, max_kl=0.01, history=2, num_steps=6)
    memory = {}
    for step in range(3):
        here = context(3, step=step, num_steps=6, quota=1, memory=memory)
        chosen = rule.choose(here) & here.is_open
        sure = here.is_open & (here.log_odds.sigmoid() > 0.5)
        expected = sure if step == 2 else here.best(here.log_odds, 1)
        rows = sure.any(dim=1)
        assert torch.equal(chosen[rows], expected[rows]), step


@pytest.mark.parametrize("schedule", ["cap", "rescale", "confidence"])
def test_remdm_masks_again_and_still_ends_complete(tiny_policies, schedule):
    policy = tiny_policies["masked"]
    rule = registry.get("sampler", "remdm")(num_steps=16, eta=0.3, schedule=schedule)
    out = rule.generate(policy, prompts_of(policy, range(4)), seed=1)
    states = out.trajectory.canvases
    mask = policy.mask_id
    assert ((states[:, :-1] != mask) & (states[:, 1:] == mask)).any()
    assert out.trajectory.is_approximate
    assert (out.ids != mask).all()


def test_remdm_without_remasking_writes_its_share_in_the_mean(tiny_policies):
    policy = tiny_policies["masked"]
    rule = registry.get("sampler", "remdm")(num_steps=4, eta=0.0)
    out = rule.generate(policy, prompts_of(policy, range(40)), seed=1)
    written = (out.trajectory.canvases[:, 1] != policy.mask_id).float().mean()
    assert abs(written - 0.25) < 0.05


def test_rcr_keeps_the_surest(tiny_policies):
    policy = tiny_policies["masked"]
    out = registry.get("sampler", "rcr")(num_steps=6).generate(policy, prompts_of(policy, range(3)), seed=1)
    visible = (out.trajectory.canvases[0] != policy.mask_id).sum(-1).tolist()
    assert visible[1:4] == [6, 12, 18]


def test_rcr_counts_what_it_can_take_back(tiny_policies):
    """Half of the canvas is given: of the other half a sixth more stays in each step."""
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, range(3))
    given = policy.empty_canvas(3)
    given[:, ::2] = policy.canvas.fill_id
    out = registry.get("sampler", "rcr")(num_steps=6).generate(policy, replace(prompts, given=given), seed=1)
    visible = (out.trajectory.canvases[0] != policy.mask_id).sum(-1).tolist()
    assert visible[:4] == [18, 21, 24, 27]


def test_shares_of_a_count_sum_to_it():
    for total in range(0, 40, 7):
        for parts in range(1, 9):
            shares = spread(total, parts)
            assert sum(shares) == total and max(shares) - min(shares) <= 1


def test_a_threshold_is_a_probability():
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        registry.get("sampler", "threshold")(threshold=1.5)
