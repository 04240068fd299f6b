"""`dllm-rl episode`: an oracle's and a policy's episode in the terminal and as a page."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dllm_rl.errors import ConfigError
from experiments.cli import app
from experiments.cli.episode import EpisodePolicy, show_episode
from experiments.cli.turns import TurnOptions

NONE = TurnOptions(notebook="{memory: none}")
CODES = "{name: episodes, options: {kinds: [code], difficulties: [1]}}"


@pytest.mark.browser
def test_an_episode_of_the_oracle_is_shown_turn_by_turn(tmp_path) -> None:
    out = tmp_path / "pages" / "episode.html"
    done = CliRunner().invoke(app, ["episode", "--environment", CODES, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "turn 3" in done.output and "finished after 3 turns, reward 1; success" in done.output
    page = out.read_text()
    assert page.count("data:image/png;base64,iVBOR") == 3 and "<script" not in page
    assert "1 of 2 wanted values hold by its end" in page and "2 of 2 wanted values hold by its end" in page
    assert "did note" not in page and "note &#34;" in page


@pytest.mark.browser
def test_a_policy_that_learned_other_pages_plays_too_and_its_failure_is_told(capsys) -> None:
    player = EpisodePolicy(what="builtin:masked", turns=NONE, sampler=None, temperature=0.0, seed=0)
    short = "{name: episodes, options: {kinds: [wizard], difficulties: [1], max_turns: 2}}"
    code = show_episode(player, split="val", number=0, environment=short, out=None)
    said = capsys.readouterr().out
    assert code == (0 if "; success" in said else 1)
    assert "turn 1" in said and "page 1:" in said


def test_what_makes_no_episode_is_refused() -> None:
    player = EpisodePolicy(what="oracle", turns=TurnOptions(), sampler=None, temperature=0.0, seed=0)
    with pytest.raises(ConfigError, match="takes whole plans"):
        show_episode(player, split="val", number=0, environment="toy_copy", out=None)
    with pytest.raises(ConfigError, match="counted from 0"):
        show_episode(player, split="val", number=10_000, environment="episodes", out=None)
    reading = EpisodePolicy(what="oracle", turns=NONE, sampler=None, temperature=0.0, seed=0)
    with pytest.raises(ConfigError, match="an oracle reads the page alone"):
        show_episode(reading, split="val", number=0, environment="episodes", out=None)
