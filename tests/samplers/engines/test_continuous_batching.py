"""transformers' engine on the CPU: the policy's own tokens, and log-probabilities of what they were drawn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoraOptions
from dllm_rl.records.types import Completions
from dllm_rl.testing._sampler_rows import ending
from dllm_rl.testing.policies import prompts_of
from samplers import sampler_from_dict, sampler_to_dict
from samplers.engines.base import Request, Written, completed
from samplers.engines.continuous_batching import ContinuousBatching
from tests.samplers.engines.decoder import qwen3
from tests.tiny_policies import make_tiny_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return qwen3(tmp_path_factory.mktemp("qwen3"))


def sampler(temperature: float, **engine):
    options = {"engine": {"name": "transformers", **engine}}
    return registry.build("sampler", "ar", options, temperature=temperature)


def written(policy, rows: int, temperature: float, *, seed: int = 0, **engine) -> Completions:
    return sampler(temperature, **engine).generate(policy, prompts_of(policy, range(rows)), seed=seed)


def scored(policy, rows: int, out: Completions, temperature: float) -> torch.Tensor:
    """Log-probabilities of the tokens in one forward of the policy."""
    with torch.no_grad():
        logits = policy.logits(prompts_of(policy, range(rows)), out.ids)
    tempered = logits if temperature == 0 else logits / temperature
    return tempered.log_softmax(dim=-1).gather(-1, out.ids[..., None])[..., 0]


def test_greedy_tokens_are_those_of_the_policys_own_forwards(policy):
    prompts = prompts_of(policy, range(9))
    own = registry.build("sampler", "ar", temperature=0.0).generate(policy, prompts, seed=0)
    found = written(policy, 9, 0.0, max_rows=4)
    assert torch.equal(found.ids, own.ids) and torch.equal(found.mask, own.mask)
    torch.testing.assert_close(found.trajectory.log_probs, own.trajectory.log_probs, atol=1e-5, rtol=0)
    assert torch.equal(found.trajectory.commit_step, own.trajectory.commit_step)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_are_those_of_the_draws(policy, temperature):
    """Without banned tokens, at the temperature; all of the vocabulary can be drawn."""
    with ending(policy, 0.05):
        out = written(policy, 24, temperature)
        given = scored(policy, 24, out, temperature)
    torch.testing.assert_close(out.trajectory.log_probs[out.mask], given[out.mask], atol=1e-5, rtol=0)
    assert not set(policy.banned_ids) & set(out.ids[out.mask].tolist())
    ends = (out.ids == policy.canvas.eos_id).any(dim=1)
    assert ends.any() and (out.mask.sum(dim=1)[~ends] == out.ids.shape[1]).all()
    # transformers would by default draw from the 50 most likely tokens.
    with torch.no_grad():
        logits = policy.logits(prompts_of(policy, range(24)), out.ids)
    rank = (logits > logits.gather(-1, out.ids[..., None])).sum(dim=-1)
    assert (rank[out.mask] >= 50).any()


def test_tokens_are_drawn_as_often_as_they_are_likely(policy):
    """The first token of many rows of one prompt."""
    prompts = prompts_of(policy, [0] * 400)
    prompts = replace(prompts, row_ids=torch.arange(400))
    short = replace(policy.facts, canvas_length=1)
    one = type(policy)(policy.model, policy.tokenizer, short)
    out = sampler(1.0).generate(one, prompts, seed=3)
    with torch.no_grad():
        chance = one.logits(prompts.rows(torch.tensor([0])), out.ids[:1])[0, 0].softmax(dim=-1)
    count = torch.bincount(out.ids[:, 0], minlength=len(chance)).double()
    likely = chance.double() * 400 > 5
    assert likely.sum() >= 5
    deviation = (count - 400 * chance.double()) / (400 * chance.double() * (1 - chance.double())).sqrt()
    assert deviation[likely].abs().max() < 4.5


def test_noise_is_named_and_leaves_pytorchs_own_alone(policy):
    before = torch.random.get_rng_state()
    first, again, other = (written(policy, 6, 1.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.ids, again.ids) and not torch.equal(first.ids, other.ids)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_writes_with_the_weights_and_the_adapter_that_the_policy_has_now(tmp_path):
    policy = qwen3(tmp_path, lora=LoraOptions(rank=2))
    before = written(policy, 6, 0.0)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    after = written(policy, 6, 0.0)
    own = registry.build("sampler", "ar", temperature=0.0).generate(policy, prompts_of(policy, range(6)), seed=0)
    assert not torch.equal(after.ids, before.ids) and torch.equal(after.ids, own.ids)


def test_its_records_say_that_its_numbers_are_its_own(policy):
    out = written(policy, 3, 1.0)
    assert sampler(1.0).approximation == "draws with the engine 'transformers'"
    assert out.trajectory.is_approximate
    torch.testing.assert_close(out.trajectory.entropy, -out.trajectory.log_probs)
    assert out.nfe == int(out.mask.sum(dim=1).max())
    assert registry.build("sampler", "ar").approximation is None


def test_what_it_cannot_run_is_refused(policy):
    tiny = make_tiny_policy("autoregressive")
    with pytest.raises(ConfigError, match="TinyForPlans, and it runs stock decoders"):
        sampler(1.0).generate(tiny, prompts_of(tiny, range(2)), seed=0)
    ends = type(policy)(policy.model, policy.tokenizer, replace(policy.facts, end_ids=(1, 7)))
    with pytest.raises(ConfigError, match=r"the ends \[1, 7\], which count as one.* Name one of them"):
        sampler(1.0).generate(ends, prompts_of(ends, range(2)), seed=0)
    with pytest.raises(ConfigError, match="grammar=true were given, and an engine does not know the grammar"):
        registry.build("sampler", "ar", {"grammar": True, "engine": {"name": "transformers"}})


def test_a_failure_of_the_engine_is_one_message(policy, monkeypatch, capfd):
    def fail(*args, **kwargs):
        raise MemoryError("out of pages")

    monkeypatch.setattr(policy.model, "forward", fail)
    with pytest.raises(ConfigError, match=r"engine 'transformers' failed: .*Lower its max_rows"):
        written(policy, 3, 1.0)
    assert policy.model.config._attn_implementation == "sdpa"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "log_probs"),
    [
        ((5, 6), (-1.0, -1.0)),
        ((5, 1, 6), (-1.0, -1.0, -1.0)),
        ((5, 1), (-1.0,)),
        ((5, 1), (-1.0, float("nan"))),
        ((2, 1), (-1.0, -1.0)),
    ],
    ids=["unfinished", "past EOS", "unscored", "not finite", "banned"],
)
def test_what_an_engine_must_not_write_is_refused(policy, tokens, log_probs):
    request = Request.of(policy, prompts_of(policy, [0]), temperature=1.0, seed=0)
    assert request.eos_id == 1 and 2 in request.banned_ids
    with pytest.raises(ConfigError, match="engine 'mine' wrote row 0"):
        completed(policy, request, [Written(tokens=tokens, log_probs=log_probs)], engine="mine")
    with pytest.raises(ConfigError, match="wrote 0 rows; 1 were asked for"):
        completed(policy, request, [], engine="mine")


def test_the_choice_travels_as_plain_data():
    made = sampler_from_dict({"sampler": "ar", "engine": {"name": "transformers", "max_rows": 8}})
    assert made.engine == ContinuousBatching(max_rows=8)
    assert sampler_from_dict(sampler_to_dict(made)) == made
    # Results without an engine are keyed as they were.
    assert registry.identity("sampler", "ar") == registry.identity("sampler", "ar", {"engine": None})
    assert "engine" not in registry.identity("sampler", "ar")["options"]
    assert "engine" in registry.identity("sampler", "ar", {"engine": {"name": "vllm"}})["options"]
