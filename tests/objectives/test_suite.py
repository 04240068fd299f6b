"""The suite has power: each planted bug is found under the name of the property that it breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Loss, LossInputs
from dllm_rl.testing import PropertyError, check_objective
from objectives.cj_grpo import CJGRPO
from objectives.espo import ESPO
from objectives.espo_unshared import ESPOUnshared
from objectives.grpo import GRPO
from objectives.wd1 import WD1
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


def test_old_scores_that_are_read_without_being_declared_are_refused() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Forgetful(GRPO):
        needs_old = False

    item = example("masked")
    with pytest.raises(ConfigError, match="Declare needs_old = True"):
        check_objective(Forgetful(), policies=[(item.policy, item.rollouts)])


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
