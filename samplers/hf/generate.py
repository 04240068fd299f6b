"""Our samplers as transformers' `custom_generate`: `model.generate(ids, custom_generate=diffusion_generate, ...)`.

    model.generate(ids, custom_generate=diffusion_generate, sampler="entropy_bound", block_length=32)

Names of arguments are those of DiffusionGemma's generate (`max_denoising_steps`, `sampler_config`) and of diffusers
(`threshold`, `callback_on_step_end`). `generate` passes on no `streamer` to a callable, so ours is `draft_streamer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerFast, StoppingCriteriaList
from transformers.utils import ModelOutput

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.published import published, refuse_unstated, stated_facts
from dllm_rl.records.canvas import until_first
from dllm_rl.records.tasks import Observation
from dllm_rl.records.trajectory import Trajectory
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import families_of
from samplers.config import NAME_KEY, sampler_from_dict
from samplers.hf.processors import Processors, Watch, own_criteria
from samplers.rules.base import UnmaskingRule


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Stands in for a tokenizer where nothing is spelt: the special ids, and how many ids may be written."""

    eos_token_id: int
    pad_token_id: int
    mask_token_id: int | None
    num_ids: int

    def __len__(self) -> int:
        return self.num_ids

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """No text is known here."""
        return []


def policy_of(
    model: Any, generation_config: GenerationConfig, *, num_columns: int | None, mask_id: int | None, family: str | None
) -> BasePolicy:
    """The policy that writes `num_columns` columns with this model (None: its own number, or 128).

    Facts come from the model's configuration (what a published one states, and `policy`, which `save_policy` writes),
    special ids from the tokenizer beside its weights, or else from the arguments, the generation configuration and the
    model's configuration. Raises ConfigError where an id or a fact that is needed is nowhere to be found.
    """
    facts = _facts(model, family)
    columns = num_columns or facts.canvas_length
    refuse_too_long(model, columns)
    facts = replace(facts, canvas_length=columns, mask_id=facts.mask_id if mask_id is None else mask_id)
    is_ours = bool(getattr(model.config, "policy", None))
    tokenizer = _tokenizer_beside(str(getattr(model, "name_or_path", "") or "")) if is_ours else None
    if tokenizer is None:
        tokenizer, facts = _ids(model, generation_config, facts), replace(facts, line_width=None)
    return registry.get("policy", facts.family)(model, tokenizer, facts)


def _facts(model: Any, family: str | None) -> PolicyFacts:
    """What the model's configuration states, under the default family where neither it nor the caller names one."""
    config = model.config.to_dict()
    stated = {"family": family or "masked", **stated_facts(config)}
    if family is not None and family != stated["family"]:
        raise ConfigError(f"family='{family}' was given, and the model's configuration says '{stated['family']}'")
    kind = published(config)
    if kind is not None:
        refuse_unstated(f"a model of the type {config['model_type']}", kind, stated, place="model.config.policy")
    return registry.get("policy", str(stated["family"])).facts_class.from_dict(stated)


def refuse_too_long(model: Any, columns: int) -> None:
    """Raise where a model numbers its columns and has not so many."""
    limit = getattr(model.config, "num_columns", 0)
    if limit and columns > limit:
        raise ConfigError(
            f"max_new_tokens={columns}: this model's canvas has {limit} columns. Ask for at most {limit}."
        )


@functools.lru_cache(maxsize=8)
def _tokenizer_beside(path: str) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(path) if (Path(path) / "tokenizer.json").is_file() else None


def _ids(model: Any, generation_config: GenerationConfig, facts: PolicyFacts) -> TokenIds:
    eos = end_ids(generation_config)
    pad = generation_config.pad_token_id
    mask = facts.mask_id if facts.mask_id is not None else getattr(model.config, "mask_token_id", None)
    if not eos:
        raise ConfigError("the end of a text has no id here: give eos_token_id to generate()")
    if mask is None and registry.get("policy", facts.family).needs_mask:
        raise ConfigError("a masked diffusion model writes over a mask token: give mask_token_id to generate()")
    return TokenIds(
        eos_token_id=eos[0],
        pad_token_id=eos[0] if pad is None else int(pad),
        mask_token_id=mask,
        num_ids=int(model.config.vocab_size),
    )


def end_ids(generation_config: GenerationConfig) -> list[int]:
    """Ids that end a text; the first is the one that rows are stopped by."""
    given = generation_config.eos_token_id
    return [] if given is None else [given] if isinstance(given, int) else [int(token) for token in given]


DEFAULT_MAX_LENGTH = 20
# transformers 5.24 renamed what it injects.
_CACHES = ("past_key_values", "cache")
_OUTPUTS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
_INJECTED = ("position_ids", "logits_to_keep", "use_cache", "cache_position", "token_type_ids")


