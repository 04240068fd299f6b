"""How the threads of PyTorch wait for one another on a CPU."""

from __future__ import annotations

import functools
import logging
import os
import sys

_LOGGER = logging.getLogger(__name__)
# By default threads spin some 10 ms for one another. Beside a busy process an update takes three times as long, and
# sampling token by token 20 times the processor time. So few rounds cost 7 % on idle cores and spare a third of that
# time on busy ones (benchmarks/busy_cores.py).
SPIN_COUNT = "1000"


def wait_politely() -> bool:
    """Let OpenMP threads sleep soon when they wait, unless the user has said how they wait.

    Returns whether that is too late: PyTorch reads it once, when it is first imported.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return False
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    return "torch" in sys.modules


IS_LATE = wait_politely()


@functools.cache
def warn_if_spinning() -> None:
    """Say once, before the first rollouts, that threads spin since PyTorch was imported before this package."""
    import torch

    if IS_LATE and torch.get_num_threads() > 1:
        _LOGGER.warning(
            "PyTorch was imported before dllm_rl, so its %d threads spin while they wait for one another, which beside "
            "other work costs many times the processor time. Import dllm_rl first, set GOMP_SPINCOUNT=%s, or call "
            "torch.set_num_threads(1).",
            torch.get_num_threads(),
            SPIN_COUNT,
        )
