"""Starts Playwright's driver and finds a Chromium, with launch arguments: no foreign host, no background traffic."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import Browser, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from dllm_rl.errors import BrowserMissingError

ENV_OVERRIDE = "DLLM_RL_CHROMIUM"
SYSTEM_NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
_MAC_PATHS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
WATCHABLE_MS = 200
# What a launch says where the program can never start here, so that another attempt would not help.
_CANNOT_START = ("Executable doesn't exist", "shared libraries", "No usable sandbox", "Running as root without")
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    # No name but ours has an address, and what is not loopback goes to a proxy that nobody runs (port 9, "discard").
    "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=127.0.0.1;localhost;*.localhost",
)


def has_sandbox() -> bool:
    """Whether Chromium's sandbox is on: always but for root, for whom Chromium refuses to start with it."""
    return not (hasattr(os, "geteuid") and os.geteuid() == 0)


def arguments() -> list[str]:
    """Launch arguments."""
    return [*_ARGUMENTS, *([] if has_sandbox() else ["--no-sandbox"])]


def only_port(port: int) -> list[str]:
    """Launch arguments that shut this machine out as well, but for `*.localhost` at one port."""
    return [f"--proxy-bypass-list=<-loopback>;*.localhost:{port}"]


def system_chromium() -> str | None:
    """Path of a Chromium of the system: the override first, then the known names, headless shells before the rest."""
    override = os.environ.get(ENV_OVERRIDE)
    if override:
        if not shutil.which(override):
            raise BrowserMissingError(
                f"{ENV_OVERRIDE} names '{override}', which is not a program. Correct or unset it."
            )
        return shutil.which(override)
    found = next((path for name in SYSTEM_NAMES if (path := shutil.which(name))), None)
    return found or next((path for path in _MAC_PATHS if Path(path).exists()), None)


async def start_driver() -> Playwright:
    """Start Playwright's driver, a Node program that comes with its package.

    Raises:
        BrowserMissingError: It cannot run on this machine, as where a library of the system is missing.
    """
    try:
        return await async_playwright().start()
    except Exception as error:
        fault = driver_fault()
        if fault is None:
            raise
        raise BrowserMissingError(
            f"Playwright's driver does not start: {fault}. Install what it lacks with your system's package "
            "manager (libatomic.so.1: `apt-get install libatomic1`), then run the same command again."
        ) from error


def driver_fault() -> str | None:
    """Why the driver cannot run on this machine, in its own words; None where it runs."""
    command = [sys.executable, "-m", "playwright", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1].rpartition("/")[2] if said else f"it ended with code {done.returncode}"


async def launch(playwright: Playwright, extra: Sequence[str] = (), *, is_headful: bool = False) -> Browser:
    """Launch Playwright's own Chromium where it is installed, else the system's.

    Playwright's driver ends the browser when it is told to, on SIGINT, and when this process is gone (its pipe closes).

    Args:
        playwright: The driver.
        extra: Further launch arguments.
        is_headful: Whether to open a window, slowed down enough to watch; see `can_show`.

    Raises:
        BrowserMissingError: There is no Chromium, or it cannot start on this machine.
    """
    given = [*arguments(), *extra]
    if is_headful:
        return await playwright.chromium.launch(
            executable_path=full_chromium(), args=given, headless=False, slow_mo=WATCHABLE_MS
        )
    has_own = not os.environ.get(ENV_OVERRIDE) and _has_own(playwright)
    path = None if has_own else system_chromium()
    if path is None and not has_own:
        raise BrowserMissingError(_how_to_install())
    try:
        return await playwright.chromium.launch(executable_path=path, args=given)
    except PlaywrightError as error:
        reason = next((text for text in _CANNOT_START if text in str(error)), None)
        if reason is None:
            raise
        where = f"Chromium at {path}" if path else "Playwright's Chromium"
        raise BrowserMissingError(f"{where} does not start ({reason}). {_how_to_install()}") from error


def full_chromium() -> str | None:
    """Path of a Chromium of the system that can open a window, or None."""
    paths = [path for name in SYSTEM_NAMES if "headless" not in name and (path := shutil.which(name))]
    return next((path for path in [*paths, *_MAC_PATHS] if Path(path).exists()), None)


def can_show() -> bool:
    """Whether this machine has a display and a Chromium with windows."""
    has_display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return has_display and full_chromium() is not None


def _has_own(playwright: Playwright) -> bool:
    """Playwright knows only the path of the full browser; the shell is installed in a folder beside it."""
    full = Path(playwright.chromium.executable_path)
    shells = full.parents[2].glob("chromium_headless_shell-*/*/*headless*shell*") if len(full.parents) > 2 else ()
    return any(path.is_file() for path in shells)


def _how_to_install() -> str:
    return (
        "no Chromium found. Install one with "
        f"`{Path(sys.executable).name} -m playwright install --with-deps --only-shell chromium`, or the package "
        f"`chromium` of your system, or set {ENV_OVERRIDE} to the path of a Chromium."
    )
