"""The page-grounded grammar of plans as an automaton over canvas tokens: known refs, fitting verbs, one submit, last.

It accepts a subset of the plan language (`records.plan`), so that every accepted canvas parses and grounds: what is
outside values is written in the tokenizer's own division of the line; a value is one of a select's options or a key,
or, for `fill`, any printable text without quotes and backslashes that ends. On an aligned canvas lines are filled up
with FILL and end at their column; EOS follows the submitting line, then PAD.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import ACCEPT, EOS, FILL, NEWLINE, NUM_FIXED_LABELS, PAD, START, TEXT, Constraint
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.canvas import Canvas, encode_text
from dllm_rl.records.plan import PRESSABLE_KEYS, VERBS_BY_KIND, VERBS_WITH_VALUE, Action, render_action
from dllm_rl.records.tasks import Control, Observation
from dllm_rl.records.types import Prompts

# States that every page has, behind START and ACCEPT: a finished line, a finished submit line, the place of EOS after
# it, and a value before and after its first token.
LINE, SUBMITTED, END, EMPTY_VALUE, VALUE = range(2, 7)
_NUM_FIXED_STATES = 7
_LEAF = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Automaton:
    """Edges (source, token label, target) of one page, and the token of each label beyond the fixed ones."""

    edges: tuple[tuple[int, int, int], ...]
    tokens: tuple[int, ...]
    num_states: int


def constraint_of(policy: BasePolicy, prompts: Prompts) -> Constraint:
    """The constraint of these rows. Raises ConfigError where the prompts carry no pages, or text may stand before a
    plan."""
    if policy.facts.plan_after is not None:
        raise ConfigError(
            f"the grammar allows nothing before a plan, and facts.plan_after is {policy.facts.plan_after!r}. Leave one "
            "of them out."
        )
    if prompts.pages is None:
        raise ConfigError("decoding under the grammar needs the pages of the prompts; make them with `prompts_for`")
    return batch([compile_page(page, policy.canvas) for page in prompts.pages], policy)


@functools.lru_cache(maxsize=4096)
def compile_page(page: Observation, canvas: Canvas) -> Automaton:
    """The automaton of one page on one kind of canvas."""
    tree: dict[int, Any] = {}
    for control in page.controls:
        for verb in VERBS_BY_KIND[control.kind]:
            _insert(tree, canvas, control, verb)
    numbering = _Numbering()
    numbering.number(tree, START)
    is_text = text_ids(canvas.tokenizer)
    quote = _quotes(canvas, "fill", "p1.e1")[-1]
    tokens = sorted({token for _, token, _ in numbering.edges} | {quote})
    label = {token: NUM_FIXED_LABELS + index for index, token in enumerate(tokens)}
    edges = [(source, label[token], target) for source, token, target in numbering.edges]
    for source in (EMPTY_VALUE, VALUE):
        edges += [(source, label[token], VALUE) for token in tokens if is_text[token]]
        edges.append((source, TEXT, VALUE))
    edges.append((VALUE, label[quote], LINE))
    frame = _frame(canvas)
    edges += frame
    edges += [
        (state, name, target) for state, leaf in numbering.ends for source, name, target in frame if source == leaf
    ]
    return Automaton(edges=tuple(edges), tokens=tuple(tokens), num_states=numbering.num_states)


def _frame(canvas: Canvas) -> list[tuple[int, int, int]]:
    """What stands around the lines. Where EOS and PAD are one token, the label EOS is both."""
    edges = [(LINE, NEWLINE, START), (ACCEPT, EOS if _has_one_end(canvas) else PAD, ACCEPT)]
    if canvas.fill_id is not None:
        edges += [(LINE, FILL, LINE), (SUBMITTED, FILL, SUBMITTED), (SUBMITTED, NEWLINE, END), (END, EOS, ACCEPT)]
    else:
        edges += [(SUBMITTED, EOS, ACCEPT)]
    return edges


def _has_one_end(canvas: Canvas) -> bool:
    """Whether EOS and PAD are one token, so that only what stands before a token says which of them it is."""
    return canvas.eos_id == canvas.pad_id


def _insert(tree: dict[int, Any], canvas: Canvas, control: Control, verb: str) -> None:
    """Add the lines of one verb on one control to the tree of tokens; leaves are the states that follow."""
    if verb not in VERBS_WITH_VALUE:
        _grow(tree, _line(canvas, verb, control.ref, None), SUBMITTED if verb == "submit" else LINE)
    elif verb == "fill":
        _grow(tree, _quotes(canvas, verb, control.ref)[:-1], EMPTY_VALUE)
    else:
        for value in PRESSABLE_KEYS if verb == "press" else control.options:
            _grow(tree, _line(canvas, verb, control.ref, value), LINE)


@functools.lru_cache(maxsize=1 << 12)
def _quotes(canvas: Canvas, verb: Any, ref: str) -> tuple[int, ...]:
    """Tokens of a line with a value, without the value: up to the opening quote, and the closing one."""
    ids = _line(canvas, verb, ref, "a")
    places = [place for place, word in enumerate(canvas.tokenizer.convert_ids_to_tokens(ids)) if word.endswith('"')]
    if len(places) != 2:
        raise ConfigError("the grammar needs a tokenizer that writes the quotes around a value as tokens of their own")
    return (*ids[: places[0] + 1], ids[places[1]])


def _line(canvas: Canvas, verb: Any, ref: str, value: str | None) -> tuple[int, ...]:
    return _ids(canvas, render_action(Action(verb=verb, ref=ref, value=value)))


@functools.lru_cache(maxsize=1 << 16)
def _ids(canvas: Canvas, text: str) -> tuple[int, ...]:
    """Most lines are those of other pages too: refs and verbs repeat, only options are a page's own."""
    return tuple(encode_text(canvas.tokenizer, text))


