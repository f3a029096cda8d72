from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("layout", ["expand", "scan"])
def test_an_export_is_verified(layout: str, trained: Path, corpus: Path, dopant: Run, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    result = dopant("export", trained, "--out", out, "--layout", layout, "--verify", "--corpus", corpus, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["bytes"] == out.stat().st_size
    assert found["layout"] == layout
    assert found["verified"]["logits"] < 1e-5
    assert found["verified"]["perplexity_onnx"] == pytest.approx(found["verified"]["perplexity"], rel=1e-5)


def test_in_words(trained: Path, dopant: Run, tmp_path: Path) -> None:
    result = dopant("export", trained, "--out", tmp_path / "m.onnx", "--verify")
    assert result.exit_code == 0, result.output
    assert "bytes, layout expand" in result.stderr
    assert "of the largest one" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layout", "fold"], "layout 'fold' is not known; choose one of expand, scan"),
        (["--corpus", "x"], "--corpus is what --verify reads"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, trained: Path, dopant: Run, tmp_path: Path) -> None:
    result = dopant("export", trained, "--out", tmp_path / "m.onnx", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_model(dopant: Run, tmp_path: Path) -> None:
    result = dopant("export", tmp_path, "--out", tmp_path / "m.onnx")
    assert result.exit_code == 2
    assert "not a whole model folder" in result.stderr


def test_what_verification_needs_is_found_before_anything_is_written(
    trained: Path, corpus: Path, dopant: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("export", trained, "--out", tmp_path / "m.onnx", "--verify")
    result = dopant(*arguments, "--corpus", tmp_path / "nowhere")
    assert result.exit_code == 2
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = dopant(*arguments, "--corpus", corpus)
    assert result.exit_code == 2
    assert "onnxruntime is not installed" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_from_its_model_is_not_left(
    trained: Path, dopant: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dopant.exporting.verify.TOLERANCE", -1.0)
    out = tmp_path / "m.onnx"
    out.write_text("the old one")
    result = dopant("export", trained, "--out", out, "--verify", "--force")
    assert result.exit_code == 2
    assert "differs from the model" in result.stderr
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the old one"]
