"""The public suite of samplers has power: each planted bug is found by the property that it breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from dllm_rl import registry
from dllm_rl.testing import check_sampler
from dllm_rl.testing.policies import prompts_of, random_policy
from dllm_rl.testing.sampler import SAMPLER_PROPERTIES, SamplerCase
from samplers.grammar.projection import Constrained, Draw, Unconstrained
from samplers.loop import denoise
from samplers.loop.sampling import COIN, entropy

Quota = registry.get("sampler", "low_confidence")
Random = registry.get("sampler", "random")
AR = registry.get("sampler", "ar")
Annealed = registry.get("sampler", "annealed")
Soft = registry.get("sampler", "soft_threshold")


def breaks(name: str, sampler_class: Any, policy: Any, message: str, **options: Any) -> None:
    case = SamplerCase(sampler_class=sampler_class, policy=policy, options=options)
    with pytest.raises(AssertionError, match=message):
        SAMPLER_PROPERTIES[name](case)


class Wrapped(Random):
    """A right sampler whose prompts or completions somebody spoils."""

    name = "wrapped"

    def before(self, policy, prompts):
        return prompts

    def after(self, policy, prompts, out):
        return out

    def generate(self, policy, prompts, *, seed, watcher=None):
        given = self.before(policy, prompts)
        return self.after(policy, prompts, Random.generate(self, policy, given, seed=seed))


def test_a_right_sampler_keeps_them_all(tiny_policies):
    case = SamplerCase(sampler_class=Wrapped, policy=tiny_policies["masked"], options={"num_steps": 12})
    for check in SAMPLER_PROPERTIES.values():
        check(case)


def test_masks_of_the_prompt_that_are_overwritten_are_found(tiny_policies):
    class Overwrites(Wrapped):
        def before(self, policy, prompts):
            prompts.ids[prompts.ids == policy.mask_id] = policy.canvas.pad_id
            return prompts

    class Reads(Wrapped):
        def before(self, policy, prompts):
            return replace(prompts, ids=torch.where(prompts.ids == policy.mask_id, 5, prompts.ids))

    breaks("the_prompt_is_text", Overwrites, tiny_policies["masked"], "changed in place")
    breaks("the_prompt_is_text", Reads, tiny_policies["masked"], "read another prompt")


def test_prompts_that_come_back_are_found(tiny_policies):
    class Whole(Wrapped):
        def after(self, policy, prompts, out):
            return replace(out, ids=torch.cat([prompts.ids, out.ids], dim=1))

    breaks("the_prompt_is_text", Whole, tiny_policies["masked"], "completions have shape")


def test_noise_keyed_by_the_padded_width_is_found(tiny_policies):
    class Wide(Wrapped):
        def before(self, policy, prompts):
            return replace(prompts, row_ids=prompts.row_ids + prompts.ids.shape[1])

    breaks("left_padding", Wide, tiny_policies["masked"], "padding on the left changes text")


@pytest.mark.parametrize(("family", "base"), [("masked", Random), ("autoregressive", AR)])
def test_padding_that_is_read_is_found(family, base):
    class Unmasked(base):
        def generate(self, policy, prompts, *, seed):
            return base.generate(self, policy, replace(prompts, mask=torch.ones_like(prompts.mask)), seed=seed)

    breaks("left_padding", Unmasked, random_policy(family, seed=1), "padding on the left changes")


def test_a_record_of_the_untempered_distribution_is_found(tiny_policies, monkeypatch):
    """Tokens of the tempered law, recorded as if the temperature were 1."""
    right = Unconstrained.draw

    def untempered(self, chosen, keys):
        drawn = right(self, chosen, keys)
        log_p = self.logits[chosen].log_softmax(-1)
        return replace(drawn, log_probs=log_p.gather(1, drawn.tokens[:, None]).squeeze(1))

    monkeypatch.setattr(Unconstrained, "draw", untempered)
    case = SamplerCase(sampler_class=Random, policy=tiny_policies["masked"], options={})
    SAMPLER_PROPERTIES["replay_is_exact"](case)
    breaks("tempered_replay_is_exact", Random, tiny_policies["masked"], "at temperature 0.5 a replay")


def test_a_recorded_entropy_of_the_untempered_distribution_is_found(tiny_policies, monkeypatch):
    right = Unconstrained.draw

    def untempered(self, chosen, keys):
        return replace(right(self, chosen, keys), entropy=entropy(self.logits[chosen]))

    monkeypatch.setattr(Unconstrained, "draw", untempered)
    case = SamplerCase(sampler_class=Random, policy=tiny_policies["masked"], options={})
    SAMPLER_PROPERTIES["replay_is_exact"](case)
    breaks("tempered_replay_is_exact", Random, tiny_policies["masked"], "at temperature 0.5 a recorded entropy differs")


def test_draws_at_another_temperature_than_the_recorded_one_are_found(tiny_policies, monkeypatch):
    """Tokens of the law at temperature 1, with the log-probabilities of the tempered one."""

    def hot(self, chosen, keys):
        cold = self.temperature
        self.temperature = 1.0
        drawn: Draw = right(self, chosen, keys)
        self.temperature = cold
        log_p = (self.logits[chosen] / cold).log_softmax(-1)
        log_probs = log_p.gather(1, drawn.tokens[:, None]).squeeze(1)
        return replace(drawn, log_probs=log_probs, entropy=entropy(self.logits[chosen], cold))

    right = Unconstrained.draw
    monkeypatch.setattr(Unconstrained, "draw", hot)
    case = SamplerCase(sampler_class=Random, policy=tiny_policies["masked"], options={})
    SAMPLER_PROPERTIES["tempered_replay_is_exact"](case)
    breaks("draws_follow_the_distribution", Random, tiny_policies["masked"], "at temperature 0.5 the tokens lie -")


def test_ranking_by_the_drawn_token_is_found(tiny_policies, monkeypatch):
    """LLaDA's order: all positions are drawn, and those whose token is most likely are kept, a hidden temperature."""
    right = Unconstrained.draw

    def sample_first(self, chosen, keys):
        everywhere = torch.ones_like(chosen)
        drawn = right(self, everywhere, keys)
        likely = drawn.log_probs.reshape(chosen.shape).masked_fill(~getattr(self, "open", everywhere), -torch.inf)
        count = chosen.sum(dim=1, keepdim=True)
        kept = likely.argsort(dim=1, descending=True).argsort(dim=1) < count
        return right(self, kept, keys)

    def choose(self, context):
        context.distribution.open = context.is_open
        return Random.choose(self, context)

    class SampleFirst(Random):
        pass

    SampleFirst.choose = choose
    monkeypatch.setattr(Unconstrained, "draw", sample_first)
    breaks(
        "draws_follow_the_distribution", SampleFirst, tiny_policies["masked"], r"at temperature 1.0 the tokens lie \+"
    )


