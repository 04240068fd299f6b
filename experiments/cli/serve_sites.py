"""`dllm-rl sites serve`: the built-in sites on loopback until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from harness.environment import tasks_for
from harness.public_sites import PublicSites
from harness.settings import world_settings


def serve(*, port: int, split: str, count: int, world: str = "basic", difficulties: Sequence[int] = ()) -> int:
    """Serve the tasks of a split."""
    settings = world_settings(world, difficulties, counts={split: count})
    asyncio.run(_serve(PublicSites(tasks_for(settings, split), port=port)))
    return 0


async def _serve(sites: PublicSites) -> None:
    await sites.server.start()
    base = sites.server.base_url
    print(f"{len(sites.tasks)} tasks: {base}/tasks\nbegin one:  POST {base}/episodes\nstop: Ctrl-C", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await sites.server.stop()
