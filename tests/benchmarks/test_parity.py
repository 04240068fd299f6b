"""The comparison with public losses finds what agrees and what does not, and says what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import parity, public_code
from dllm_rl.errors import ConfigError

# A loss as trainers built on TRL have it: mean over all tokens, ratio clipped at epsilon, k3 to the reference.
LOSS = """
import a_package_that_nobody_has

class DiffuGRPOTrainer(Base):
    @profiled
    def compute_loss(self, model: Unknown, inputs, return_outputs=False):
        new = self._get_per_token_logps(model, None, 0, [0])[0]
        old, ref = (inputs[name][0].squeeze(0) for name in ("old_per_token_logps", "ref_per_token_logps"))
        ratio, a = torch.exp(new - old), inputs["advantages"].unsqueeze(1)
        gain = torch.min(ratio * a, torch.clamp(ratio, 1 - self.epsilon, 1 + self.epsilon) * a)
        kl = torch.exp(ref - new) - (ref - new) - 1
        mask = inputs["completion_mask"]
        return {sign}(((self.beta * kl - gain) * mask).sum() / mask.sum())
"""


def checkout(folder: Path, text: str) -> Path:
    path = folder / "d1" / parity.CODE["d1"].file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


def found(folder: Path) -> list[dict[str, Any]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in parity.table(folder)[2:]]
    return [{"method": row[0], "full": row[3], "ragged": row[4]} for row in rows]


def test_equal_losses_are_exact_and_another_mean_is_found_on_ragged_rows(tmp_path: Path) -> None:
    rows = found(checkout(tmp_path, LOSS.format(sign="")))
    assert [row["method"] for row in rows] == ["`grpo`", "`dapo`"]
    assert rows[1] == {"method": "`dapo`", "full": "exact", "ragged": "exact"}
    assert rows[0]["full"] == "exact" and rows[0]["ragged"].startswith("gradient off by")


def test_a_wrong_sign_is_found(tmp_path: Path) -> None:
    rows = found(checkout(tmp_path, LOSS.format(sign="-")))
    assert "cos -1.0000, length x1.000" in rows[1]["full"]


def test_a_version_without_the_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no function compute_loss"):
        parity.table(checkout(tmp_path, "x = 1"))


def test_without_checkouts_it_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["parity"])
    with pytest.raises(SystemExit):
        parity.main()
    told = capsys.readouterr().out
    assert all(code.folder in told for code in parity.CODE.values())
    codes = parity.CODE.values()
    assert public_code.missing(codes, checkout(tmp_path, LOSS)) == [
        line for line in public_code.missing(codes, None) if not line.startswith("d1:")
    ]


def test_the_table_goes_between_the_markers_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{parity.BEGIN}\nold\n{parity.END}\nafter\n")
    public_code.write_between(page, ["| a |"], (parity.BEGIN, parity.END))
    assert page.read_text() == f"before\n{parity.BEGIN}\n\n| a |\n\n{parity.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="lacks the lines"):
        public_code.write_between(page, ["| a |"], (parity.BEGIN, parity.END))
