"""The suite has power: each planted bug is found under the name of the property that it breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.process import ANY
from dllm_rl.records.types import Loss, LossInputs, MeanOver, Replays
from dllm_rl.testing import PropertyError, check_objective, check_sampler
from dllm_rl.training.config import refuse_unrecorded
from objectives.cj_grpo import CJGRPO
from objectives.espo import ESPO
from objectives.espo_unshared import ESPOUnshared
from objectives.grpo import GRPO
from objectives.stable_drl import StableDRL
from objectives.wd1 import WD1
from samplers.rules.random import RandomSampler
from tests.examples import example, example_policy


def log_ratio_everywhere(inputs: LossInputs) -> Tensor:
    assert inputs.old is not None
    return inputs.new - inputs.old.detach()


def found(objective: Any, family: str) -> str:
    item = example(family)
    with pytest.raises(PropertyError) as error:
        check_objective(objective, policies=[(item.policy, item.rollouts)])
    return str(error.value)


def test_independent_views_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Unshared(ESPOUnshared):
        exceptions = {}  # noqa: RUF012

    for family in ("masked", "block", "slot", "flow"):
        assert "'on_policy': ratio_dev" in found(Unshared(), family)


def test_a_needless_exception_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Excused(ESPO):
        exceptions = {"on_policy": "no reason"}  # noqa: RUF012

    assert "declared as an exception, but it holds" in found(Excused(), "masked")


def test_live_dropout_is_found() -> None:
    item = example("masked")
    item.policy.model.norm.register_forward_hook(lambda *call: torch.nn.functional.dropout(call[-1], 0.3))
    with pytest.raises(PropertyError, match="Live dropout"):
        check_objective(GRPO(), policies=[(item.policy, item.rollouts)])


def test_a_global_generator_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Ambient(GRPO):
        def views(self, rollouts, process, generator):
            np.random.rand()
            return process.one_step(rollouts, generator)

    assert "'same_generator'" in found(Ambient(), "masked")


def test_a_micro_batch_normaliser_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Local(GRPO):
        def loss(self, inputs):
            totals = replace(inputs.rollouts.totals, rows=int(inputs.rollouts.valid.sum()))
            return GRPO.loss(self, replace(inputs, rollouts=replace(inputs.rollouts, totals=totals)))

    assert "'micro_batches'" in found(Local(), "masked")


def test_scored_fill_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Everywhere(GRPO):
        def loss(self, inputs):
            ratio = log_ratio_everywhere(inputs).exp()
            value = -(inputs.advantages[:, None] * ratio).sum() / inputs.rollouts.totals.rows
            return Loss(value=value, metrics={})

    assert "unscored entries have a gradient" in found(Everywhere(), "masked")


def test_a_wrong_sign_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Descent(GRPO):
        def loss(self, inputs):
            return GRPO.loss(self, replace(inputs, advantages=-inputs.advantages))

    assert "'sign_of_advantage'" in found(Descent(), "flow")


def test_a_visible_tail_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class SeesTail(GRPO):
        def views(self, rollouts, process, generator):
            drawn = process.one_step(rollouts, generator)
            is_tail = ~process.editable(rollouts)
            return replace(drawn, tokens=torch.where(is_tail, rollouts.completion_ids, drawn.tokens))

    assert "'tail'" in found(SeesTail(), "masked")


def test_a_false_number_of_views_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Miscounted(ESPO):
        num_views = 1  # type: ignore[assignment]

    assert "'declared_views': num_views is 1, but views() draws 4" in found(Miscounted(), "masked")


def test_old_scores_that_nothing_reads_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Wasteful(WD1):
        needs_old = True

    assert "'old_scores': needs_old is True, but" in found(Wasteful(), "masked")


def test_old_scores_that_are_read_without_being_declared_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Forgetful(GRPO):
        needs_old = False

    assert "ConfigError: this loss reads the old" in found(Forgetful(), "masked")


def test_a_moved_baseline_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class CountsLost(CJGRPO):
        def advantages(self, rollouts):
            rewards = rollouts.rewards.nan_to_num(0.0)
            mean = torch.stack([rewards[rollouts.group_ids == group].mean() for group in rollouts.group_ids])
            return torch.where(rollouts.valid, rewards - mean, 0.0)

    assert "'invalid_rows'" in found(CountsLost(), "masked")


def test_an_overflowing_penalty_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Overflows(GRPO):
        def loss(self, inputs):
            ratio = (inputs.views.weight * log_ratio_everywhere(inputs)).sum((0, 2)).exp()
            return Loss(value=-(ratio * inputs.advantages).sum() / inputs.rollouts.totals.rows, metrics={})

    assert "'numerics'" in found(Overflows(beta=0.0), "masked")


def test_a_penalty_that_pushes_away_is_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Repelled(GRPO):
        def loss(self, inputs):
            assert inputs.ref is not None
            return GRPO.loss(self, replace(inputs, ref=2 * inputs.new.detach() - inputs.ref))

    assert "'penalty'" in found(Repelled(beta=0.1), "masked")


@pytest.mark.parametrize("family", ["masked", "flow", "autoregressive"])
def test_a_false_claim_to_estimate_the_elbo_is_found(family: str) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Scaled(ESPO):
        def views(self, rollouts, process, generator):
            drawn = process.elbo(rollouts, generator)
            return replace(drawn, weight=1.2 * drawn.weight)

    assert "'elbo_views': the expected weight of a scored position is not" in found(Scaled(), family)


def test_weights_that_are_right_on_average_over_wrong_masks_are_found() -> None:
    """Bernoulli masks of one level with weight 1 / t: every position has weight 1, and the sum is not the ELBO."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class OneLevel(ESPO):
        def views(self, rollouts, process, generator):
            level = torch.full((1, rollouts.num_rows), 0.9)
            hidden = process.random_units(rollouts, level, generator)
            return process.hide_units(rollouts, hidden, 1 / level, generator)

    item = example("masked")
    policy = example_policy("masked", sharpness=4.0)
    with pytest.raises(PropertyError, match="the mean of the estimates is not the ELBO"):
        check_objective(OneLevel(beta=0.0), policies=[(policy, item.rollouts)])


