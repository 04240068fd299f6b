"""Put the policies of a warm-start folder into the package: `python scripts/ship_warm_starts.py runs/warmstart NAME`.

NAME is that of the recipe, which is kept as `recipe_NAME.json`. Further policies of a family share the tokenizer of its
first one, which must be the same.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from dllm_rl.files import replace_folder, sha256
from dllm_rl.policies.checkpoints import CHECKPOINTS

SHIPPED = ("config.json", "generation_config.json", "model.safetensors")


def ship(source: Path) -> None:
    """Copy one checkpoint without its tokenizer, beside a hash of every file."""
    family = json.loads((source / "config.json").read_text())["policy"]["family"]
    if sha256(source / "tokenizer.json") != sha256(CHECKPOINTS / family / "tokenizer.json"):
        raise SystemExit(f"{source}: its tokenizer is another than that of builtin:{family}")
    with replace_folder(CHECKPOINTS / source.name) as temporary:
        files = [source / name for name in SHIPPED if (source / name).is_file()]
        for path in files:
            shutil.copyfile(path, temporary / path.name)
        record = {path.name: sha256(path) for path in files}
        (temporary / "digest.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    """Ship every finished stage of the folder, and its recipe."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    for path in sorted(folder.glob("*/model.safetensors")):
        ship(path.parent)
        print(path.parent.name)
    shutil.copyfile(folder / "recipe.json", CHECKPOINTS / f"recipe_{name}.json")


if __name__ == "__main__":
    main()
