"""`dllm-rl sites serve`: the built-in sites on loopback until Ctrl-C."""

from __future__ import annotations

import asyncio

from harness.public_sites import PublicSites
from harness.sites import make_tasks


def serve(*, port: int, split: str, count: int) -> int:
    """Serve the tasks of a split."""
    asyncio.run(_serve(PublicSites(make_tasks(split, count=count), port=port)))
    return 0


async def _serve(sites: PublicSites) -> None:
    await sites.server.start()
    base = sites.server.base_url
    print(f"{len(sites.tasks)} tasks: {base}/tasks\nbegin one:  POST {base}/episodes\nstop: Ctrl-C", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await sites.server.stop()
