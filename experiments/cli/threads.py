"""How threads wait; to be settled before torch is imported, since OpenMP reads its environment once."""

from __future__ import annotations

import os

# By default threads spin some 10 ms for one another, and beside a busy process an update takes three times as long. So
# few rounds cost 7 % on idle cores and spare a third of that time on busy ones (benchmarks/busy_cores.py).
SPIN_COUNT = "1000"


def wait_politely() -> None:
    """Let OpenMP threads sleep soon when they wait, unless the user has said how they wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
