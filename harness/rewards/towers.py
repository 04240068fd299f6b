"""Two small towers, of instructions and of states of pages: texts that belong together lie near each other.

A text is a bag of its words and of the pairs of words inside each clause. Each of these has a fixed direction, the bits
of its hash, so that a value that no training ever saw is the same in both towers. What a tower learns is how much each
weighs, and a linear map.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from dllm_rl.errors import ConfigError, MissingFileError
from dllm_rl.files import replace_file
from harness.rewards.similarity import clauses

Clause = tuple[str, ...]
Clauses = tuple[Clause, ...]
NUM_DIMENSIONS, NUM_BUCKETS = 256, 2**14
# The least F1 of words at which two clauses are taken to ask for the same thing.
_LEAST_ALIKE = 0.4
_PARTS: tuple[str, ...] = ("instruction_weights", "instruction_map", "state_weights", "state_map")


def clauses_of(text: str) -> Clauses:
    """The words of a text by clause."""
    return tuple(map(tuple, clauses(text)))


def features(text: Clauses) -> list[str]:
    """Words, and pairs of words in one clause whatever their order; a pair binds a value to its label."""
    pairs = (" ".join(pair) for clause in text for pair in itertools.combinations(sorted(set(clause)), 2))
    return [*(word for clause in text for word in clause), *pairs]


@functools.lru_cache(maxsize=2**16)
def direction(feature: str) -> tuple[Float[np.ndarray, " d"], int]:
    """A feature's unit vector, and the bucket of its weight."""
    digest = hashlib.blake2b(feature.encode(), digest_size=NUM_DIMENSIONS // 8 + 4).digest()
    bits = np.unpackbits(np.frombuffer(digest[4:], dtype=np.uint8)).astype(np.float32)
    return (2 * bits - 1) / NUM_DIMENSIONS**0.5, int.from_bytes(digest[:4], "big") % NUM_BUCKETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A frozen encoder.

    Attributes:
        weights: Of each bucket of features.
        map: Applied to the weighted sum.
    """

    weights: Float[np.ndarray, " b"]
    map: Float[np.ndarray, "d d"]

    def embed(self, texts: Iterable[Clauses]) -> Float[np.ndarray, "n d"]:
        """Unit vectors; zero for a text without words."""
        sums = np.array([self._sum(text) for text in texts]).reshape(-1, NUM_DIMENSIONS) @ self.map
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)

    def _sum(self, text: Clauses) -> Float[np.ndarray, " d"]:
        found = [direction(feature) for feature in features(text)]
        if not found:
            return np.zeros(NUM_DIMENSIONS, dtype=np.float32)
        return self.weights[[bucket for _, bucket in found]] @ np.stack([vector for vector, _ in found])


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """Both towers, and what instructions are compared with.

    Attributes:
        others: Instructions of training, the negatives that any instruction has.
        wishes: Clauses of training that ask for something: what stands in a counterfactual.
    """

    instruction: Tower
    state: Tower
    others: tuple[Clauses, ...]
    wishes: Wishes
    version: int


def write_towers(path: Path, towers: Towers) -> None:
    """Write both towers to one file."""
    from safetensors.numpy import save_file

    parts = (towers.instruction.weights, towers.instruction.map, towers.state.weights, towers.state.map)
    arrays: dict[str, np.ndarray] = dict(zip(_PARTS, parts, strict=True))
    known = {"others": towers.others, "wishes": towers.wishes.clauses, "version": towers.version}
    beside = {name: json.dumps(value) for name, value in known.items()}
    with replace_file(path) as temporary:
        save_file(arrays, temporary, metadata=beside)


def read_towers(path: Path, *, version: int) -> Towers:
    """Read what `write_towers` wrote. Raises ConfigError for a file that is missing, damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    make = f"Train it: dllm-rl judge embedder --out {path}"
    if not path.is_file():
        raise MissingFileError(f"no embedder at '{path}'. {make}", path)
    try:
        with safe_open(path, framework="np") as file:
            arrays = [file.get_tensor(name) for name in _PARTS]
            beside = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        known = beside["version"]
        others = tuple(tuple(map(tuple, text)) for text in beside["others"])
        wishes = tuple(map(tuple, beside["wishes"]))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(f"'{path}' is not an embedder: {error}. {make}") from None
    if known != version:
        raise ConfigError(f"'{path}' is an embedder of version {known}; this is {version}. {make}")
    return Towers(
        instruction=Tower(weights=arrays[0], map=arrays[1]),
        state=Tower(weights=arrays[2], map=arrays[3]),
        others=others,
        wishes=Wishes(clauses=wishes),
        version=known,
    )


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Clauses that ask for something, and which of them are worded most alike.

    Attributes:
        clauses: In a fixed order, by which ties are broken.
    """

    clauses: tuple[Clause, ...]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: at for at, word in enumerate(sorted({word for clause in self.clauses for word in clause}))}

    @cached_property
    def _holders(self) -> Bool[np.ndarray, "w n"]:
        """Which clauses hold a word."""
        table = np.zeros((len(self._rows), len(self.clauses)), dtype=bool)
        for at, clause in enumerate(self.clauses):
            table[[self._rows[word] for word in clause], at] = True
        return table

    @cached_property
    def _sizes(self) -> Int[np.ndarray, " n"]:
        return self._holders.sum(axis=0)

    def like(self, clause: Clause, count: int) -> list[Clause]:
        """Those that share most of their words with a clause and are not it, by the F1 of both; none below .4."""
        own = set(clause)
        shared = self._holders[[self._rows[word] for word in own if word in self._rows]].sum(axis=0)
        alike = 2 * shared / (self._sizes + len(own))
        alike[alike == 1.0] = 0.0
        best = np.argsort(-alike, kind="stable")[:count]
        return [self.clauses[at] for at in best if alike[at] >= _LEAST_ALIKE]


def counterfactuals(instruction: Clauses, wishes: Wishes, *, per_clause: int = 3) -> list[Clauses]:
    """The instruction with one wish in place of another each: that of the known ones which is worded most like it.

    A clause that is worded like none of them asks for nothing, and stays.
    """
    return [
        (*instruction[:at], wish, *instruction[at + 1 :])
        for at, clause in enumerate(instruction)
        for wish in wishes.like(clause, per_clause)
    ]


def wishes_of(instruction: Clauses, state: Clauses) -> list[Clause]:
    """The clauses of an instruction that share a value with the state that carries it out."""
    held = {word for line in state for word in line}
    counts = [(len(set(clause) & held) / len(clause), clause) for clause in instruction]
    return [clause for share, clause in counts if share >= 0.3]
