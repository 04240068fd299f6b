"""Evidence on disk, one episode a line: what judges are trained on, scored on and audited with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dllm_rl.errors import ConfigError
from dllm_rl.files import lines_of, read_text, replace_file
from dllm_rl.records.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """An episode's evidence without the truth, and what the truth says of it.

    Attributes:
        success: None where it is not known.
        error: Class of a failure, such as `wrong value`; "" for a success.
        source: Where it comes from, such as the cell that wrote it.
    """

    evidence: Evidence
    success: bool | None = None
    error: str = ""
    source: str = ""


def labelled(evidence: Evidence, *, source: str = "") -> Labelled:
    """Label an episode by its truth, and take the truth out of its evidence."""
    assert evidence.truth is not None
    outcome = evidence.truth.outcome
    error = "" if outcome.is_success else error_of(evidence)
    return Labelled(evidence=evidence.without_truth(), success=outcome.is_success, error=error, source=source)


def error_of(evidence: Evidence) -> str:
    """Class of a failure: nothing done, not submitted, swapped or wrong values, a default spoilt."""
    assert evidence.truth is not None
    outcome = evidence.truth.outcome
    if not outcome.has_changed_something and not outcome.is_submitted:
        return "nothing done"
    wrong = [item for item in outcome.fields if not item.is_correct]
    if not outcome.is_submitted:
        return "wrong value, not submitted" if wrong else "not submitted"
    held = [(item.server or item.dom or ()) for item in wrong]
    if len(wrong) > 1 and sorted(held) == sorted(item.wanted for item in wrong):
        return "swapped values"
    if any(not values or values == ("",) for values in held):
        return "missing value"
    return "wrong value" if wrong else "spoilt default"


_ADAPTER = TypeAdapter(Labelled)


def write_evidence(path: Path, episodes: Iterable[Labelled]) -> None:
    """Write episodes, one a line; whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(asdict(item))}\n" for item in episodes), encoding="utf-8")


def read_evidence(paths: Sequence[Path]) -> list[Labelled]:
    """Read the episodes of files. Raises ConfigError for a file that is missing or holds something else."""
    found: list[Labelled] = []
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"no file {path} of evidence. Write one: dllm-rl judge collect RUN --out {path}")
        for number, line in enumerate(lines_of(read_text(path)), start=1):
            try:
                found.append(_ADAPTER.validate_json(line))
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ConfigError(f"{path}, line {number}, is not evidence: {reason}. Collect it again.") from None
    return found
