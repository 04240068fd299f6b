"""Our greedy tokens beside those of public samplers: `python -m benchmarks.decoding_parity FOLDER [--page PAGE]`.

FOLDER holds your own checkouts under their usual names: LLaDA, Fast-dLLM, dllm, SDAR, ReFusion. Without one, or where
it lacks some, the command says what it needs. Both write on one tiny random checkpoint in the format in which that
family is published, greedily, with the same steps, blocks and thresholds. Compared are whole canvases, with ends out of
reach, and texts up to their first end; under flat and under sharp distributions; behind prompts of several lengths.
Tokens that no trained model writes (MASK, and padding where it would be read as such) are out of reach on both sides.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import public_code
from benchmarks.decoding_cases import CASES, CODE, Case, Format
from benchmarks.public_code import place
from benchmarks.public_decoding import Asked
from dllm_rl import registry
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.types import Prompts
from dllm_rl.testing.policies import logits_changed

BEGIN, END = public_code.markers("benchmarks.decoding_parity")
# Factors of the logits, and how low those are that are out of reach.
SHARPNESS, UNREACHABLE = (1.5, 5.0), -1e4
TEXT = "Name: Anna Berg\nTown: Ulm\nPlan: Pro | Basic\nplan:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """How many rows have the same tokens, of how many, and how many tokens are at the same place."""

    rows: int
    of: int
    tokens: int
    of_tokens: int

    @property
    def words(self) -> str:
        """As a cell of the table."""
        return f"{self.rows} of {self.of}"


@torch.no_grad()
def compared(case: Case, folder: Path, checkpoint: str, *, has_ends: bool) -> Equal:
    """Both samplers behind all prompts, under all distributions.

    Args:
        has_ends: The end can be written, and is where texts are compared to.
    """
    same = total = alike = places = 0
    for sharpness in SHARPNESS:
        policy = load_policy(checkpoint, facts=case.format.facts, options=LoadOptions(dtype="float32"))
        with sharpened(policy, sharpness, forbidden(policy, case.format, has_ends=has_ends)):
            for prompts in batches(policy, case):
                asked = Asked(policy=policy, prompts=prompts, settings=case.settings)
                theirs = case.theirs(place(folder, CODE[case.code]), asked)
                ours = registry.build("sampler", case.sampler, {"temperature": 0.0, **case.options})
                pairs = zip(ours.generate(policy, prompts, seed=0).ids, written(asked, theirs), strict=True)
                for one, other in pairs:
                    mine, public = (text(row, policy.canvas.eos_id) for row in (one, other))
                    same, total = same + (mine == public), total + 1
                    alike += sum(a == b for a, b in zip(mine, public, strict=False))
                    places += max(len(mine), len(public))
    return Equal(rows=same, of=total, tokens=alike, of_tokens=places)


def forbidden(policy: BasePolicy, format: Format, *, has_ends: bool) -> list[int]:
    """Ids that nobody may write."""
    ends = [] if has_ends else [policy.canvas.eos_id, *policy.facts.end_ids]
    padding = [policy.canvas.pad_id] if format.reads_padding else []
    return sorted({*policy.banned_ids, *ends, *padding})


def sharpened(policy: BasePolicy, factor: float, forbidden: list[int]) -> AbstractContextManager[None]:
    """The policy's model with its logits scaled, and these ids out of reach, for whoever asks it."""
    return logits_changed(policy, lambda logits: (logits * factor).index_fill(-1, torch.tensor(forbidden), UNREACHABLE))


def batches(policy: BasePolicy, case: Case) -> list[Prompts]:
    """Prompts of the format's lengths, one a batch or all in one."""
    ids = policy.tokenizer.encode(TEXT, add_special_tokens=False)
    rows = [(ids[3 * number :] + ids)[:length] for number, length in enumerate(case.format.lengths)]
    parts = [rows] if case.is_batch else [[row] for row in rows]
    return [Prompts.left_padded(part, row_ids=range(len(part)), pad_id=policy.canvas.pad_id) for part in parts]


def written(asked: Asked, sequences: Tensor) -> list[Tensor]:
    """What a public sampler wrote behind each prompt; where it pads on the right, the text begins earlier."""
    width, own = asked.prompts.ids.shape[1], asked.prompts.mask.sum(dim=1).tolist()
    found = []
    for row, length in zip(sequences, own, strict=True):
        begins = [start for start in range(len(row) - length + 1) if _is_at(row, asked, start, length)]
        start = min(begins, key=lambda place: abs(place + length - width)) + length
        found.append(row[start : start + asked.length])
    return found


def _is_at(row: Tensor, asked: Asked, start: int, length: int) -> bool:
    index = next(i for i, own in enumerate(asked.prompts.mask.sum(dim=1).tolist()) if own == length)
    return torch.equal(row[start : start + length], asked.prompts.ids[index, -length:])


def text(ids: Tensor, eos_id: int) -> list[int]:
    """Tokens up to the first end, which is one of them."""
    row = ids.tolist()
    return row[: row.index(eos_id) + 1] if eos_id in row else row


def table(folder: Path) -> list[str]:
    """One row a case whose code is there: settings of both, and how many rows have the same tokens."""
    lines = [
        "| public code | checkpoint | its settings | ours | whole canvases | up to the end | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as made:
        for case in CASES:
            code = CODE[case.code]
            if not place(folder, code).is_file():
                continue
            where = Path(made) / case.format.write.__name__
            if not where.exists():
                case.format.write(where)
            whole, ended = (compared(case, folder, str(where), has_ends=ends) for ends in (False, True))
            settings = ", ".join(f"{key} {value}" for key, value in case.settings.items())
            options = ", ".join(f"{key} {value}" for key, value in case.options.items())
            batch = ", one batch" if case.is_batch else ""
            tokens = f"{whole.tokens + ended.tokens} of {whole.of_tokens + ended.of_tokens}"
            lines.append(
                f"| {code.folder}, {code.file} | {case.format.name} | {settings}{batch} | `{case.sampler}` {options} | "
                f"{whole.words} | {ended.words} | {tokens} |"
            )
    return lines


def main() -> None:
    public_code.command(__doc__ or "", CODE.values(), table, (BEGIN, END))


if __name__ == "__main__":
    main()
