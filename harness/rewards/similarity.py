"""How alike two instructions are: FLIP's word F1 (arXiv 2602.13551), and two that wording and swapped values sway less.

Word F1 counts words as a bag. Where instructions share a template, its words inflate it, and it cannot see two values
in each other's place. `fields` compares clause by clause, so a value counts beside its own label; `idf` weighs words by
how rare they are among instructions.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dllm_rl.errors import ConfigError
from dllm_rl.records.words import WEIGHTS_FILE, words

SimilarityName = Literal["words", "fields", "idf"]
# Where a wish ends: a line, a semicolon, or a full stop before white space.
_CLAUSES = re.compile(r"[;\n]|[.!?](?=\s|$)")


def clauses(text: str) -> list[list[str]]:
    """Words of each clause; empty clauses are left out."""
    found = (words(part) for part in _CLAUSES.split(text))
    return [part for part in found if part]


def bag_f1(wanted: Sequence[str], given: Sequence[str], weights: Mapping[str, float] | None = None) -> float:
    """F1 of two bags of words, each word by its weight (1 where none are given). 0 where nothing is shared."""
    one, two = Counter(wanted), Counter(given)
    shared = _mass(one & two, weights)
    return 0.0 if shared == 0 else 2 * shared / (_mass(one, weights) + _mass(two, weights))


def _mass(bag: Counter[str], weights: Mapping[str, float] | None) -> float:
    if weights is None:
        return float(bag.total())
    rarest = max(weights.values(), default=1.0)
    return sum(count * weights.get(word, rarest) for word, count in bag.items())


class Similarity(ABC):
    """How alike two instructions are, in [0, 1]; 1 for equal ones."""

    @abstractmethod
    def __call__(self, wanted: str, given: str) -> float:
        """Compare an inferred instruction with the one that was given."""


class Words(Similarity):
    """F1 of words, as published."""

    def __call__(self, wanted: str, given: str) -> float:
        """Return the F1."""
        return bag_f1(words(wanted), words(given))


class Fields(Similarity):
    """Each clause against the one that is most like it, over the clauses of both sides."""

    def __call__(self, wanted: str, given: str) -> float:
        """Return the mean F1 of the clauses with their best partners."""
        one, two = clauses(wanted), clauses(given)
        if not one or not two:
            return 0.0
        forward = [max(bag_f1(clause, other) for other in two) for clause in one]
        backward = [max(bag_f1(clause, other) for other in one) for clause in two]
        return sum(forward + backward) / (len(one) + len(two))


@dataclass(frozen=True, slots=True, kw_only=True)
class Idf(Similarity):
    """F1 of words by how rare they are.

    Attributes:
        weights: See `word_weights`; an unknown word weighs as the rarest.
    """

    weights: Mapping[str, float]

    @classmethod
    def read(cls, folder: Path | None) -> Idf:
        """Read the weights that lie beside an inverter."""
        if folder is None:
            raise ConfigError("similarity 'idf' needs the word weights of a trained inverter; 'fields' needs none.")
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise ConfigError(f"similarity 'idf' needs {path}, which training an inverter writes; 'fields' needs none.")
        return cls(weights=json.loads(path.read_text(encoding="utf-8")))

    def __call__(self, wanted: str, given: str) -> float:
        """Return the weighted F1."""
        return bag_f1(words(wanted), words(given), self.weights)


def similarity_named(name: SimilarityName, folder: Path | None) -> Similarity:
    """Return the similarity of this name.

    Args:
        folder: Of the inverter, which holds the weights of `idf`.
    """
    return {"words": Words, "fields": Fields, "idf": lambda: Idf.read(folder)}[name]()


def longest_echo(instruction: str, value: str) -> float:
    """Longest run of the instruction's words that stands in a value, as a share of the instruction."""
    one, two = words(instruction), words(value)
    best = 0
    lengths = [0] * (len(two) + 1)
    for word in one:
        row = [0] * (len(two) + 1)
        for at, other in enumerate(two, start=1):
            row[at] = lengths[at - 1] + 1 if word == other else 0
        best, lengths = max(best, *row), row
    return best / max(1, len(one))
