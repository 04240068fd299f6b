"""Models and tokenizers of checkpoints that are not ours: stock decoders, also under other names; with leave, code of
their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import Split, WeightConverter
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.utils import logging

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.hub import use_cache_only
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.published import Published, published, refuse_unstated, stated_facts


def load_foreign(path: str, facts: Mapping[str, Any], options: LoadOptions) -> tuple[Any, Any, dict[str, Any]]:
    """Return model, tokenizer, and the facts that the checkpoint states.

    Args:
        facts: What the user lays over them. Bidirectional families are built with `is_causal = False`.

    Raises CheckpointError where the checkpoint cannot be loaded, ConfigError where something has to be said.
    """
    hub: dict[str, Any] = {"revision": options.revision} if options.revision else {}
    if use_cache_only(path, options.revision):
        hub |= {"local_files_only": True}
    try:
        plain, _ = PreTrainedConfig.get_config_dict(path, **hub)
        kind, stated = published(plain), stated_facts(plain)
        if kind is not None:
            refuse_unstated(path, kind, {**stated, **facts})
        config = _config(path, plain, kind, options, hub)
        family = {**stated, **facts}.get("family")
        if family is not None and registry.get("policy", str(family)).is_bidirectional:
            config.is_causal = False
        tokenizer = _tokenizer(path, config, options, hub)
        model = _model(path, plain, config, kind, options, hub)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            f"cannot load '{path}': {(str(error).splitlines() or [''])[0]} Expected builtin:<family>, a folder with "
            "config.json and safetensors, or a hub id that this machine can reach."
        ) from error
    stated |= _special_ids(path, tokenizer, kind, {**stated, **facts}, model)
    return model, tokenizer, stated


def stored_config(path: str, options: LoadOptions) -> Any:
    """Return the configuration of a checkpoint, without its weights; None where this disk does not hold it.

    Raises CheckpointError and ConfigError as `load_foreign` does.
    """
    hub = {"local_files_only": True, **({"revision": options.revision} if options.revision else {})}
    try:
        plain, _ = PreTrainedConfig.get_config_dict(path, **hub)
        return _config(path, plain, published(plain), options, hub)
    except (OSError, ValueError):
        return None


def stored_facts(path: str, options: LoadOptions) -> dict[str, Any]:
    """Return the facts that a checkpoint's config.json states; {} where this disk does not hold it."""
    hub = {"local_files_only": True, **({"revision": options.revision} if options.revision else {})}
    try:
        plain, _ = PreTrainedConfig.get_config_dict(path, **hub)
    except (OSError, ValueError):
        return {}
    return stated_facts(plain)


def _config(
    path: str, plain: Mapping[str, Any], kind: Published | None, options: LoadOptions, hub: Mapping[str, Any]
) -> Any:
    """The configuration. What the file says of attention is left out: ours holds under any, and the user chooses."""
    if kind is not None:
        config = AutoConfig.for_model(kind.architecture, **kind.settings(plain))
        config.name_or_path = path
    else:
        _refuse_own_code(path, plain, options)
        config = AutoConfig.from_pretrained(path, trust_remote_code=options.trust_remote_code, **hub)
    config._attn_implementation = options.attention
    return config


def _refuse_own_code(path: str, plain: Mapping[str, Any], options: LoadOptions) -> None:
    """Raise ConfigError where a model can only be loaded by code of its own, which was not allowed."""
    name = str(plain.get("model_type", ""))
    if "auto_map" in plain and name not in transformers.CONFIG_MAPPING and not options.trust_remote_code:
        raise ConfigError(
            f"'{path}' is of the type '{name}', which transformers does not have, and it comes with code of its own. "
            "Set trust_remote_code=true to run that code, which may do anything, and give a revision that you have "
            "read."
        )


def _model(
    path: str,
    plain: Mapping[str, Any],
    config: Any,
    kind: Published | None,
    options: LoadOptions,
    hub: Mapping[str, Any],
) -> Any:
    dtype = "auto" if options.dtype is None else getattr(torch, options.dtype)
    auto: Any = AutoModelForCausalLM if kind is None else _stock_class(kind, config)
    own = plain.get("auto_map") or {}
    if options.trust_remote_code and kind is None and own and auto.__name__ not in own:
        # Such code may know of no causal language model.
        auto = next((getattr(transformers, name) for name in _OTHERS if name in own), auto)
    renamed = {"key_mapping": dict(kind.weights)} if kind is not None and kind.weights else {}
    with _quiet(kind is not None):
        loaded, report = auto.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=options.trust_remote_code,
            **renamed,
            **hub,
        )
    _refuse_other_weights(path, kind, report)
    if kind is not None and (kind.weights or kind.divided):
        # Else it would be saved under the names that it came with, beside a configuration of the stock model.
        del loaded._weight_conversions
    if kind is not None:
        loaded.__class__ = AutoModelForCausalLM._model_mapping[type(config)]
    return loaded