@dataclass
class DiffusionOutput(ModelOutput):
    """What `diffusion_generate` returns with `return_dict_in_generate=True`.

    Attributes:
        sequences: Prompt and canvas, (b, p + l).
        nfe: Number of forwards of the batch.
        token_forwards: Rows times query positions, summed over the forwards.
        tokens_per_forward: Kept tokens a row over the forwards of the batch.
        finish_reason: "eos", "length" or "criteria", one a row.
        trajectory: The record of the draws.
    """

    sequences: torch.LongTensor | None = None
    nfe: int | None = None
    token_forwards: int | None = None
    tokens_per_forward: float | None = None
    finish_reason: tuple[str, ...] | None = None
    trajectory: Trajectory | None = None


def diffusion_generate(
    model: Any,
    input_ids: Int[Tensor, "b p"],
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    sampler: str | None = None,
    sampler_config: Mapping[str, Any] | None = None,
    block_length: int | None = None,
    max_denoising_steps: int | None = None,
    threshold: float | None = None,
    grammar: bool = False,
    pages: Sequence[Observation] | None = None,
    seed: int = 0,
    draft_streamer: Any = None,
    callback_on_step_end: Callable[[Any, int, Int[Tensor, "b l"]], None] | None = None,
    policy: BasePolicy | None = None,
    policy_family: str | None = None,
    mask_token_id: int | None = None,
    **model_kwargs: Any,
) -> Tensor | DiffusionOutput:
    """Write `max_new_tokens` columns after each prompt; pass it to `generate` as `custom_generate`.

    Args:
        model: The model, as `generate` passes it.
        input_ids: The prompts, padded on the left.
        logits_processor: What `generate` has prepared; sorted by `Processors`.
        stopping_criteria: Asked between blocks, with the finished prefix.
        generation_config: Length, temperature, `do_sample` and the like.
        sampler: A registered name; None takes it from `sampler_config`, or the usual one of the family.
        sampler_config: Options of the sampler, and its name as `sampler_to_dict` gives it.
        block_length: An option of the sampler.
        max_denoising_steps: Its `num_steps`.
        threshold: An option of the sampler.
        grammar: An option of the sampler; needs `pages`.
        pages: Observed pages, one a row; needed under the grammar.
        seed: Keys the noise; torch's own generator is neither read nor advanced.
        draft_streamer: Gets the prompt (`put`), the canvas after every step (`put_draft`, where it has one), final
            columns (`put`) and `end`.
        callback_on_step_end: Called with (model, step, canvas).
        policy: The policy of this model, where its facts are not in its configuration.
        policy_family: The family alone, where the configuration does not say.
        mask_token_id: The mask token alone, where the configuration does not say.
        **model_kwargs: What else `generate` passes; only the attention mask is read.

    Raises:
        ConfigError: A canvas cannot honour what was asked: beams, a cache of the caller's, processors that count,
            criteria without blocks.
    """
    # A named parameter would be given twice: `generate` takes what we name out of its own arguments.
    attention_mask = model_kwargs.pop("attention_mask", None)
    _refuse(generation_config, model_kwargs)
    columns = _num_columns(generation_config, input_ids.shape[1])
    if policy is None:
        policy = policy_of(model, generation_config, num_columns=columns, mask_id=mask_token_id, family=policy_family)
    elif columns not in (None, policy.facts.canvas_length):
        refuse_too_long(policy.model, columns)
        facts = replace(policy.facts, canvas_length=columns)
        policy = type(policy)(policy.model, policy.tokenizer, facts)
    processors = Processors.of(logits_processor, do_sample=bool(generation_config.do_sample))
    writer = _sampler(
        policy,
        sampler,
        {
            **(sampler_config or {}),
            **_given(block_length=block_length, num_steps=max_denoising_steps, threshold=threshold),
            **({"grammar": True} if grammar else {}),
            "temperature": _temperature(generation_config, processors.temperature, sampler_config or {}),
        },
    )
    if writer.grammar and isinstance(policy.tokenizer, TokenIds):
        raise ConfigError(
            "the grammar reads the page's words, and this model comes without a tokenizer here: give the policy with "
            "its tokenizer (policy=load_policy(...)), or leave grammar out."
        )
    if writer.grammar:
        processors.refuse_under_grammar()
    prompts = _prompts(input_ids, attention_mask, pages)
    if draft_streamer is not None:
        draft_streamer.put(input_ids.cpu())
    watch = Watch(model, prompts, processors, own_criteria(stopping_criteria), draft_streamer, policy.canvas.close)
    watch.callback = callback_on_step_end
    out = _write(writer, policy, prompts, watch, seed)
    if draft_streamer is not None:
        draft_streamer.end()
    return _result(out, policy, prompts, watch.stopped, generation_config, input_ids.device)


