"""The comparison with public samplers finds equal tokens and other ones, and says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import decoding_cases, decoding_parity, public_code
from dllm_rl.errors import ConfigError

# A loop as LLaDA's code has it: the surest masked positions of each block, as many a step.
LOOP = """
import a_package_that_nobody_has

@torch.no_grad()
def generate(model, prompt, attention_mask=None, steps=1, gen_length=1, block_length=1, mask_id=None):
    width = prompt.shape[1]
    x = torch.cat([prompt, torch.full((len(prompt), gen_length), mask_id)], dim=1)
    for begin in range(width, width + gen_length, block_length):
        each = gen_length // steps
        for step in range(steps * block_length // gen_length):
            best = model(x, attention_mask=attention_mask).logits.softmax(dim=-1).max(dim=-1)
            sure = torch.where(x == mask_id, {sign}best.values, -2.0)
            sure[:, begin + block_length:] = -2.0
            chosen = sure.topk(each, dim=1).indices
            x = x.scatter(1, chosen, best.indices.gather(1, chosen))
    return x

def add_gumbel_noise(logits, temperature):
    return logits

def get_num_transfer_tokens(mask_index, steps):
    return None
"""


@pytest.fixture
def one_case(monkeypatch):
    case = decoding_cases.llada({"steps": 16, "block_length": 32}, num_steps=16, block_length=32)
    monkeypatch.setattr(decoding_parity, "CASES", (case,))
    monkeypatch.setattr(decoding_parity, "SHARPNESS", (2.0,))


def found(folder: Path, text: str) -> list[str]:
    path = folder / "LLaDA" / "generate.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (row,) = decoding_parity.table(folder)[2:]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_equal_loops_write_equal_tokens(tmp_path, one_case):
    assert found(tmp_path, LOOP.format(sign=""))[4:] == ["3 of 3", "3 of 3", "192 of 192"]


def test_another_order_writes_other_tokens(tmp_path, one_case):
    assert found(tmp_path, LOOP.format(sign="-"))[4] == "0 of 3"


def test_a_version_without_the_function_is_named(tmp_path, one_case):
    with pytest.raises(ConfigError, match="has no function generate"):
        found(tmp_path, "x = 1")


def test_without_checkouts_it_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["decoding_parity"])
    with pytest.raises(SystemExit):
        decoding_parity.main()
    told = capsys.readouterr().out
    assert all(code.folder in told for code in decoding_parity.CODE.values())


def test_every_case_names_code_that_the_command_asks_for():
    assert {case.code for case in decoding_parity.CASES} == decoding_parity.CODE.keys()
    assert len(public_code.missing(decoding_parity.CODE.values(), None)) == 5
