from __future__ import annotations

import pytest

from dopant.cli.plans import say_plan, say_plans
from dopant.errors import PlanError
from dopant.plan.plan import Place, make_plan

PLACES = [Place("lstm.weight_l0", (64, 32), 4, True, True), Place("decoder.weight", (100, 16))]


def test_every_weight_and_both_readings_of_the_factor(capsys: pytest.CaptureFixture[str]) -> None:
    plans = {"lmf": make_plan(PLACES, method="lmf", target="5x"), "kronecker": PlanError("target 5x cannot be met")}
    say_plans(plans)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[3].split()[:3] == ["lmf", "lstm.weight_l0", "64×32"]
    assert "decoder" not in captured.err
    assert "% kept; bytes" in lines[4]
    assert lines[5].split(maxsplit=1) == ["kronecker", "target 5x cannot be met"]


def test_plans_fit_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    say_plans({"lmf": make_plan(PLACES, method="lmf", target="5x"), "kronecker": PlanError("target 5x " * 9)})
    say_plan(make_plan(PLACES, method="lmf", target="5x"))
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 50


def test_one_plan_shows_what_it_leaves_alone(capsys: pytest.CaptureFixture[str]) -> None:
    say_plan(make_plan(PLACES, method="lmf", target="5x"))
    assert "decoder.weight" in capsys.readouterr().err
