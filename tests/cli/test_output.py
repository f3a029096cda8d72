from __future__ import annotations

import json
import os
import sys
from math import inf, nan
from pathlib import Path

import pytest

from dopant.cli.output import say, show_json, stdout, width


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": [nan, 1.5, {"b": -inf}], "c": (1, None, "×")})
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {"a": [None, 1.5, {"b": None}], "c": [1, None, "×"]}
    assert "×" in out


def test_messages_go_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say("two", quiet=True)
    captured = capsys.readouterr()
    assert captured.err == "one\n"
    assert captured.out == ""


def test_the_width_is_that_of_columns_or_of_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("w") as file:
        assert width(file) is None
        monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((77, 24)))
        assert width(file) == 77
        monkeypatch.setenv("COLUMNS", "60")
        assert width(file) == 60
        monkeypatch.setenv("COLUMNS", "0")
        assert width(file) == 77
        monkeypatch.setenv("COLUMNS", "60")
    assert stdout().width == 60


def test_a_pipe_is_wide_enough_for_tables() -> None:
    assert width(sys.stdout) is None
    assert stdout().width == 120