@contextlib.contextmanager
def _quiet(is_published: bool) -> Iterator[None]:
    """Keep transformers from warning that a published checkpoint has another type than its stock model."""
    verbosity = logging.get_verbosity()
    if is_published:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _stock_class(kind: Published, config: Any) -> Any:
    """The stock class that loads a published checkpoint; where weights have to be divided, one that says so as well."""
    stock: Any = AutoModelForCausalLM._model_mapping[type(config)]
    if not kind.divided:
        return stock
    name = f"Published{stock.__name__}"
    parts: Any = [WeightConverter(whole, parts, operations=[Split()]) for whole, parts in kind.divided.items()]
    own: Any = get_checkpoint_conversion_mapping(config.model_type) or []
    register_checkpoint_conversion_mapping(name, parts + own, overwrite=True)
    return type(name, (stock,), {})


def _refuse_other_weights(path: str, kind: Published | None, report: Mapping[str, Any]) -> None:
    """Raise CheckpointError where weights are lacking, or a published checkpoint has some that are of no use.

    Frequencies of positions, which older files hold, follow from the configuration.
    """
    lacking = sorted(report["missing_keys"])
    more = [] if kind is None else sorted(name for name in report["unexpected_keys"] if "inv_freq" not in name)
    if lacking:
        raise CheckpointError(
            f"'{path}' lacks weights of its model: {_some(lacking)}. They would be random. It is another architecture, "
            "or its files are not complete."
        )
    if more:
        raise CheckpointError(
            f"'{path}' has weights that the stock model which it is loaded as lacks: {_some(more)}. It is a variant, "
            "which would compute something else without them."
        )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"


_OTHERS = ("AutoModelForMaskedLM", "AutoModel")


def _tokenizer(path: str, config: Any, options: LoadOptions, hub: Mapping[str, Any]) -> Any:
    """The tokenizer; where the file names code that is not to be run, the one that the architecture usually has."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, config=config, trust_remote_code=options.trust_remote_code, **hub
        )
    except ValueError:
        usual: Any = TOKENIZER_MAPPING.get(type(config), PreTrainedTokenizerFast)
        tokenizer = usual.from_pretrained(path, **hub)
    tokenizer.padding_side = "left"
    return tokenizer


def _special_ids(
    path: str, tokenizer: Any, kind: Published | None, facts: Mapping[str, Any], model: Any
) -> dict[str, Any]:
    """Facts about ids that the files state, MASK and the ends; gives the tokenizer its EOS and PAD."""
    found: dict[str, Any] = {}
    if facts.get("mask_id") is None and tokenizer.mask_token_id is None and kind is not None and kind.mask_token:
        token = tokenizer.get_vocab().get(kind.mask_token)
        found = {} if token is None else {"mask_id": token}
    ends = list(facts.get("end_ids") or _stated_ends(model) or filter(None, [tokenizer.eos_token_id]))
    if not ends:
        raise ConfigError(
            f"'{path}' does not say which token ends a text: neither its tokenizer nor its generation_config.json has "
            "one. Give facts: {end_ids: [...]}."
        )
    size = int(model.config.vocab_size)
    for name, value in (*(("end_ids", end) for end in ends), ("mask_id", {**facts, **found}.get("mask_id"))):
        if value is not None and value >= size:
            raise ConfigError(f"'{path}': {name} {value} is beyond the model's vocabulary of {size}. Give another one.")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    # PAD is learned and never drawn as an end, so it is none of the ends that count as EOS.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        tokenizer.pad_token = tokenizer.eos_token
    return found | {"end_ids": tuple(ends)}


def _stated_ends(model: Any) -> list[int]:
    """Ids that end a text, as generation_config.json or config.json says."""
    config: GenerationConfig | None = getattr(model, "generation_config", None)
    for source in (config, model.config):
        given = getattr(source, "eos_token_id", None)
        if given is not None:
            return [given] if isinstance(given, int) else [int(token) for token in given]
    return []
