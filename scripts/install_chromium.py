"""Make sure that a Chromium starts: Playwright's own, else the system's, else one from the system's package manager.

Run by `make setup` after the project is installed; each step is proved by opening a page.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from experiments.cli.doctor import launch_browser

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


def with_package_manager() -> bool:
    """A Chromium from the system's packages, where that is permitted."""
    prefix = privileged()
    manager = next((name for name in MANAGERS if shutil.which(name)), None)
    if prefix is None or manager is None:
        return False
    if manager == "apt-get":
        run([*prefix, "apt-get", "update"], PACKAGE_SECONDS)
    arguments, packages = MANAGERS[manager]
    return any(run([*prefix, manager, *arguments, package], PACKAGE_SECONDS) and starts() for package in packages)


def main() -> int:
    """Stop at the first way that works."""
    if os.environ.get("DLLM_RL_CHROMIUM"):
        return 0 if starts() else 1
    if with_own() or starts() or with_package_manager():
        return 0
    print(
        "\nNo Chromium could be started or installed. One of these helps:\n"
        "  - install the package `chromium` (or Google Chrome) with your system's package manager;\n"
        "  - python -m playwright install --with-deps --only-shell chromium\n"
        "  - set DLLM_RL_CHROMIUM to the path of a Chromium.\n"
        "Then run make again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
