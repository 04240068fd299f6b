"""Mistakes seen in public samplers, each with a test that fails where it is made; the table is in docs/results/.

Mistakes that other tests of this folder already catch are not tested twice; the table names those tests.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from transformers import LogitsProcessorList, TopPLogitsWarper

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.transitions import CumulativeJump, EulerJump, ExactJump, rate_log_prob, transition_log_prob
from dllm_rl.records.trajectory import confidence
from dllm_rl.testing.policies import prompts_of, random_policy
from samplers.hf import diffusion_generate
from samplers.hf.processors import Processors
from samplers.loop.sampling import TOKEN, pick, uniform
from tests.samplers.hf.test_hf import decoder

RULES = [name for name, cls in registry.items("sampler") if "masked" in cls.families]


def draw(policy, name, rows=(0, 1, 2), *, seed=3, temperature=1.0, prompts=None, **options):
    rule = registry.get("sampler", name)(temperature=temperature, **options)
    return rule.generate(policy, prompts_of(policy, rows) if prompts is None else prompts, seed=seed)


def ends_early(policy, *, column=4):
    """The policy, certain that EOS stands at this column."""

    class Early(type(policy)):
        def logits(self, prompts, canvas, *, columns=None, **rest):
            found = super().logits(prompts, canvas, columns=columns, **rest)
            asked = torch.arange(canvas.shape[1]).expand(len(canvas), -1) if columns is None else columns
            found[..., self.canvas.eos_id] += 60.0 * (asked == column)
            return found

    return Early(policy.model, policy.tokenizer, policy.facts)


@pytest.mark.parametrize("name", RULES)
def test_no_mask_is_left_in_any_block(tiny_policies, name):
    """A threshold that nothing passes, blocks that do not divide the canvas, fewer steps than blocks (dllm)."""
    policy = tiny_policies["masked"]
    for steps, block in ((3, 10), (36, 7), (1, None)):
        options = {"threshold": 0.999999} if name == "threshold" else {}
        out = draw(policy, name, num_steps=steps, block_length=block, **options)
        assert not (out.trajectory.canvases[:, -1] == policy.mask_id)[out.mask].any()
        assert not (out.ids == policy.mask_id).any()


def test_masks_in_the_prompt_are_text(tiny_policies):
    """The state of writing is kept beside the canvas, never read off its tokens (LLaDA)."""
    policy = tiny_policies["masked"]
    prompts = prompts_of(policy, (0, 1))
    ids = torch.where(prompts.mask & (torch.arange(prompts.ids.shape[1]) % 5 == 0), policy.mask_id, prompts.ids)
    seen = []
    handle = policy.model.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs["input_ids"][:, : -policy.facts.canvas_length]),
        with_kwargs=True,
    )
    try:
        out = draw(policy, "threshold", prompts=replace(prompts, ids=ids))
    finally:
        handle.remove()
    assert (ids == policy.mask_id).any() and not (out.ids == policy.mask_id).any()
    for fed in seen:
        width = fed.shape[1]
        assert any(torch.equal(row, ids[index, -width:]) for row in fed for index in range(2))


def test_nothing_runs_behind_the_end_of_a_text(tiny_policies):
    """Blocks behind EOS are never asked for, and a row that has ended does not change (LLaDA runs them all)."""
    policy = ends_early(tiny_policies["masked"])
    out = draw(policy, "low_confidence", num_steps=36, block_length=6)
    assert out.nfe <= 6
    assert (out.ids[:, 4] == policy.canvas.eos_id).all() and (out.ids[:, 5:] == policy.canvas.pad_id).all()
    assert (out.trajectory.commit_step[:, 6:] == -1).all()


@pytest.mark.parametrize("name", ["low_confidence", "margin", "entropy"])
def test_a_low_temperature_does_not_turn_the_order_into_left_to_right(tiny_policies, name):
    """Ranks are of the untempered law: at T = 1e-4 the surest column is still the first (Dream ties at 1.0)."""
    policy = tiny_policies["masked"]
    sureness = torch.rand(policy.facts.canvas_length, generator=torch.Generator().manual_seed(0)) * 3 + 4

    class Fixed(type(policy)):
        def logits(self, prompts, canvas, *, columns=None, **rest):
            found = torch.zeros(*columns.shape, self.vocab_size).masked_fill(self._banned, -torch.inf)
            found[..., 40] = sureness[columns]
            return found

    out = draw(Fixed(policy.model, policy.tokenizer, policy.facts), name, (0,), num_steps=36, temperature=1e-4)
    assert torch.equal(out.trajectory.commit_step[0].argsort(), sureness.argsort(descending=True))


@pytest.mark.parametrize("name", ["threshold", "entropy_bound", "klass"])
def test_a_low_temperature_makes_nothing_surer_under_the_grammar(name):
    """Ranks are of the untempered law there, too: as T falls to 0, the forwards become those of T = 0."""
    policy = random_policy("masked", seed=3, sharpness=4.0)
    forwards = [draw(policy, name, (0,), temperature=t, grammar=True).nfe for t in (0.0, 1e-6, 0.1)]
    assert forwards[0] == forwards[1]
    assert forwards[2] >= 0.5 * forwards[0] > 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("low_confidence", {"block_length": -1}, "block_length=-1"),
        ("low_confidence", {"num_steps": 0}, "num_steps=0"),
        ("threshold", {"temperature": -1.0}, "temperature=-1"),
        ("flow_exact", {"num_steps": 0}, "num_steps=0"),
        ("slots", {"temperature": float("nan")}, "temperature=nan"),
        ("ar", {"temperature": -0.5}, "temperature=-0.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(name, options, message):
    """With no forward at all, a canvas of masks came back."""
    with pytest.raises(ConfigError, match=message):
        registry.get("sampler", name)(**options)


@pytest.mark.parametrize("name", ["threshold", "factor", "entropy_bound", "klass"])
def test_a_bound_holds_on_a_canvas_of_any_length(name):
    """A default number of steps fit for 128 columns made the last step of longer ones write whatever was left."""
    assert registry.get("sampler", name)().num_steps is None


@pytest.mark.parametrize("family", ["autoregressive", "masked", "slot", "block"])
@pytest.mark.parametrize("length", [1, 2])
def test_prompts_shorter_than_what_a_token_carries_are_read(family, length):
    policy = random_policy(family, seed=1)
    prompts = prompts_of(policy, (0, 1))
    short = replace(prompts, ids=prompts.ids[:, -length:], mask=torch.ones(2, length, dtype=torch.bool))
    name = {"autoregressive": "ar", "slot": "slots"}.get(family, "low_confidence")
    out = draw(policy, name, prompts=short)
    if family == "autoregressive":
        whole = policy.logits(short, out.ids).log_softmax(dim=-1).gather(-1, out.ids[..., None]).squeeze(-1)
        torch.testing.assert_close(whole[out.mask], out.trajectory.log_probs[out.mask], atol=1e-4, rtol=1e-4)


def test_confidence_of_a_flow_is_that_of_its_last_law():
    """Not the product of sixteen transitions, which is small wherever the end is certain."""
    policy = random_policy("flow", seed=2, sharpness=60.0)
    out = draw(policy, "flow_exact", (0,), num_steps=8)
    sure = out.trajectory.entropy < 1e-3
    assert sure.any()
    assert (confidence(out)[sure] > 0.99).all()


@pytest.mark.parametrize(
    ("transition", "time", "stay"),
    [
        (CumulativeJump(), 0.0, 0.9354),
        (CumulativeJump(), 0.75, 0.7071),
        (EulerJump(), 0.0, 0.9394),
        (EulerJump(), 0.75, 0.7788),
    ],
)
def test_rates_of_the_flow_depend_on_time_and_step(transition, time, stay):
    """By hand at p(x) = .5, h = 1/8, kappa = t; what is left is shared by the others (mixture_euler ignores kappa)."""
    rate = transition.rate(torch.tensor([time]), torch.tensor([time + 0.125]))
    half, others = torch.tensor([0.5]).log(), torch.tensor([0.3, 0.2]).log()
    kept = rate_log_prob(half, half, torch.tensor([True]), rate).exp()
    moved = rate_log_prob(others, half.expand(2), torch.tensor([False, False]), rate).exp()
    torch.testing.assert_close(kept, torch.tensor([stay]), atol=1e-4, rtol=0)
    torch.testing.assert_close(kept.sum() + moved.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("name", ["flow_exact", "flow_euler", "flow_cumulative"])
def test_a_grid_of_many_steps_gives_every_law_the_same_marginal(name):
    """At a prediction that stays what it is, all three reach it: token 40 in three of ten positions."""
    policy = random_policy("flow", seed=1)

    class Fixed(type(policy)):
        def logits(self, prompts, canvas, *, columns=None, **rest):
            found = torch.zeros(*canvas.shape, self.vocab_size)
            found[..., 40], found[..., 41] = 0.3, 0.7
            return found.log()

    out = draw(Fixed(policy.model, policy.tokenizer, policy.facts), name, range(60), num_steps=24)
    states = out.trajectory.canvases
    assert type(out.trajectory.transition) is registry.get("sampler", name).transition
    assert abs((states[:, -1] == 40).float().mean() - 0.3) < 0.03
    # A step before the last, what has moved at all is shared as the prediction says, too.
    moved = (states[:, -2] == 40) | (states[:, -2] == 41)
    assert abs((states[:, -2][moved] == 40).float().mean() - 0.3) < 0.03
    assert 0.85 < moved.float().mean() < 1.0


def test_top_p_reads_every_row():
    """A sharp and a flat law in one batch keep one and four tokens (Fast-dLLM v2 reads the first row's)."""
    processors = Processors.of(LogitsProcessorList([TopPLogitsWarper(0.8)]), do_sample=True)
    laws = torch.tensor([[9.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert processors.truncate(laws).isfinite().sum(dim=1).tolist() == [1, 4]
    assert processors.truncate(laws.flip(0)).isfinite().sum(dim=1).tolist() == [4, 1]


def test_large_ids_are_exact():
    """In a vocabulary of 200,000 neighbours stay apart (MDLM's `allclose` takes 126000 for 126001)."""
    logits = torch.full((1, 2, 200_000), -50.0)
    logits[0, 0, 126_000] = logits[0, 1, 126_001] = 50.0
    for temperature in (0.0, 1.0):
        tokens, _ = pick(logits, temperature, torch.full((1, 2), 0.5, dtype=torch.float64))
        assert tokens.tolist() == [[126_000, 126_001]]


def test_large_logits_do_not_overflow():
    """exp(l) is never formed: logits of thousands give their own token, not id 0 (d1)."""
    logits = torch.zeros(1, 1, 6)
    logits[..., 4] = 20_000.0
    for temperature in (0.0, 0.1, 1.0):
        tokens, log_probs = pick(logits, temperature, torch.full((1, 1), 0.01, dtype=torch.float64))
        assert tokens.item() == 4 and log_probs.isfinite().all()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_is_that_of_a_softmax(temperature):
    """Frequencies at T other than 1 (KLASS takes the softmax of exp(l) / noise)."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0]).expand(1, 20_000, 4)
    noise = uniform(0, torch.tensor([7]), torch.arange(20_000), 0, TOKEN)
    counts = torch.bincount(pick(logits, temperature, noise)[0].flatten(), minlength=4).double()
    expected = (logits[0, 0].double() / temperature).softmax(-1) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 99.9 % quantile, 3 degrees of freedom


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_models_own_precision_is_kept(dtype):
    """The model's dtype is not changed, and statistics are taken in float32 at least (dllm's LLaDA2: bfloat16)."""
    policy = random_policy("masked", seed=1)
    policy.model.to(dtype)
    out = draw(policy, "threshold")
    assert next(policy.model.parameters()).dtype == dtype
    logits = policy.logits(prompts_of(policy, (0,)), policy.empty_canvas(1))
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert out.trajectory.log_probs.dtype == torch.float32 and not (out.ids == policy.mask_id).any()


def test_a_slot_step_leaves_the_prompts_cache_as_it_was(tiny_policies):
    """Cropped back by what was fed, not to it (ReFusion's crop of a positive number), and never copied (dllm)."""
    policy = tiny_policies["slot"]
    prompts = prompts_of(policy, (0, 1))
    cache, canvas = policy.read_prompts(prompts), policy.empty_canvas(2)
    keys = cache.layers[0].keys.clone()
    first = policy.logits(prompts, canvas, cache=cache)
    assert cache.get_seq_length() == prompts.ids.shape[1] and torch.equal(cache.layers[0].keys, keys)
    torch.testing.assert_close(policy.logits(prompts, canvas, cache=cache), first)
    torch.testing.assert_close(first, policy.logits(prompts, canvas), atol=1e-4, rtol=1e-4)


def test_flow_transitions_at_the_borders():
    """Finite where the jump is certain or a token was certain, -inf only where it must be (FS-DFM: NaN at Z = 0)."""
    log_p = torch.tensor([[0.0, -1e4, -0.5]])
    same = torch.tensor([[True, False, True]])
    for jump in (0.25, 1.0):
        found = transition_log_prob(log_p, same, torch.tensor([[jump]]))
        assert not found.isnan().any() and (found <= 1e-6).all()
    certain = transition_log_prob(log_p, same, torch.ones(1, 1))
    torch.testing.assert_close(certain, log_p)


def test_the_jump_depends_on_time_and_step():
    """p(x) = 1/2, h = 1/8, kappa = t: a token stays with .9375 at t = 0 and .75 at t = .75 (FS-DFM ignores both)."""
    for time, expected in ((0.0, 0.9375), (0.75, 0.75)):
        now = torch.tensor([time])
        jump = ExactJump().jump_probability(now, now + 0.125)[:, None]
        stay = transition_log_prob(torch.tensor([[0.5]]).log(), torch.tensor([[True]]), jump).exp()
        torch.testing.assert_close(stay, torch.tensor([[expected]]))


def test_a_greedy_flow_moves_at_every_step(tiny_policies):
    """Jumps are keyed draws at temperature 0 too; only the last step is an argmax (openbrowser-ai: jumps if P > .5)."""
    policy = tiny_policies["flow"]
    canvases = draw(policy, "flow_exact", num_steps=8, temperature=0.0).trajectory.canvases
    moved = (canvases[:, 1:] != canvases[:, :-1]).float().mean(dim=(0, 2))
    assert (moved > 0.03).all(), moved


def test_the_last_flow_step_is_a_draw(tiny_policies):
    """At T = 1 two seeds that share every state but the last end apart: no argmax recorded as a draw."""
    policy = tiny_policies["flow"]
    texts = {tuple(draw(policy, "flow_exact", (0,), num_steps=1, seed=seed).ids[0].tolist()) for seed in range(6)}
    greedy = draw(policy, "flow_exact", (0,), num_steps=1, temperature=0.0)
    assert len(texts) == 6 and tuple(greedy.ids[0].tolist()) not in texts


def test_rows_share_forwards(tiny_policies):
    """A batch is one forward a step, not a loop over its rows (diffusers' LLaDA2 pipeline)."""
    policy, batches = tiny_policies["masked"], []
    handle = policy.model.register_forward_hook(
        lambda module, args, kwargs, output: batches.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        out = draw(policy, "low_confidence", range(6), num_steps=6)
    finally:
        handle.remove()
    assert out.nfe == len(batches) == 6 and max(batches) == 6


def test_guidance_needs_no_attention_mask():
    """transformers leaves out a mask of ones, and LLaDA then has none to double; with one, padding stays padding."""
    model, ids = decoder(), torch.tensor([[5, 6, 7], [8, 9, 10]])
    config = {"sampler_config": {"guidance": 20.0}, "max_new_tokens": 12, "custom_generate": diffusion_generate}
    config |= {"do_sample": True, "temperature": 3.0, "top_k": 0}
    bare = model.generate(ids, **config)
    assert torch.equal(bare, model.generate(ids, attention_mask=torch.ones_like(ids), **config))
    padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), ids], dim=1)
    seen = model.generate(padded, attention_mask=(padded > 0).long(), **config)
    assert torch.equal(seen[:, 5:], bare[:, 3:])
    assert not torch.equal(bare, model.generate(ids, **{**config, "sampler_config": {}})), "guidance must matter here"


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999999])
def test_a_dual_cache_leaves_no_mask_under_a_threshold(tiny_policies, cache, threshold):
    """Every open position is written, none twice, and only in its block (dllm leaves 48 to 60 of 64 masks)."""
    policy = tiny_policies["masked"]
    for steps, block in ((None, 10), (36, 7), (9, 16)):
        out = draw(policy, "threshold", range(5), cache=cache, threshold=threshold, num_steps=steps, block_length=block)
        states = out.trajectory.canvases
        assert (states[:, -1] != policy.mask_id)[out.mask].all() and (out.ids != policy.mask_id).all()
        was_open = states[:, :-1] == policy.mask_id
        assert (was_open | (states[:, 1:] == states[:, :-1])).all()
        written = was_open & (states[:, 1:] != policy.mask_id)
        in_block = torch.arange(36) // block
        for step in range(out.trajectory.num_steps):
            # All that a step writes, in any row, lies in one block.
            assert in_block[written[:, step].any(dim=0)].unique().numel() == 1