def test_an_undocumented_metric_is_found_and_a_declared_one_is_not() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Chatty(GRPO):
        def loss(self, inputs):
            loss = GRPO.loss(self, inputs)
            return Loss(value=loss.value, metrics={**loss.metrics, "my/size": 1.0})

    assert "'metric_names'" in found(Chatty(), "masked") and "my/size" in found(Chatty(), "masked")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Declared(Chatty):
        own_metrics = {"my/size": "always 1"}  # noqa: RUF012

    item = example("masked")
    assert check_objective(Declared(), policies=[(item.policy, item.rollouts)])


def test_views_that_depend_on_the_width_of_the_prompts_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Wide(ESPO):
        def views(self, rollouts, process, generator):
            torch.rand(rollouts.prompt_ids.shape, generator=generator)
            return process.elbo(rollouts, generator)

    assert "'left_padding': views drawn" in found(Wide(), "masked")


@pytest.mark.parametrize(("base", "claim"), [(GRPO, Replays.STEPS), (CJGRPO, Replays.NONE)])
def test_a_false_claim_to_replay_draws_is_found(base: type, claim: Replays) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Claims(base):
        replays = claim

    assert f"'replays': replays is {claim}, but views()" in found(Claims(), "masked")


def test_replays_at_another_temperature_than_the_sampler_s_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Untempered(CJGRPO):
        def views(self, rollouts, process, generator):
            return replace(CJGRPO.views(self, rollouts, process, generator), at_temperature=False)

    assert "'replays': what the policy drew at the sampler's temperature is scored at 1" in found(
        Untempered(), "masked"
    )


@pytest.mark.parametrize("base", [GRPO, StableDRL, WD1])
def test_a_false_normaliser_is_found(base: type) -> None:
    for claim in set(MeanOver) - {base.mean_over}:

        @dataclass(frozen=True, slots=True, kw_only=True)
        class Claims(base):
            mean_over = claim

        assert f"'mean_over': mean_over is {claim}, but the loss is a {base.mean_over}" in found(Claims(), "masked")


def by_column(rollouts: Any, advantages: Tensor) -> Tensor:
    return advantages[:, None] * torch.linspace(1, 2, rollouts.completion_ids.shape[1])


def by_step(rollouts: Any, advantages: Tensor) -> Tensor:
    return advantages[:, None] * torch.linspace(1, 2, rollouts.trajectory.num_steps)


