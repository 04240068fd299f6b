"""What a denoising step costs beside the model, where the vocabulary is large: bans, log-odds, and the draw's record.

    python -m benchmarks.step_statistics                        # 8 rows of 256 positions, LLaDA's vocabulary

Of one step in its first forward, when every position is asked for: the output head over all positions, then the parts
of the statistics. At first bans made a copy of the logits; now they are set in place. Shares are of the head and the
statistics of a rule that ranks by log-odds; the layers below the head come on top of both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from samplers.loop.sampling import entropy, log_odds, pick


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Processor time of a call, the median of some."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return sorted(taken)[repeats // 2]


def parts_of(logits: Tensor, banned: Tensor, written: Tensor) -> dict[str, Callable[[], Any]]:
    """What a step computes of its logits."""
    drawn = logits[written]
    noise = torch.rand(len(drawn), dtype=torch.float64)
    return {
        "bans in a copy (at first)": lambda: logits.masked_fill(banned, -torch.inf),
        "bans in place (now)": lambda: logits.masked_fill_(banned, -torch.inf),
        "log-odds": lambda: log_odds(logits),
        f"draw and entropy at {len(drawn)} positions": lambda: (pick(drawn, 1.0, noise), entropy(drawn)),
        "entropy everywhere (rules that rank by it)": lambda: entropy(logits),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=126_464)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--width", type=int, default=2048, help="of the states that the head reads")
    parser.add_argument("--drawn", type=int, default=4, help="tokens of a row that the step writes")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    head = torch.randn(given.vocabulary, given.width) / given.width**0.5
    states = torch.randn(given.rows, given.positions, given.width)
    # The head is measured on one row, and every row costs the same.
    of_head = given.rows * seconds(lambda: states[:1] @ head.T, given.repeats)
    logits = torch.randn(given.rows, given.positions, given.vocabulary)
    del head, states
    banned = torch.zeros(given.vocabulary, dtype=torch.bool)
    banned[-64:] = True
    written = torch.zeros(given.rows, given.positions, dtype=torch.bool)
    written[:, : given.drawn] = True
    print(f"V = {given.vocabulary:,}, {given.rows} x {given.positions} positions, {torch.get_num_threads()} threads")
    print(f"head over states of {given.width}: {of_head:.2f} s")
    taken = {name: seconds(run, given.repeats) for name, run in parts_of(logits, banned, written).items()}
    for name, value in taken.items():
        print(f"{name}: {value:.2f} s")
    copied, in_place, odds, drawing, _ = taken.values()
    for name, bans in (("at first", copied), ("now", in_place)):
        total = bans + odds + drawing
        print(f"{name}: {total:.2f} s, {total / (total + of_head):.1%} of head and statistics")


if __name__ == "__main__":
    main()
