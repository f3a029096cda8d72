"""`dopant results` on the command line, with the work itself replaced but once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dopant.cli.results import counted, lines
from dopant.recipes.results import Results, State

if TYPE_CHECKING:
    from tests.cli.conftest import Recorded, Run

    Pipeline = Callable[[str, object], Recorded]

DENSE = """method: dense
model: {hidden: 16, layers: 1, init: 0.2}
training: {epochs: 1, batch: 4, unroll: 5, constant_epochs: 1}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "dense.yaml").write_text(DENSE)
    (tmp_path / "lmf.yaml").write_text(DENSE.replace("dense", "lmf") + "target: 2x\ncount: parameters\n")
    (tmp_path / "experiment.yaml").write_text("rows: {dense: [0, 1], lmf: [0]}\n")
    return tmp_path


def test_arguments_arrive(pipeline: Pipeline, dopant: Run) -> None:
    recorded = pipeline("results", Results((), None, None))
    more = ["--rows", "a, b*", "--seeds", "0,2", "--jobs", "3", "--device", "cuda", "--replace", "--runs", "elsewhere"]
    result = dopant("results", "experiments/x", "--corpus", "ptb", "--out", "here", *more)
    assert result.exit_code == 0
    assert "no record counts yet" in result.stderr
    given = recorded.arguments
    assert (given["experiment"], given["corpus"]) == (Path("experiments/x"), "ptb")
    assert (given["rows"], given["seeds"], given["jobs"]) == (["a", "b*"], [0, 2], 3)
    assert (given["device"], given["replace"], given["dry_run"]) == ("cuda", True, False)
    assert (given["out"], given["runs"]) == (Path("here"), Path("elsewhere"))


def test_an_interruption_says_how_to_go_on(pipeline: Pipeline, dopant: Run) -> None:
    pipeline("results", KeyboardInterrupt())
    result = dopant("results", "experiments/x")
    assert result.exit_code == 130
    assert "what is done is kept; the same command goes on" in result.stderr


def test_how_runs_stand() -> None:
    states = [
        State("dense-seed0", "done", "made by commit abc", counts=True),
        State("lmf-seed0", "missing", "", make=True),
        State("pruning-seed0", "out of date", "epochs is 2, was 1", make=True),
        State("dense-seed1", "done", "made by commit abc; its model is needed for lmf-seed1", counts=True, train=True),
    ]
    assert lines(states) == [
        "dense-seed0    done                         made by commit abc",
        "lmf-seed0      missing, to be made",
        "pruning-seed0  out of date, to be replaced  epochs is 2, was 1",
        "dense-seed1    done, model to be trained    made by commit abc; its model is needed for lmf-seed1",
    ]
    assert counted(states[:3]) == "3 runs: 1 done, 1 missing, 1 out of date; 2 to be made now"
    models = ", for which 1 dense model is trained"
    assert counted(states) == f"4 runs: 2 done, 1 missing, 1 out of date; 2 to be made now{models}"
    assert counted([*states, states[-1]]).endswith("2 to be made now, for which 2 dense models are trained")


def test_from_the_first_look_to_the_table(experiment: Path, corpus: Path, tmp_path: Path, dopant: Run) -> None:
    arguments = ["results", experiment, "--corpus", corpus, "--out", tmp_path / "out", "--runs", tmp_path / "runs"]
    look = dopant(*arguments, "--dry-run")
    assert look.exit_code == 0, look.output
    assert look.stdout.splitlines()[0] == "dense-seed0  missing, to be made"
    assert "3 runs: 3 missing; 3 to be made now" in look.stderr
    assert not (tmp_path / "out").exists()

    result = dopant(*arguments, "--device", "cpu", "--jobs", "2")
    assert result.exit_code == 0, result.output
    assert "± " in result.stdout
    assert "dense-seed1: done" in result.stderr
    record = json.loads((tmp_path / "out" / "dense-seed1.json").read_text())
    assert record["run"]["row"] == "dense"
    assert str(tmp_path) not in json.dumps(record)

    data = json.loads(dopant(*arguments, "--json", "-q").stdout)
    assert {run["state"] for run in data["runs"]} == {"done"}
    assert [row["method"] for row in data["report"]["rows"]] == ["dense", "lmf"]


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_records_that_do_not_count_are_told_of(
    quiet: list[str], experiment: Path, corpus: Path, tmp_path: Path, dopant: Run
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lmf-seed0.json").write_text("damaged")
    arguments = ["results", experiment, "--corpus", corpus, "--out", tmp_path / "out", "--tables-only"]
    result = dopant(*arguments, *quiet)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("lmf-seed0  another's ")
    assert ("3 runs: 2 missing, 1 another's" in result.stderr) == (not quiet)
    assert "dense-seed0" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "there is no experiment at nowhere"),
        (["{}", "--rows", "densse"], "did you mean 'dense'?"),
        (["{}", "--seeds", "0,x"], "--seeds 0,x: 'x' is no seed"),
        (["{}", "--seeds", "9"], "no row of"),
        (["{}", "--seeds", ","], "no seed is named"),
        (["{}", "--rows", ""], "no row is named"),
        (["{}", "--corpus", "nowhere"], "there is no corpus 'nowhere'"),
        (["{}", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["{}", "--device", "meta", "--dry-run"], "needed is cpu or cuda, or cuda:0 for one of several"),
    ],
)
def test_mistakes_are_refused(arguments: list[str], complaint: str, experiment: Path, dopant: Run) -> None:
    before = sorted(experiment.rglob("*"))
    result = dopant("results", *[argument.format(experiment) for argument in arguments])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    assert sorted(experiment.rglob("*")) == before