@pytest.mark.parametrize(("base", "spread"), [(GRPO, by_column), (CJGRPO, by_step)])
def test_advantages_of_columns_and_of_steps_are_those_of_the_terms(base: type, spread: Any) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Spread(base):
        def advantages(self, rollouts):
            return spread(rollouts, base.advantages(self, rollouts))

    item = example("masked")
    # As many views as rows, so that one could be taken for the other.
    options = {"num_steps": item.rollouts.num_rows} if base is CJGRPO else {}
    assert check_objective(Spread(**options), policies=[(item.policy, item.rollouts)])


def test_a_step_s_advantage_weighs_the_view_of_that_step() -> None:
    item = example("masked")
    objective = CJGRPO(num_steps=None, beta=0.0)
    views = objective.views(item.rollouts, item.policy.process, torch.Generator().manual_seed(0))
    assert views.step is not None
    steps = torch.rand(item.rollouts.num_rows, item.rollouts.trajectory.num_steps)
    new = torch.zeros(views.score.shape).requires_grad_()
    given = LossInputs(
        rollouts=item.rollouts, views=views, new=new, old=new.detach(), ref=None, advantages=torch.ones(len(steps))
    )
    (plain,) = torch.autograd.grad(objective.loss(given).value, new)
    (weighted,) = torch.autograd.grad(objective.loss(replace(given, advantages=steps)).value, new)
    for view, row, column in views.score.nonzero().tolist():
        expected = steps[row, views.step[view, row]] * plain[view, row, column]
        assert torch.isclose(weighted[view, row, column], expected)


def test_advantages_of_no_shape_that_is_known_are_found() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Odd(GRPO):
        def advantages(self, rollouts):
            return GRPO.advantages(self, rollouts)[:, None].expand(-1, 3)

    assert "'advantage_shape': ConfigError: advantages of shape (" in found(Odd(), "masked")


@pytest.mark.parametrize(
    ("families", "reason"),
    [
        (("maskd",), "of which maskd is unknown"),
        (("masked", "floww"), "of which floww is unknown"),
        ((), "so that nothing is to be checked"),
    ],
)
def test_families_that_nothing_is_checked_on_are_refused(families: tuple[str, ...], reason: str) -> None:
    named = families

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Misspelt(GRPO):
        families = named

    class MisspeltRule(RandomSampler):
        families = named

    for check in (lambda: check_objective(Misspelt()), lambda: check_sampler(MisspeltRule)):
        with pytest.raises(PropertyError, match=f"{reason}. Give a tuple of names: any, "):
            check()


def test_what_the_protocol_asks_for_and_a_class_does_not_declare_is_named() -> None:
    class Bare:
        name, families = "bare", (ANY,)

    with pytest.raises(PropertyError, match=r"Bare does not declare paper, level, .*exceptions, own_metrics, .*loss"):
        check_objective(Bare())


def test_an_error_inside_of_an_objective_is_told_with_property_and_family() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Breaks(GRPO):
        exceptions = {"old_scores": "an assert of its own is no promise that it breaks"}  # noqa: RUF012

        def loss(self, inputs):
            assert not inputs.new.equal(inputs.old), "they are equal"
            raise RuntimeError("the sizes differ")

    said = found(Breaks(), "masked")
    assert "on the masked family, property 'old_scores': AssertionError: they are equal" in said

    @dataclass(frozen=True, slots=True, kw_only=True)
    class NoViews(GRPO):
        def views(self, rollouts, process, generator):
            raise TypeError("no such view")

    assert "on the masked family: TypeError: no such view" in found(NoViews(), "masked")


@pytest.mark.parametrize(("names", "reason"), [(("trajectory", "rewards"), None), (("turn_facts",), "whole plans")])
def test_suite_and_trainer_agree_on_what_is_required(names: tuple[str, ...], reason: str | None) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Requires(GRPO):
        requires = names

    item = example("masked")
    is_episodic = reason is not None
    if is_episodic:
        assert "it requires turn_facts, which these rollouts lack" in found(Requires(), "masked")
        with pytest.raises(ConfigError, match=r"requires turn_facts, .*whole plans\. Take an environment of episodes"):
            refuse_unrecorded(Requires(), is_episodic=False)
    else:
        assert check_objective(Requires(), policies=[(item.policy, item.rollouts)])
        refuse_unrecorded(Requires(), is_episodic=False)
    refuse_unrecorded(Requires(), is_episodic=True)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Unknown(GRPO):
        requires = ("reward",)

    assert "'flags': ConfigError: objective 'grpo' requires reward, and rollouts have no such field" in found(
        Unknown(), "masked"
    )
