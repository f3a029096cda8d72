from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dopant.benchmarking.engines import NAMES
from dopant.cli.bench import ENGINES

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SHORT = ["--engines", "torch,torch-int8", "--part", "lstm", "--case", "step", "--batch", "1,2", "--threads", "1"]
SHORT += ["--caches", "warm", "--seconds", "0.01", "--no-memory"]


def test_the_help_names_all_engines() -> None:
    assert ",".join(NAMES) == ENGINES


def test_a_folder_is_measured(trained: Path, dopant: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench"
    result = dopant("bench", trained, *SHORT, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(row["engine"], row["batch"]) for row in found["rows"]] == [
        ("torch", 1),
        ("torch-int8", 1),
        ("torch", 2),
        ("torch-int8", 2),
    ]
    assert found["protocol"]["model"] == trained.name
    assert json.loads((out / "bench.json").read_text()) == found
    assert "<!doctype html>" in (out / "bench.html").read_text()
    assert "[0/2] lstm: building 2 engines for 1 thread" in result.stderr
    again = dopant("bench", trained, *SHORT, "--out", out)
    assert again.exit_code == 2
    assert "holds a benchmark already" in again.stderr


def test_an_untrained_model_is_measured(dopant: Run) -> None:
    result = dopant("bench", "--model", "tiny", "--vocabulary", 50, "--target", "25x", *SHORT, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "LSTM alone, 1 thread, caches warm, µs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model folder, or an untrained model with --model"),
        (["nowhere", "--model", "tiny"], "give a model folder, or an untrained model with --model"),
        (["nowhere", "--target", "25x"], "--target: for an untrained model"),
        (["nowhere", "--scope", "lstm", "--vocabulary", "9"], "--scope, --vocabulary: for an untrained model"),
        (["nowhere"], "nowhere"),
        (["--model", "tyni"], "model 'tyni' is not known; choose tiny, small"),
        (["--model", "tiny", "--engines", "torch,tensorflow"], "engine 'tensorflow' is not known"),
        (["--model", "tiny", "--batch", "0"], "batch must be 1 or more, got 0"),
        (["--model", "tiny", "--batch", "1,x"], "--batch takes whole numbers joined by commas"),
        (["--model", "tiny", "--threads", "many"], "--threads takes whole numbers"),
        (["--model", "tiny", "--part", "gru"], "part 'gru' is not known"),
        (["--model", "tiny", "--target", "1000000x"], "cannot be met by doped-kronecker"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, dopant: Run) -> None:
    result = dopant("bench", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_without_onnxruntime_the_others_go_on(trained: Path, dopant: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dopant.benchmarking import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    result = dopant("bench", trained, *SHORT, "--engines", ENGINES, "--quiet")
    assert result.exit_code == 0, result.output
    assert "pip install 'dopant[onnx]'" in result.stdout
    assert "torch" in result.stdout