def test_every_canvas_is_asked_anew(tiny_policies):
    """A canvas that has changed is never answered from memory: the model sees a row's canvases one by one, each once.

    MDLM keeps the last law of a whole batch where its ids are close.
    """
    policy = tiny_policies["masked"]
    asked: dict[int, list[tuple[int, ...]]] = {}
    ask = policy.logits

    def look(prompts, canvas, **facts):
        for row, ids in zip(prompts.row_ids.tolist(), canvas.tolist(), strict=True):
            asked.setdefault(row, []).append(tuple(ids))
        return ask(prompts, canvas, **facts)

    with mock.patch.object(policy, "logits", look):
        out = draw(policy, "ancestral", range(4), num_steps=200)
    for row, seen in asked.items():
        states = [tuple(state) for state in out.trajectory.canvases[row].tolist()]
        assert seen == list(dict.fromkeys(states))[: len(seen)], "a canvas was passed over or asked twice"
        assert len(seen) == len(set(states)) - 1


def test_first_hitting_takes_any_batch(tiny_policies):
    """Rows with other numbers of masks left: one token a step in each, as alone (BD3-LM's asserts a batch of one)."""
    policy = tiny_policies["masked"]
    out = draw(policy, "first_hitting", grammar=True)
    for row in range(3):
        assert torch.equal(out.ids[row], draw(policy, "first_hitting", (row,), grammar=True).ids[0])
        drawn = out.trajectory.commit_step[row]
        drawn = drawn[drawn >= 0]
        assert drawn.unique().numel() == drawn.numel()
    left = (out.trajectory.canvases == policy.mask_id).sum(dim=2)
    assert (left != left[:1]).any(), "the grammar must force other numbers of tokens"