def test_counts_of_rows_that_have_left_are_found(tiny_policies):
    class CountsAll(Wrapped):
        def after(self, policy, prompts, out):
            fed = out.nfe * (prompts.ids.numel() + out.ids.numel())
            return replace(out, token_forwards=fed)

    case = SamplerCase(sampler_class=CountsAll, policy=tiny_policies["masked"], options={})
    out = case.draw((1,))
    assert (
        out.token_forwards
        == Wrapped.generate(Wrapped(), case.policy, prompts_of(case.policy, (1,)), seed=3).token_forwards
    )
    breaks("counts_are_honest", CountsAll, tiny_policies["masked"], "with 3 rows token_forwards says")


def test_forwards_that_write_nothing_are_found(tiny_policies, monkeypatch):
    right = denoise.Denoising._chosen

    def idle(self, context):
        return right(self, context) & bool(context.step % 2 or context.step + 1 == context.num_steps)

    monkeypatch.setattr(denoise.Denoising, "_chosen", idle)
    breaks("every_forward_writes", Quota, tiny_policies["masked"], "wrote nothing")


def test_more_steps_than_allowed_are_found(tiny_policies):
    class Ignores(Wrapped):
        def generate(self, policy, prompts, *, seed, watcher=None):
            return Random(temperature=self.temperature, num_steps=36).generate(policy, prompts, seed=seed)

    breaks("every_forward_writes", Ignores, tiny_policies["masked"], "num_steps=5, and it took 36 forwards")


def test_forwards_behind_the_end_are_found(tiny_policies, monkeypatch):
    """Rows that run until no mask is left anywhere, and rows that stay in the batch."""
    monkeypatch.setattr(denoise, "is_finished", lambda canvas, is_masked, eos_id: ~is_masked.any(dim=1))
    breaks("done_rows_stay", Random, tiny_policies["masked"], "a finished row changed")

    class Keeps(AR):
        def generate(self, policy, prompts, *, seed):
            out = AR.generate(self, policy, prompts, seed=seed)
            return replace(out, token_forwards=prompts.ids.numel() + len(prompts.ids) * (out.nfe - 1))

    breaks("early_ends_save", Keeps, tiny_policies["autoregressive"], "rows that have ended go on being fed")


