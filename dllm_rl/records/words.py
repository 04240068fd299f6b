"""Words of instructions, and how much each one says: what similarities of instructions count."""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Iterable

WEIGHTS_FILE = "word_weights.json"
_ARTICLES = frozenset(("a", "an", "the"))
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Words as SQuAD's metric takes them: lower case, without punctuation and articles."""
    return [word for word in text.lower().translate(_NO_PUNCTUATION).split() if word not in _ARTICLES]


def word_weights(instructions: Iterable[str]) -> dict[str, float]:
    """Inverse document frequency: log((1 + n) / (1 + count)) of a word in n instructions, a little above 0 at least."""
    bags = [set(words(text)) for text in instructions]
    counts = Counter(word for bag in bags for word in bag)
    return {word: math.log((1 + len(bags)) / (1 + count)) + 1e-3 for word, count in sorted(counts.items())}


def weights_file(instructions: Iterable[str]) -> dict[str, str]:
    """The file of word weights that lies beside an inverter: its text by its name."""
    return {WEIGHTS_FILE: json.dumps(word_weights(instructions))}
