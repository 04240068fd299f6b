"""A connection to Ray: a cluster of this machine alone on loopback, or one that runs already."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dllm_rl.errors import ConfigError, DllmRlError


class ClusterError(DllmRlError):
    """A cluster that cannot be reached, or that gives no place to run."""


def require_ray() -> None:
    """Raise ConfigError where the extra is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--executor ray needs the package ray, which is not installed: pip install 'dllm-rl[ray]'")


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to the cluster at an address (`auto`, HOST:PORT), or start one here that ends with the connection.

    Yields the module ray. Nothing is reported to anyone, and a cluster started here listens on loopback only.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Ray's word for: this machine alone. It keeps all of its servers on 127.0.0.1; read when ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    here: dict[str, Any] = {"address": "local", "include_dashboard": False}
    try:
        ray.init(**(here if address is None else {"address": address}), **quiet)
    # Ray raises a bare Exception where one of its own processes does not come up in time.
    except Exception as error:
        place = "this machine" if address is None else f"'{address}'"
        raise ClusterError(
            f"no Ray cluster could be reached on {place}: {str(error).strip().splitlines()[0]}. "
            "Start one with `ray start --head` and give --address HOST:PORT, or give none and one starts here; on a "
            "machine that is busy with other work, try again."
        ) from None
    finally:
        # Ray takes over SIGTERM when it is imported; ours ends a grid as Ctrl-C does.
        if is_main:
            signal.signal(signal.SIGTERM, handler)
    try:
        yield ray
    finally:
        ray.shutdown()