def test_text_behind_the_end_is_found(tiny_policies):
    class Open(Wrapped):
        def after(self, policy, prompts, out):
            return replace(out, ids=policy.canvas.close(out.trajectory.canvases[:, -1]).masked_fill(~out.mask, 7))

    breaks("padding_follows_the_end", Open, tiny_policies["masked"], "something other than PAD")


def test_a_sampler_without_grammar_and_one_that_is_approximate_are_right(tiny_policies):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Plain:
        """A driver of its own without the option."""

        name: ClassVar[str] = "plain"
        families: ClassVar[tuple[str, ...]] = ("masked",)
        approximation: ClassVar[str | None] = None
        grammar: ClassVar[bool] = False
        temperature: float = 1.0
        num_steps: int = 12

        def generate(self, policy, prompts, *, seed):
            rule = Random(temperature=self.temperature, num_steps=self.num_steps)
            return rule.generate(policy, prompts, seed=seed)

    masked = {"masked": tiny_policies["masked"]}
    check_sampler(Plain, policies=masked)

    class Guided(Quota):
        name = "guided"
        families = ("masked",)

    for options in ({"guidance": 1.0}, {"block_length": 9, "cache": "dual"}):
        given = {"num_steps": 12, **options}
        case = SamplerCase(sampler_class=Guided, policy=tiny_policies["masked"], options=given)
        for name in ("says_what_it_is", "replay_is_exact", "tempered_replay_is_exact", "every_forward_writes"):
            SAMPLER_PROPERTIES[name](case)


def test_log_probabilities_under_the_grammar_that_are_not_its_own_are_found(tiny_policies, monkeypatch):
    right = Constrained._log_probs
    monkeypatch.setattr(Constrained, "_log_probs", lambda self, *given: right(self, *given) - 0.01)
    breaks("grammar_replay_is_exact", Random, tiny_policies["masked"], "under the grammar a replay", num_steps=12)


def test_log_probabilities_of_a_law_that_is_nearly_certain_are_found(tiny_policies, monkeypatch):
    right = Unconstrained.draw

    def certain(self, chosen, keys):
        drawn = right(self, chosen, keys)
        return replace(drawn, log_probs=torch.zeros_like(drawn.log_probs)) if self.temperature == 0 else drawn

    monkeypatch.setattr(Unconstrained, "draw", certain)
    breaks("greedy_replay_is_exact", Random, tiny_policies["masked"], "at temperature 0.0 a replay", num_steps=12)


def test_positions_that_are_drawn_in_secret_are_found(tiny_policies):
    class Secret(Annealed):
        hides_order = False

    class Often(Soft):
        def choose(self, context):
            return Soft.choose(self, context) | (context.noise(COIN) < 0.5)

    class Coin(Soft):
        def choose(self, context):
            return Soft.choose(self, context) & ~context.best(context.log_odds, 1) | context.best(-context.log_odds, 1)

    policy, options = tiny_policies["masked"], {"threshold": 0.05, "spread": 0.5}
    breaks("positions_are_drawn_as_it_says", Secret, policy, "neither their law", num_steps=12)
    breaks("positions_are_drawn_as_it_says", Often, policy, "standard deviations from draws", **options)
    breaks("positions_are_drawn_as_it_says", Coin, policy, "does not write the most certain", **options)


def test_given_tokens_that_are_dropped_are_found(tiny_policies):
    class Forgets(Wrapped):
        def before(self, policy, prompts):
            return replace(prompts, given=None)

    breaks("given_tokens_stand", Forgets, tiny_policies["masked"], "were written over")


def test_what_a_sampler_lacks_or_says_wrongly_is_found(tiny_policies):
    class Silent(Wrapped):
        def after(self, policy, prompts, out):
            return replace(out, trajectory=replace(out.trajectory, is_approximate=True))

    class Bare:
        name, families, temperature, grammar = "bare", ("masked",), 1.0, False

        def __init__(self, **options):
            pass

    breaks("says_what_it_is", Silent, tiny_policies["masked"], "its approximation is None")
    breaks("says_what_it_is", Bare, tiny_policies["masked"], "it lacks approximation")
