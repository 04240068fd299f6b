"""`dllm-rl doctor`: checks of this machine, each with what was found and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

import dllm_rl

PACKAGES = ("dllm_rl", "objectives", "samplers", "harness", "experiments")
_DEADLINE_SECONDS = 60
SHARED_MEGABYTES = 256
_MARKS = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        advice: What to do where it is not ok.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def run_checks(*, as_json: bool) -> int:
    """Run all checks and print them; 1 where one fails."""
    checks = [check for group in _CHECKS for check in group()]
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        console = Console()
        for check in checks:
            advice = f"\n       {check.advice}" if check.advice else ""
            console.print(f"{_MARKS[check.state]} {check.name}: ", end="")
            console.print(f"{check.found}{advice}", markup=False, highlight=False, soft_wrap=True)
    return 1 if any(check.state == "fail" for check in checks) else 0


def _python() -> Iterator[Check]:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    yield Check(name="python", state="ok", found=found)
    yield Check(name="dllm_rl", state="ok", found=dllm_rl.__version__)


def shadowed(locations: dict[str, Path], home: Path) -> dict[str, Path]:
    """Packages that are imported from elsewhere than the folder that holds ours."""
    return {name: path for name, path in locations.items() if path.parent.resolve() != home.resolve()}


def _packages() -> Iterator[Check]:
    home = Path(__file__).parents[2]
    locations: dict[str, Path] = {}
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield Check(name=f"package {name}", state="fail", found=str(error), advice="Install dllm-rl again.")
            continue
        # A folder without __init__.py imports as a namespace package and has no file.
        locations[name] = Path(module.__file__).parent if module.__file__ else Path(next(iter(module.__path__)))
    wrong = shadowed(locations, home)
    for name, path in wrong.items():
        advice = f"Another folder named '{name}' hides ours. Start elsewhere, or take it off PYTHONPATH."
        yield Check(name=f"package {name}", state="fail", found=f"imported from {path}", advice=advice)
    if not wrong:
        yield Check(name="packages", state="ok", found=f"{', '.join(PACKAGES)} from {home}")


_VERSIONS = ("torch", "transformers", "accelerate", "playwright", "peft", "ray")


def _versions() -> Iterator[Check]:
    found = {}
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    yield Check(name="versions", state="ok", found=", ".join(f"{name} {version}" for name, version in found.items()))


def _torch() -> Iterator[Check]:
    from experiments.run.gpu import gpu_vendor

    try:
        import torch
    except ImportError as error:
        yield Check(name="torch", state="fail", found=str(error), advice="Install it: https://pytorch.org.")
        return
    vectors = torch.backends.cpu.get_cpu_capability()
    yield Check(name="torch", state="ok", found=f"{torch.__version__}, {os.cpu_count()} cores, {vectors}")
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    yield gpu_check(
        [f"{device.name}, {device.total_memory / 1e9:.0f} GB" for device in devices],
        vendor=gpu_vendor(),
        build=torch.__version__,
    )


def gpu_check(devices: Sequence[str], *, vendor: str | None, build: str) -> Check:
    """The GPUs that PyTorch can use.

    Args:
        vendor: Of the one that the system has, if any.
        build: PyTorch's version.
    """
    if devices:
        found = "; ".join(f"cuda:{number} {device}" for number, device in enumerate(devices))
        return Check(name="gpu", state="ok", found=found, advice="Use it with --policy device=cuda.")
    if vendor is not None:
        advice = "Install a build of PyTorch for its driver: https://pytorch.org."
        found = f"there is one of {vendor}, and PyTorch {build} cannot use it"
        return Check(name="gpu", state="warn", found=found, advice=advice)
    return Check(name="gpu", state="ok", found="none; the CPU is used")


def _memory() -> Iterator[Check]:
    from experiments.run.memory import available_gigabytes
    from experiments.run.processes import GIGABYTES_A_WORKER

    yield memory_check(available_gigabytes(), GIGABYTES_A_WORKER)
    folder = Path("/dev/shm")
    if folder.is_dir():
        yield shared_memory_check(shutil.disk_usage(folder).total / 1e6)


def memory_check(gigabytes: float, a_worker: float) -> Check:
    """Memory that is left on this machine, or to this container.

    Args:
        a_worker: What one worker of a grid takes.
    """
    found = f"{gigabytes:.1f} GB available, room for {int(gigabytes / a_worker)} workers"
    if gigabytes >= a_worker:
        return Check(name="memory", state="ok", found=found)
    advice = f"A worker needs {a_worker:g} GB: end other programs, or raise the container's limit."
    return Check(name="memory", state="warn", found=found, advice=advice)


def shared_memory_check(megabytes: float) -> Check:
    """Shared memory. The browser is told to do without, but PyTorch and Ray exchange tensors through it."""
    found = f"{megabytes:.0f} MB in /dev/shm"
    if megabytes >= SHARED_MEGABYTES:
        return Check(name="shared memory", state="ok", found=found)
    advice = "Containers have 64 MB unless told otherwise: start them with --shm-size=1g, or --ipc=host."
    return Check(name="shared memory", state="warn", found=found, advice=advice)


def _sandbox() -> Iterator[Check]:
    from harness.browser.chromium import has_sandbox

    if has_sandbox():
        yield Check(name="browser sandbox", state="ok", found="on")
        return
    advice = "Pages of your own sites run unconfined. Run as an ordinary user where you do not trust them."
    yield Check(name="browser sandbox", state="warn", found="off, since this is root", advice=advice)


def _checkpoints() -> Iterator[Check]:
    from dllm_rl import registry
    from dllm_rl.errors import CheckpointError
    from dllm_rl.policies.checkpoints import CHECKPOINTS, builtin_names, verify

    for name in sorted({*registry.names("policy"), *builtin_names()}):
        try:
            verify(CHECKPOINTS / name)
        except CheckpointError as error:
            advice = f"dllm-rl warmstart {name} makes it, with the recipe that has this stage (--recipe)."
            yield Check(name=f"warm start {name}", state="fail", found=str(error), advice=advice)
        else:
            yield Check(name=f"warm start {name}", state="ok", found=str(CHECKPOINTS / name))


def _browser() -> Iterator[Check]:
    from dllm_rl.errors import BrowserMissingError

    try:
        yield Check(name="browser", state="ok", found=launch_browser())
    except BrowserMissingError as error:
        yield Check(name="browser", state="fail", found=str(error))
    except Exception as error:
        advice = "Set the path of another Chromium in DLLM_RL_CHROMIUM."
        yield Check(name="browser", state="fail", found=str(error).splitlines()[0], advice=advice)


def launch_browser() -> str:
    """Start the Chromium that the harness would use and open a page; its name and version.

    Raises BrowserMissingError or Playwright's error where it does not start.
    """
    return asyncio.run(asyncio.wait_for(_launch(), _DEADLINE_SECONDS))


async def _launch() -> str:
    from harness.browser import chromium

    playwright = await chromium.start_driver()
    try:
        async with await chromium.launch(playwright) as browser:
            page = await browser.new_page()
            await page.set_content("<title>ready</title>")
            assert await page.title() == "ready"
            return f"Chromium {browser.version}"
    finally:
        await playwright.stop()


def _ports() -> Iterator[Check]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        advice = "The built-in sites are served on 127.0.0.1: allow local connections."
        yield Check(name="loopback", state="fail", found=str(error), advice=advice)
    else:
        yield Check(name="loopback", state="ok", found=f"127.0.0.1:{port} answers")


def _space() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    state, advice = ("ok", "") if free > 2 else ("warn", "A grid writes checkpoints: keep 2 GiB free.")
    yield Check(name="disk", state=state, found=f"{free:.1f} GiB free in {Path.cwd()}", advice=advice)


_CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _packages,
    _versions,
    _torch,
    _memory,
    _checkpoints,
    _browser,
    _sandbox,
    _ports,
    _space,
)
