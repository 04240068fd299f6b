"""Run the notebooks of docs/notebooks. `python -m tests.notebooks` runs them and stores what they show.

Cells run one after another in this process, without a kernel: what is imported and warm-started is shared with others.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def execute(path: Path) -> dict[str, Any]:
    """Run a notebook and return it with what its cells show. A cell that fails raises its error."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell["execution_count"] = number
        cell["outputs"] = _run("".join(cell["source"]), names, f"{path.name}, cell {number}", number)
    return notebook


def _run(source: str, names: dict[str, Any], title: str, number: int) -> list[dict[str, Any]]:
    """Run a cell: what it prints, its pictures, and its last line's value."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(tree, title, "exec", dont_inherit=True), names)
        value = _value(last, names, title) if isinstance(last, ast.Expr) else None
    shown: list[dict[str, Any]] = []
    if said.getvalue():
        shown.append({"output_type": "stream", "name": "stdout", "text": said.getvalue().splitlines(keepends=True)})
    shown += [{"output_type": "display_data", "metadata": {}, "data": {"image/png": image}} for image in _pictures()]
    if value is not None:
        data = {"text/html": [value._repr_html_()]} if hasattr(value, "_repr_html_") else {"text/plain": [repr(value)]}
        shown.append({"output_type": "execute_result", "metadata": {}, "execution_count": number, "data": data})
    return shown


def _value(last: ast.Expr, names: dict[str, Any], title: str) -> Any:
    if isinstance(last.value, ast.Call) and ast.unparse(last.value.func) == "plt.show":
        return None
    return eval(compile(ast.Expression(last.value), title, "eval", dont_inherit=True), names)


def _pictures() -> list[str]:
    """Figures that are open, as PNG in base64; they are closed."""
    images = []
    for number in plt.get_fignums():
        image = io.BytesIO()
        plt.figure(number).savefig(image, format="png", dpi=90)
        images.append(base64.b64encode(image.getvalue()).decode())
    plt.close("all")
    return images


def main() -> None:
    """Store the notebooks with what they show."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        path.write_text(json.dumps(execute(path), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