def _grow(tree: dict[int, Any], tokens: Sequence[int], leaf: int) -> None:
    for token in tokens:
        tree = tree.setdefault(token, {})
    tree[_LEAF] = leaf


class _Numbering:
    """Gives each distinct subtree one state. edges: (source, token, target). ends: (state, leaf) of lines that may end
    where a longer one goes on, such as p1.e1 and p1.e12 in a tokenizer that writes digits one by one.
    """

    def __init__(self) -> None:
        self.edges: list[tuple[int, int, int]] = []
        self.ends: list[tuple[int, int]] = []
        self.num_states = _NUM_FIXED_STATES
        self._known: dict[Any, int] = {}

    def number(self, node: dict[int, Any], state: int | None = None) -> int:
        """The state of a subtree, after those of its children."""
        if node.keys() == {_LEAF}:
            return node[_LEAF]
        children = tuple((token, self.number(child)) for token, child in sorted(node.items()) if token != _LEAF)
        key = (children, node.get(_LEAF))
        if state is None:
            if key in self._known:
                return self._known[key]
            state = self._known[key] = self.num_states
            self.num_states += 1
        self.edges.extend((state, token, target) for token, target in children)
        if _LEAF in node:
            self.ends.append((state, node[_LEAF]))
        return state


def batch(automata: Sequence[Automaton], policy: BasePolicy) -> Constraint:
    """One constraint for many rows, padded to common sizes."""
    canvas = policy.canvas
    num_states = 1 + max(item.num_states for item in automata)
    edges = torch.tensor([num_states - 1, TEXT, num_states - 1]).repeat(
        len(automata), max(len(item.edges) for item in automata), 1
    )
    token = torch.full((len(automata), NUM_FIXED_LABELS + max(len(item.tokens) for item in automata)), -1)
    pad_id = None if _has_one_end(canvas) else canvas.pad_id
    for label, known in ((EOS, canvas.eos_id), (PAD, pad_id), (FILL, canvas.fill_id)):
        token[:, label] = -1 if known is None else known
    token[:, NEWLINE] = canvas.newline_ids[0]
    for row, item in enumerate(automata):
        edges[row, : len(item.edges)] = torch.tensor(item.edges)
        token[row, NUM_FIXED_LABELS : NUM_FIXED_LABELS + len(item.tokens)] = torch.tensor(item.tokens)
    is_text = torch.zeros(policy.vocab_size, dtype=torch.bool)
    known_text = text_ids(canvas.tokenizer)
    is_text[: len(known_text)] = known_text
    source, label, target = edges.unbind(dim=-1)
    return Constraint(
        source=source,
        target=target,
        label=label,
        token=token,
        is_text=is_text,
        is_legal=_legal(canvas),
        num_states=num_states,
        width=canvas.config.line_width,
        separators=(START, ACCEPT, END) if canvas.config.line_width else (),
    )


def _legal(canvas: Canvas) -> Bool[Tensor, "l 5"]:
    """Which of content, EOS, PAD, line break and FILL may stand at a column."""
    length, width = canvas.config.length, canvas.config.line_width
    legal = torch.ones(length, NUM_FIXED_LABELS, dtype=torch.bool)
    if width is not None:
        place = torch.arange(length) % width
        legal[:, TEXT] = legal[:, FILL] = place != width - 1
        legal[:, NEWLINE] = place == width - 1
        legal[:, EOS] = (place == 0) | _has_one_end(canvas)
    return legal


@functools.lru_cache(maxsize=16)
def text_ids(tokenizer: Any) -> Bool[Tensor, " v"]:
    """Ids whose bytes may stand in a value: nothing below a space, no quote, no backslash.

    Raises ConfigError for a tokenizer that is not byte-level.
    """
    letters = _byte_letters()
    special = set(tokenizer.all_special_tokens)
    is_text = torch.zeros(len(tokenizer), dtype=torch.bool)
    for word, index in tokenizer.get_vocab().items():
        if word in special or index in tokenizer.added_tokens_decoder:
            continue
        if any(letter not in letters for letter in word):
            raise ConfigError(
                f"the grammar needs a byte-level tokenizer; this one has the token {word!r}. Turn it off."
            )
        values = [letters[letter] for letter in word]
        is_text[index] = all(byte >= 0x20 and byte not in (0x22, 0x5C, 0x7F) for byte in values)
    return is_text


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes: printable Latin-1 as itself, the others from 256 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(256 + index): byte for index, byte in enumerate(hidden)}
