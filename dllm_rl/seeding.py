"""Named random streams: every draw comes from (seed, stream name, indices), so no draw depends on another stream."""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, stream: str, *indices: int | str) -> int:
    """Derive a 63-bit seed for one purpose; equal arguments give equal seeds on every machine."""
    text = "/".join([str(seed), stream, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def python_random(seed: int, stream: str, *indices: int | str) -> random.Random:
    """A `random.Random` of its own for one purpose."""
    return random.Random(derive(seed, stream, *indices))
