"""Prompts as turns of a chat, what text may not say in them, and where a plan begins in an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dllm_rl.errors import ConfigError
from dllm_rl.records.canvas import encode_text

if TYPE_CHECKING:
    from dllm_rl.policies.base import PolicyFacts


def refuse_text_facts(tokenizer: Any, facts: PolicyFacts) -> None:
    """Raise ConfigError for a system prompt without a chat, a chat without a template, BOS where there is none, and
    reasoning on a canvas whose lines are those of a plan."""
    if facts.plan_after is not None and facts.line_width is not None:
        raise ConfigError(
            f"plan_after={facts.plan_after!r} lets text stand before a plan, and a canvas with line_width has lines of "
            "a plan only. Leave one of them out."
        )
    if facts.plan_after is not None and not facts.plan_after.strip():
        raise ConfigError('plan_after is a text that ends what stands before a plan, such as "</think>"; it is blank.')
    if facts.adds_bos and (facts.chat_template or tokenizer.bos_token_id is None):
        reason = "a chat template has its own" if facts.chat_template else "this tokenizer has none"
        raise ConfigError(f"adds_bos was set for BOS before a plain prompt, and {reason}. Leave it out.")
    if facts.system_prompt is not None and not facts.chat_template:
        raise ConfigError("system_prompt is a turn of a chat, and chat_template is off. Set chat_template: true.")
    if facts.chat_template and not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "chat_template was set, and this tokenizer has none. Leave it out, or save a tokenizer with one."
        )


def encode_chat(tokenizer: Any, turns: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a chat up to where the answer begins.

    Special tokens that the last turn spells are text, so that a page cannot end its turn and begin another. Raises
    ConfigError where the template rewrites such a turn.
    """
    text = turns[-1]["content"]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    if not any(token in text for token in special):
        return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    before, found, after = whole.rpartition(text.strip())
    if not found:
        raise ConfigError(
            f"a prompt spells a special token, and the chat template rewrites what it wraps, so that the two cannot be "
            f"told apart. Leave chat_template out, or give a template that keeps the text. It starts: {text[:80]!r}"
        )
    frame = [tokenizer.encode(part, add_special_tokens=False) for part in (before, after)]
    return frame[0] + encode_text(tokenizer, found) + frame[1]


def plan_in(text: str, plan_after: str | None) -> str:
    """The plan in what a policy wrote: what follows the last place of this text, or all where that is missing."""
    return text if plan_after is None else text.rpartition(plan_after)[2].strip("\n")
