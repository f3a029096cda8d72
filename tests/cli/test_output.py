from __future__ import annotations

import json
from math import inf, nan

import pytest

from dopant.cli.output import say, show_json


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
