from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dopant.cli import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they like, whatever the shell says that runs the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def dopant() -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Result:
        given = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, given, obj=given, prog_name="dopant")

    return run


@pytest.fixture(scope="session")
def golden_report() -> Path:
    return Path(__file__).parent.parent / "reporting" / "golden" / "report-1.json"


@pytest.fixture
def comparison(golden_report: Path, tmp_path: Path) -> Path:
    """A folder with a report of three rows, so that its page is quickly made."""
    data = json.loads(golden_report.read_text())
    data["rows"] = [row for row in data["rows"] if row["method"] in ("dense", "pruning", "doped-kronecker")]
    (tmp_path / "report.json").write_text(json.dumps(data))
    return tmp_path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of a few words."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for split, lines in (("train", 60), ("valid", 12), ("test", 12)):
        text = "\n".join(" ".join(draw.choice(["one", "two", "three", "four"]) for _ in range(9)) for _ in range(lines))
        (folder / f"{split}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small dense model that the command line has trained."""
    out = tmp_path_factory.mktemp("runs") / "dense"
    arguments = ["train", "dense", "--corpus", str(corpus), "--out", str(out), "--seed", "3", "--threads", "1"]
    settings = ["model.hidden=16", "model.layers=1", "training.epochs=1", "training.batch=4", "training.unroll=5"]
    for setting in settings:
        arguments += ["--set", setting]
    result = CliRunner().invoke(app, arguments, obj=arguments)
    assert result.exit_code == 0, result.output
    return out


class Recorded:
    """Stands in for a function of the pipeline: checks that the call fits its signature, and keeps the arguments."""

    def __init__(self, function: Callable[..., Any], answer: object) -> None:
        self.signature = inspect.signature(function)
        self.answer = answer
        self.arguments: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        self.arguments = dict(bound.arguments)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], Recorded]:
    """Replace a function of the pipeline by one that answers or raises what is given."""
    from dopant.recipes import pipeline as real

    def stand_in(name: str, answer: object) -> Recorded:
        recorded = Recorded(getattr(real, name), answer)
        monkeypatch.setattr(real, name, recorded)
        return recorded

    return stand_in
