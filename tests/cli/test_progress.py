from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dopant.cli import progress as module
from dopant.cli.progress import Bars, Lines, progress, share, state, watching
from dopant.errors import InputError
from dopant.recipes.places import Places
from dopant.recipes.side_by_side import Standing


def test_share() -> None:
    assert share(Standing("waiting")) == 0
    assert share(Standing("training", 30, 120)) == 0.25
    assert share(Standing("done")) == 1


def test_state_in_words() -> None:
    assert state(Standing("training", 1200, 5000, 61.234)) == (
        "training 1,200 of 5,000 steps, validation perplexity 61.23"
    )
    assert state(Standing("waiting")) == "waiting"


def test_lines_tell_news_alone(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines({"a": Standing("training", 1, 10), "b": Standing("waiting")})
    lines({"a": Standing("training", 5, 10), "b": Standing("waiting")})
    lines({"a": Standing("training", 10, 10, 50.0), "b": Standing("training")})
    lines({"a": Standing("done", perplexity=49.0), "b": Standing("failed")})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "a: training 1 of 10 steps",
        "a: training 10 of 10 steps, validation perplexity 50.00",
        "b: training",
        "a: done, validation perplexity 49.00",
        "b: failed",
    ]


def test_bars_follow_the_runs() -> None:
    with module._bars() as live:
        bars = Bars(live)
        bars({"a": Standing("training", 5, 10), "b": Standing("waiting")})
        assert [task.completed for task in live.tasks] == [0.5, 0]
        assert [task.started for task in live.tasks] == [True, False]
        bars({"a": Standing("done", perplexity=3.0), "b": Standing("failed")})
        assert live.tasks[0].finished
        assert live.tasks[0].fields["state"] == "done, validation perplexity 3.00"


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as listener:
        listener({"a": Standing("done")})
    assert capsys.readouterr().err == ""


def test_a_run_is_watched_by_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by that of an older run in its place."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    log = Places(tmp_path / "model").log
    log.parent.mkdir()
    log.write_text(json.dumps({"event": "epoch", "step": 9, "valid_perplexity": 99.5}) + "\n")
    with watching("model", tmp_path / "model", quiet=False):
        time.sleep(0.1)
        assert "99.5" not in capsys.readouterr().err
        log.write_text(json.dumps({"event": "epoch", "step": 7, "valid_perplexity": 12.5}) + "\n")
        time.sleep(0.1)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "model: training, validation perplexity 12.50",
        "model: done, validation perplexity 12.50",
    ]


def test_what_cannot_be_written_is_not_watched() -> None:
    with pytest.raises(InputError, match="/ cannot become a model folder"), watching("", Path("/"), quiet=True):
        raise AssertionError("begun")


def test_the_watch_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="the run"), watching("model", tmp_path / "model", quiet=False):
        raise ValueError("the run")
    assert "done" not in capsys.readouterr().err
