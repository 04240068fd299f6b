"""What a warm start was made from: the contents of the files and folders that its recipe names.

A recipe names a file of demonstrations and a checkpoint to start from, and both may change under their names. Their
hashes lie beside the stage, so that the same command never goes on from others, nor takes a policy of others for done.
"""

from __future__ import annotations

from pathlib import Path

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_json, sha256, write_json
from experiments.run.recipe import Recipe


def is_done(out: Path, stage: str) -> bool:
    """Whether a stage's policy is there."""
    return (out / stage / "config.json").is_file()


def state_of(out: Path, stage: str) -> Path:
    """Where the state of a stage is kept that is being trained."""
    return out / f"{stage}.state"


def keep_origins(stage: str, recipe: Recipe, out: Path) -> None:
    """Write beside a stage what it is made from."""
    write_json(_record(out, stage), _origins(stage, recipe, out))


def refuse_changed_origins(stage: str, recipe: Recipe, out: Path) -> None:
    """Raise ConfigError where a stage was made, or begun, from other contents than there are now."""
    record = _record(out, stage)
    if not record.is_file() or not (is_done(out, stage) or state_of(out, stage).is_dir()):
        return
    known, found = read_json(record), _origins(stage, recipe, out)
    changed = sorted(name for name in known.keys() & found.keys() if known[name] != found[name])
    if changed:
        made, place = ("made", out / stage) if is_done(out, stage) else ("begun", state_of(out, stage))
        raise ConfigError(
            f"the warm start '{out / stage}' was {made} from {', '.join(changed)}, which was changed since then. "
            f"Choose another --out, or remove '{place}' to train it again."
        )


def _record(out: Path, stage: str) -> Path:
    return out / f"{stage}.origins.json"


def _origins(stage: str, recipe: Recipe, out: Path) -> dict[str, str]:
    """Hashes by name of what lies on this disk; "" for a stage that is not there."""
    from dllm_rl.policies.checkpoints import checkpoint_digest

    found: dict[str, str] = {}
    source, init = recipe.demonstrations_of(stage).source, recipe.families[stage].init
    if source is not None and Path(source).is_file():
        found[source] = sha256(Path(source))
    if init is not None and init in recipe.families:
        found[init] = checkpoint_digest(out / init) if is_done(out, init) else ""
    elif init is not None:
        # Of a hub id the name alone is known.
        found[init] = checkpoint_digest(init)
    return found
