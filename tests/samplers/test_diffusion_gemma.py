"""DiffusionGemma, tiny and random, loaded as a checkpoint: written through its own `generate`, never trained."""

from __future__ import annotations

import types

import pytest
import torch
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
)

from dllm_rl import registry, seeding
from dllm_rl.errors import ConfigError
from dllm_rl.policies.loading import load_policy
from dllm_rl.policies.renoise import RenoisePolicy
from dllm_rl.testing.policies import prompts_of, tokenizer
from dllm_rl.trainer import TrainConfig, _check_combination
from experiments.film.record import MASK, record_film
from experiments.measure import usual_sampler
from objectives import build_objective
from samplers.diffusion_gemma import DiffusionGemmaSampler

CANVAS, LENGTH, STEPS = 12, 30, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = tokenizer()
    size = len(words) + 3
    text = {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 2, "num_key_value_heads": 1, "global_head_dim": 16, "sliding_window": 64,
        "num_experts": 2, "top_k_experts": 1, "moe_intermediate_size": 16, "max_position_embeddings": 512,
        "pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    vision = {
        "model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
    }  # fmt: skip
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=CANVAS, image_token_id=size - 1)
    torch.manual_seed(0)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    place = tmp_path_factory.mktemp("gemma")
    model.save_pretrained(place)
    words.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def policy(folder):
    return load_policy(folder, facts={"canvas_length": LENGTH})


def draw(policy, rows=(0, 1, 2), seed=3, **options):
    sampler = DiffusionGemmaSampler(**{"max_denoising_steps": STEPS, **options})
    return sampler.generate(policy, prompts_of(policy, rows), seed=seed)


def test_a_checkpoint_says_what_it_is(folder, policy):
    assert isinstance(policy, RenoisePolicy) and policy.family == "renoise"
    assert load_policy(folder).facts.canvas_length == CANVAS
    assert usual_sampler(None, policy.family, {}).name == "diffusion_gemma"


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
def test_the_text_is_that_of_its_own_generate_cut_to_the_canvas(policy, temperature):
    out, prompts = draw(policy, temperature=temperature), prompts_of(policy, (0, 1, 2))
    scaled = {} if temperature != 0.5 else {"t_min": 0.2, "t_max": 0.4}
    for row in range(3):
        torch.manual_seed(seeding.derive(3, "diffusion_gemma", row))
        sequence = policy.model.generate(
            prompts.ids[row : row + 1, prompts.mask[row]],
            max_new_tokens=LENGTH,
            max_denoising_steps=STEPS,
            pad_token_id=policy.canvas.pad_id,
            eos_token_id=policy.canvas.eos_id,
            logits_processor=LogitsProcessorList([SuppressTokensLogitsProcessor(list(policy.banned_ids))]),
            **scaled,
        ).sequences
        new = sequence[0, int(prompts.mask[row].sum()) :]
        assert len(new) % CANVAS == 0
        expected = torch.nn.functional.pad(new[:LENGTH], (0, max(0, LENGTH - len(new))), value=policy.canvas.pad_id)
        assert torch.equal(out.ids[row], expected)


def test_rows_and_seeds(policy):
    before = torch.get_rng_state()
    together, alone = draw(policy), draw(policy, rows=(2,))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(together.ids[2], alone.ids[0])
    assert not torch.equal(together.ids, draw(policy, seed=4).ids)
    assert not torch.isin(together.ids, torch.tensor(policy.banned_ids)).any()


def test_counts_are_what_encoder_and_decoder_ran(policy):
    fed: list[int] = []

    def count(module, args, kwargs, output):
        ids = kwargs.get("input_ids", kwargs.get("decoder_input_ids"))
        fed.append(ids.numel())

    parts = (policy.model.model.encoder, policy.model.model.decoder)
    handles = [part.register_forward_hook(count, with_kwargs=True) for part in parts]
    try:
        out = draw(policy, rows=(1,))
    finally:
        for handle in handles:
            handle.remove()
    assert out.nfe == len(fed)
    assert out.token_forwards == sum(fed)
    assert out.nfe == STEPS * 3 + 3


