"""The canvas: how the text of a plan lies on a fixed number of tokens, the same for every family.

Aligned (the built-in policies): a fixed number of lines of a fixed width, each filled up with FILL before its line
break, then EOS, then PAD. Free (larger checkpoints): the plan's tokens, EOS, PAD. FILL and PAD decode to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.errors import ConfigError

FILL_TOKEN = "<fill>"
MASK_TOKEN = "<mask>"
EOS_TOKEN = "<eos>"
PAD_TOKEN = "<pad>"


def until_first(where: Bool[Tensor, "*b l"]) -> Bool[Tensor, "*b l"]:
    """Positions up to and including the first that is marked; all of them where none is."""
    return where.cumsum(dim=-1) <= where


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text in which special tokens are text too, where a page or a plan spells one."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasConfig:
    """Shape of the canvas. line_width None means free-running lines.

    Attributes:
        length: All columns, EOS and padding included.
    """

    length: int
    line_width: int | None = None


class Canvas:
    """Writes plans on token canvases of one tokenizer and reads them back."""

    def __init__(self, config: CanvasConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = tokenizer.pad_token_id
        fill = tokenizer.convert_tokens_to_ids(FILL_TOKEN) if config.line_width else None
        self.fill_id: int | None = fill
        self.newline_ids: list[int] = encode_text(tokenizer, "\n")
        if config.line_width and (fill is None or fill == tokenizer.unk_token_id or len(self.newline_ids) != 1):
            raise ConfigError(
                f"an aligned canvas (line_width={config.line_width}) needs a tokenizer with {FILL_TOKEN} and one token "
                "for a line break; this one lacks them. Use line_width=None (free-running lines) or add the tokens."
            )

    def encode(self, text: str) -> list[int]:
        """Token ids of a plan, filled up to the canvas length. Raises ConfigError if any token would be cut."""
        ids: list[int] = []
        width = self.config.line_width
        if width is None:
            ids = encode_text(self.tokenizer, text)
        else:
            for line in text.split("\n"):
                ids += self._encode_line(line, width)
        ids.append(self.eos_id)
        if len(ids) > self.config.length:
            raise ConfigError(f"a plan of {len(ids)} tokens does not fit a canvas of {self.config.length}: {text!r}")
        return ids + [self.pad_id] * (self.config.length - len(ids))

    def _encode_line(self, line: str, width: int) -> list[int]:
        ids = encode_text(self.tokenizer, line)
        if len(ids) > width - 1:
            raise ConfigError(f"a line of {len(ids)} tokens does not fit a canvas line of {width - 1}: {line!r}")
        assert self.fill_id is not None
        return ids + [self.fill_id] * (width - 1 - len(ids)) + self.newline_ids

    def decode(self, ids: Int[Tensor, " l"] | list[int]) -> str:
        """Text of a canvas up to its first EOS, without FILL and PAD."""
        kept = []
        for token in ids.tolist() if isinstance(ids, Tensor) else ids:
            if token == self.eos_id:
                break
            if token not in (self.fill_id, self.pad_id):
                kept.append(token)
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False).rstrip("\n")

    def until_eos(self, ids: Int[Tensor, "*b l"]) -> Bool[Tensor, "*b l"]:
        """Positions up to and including the first EOS; all of them where there is none."""
        return until_first(ids == self.eos_id)

    def visible(self, ids: Int[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Which positions count in lengths: up to and including the first EOS, without FILL and PAD.

        What is scored are the sampler's draws instead, whatever they wrote (`Completions.mask`).
        """
        is_eos = ids == self.eos_id
        # Where a tokenizer has one id for both, the first one is EOS.
        mask = until_first(is_eos) & ((ids != self.pad_id) | is_eos)
        return mask if self.fill_id is None else mask & (ids != self.fill_id)

    def close(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """Everything after the first EOS becomes PAD."""
        return torch.where(self.until_eos(ids), ids, self.pad_id)
