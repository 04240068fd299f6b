"""The values that tasks ask for: one small object a way to draw them, and files that are made from their names."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Literal

from harness.sites import vocabulary as words
from harness.sites.schema import Persona, Site, Size


def draw_persona(rng: Random, size: Size) -> Persona:
    """Draw a person; the email address is always ASCII and built from the names of the small pools."""
    first, last = rng.choice(words.FIRST_NAMES), rng.choice(words.LAST_NAMES)
    email = f"{first}.{last}@{rng.choice(words.EMAIL_DOMAINS)}".lower()
    if size == "full" and rng.random() < 0.3:
        first, last = rng.choice(words.FIRST_NAMES_FULL), rng.choice(words.LAST_NAMES_FULL)
    return Persona(first=first, last=last, email=email)


@dataclass(frozen=True, slots=True)
class OfPersona:
    """A name or the email address of the task's person."""

    part: Literal["first", "last", "full", "email"]

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Read the person's record."""
        return getattr(persona, self.part)


@dataclass(frozen=True, slots=True)
class Pool:
    """One of a closed pool; full sites draw from `full` too."""

    values: tuple[str, ...]
    full: tuple[str, ...] = ()

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw from the pool; on full sites every second time from its long part."""
        if size == "full" and self.full and rng.random() < 0.5:
            return rng.choice(self.full)
        return rng.choice(self.values)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, both included, in steps."""

    low: int
    high: int
    step: int = 1

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw in digits."""
        return str(rng.randrange(self.low, self.high + 1, self.step))


@dataclass(frozen=True, slots=True)
class Day:
    """An ISO date between two, both included."""

    low: str
    high: str

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw a day."""
        low, high = date.fromisoformat(self.low), date.fromisoformat(self.high)
        return (low + timedelta(days=rng.randint(0, (high - low).days))).isoformat()


@dataclass(frozen=True, slots=True)
class Digits:
    """A pattern in which every `0` becomes a digit, such as `555-0000`."""

    pattern: str

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Fill in the digits."""
        return "".join(rng.choice("0123456789") if letter == "0" else letter for letter in self.pattern)


@dataclass(frozen=True, slots=True)
class Address:
    """A house number and a street."""

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw such as `12 Oak Street`."""
        return f"{rng.randint(1, 99)} {rng.choice(words.STREETS)}"


def content_of(name: str) -> bytes:
    """A valid little file of the kind that the name says; equal names give equal bytes."""
    return _MAKERS.get(name.rsplit(".", 1)[-1], _plain)(name)


def offered_files(site: Site) -> dict[str, bytes]:
    """What may be uploaded on a site, by name."""
    names = [name for item in site.fields if item.spec.kind == "file" for name in item.texts]
    return {name: content_of(name) for name in names}


def _plain(name: str) -> bytes:
    return f"This is {name}.\n".encode()


def _pdf(name: str) -> bytes:
    """One empty page with the name as its title."""
    parts = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
        f"<< /Title ({name}) >>",
    )
    text, places = "%PDF-1.4\n", []
    for number, part in enumerate(parts, start=1):
        places.append(len(text))
        text += f"{number} 0 obj\n{part}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(text)
    text += f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}"
    text += f"trailer\n<< /Size {len(parts) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n"
    return text.encode("ascii")


def _png(name: str) -> bytes:
    """Eight by eight pixels in a colour that follows from the name."""
    colour = struct.pack(">I", zlib.crc32(name.encode()))[:3]
    rows = b"".join(b"\x00" + colour * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


_MAKERS = {"pdf": _pdf, "png": _png}
