"""Make sure that a Chromium starts: Playwright's own, else the system's, else one from the system's package manager.

Before that, that Playwright's driver runs, for which small systems lack a library.

Run by `make setup` after the project is installed; each step is proved by opening a page.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from experiments.cli.doctor import launch_browser
from harness.browser.chromium import driver_fault

DOWNLOAD_SECONDS = 240
PACKAGE_SECONDS = 600
# Package managers, and the packages worth trying, the small headless build first.
MANAGERS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "apt-get": (["install", "--yes", "--no-install-recommends"], ("chromium-headless-shell", "chromium")),
    "dnf": (["install", "--assumeyes"], ("chromium-headless", "chromium")),
    "zypper": (["--non-interactive", "install"], ("chromium",)),
    "pacman": (["--sync", "--noconfirm"], ("chromium",)),
    "apk": (["add"], ("chromium",)),
}

# The package of the one library that Playwright's driver needs beside those of any system.
LIBATOMIC = {"apt-get": "libatomic1", "dnf": "libatomic", "zypper": "libatomic1", "apk": "libatomic"}


def starts() -> bool:
    """Whether the harness's choice of browser opens a page; prints which one, or why not."""
    try:
        print(f"browser: {launch_browser()}")
    except Exception as error:
        print(f"browser: {str(error).splitlines()[0]}")
        return False
    return True


def run(command: list[str], seconds: int, **environment: str) -> bool:
    """Run a command under a deadline; whether it succeeded."""
    print("+", " ".join(command), flush=True)
    try:
        done = subprocess.run(command, timeout=seconds, check=False, env={**os.environ, **environment})
    except (subprocess.TimeoutExpired, OSError) as error:
        print(f"  {error}")
        return False
    return done.returncode == 0


def playwright(*arguments: str) -> bool:
    """Run Playwright's installer; it gives up soon where its server cannot be reached."""
    command = [sys.executable, "-m", "playwright", *arguments]
    return run(command, DOWNLOAD_SECONDS, PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT="15000")


def privileged() -> list[str] | None:
    """What to put before a command that needs root; None where that is not permitted."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    may = sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0
    return [str(sudo), "-n"] if may else None


def with_own() -> bool:
    """Playwright's headless Chromium, with the system libraries it needs where we may install them."""
    if not playwright("install", "--only-shell", "chromium"):
        print("Playwright's own Chromium could not be downloaded; looking for one of the system.")
        return False
    if starts():
        return True
    if privileged() is not None and playwright("install-deps", "chromium") and starts():
        return True
    # A browser that does not start would hide the system's.
    playwright("uninstall")
    return False


def with_package_manager(*wanted: str) -> Iterator[str]:
    """Install packages of the system one after another, where that is permitted; yields each that is there.

    Args:
        wanted: Their names. Default: those of a Chromium.
    """
    prefix, manager = privileged(), package_manager()
    if prefix is None or manager is None:
        return
    if manager == "apt-get":
        run([*prefix, "apt-get", "update"], PACKAGE_SECONDS)
    arguments, browsers = MANAGERS[manager]
    for package in wanted or browsers:
        if run([*prefix, manager, *arguments, package], PACKAGE_SECONDS):
            yield package


def package_manager() -> str | None:
    """The package manager of this system, of those that are known."""
    return next((name for name in MANAGERS if shutil.which(name)), None)


def has_driver() -> bool:
    """Whether Playwright's driver runs; installs the library that it may lack, where that is permitted."""
    fault, library = driver_fault(), LIBATOMIC.get(package_manager() or "")
    if fault is None:
        return True
    print(f"Playwright's driver: {fault}")
    return bool(library) and any(driver_fault() is None for _ in with_package_manager(str(library)))


def main() -> int:
    """Stop at the first way that works."""
    is_driven = has_driver()
    if os.environ.get("DLLM_RL_CHROMIUM"):
        return 0 if starts() else 1
    if is_driven and (with_own() or starts() or any(starts() for _ in with_package_manager())):
        return 0
    print(
        "\nNo Chromium could be started or installed. One of these helps:\n"
        "  - install the packages `chromium` (or Google Chrome) and `libatomic1` with your system's package manager;\n"
        "  - python -m playwright install --with-deps --only-shell chromium\n"
        "  - set DLLM_RL_CHROMIUM to the path of a Chromium.\n"
        "Then run make again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