@pytest.mark.parametrize("keeps_confidence", [False, True])
def test_the_record_leads_to_the_text_and_says_that_it_is_approximate(policy, keeps_confidence):
    out = draw(policy, keeps_confidence=keeps_confidence)
    record = out.trajectory
    assert record.is_approximate and record.canvases is not None
    assert torch.equal(policy.canvas.close(record.canvases[:, -1]), out.ids)
    assert record.canvases.shape[1] == record.num_steps + 1 == 3 * STEPS + 1
    for step in range(record.num_steps):
        fixed = (record.commit_step >= 0) & (record.commit_step <= step)
        assert torch.equal(record.canvases[:, step + 1][fixed], record.canvases[:, -1][fixed])
    assert (record.commit_step[out.mask] >= 0).all()
    drawn = record.log_probs[out.mask]
    assert (drawn < 0).all() if keeps_confidence else (drawn == 0).all()
    assert (record.entropy[out.mask] > 0).all() == keeps_confidence


def test_every_end_token_ends_a_text(policy):
    """The checkpoint's own end ids are read, and all become the tokenizer's."""
    free = draw(policy, rows=(0,)).ids[0]
    settings = policy.model.generation_config
    settings.eos_token_id = [int(free[4])]
    try:
        out = draw(policy, rows=(0,))
    finally:
        settings.eos_token_id = None
    ends = (out.ids[0] == policy.canvas.eos_id).nonzero().flatten()
    assert len(ends) == 1 and int(ends[0]) <= 4
    assert (out.ids[0, int(ends[0]) + 1 :] == policy.canvas.pad_id).all()
    assert out.nfe < draw(policy, rows=(0,)).nfe


def test_options_reach_its_generate(policy):
    few, many = draw(policy, max_denoising_steps=1), draw(policy, max_denoising_steps=4)
    assert (few.nfe, many.nfe) == (3 * 1 + 3, 3 * 4 + 3)
    strict, loose = draw(policy, entropy_bound=1e-6), draw(policy, entropy_bound=1e6)
    assert not torch.equal(strict.ids, loose.ids)
    with pytest.raises(ConfigError, match="entropy_bound=-1"):
        DiffusionGemmaSampler(entropy_bound=-1.0)


def test_the_film_shows_drafts(policy):
    out = draw(policy, rows=(0,))
    film = record_film(policy, out, title="a task", instruction="Name", sampler="diffusion_gemma")
    assert len(film.words) == 3 * STEPS + 1
    assert set(film.words[0]) == {MASK}
    assert film.nfe == out.nfe


def test_training_is_refused(policy):
    sampler = DiffusionGemmaSampler()
    for name, _ in registry.items("objective"):
        with pytest.raises(ConfigError, match="not defined on the renoise family"):
            _check_combination(policy, sampler, build_objective(name, {}), TrainConfig())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it cannot be trained here"):
        policy.view_log_probs(None, None)
    for name in ("threshold", "flow_exact"):
        with pytest.raises(ConfigError, match="Evaluate or film it with the sampler diffusion_gemma"):
            registry.get("sampler", name)().generate(policy, prompts_of(policy, (0,)), seed=0)


def test_other_models_are_no_diffusion_gemma(tiny_policies):
    tiny = tiny_policies["masked"]
    with pytest.raises(ConfigError, match="models of type diffusion_gemma"):
        RenoisePolicy(tiny.model, tiny.tokenizer, tiny.facts)


def test_an_older_transformers_is_named(folder, monkeypatch):
    import dllm_rl.policies.loading as loading

    def unknown(path):
        raise ValueError("model type `diffusion_gemma` is not recognised")

    monkeypatch.setattr(loading, "AutoConfig", types.SimpleNamespace(from_pretrained=unknown))
    with pytest.raises(Exception, match=r"does not know; 5\.24 does"):
        load_policy(folder)