def _refuse(config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Raise ConfigError for what cannot be honoured; what `generate` injects for decoders of its own is dropped."""
    if (config.num_beams or 1) > 1:
        raise ConfigError(f"num_beams={config.num_beams}: a canvas has no beams. Use num_return_sequences.")
    for name in _CACHES:
        cache = model_kwargs.pop(name, None)
        if cache is not None and cache.get_seq_length() > 0:
            raise ConfigError(
                "past_key_values (cache) holds tokens: a canvas is read as a whole, and no cache of yours can be used"
            )
    for name in _INJECTED:
        model_kwargs.pop(name, None)
    asked = [name for name in _OUTPUTS if getattr(config, name, None)]
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: what a forward of one step gives is not kept. Leave it out; the output's trajectory "
            "has each draw with its log-probability."
        )
    unknown = sorted(name for name, value in model_kwargs.items() if value is not None)
    if unknown:
        raise ConfigError(f"generate() arguments that are not supported here: {', '.join(unknown)}. Remove them.")


def _num_columns(config: GenerationConfig, prompt: int) -> int | None:
    """max_new_tokens; None where nothing was said, which `generate` turns into a length of 20 more."""
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    columns = (config.max_length or 0) - prompt
    return None if columns in (DEFAULT_MAX_LENGTH, -prompt) else columns


def _temperature(config: GenerationConfig, drawn_at: float, options: Mapping[str, Any]) -> float:
    """That of `generate`; where it is not asked to sample, that of the sampler's own configuration, if it has one."""
    wanted = options.get("temperature")
    if wanted is None or wanted == drawn_at:
        return drawn_at
    if config.do_sample:
        raise ConfigError(
            f"sampler_config says temperature={wanted:g}, and generate() samples at {drawn_at:g}. Give one of them."
        )
    return float(wanted)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _sampler(policy: BasePolicy, name: str | None, options: dict[str, Any]) -> Any:
    if name is not None and options.get(NAME_KEY, name) != name:
        raise ConfigError(f"sampler='{name}', and sampler_config says '{options[NAME_KEY]}'. Give one of them.")
    options = {NAME_KEY: name or policy.usual_sampler, **options}
    cls = registry.get("sampler", options[NAME_KEY])
    if policy.family not in families_of(cls):
        fitting = [other for other, item in registry.items("sampler") if policy.family in families_of(item)]
        raise ConfigError(
            f"sampler '{options[NAME_KEY]}' does not write with the {policy.family} family. Take one of "
            f"{', '.join(fitting)}."
        )
    return sampler_from_dict(options)


def _prompts(ids: Tensor, attention_mask: Tensor | None, pages: Sequence[Observation] | None) -> Prompts:
    """Rows in the order given; an attention mask of ones arrives as None."""
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    if (mask[:, 1:] < mask[:, :-1]).any():
        raise ConfigError(
            "prompts must be padded on the left: the canvas stands right behind them. padding_side='left'"
        )
    if pages is not None and len(pages) != len(ids):
        raise ConfigError(f"{len(pages)} pages were given for {len(ids)} rows; one a row is needed")
    row_ids = torch.arange(len(ids))
    return Prompts(
        ids=ids.cpu(), mask=mask.bool().cpu(), row_ids=row_ids, pages=None if pages is None else tuple(pages)
    )


def _write(sampler: Any, policy: BasePolicy, prompts: Prompts, watch: Watch, seed: int) -> Completions:
    if isinstance(sampler, UnmaskingRule):
        if watch.criteria and not sampler.block_length:
            raise ConfigError("stopping criteria act between blocks: give block_length, or remove the criteria")
        return sampler.generate(policy, prompts, seed=seed, watcher=watch if watch.is_needed else None)
    if watch.processors.everywhere or watch.processors.at_draw or watch.criteria or watch.callback:
        raise ConfigError(
            f"sampler '{sampler.name}' takes no logits processors, stopping criteria or callbacks (with "
            "do_sample=True, give top_k=0); the rules of the masked family do"
        )
    out = sampler.generate(policy, prompts, seed=seed)
    if watch.streamer is not None:
        watch.streamer.put(out.ids)
    return out


def _result(
    out: Completions,
    policy: BasePolicy,
    prompts: Prompts,
    stopped: Bool[Tensor, " b"],
    config: GenerationConfig,
    device: torch.device,
) -> Tensor | DiffusionOutput:
    """Prompt and canvas; whichever end token comes first, what stands behind it is padding."""
    ends = torch.tensor([policy.canvas.eos_id, *end_ids(config)])
    is_end = torch.isin(out.ids, ends)
    behind = ~until_first(is_end)
    ids = out.ids.masked_fill(behind, policy.canvas.pad_id)
    sequences: Any = torch.cat([prompts.ids, ids], dim=1).to(device)
    if not config.return_dict_in_generate:
        return sequences
    kept = (~behind & (policy.canvas.visible(out.ids) | is_end)).sum()
    has_end = is_end.any(dim=1)
    reasons = ["eos" if end else "criteria" if stop else "length" for end, stop in zip(has_end, stopped, strict=True)]
    return DiffusionOutput(
        sequences=sequences,
        nfe=out.nfe,
        token_forwards=out.token_forwards,
        tokens_per_forward=float(kept) / len(ids) / max(out.nfe, 1),
        finish_reason=tuple(reasons),
        trajectory=out.trajectory,
    )
