"""Whether a checkpoint or data set of the hub can be had here, asked once: downloads try five times for every file."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from dllm_rl.errors import CheckpointError

SECONDS = 5.0
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def needs_hub(name: str) -> bool:
    """Whether a name can only be an id of the hub: it has such a form, and nothing here is called that."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def unreachable() -> str:
    """Why the hub cannot be reached; "" where it can, or where the user has told the hub's library not to try."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ""
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        # Of a certificate the downloads may know more than Python does.
        reason = getattr(error, "reason", error)
        return "" if isinstance(reason, ssl.SSLError) else f"{constants.ENDPOINT}: {reason}"
    return ""


def commit_of(name: str, revision: str | None = None) -> str | None:
    """The commit of a checkpoint of the hub that was loaded here, as the cache of downloads says; None for others."""
    from huggingface_hub import try_to_load_from_cache

    if not needs_hub(name):
        return None
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def use_cache_only(name: str, revision: str | None = None) -> bool:
    """Whether a checkpoint must come from the cache of downloads, since the hub cannot be reached.

    Raises CheckpointError where it is not there either.
    """
    from huggingface_hub import try_to_load_from_cache

    if not needs_hub(name) or not (reason := unreachable()):
        return False
    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return True
    raise CheckpointError(
        f"cannot load '{name}': no folder has this name, the hub cannot be reached ({reason}), and the cache has no "
        f"copy. Give a folder, connect, or run `hf download {name}` where there is a network and copy the cache."
    )
