"""A run that is killed at any moment and resumed ends with the same bytes as one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus, make_corpus
from dopant.errors import InputError, ResumeError
from dopant.recipes.read import resolved_yaml
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.training.descent import Descent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")

SERVER = """
import json, os, sys, traceback
import dopant.recipes.pipeline, dopant.training.loop

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            exec(json.loads(line), {})
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
TRAIN = """
import sys
from dopant.recipes.pipeline import train
train({recipe!r}, {corpus!r}, out={out!r}, dense={dense!r}, resume=True)
"""
SLOW = """
import time
from dopant.training.descent import Descent
real = Descent.step
Descent.step = lambda *args: (time.sleep({seconds}), real(*args))
"""
KILL = """
import os, pathlib, signal, time
import dopant.recipes.run, dopant.training.checkpoint, dopant.training.log, dopant.training.loop

def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

def at(owner, name, call, act=lambda *args, **kwargs: die(), only=lambda *args: True):
    real, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(1) if only(*args) else None
        return (act if len(calls) == call and only(*args) else real)(*args, **kwargs)

    setattr(owner, name, counted)

def after(real):
    def act(*args, **kwargs):
        real(*args, **kwargs)
        die()
    return act

def half_a_file(tensors, path, metadata):
    save(tensors, path, metadata)
    os.truncate(path, os.path.getsize(path) // 2)
    die()

def half_a_line(log, event, **values):
    log._file.write(b'{"event": "ste')
    log._file.flush()
    die()

run, checkpoint, log, loop = dopant.recipes.run, dopant.training.checkpoint, dopant.training.log, dopant.training.loop
save = checkpoint.save_file
is_checkpoint = lambda path, *args: path.name == "checkpoint.safetensors.new"
"""
MOMENTS = {
    "before the recipe is written": "at(dopant.recipes.places, 'write_text', 1)",
    "before the fingerprint is written": "at(dopant.recipes.places, 'write_text', 3)",
    "before the first step": "at(loop._Training, '_step', 1)",
    "while the first checkpoint is written": "at(checkpoint, 'save_file', 1, half_a_file)",
    "after a checkpoint was written, before it is renamed": "at(pathlib.Path, 'replace', 3, only=is_checkpoint)",
    "after it is renamed": "at(pathlib.Path, 'replace', 2, after(pathlib.Path.replace), only=is_checkpoint)",
    "in the middle of a step": "at(loop.Descent, 'step', 27)",
    "in the middle of a line of the log": "at(log.TrainingLog, 'write', 4, half_a_line)",
    "while an epoch is evaluated": "at(run, 'perplexity', 2)",
    "after an epoch's line, before its checkpoint": "at(checkpoint, 'save_file', 8)",
    "after the last step": "at(run, 'close_overlays', 1)",
    "while the model folder is written": "at(dopant.storage.write, 'write_tensors', 1)",
    "after the model folder is there": "at(run, 'describe_folder', 1)",
    "before the report is written": "at(run, 'write_report', 1)",
    "after the report is written": "at(run, 'write_report', 1, after(run.write_report))",
}


class Children:
    """Processes that have everything imported already."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, code: str) -> int:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(code) + "\n")
        self.server.stdin.flush()
        return self._answer()

    def end(self) -> int:
        return self._answer()

    def run(self, code: str) -> int:
        self.start(code)
        return self.end()

    def _answer(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    children = Children()
    yield children
    assert children.server.stdin is not None
    children.server.stdin.close()
    children.server.wait(20)


@pytest.fixture(scope="module")
def recipe(tiny: Callable[..., Recipe]) -> Recipe:
    """With everything that has a state or draws random numbers."""
    return tiny(
        "doped-kronecker",
        model={"hidden": 16, "dropout": 0.2},
        storage={"values": "int8"},
        training={
            "epochs": 2,
            "batch": 4,
            "unroll": 5,
            "trace_every": 13,
            "checkpoint_every": 10,
            "sparsify": {"begin": 0.1, "end": 0.8, "every": 3},
            "co_matrix_dropout": {"rate": 0.2},
            "distillation": {"weight": 0.3},
        },
    )


@pytest.fixture(scope="module")
def train(
    recipe: Recipe, corpus_folder: Path, dense_run: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], str]:
    """The program that trains into a folder, or goes on there."""
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(resolved_yaml(recipe))
    return lambda out: TRAIN.format(recipe=str(file), corpus=str(corpus_folder), out=str(out), dense=str(dense_run[0]))


def left_by(out: Path) -> tuple[bytes, list[Any], Any]:
    """What a run leaves, without seconds."""

    def untimed(data: Any) -> Any:
        if isinstance(data, dict):
            timed = ("seconds", "train_seconds")
            return {key: untimed(value) for key, value in data.items() if key not in timed}
        return [untimed(item) for item in data] if isinstance(data, list) else data

    run = out.with_name(out.name + ".run")
    log = [untimed(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in run.iterdir() if not path.name.endswith(".part")) == [
        *("fingerprint", "log.jsonl", "plan.json", "recipe.yaml", "report.json")
    ]
    return (out / "model.safetensors").read_bytes(), log, untimed(json.loads((run / "report.json").read_text())["rows"])


@pytest.fixture(scope="module")
def unbroken(
    children: Children, train: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[Any], Any]:
    out = tmp_path_factory.mktemp("unbroken") / "m"
    assert children.run(train(out)) == 0
    return left_by(out)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(
    moment: str, children: Children, train: Callable[[Path], str], unbroken: object, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    assert children.run(f"{KILL}\n{MOMENTS[moment]}\n{train(out)}") == -signal.SIGKILL
    assert children.run(train(out)) == 0
    assert left_by(out) == unbroken
    assert {path.name for path in tmp_path.iterdir()} == {"m", "m.run"}


def test_begun_before_there_was_a_setting(
    children: Children, train: Callable[[Path], str], unbroken: object, tmp_path: Path
) -> None:
    """By an older version: its recipe does not have the line, and the same text told that run from others."""
    older = """
resolved = run.resolved_yaml
run.resolved_yaml = lambda recipe: resolved(recipe).replace("    allocation: each\\n", "")
"""
    out = tmp_path / "m"
    assert children.run(f"{KILL}\n{older}\n{MOMENTS['in the middle of a step']}\n{train(out)}") == -signal.SIGKILL
    assert "allocation" not in (tmp_path / "m.run" / "recipe.yaml").read_text()
    assert children.run(train(out)) == 0
    assert left_by(out) == unbroken


def test_killed_again_and_again(
    children: Children, train: Callable[[Path], str], unbroken: object, tmp_path: Path
) -> None:
    """Every other time before the next checkpoint."""
    out, kills = tmp_path / "m", 0
    while children.run(f"{KILL}\nat(loop.Descent, 'step', {(23, 4)[kills % 2]})\n{train(out)}") == -signal.SIGKILL:
        kills += 1
        assert kills < 20
    assert kills > 4
    assert left_by(out) == unbroken


def test_killed_from_outside(
    children: Children, train: Callable[[Path], str], unbroken: object, tmp_path: Path
) -> None:
    """Whenever the log grows or a checkpoint appears, a moment later."""
    out, kills = tmp_path / "m", 0
    slow = SLOW.format(seconds=0.004)
    seen: tuple[object, ...] = ()
    for moment in range(4):
        pid = children.start(slow + train(out))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = standing(out.with_name("m.run"))
            if now != seen or (out / "config.json").exists():
                break
            time.sleep(0.001)
        time.sleep(0.003 * moment)
        seen = now
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        kills += children.end() == -signal.SIGKILL
    assert kills > 1
    assert children.run(train(out)) == 0
    assert left_by(out) == unbroken


def standing(run: Path) -> tuple[object, ...]:
    """Changes with each checkpoint and each line of the log."""
    found: list[object] = []
    for name in ("checkpoint.safetensors", "log.jsonl"):
        with suppress(FileNotFoundError):
            status = (run / name).stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def test_a_program_of_its_own_killed_and_run_again(
    train: Callable[[Path], str], unbroken: object, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    slow = SLOW.format(seconds=0.02)
    with subprocess.Popen([sys.executable, "-c", slow + train(out)]) as process:
        deadline = time.monotonic() + 60
        while not standing(out.with_name("m.run"))[1:] and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", train(out)], check=True, timeout=120)
    assert left_by(out) == unbroken


@pytest.fixture
def stopped(
    recipe: Recipe, corpus: Corpus, dense_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run that was stopped in its second epoch."""

    class Killed(BaseException):
        pass

    real, calls = Descent.step, []

    def stop(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 50:
            raise Killed
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Descent, "step", stop)
        with pytest.raises(Killed):
            run_recipe(recipe, corpus, tmp_path / "m", dense=dense_folder)
    return tmp_path / "m"


def test_another_recipe_corpus_or_model_is_refused_and_nothing_is_lost(
    stopped: Path,
    recipe: Recipe,
    tiny: Callable[..., Recipe],
    corpus: Corpus,
    dense_folder: Path,
    unbroken: tuple[bytes, list[Any], Any],
    snapshot: Callable[[Path], dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    elsewhere = tmp_path_factory.mktemp("other") / "dense"
    run_recipe(tiny("dense", seed=9), corpus, elsewhere)
    before = snapshot(stopped.parent)
    faster = recipe.model_copy(update={"training": recipe.training.model_copy(update={"learning_rate": 2.0})})
    larger = recipe.model_copy(update={"model": recipe.model.model_copy(update={"hidden": 32})})
    text = make_corpus("made-up", corpus.train, corpus.valid + "a cat sees water\n", corpus.test)
    for changed, read, dense in (
        (faster, corpus, dense_folder),
        (larger, corpus, dense_folder),
        (recipe.model_copy(update={"seed": 1}), corpus, dense_folder),
        (recipe, text, dense_folder),
        (recipe, corpus, elsewhere),
    ):
        with pytest.raises(ResumeError, match=r"m\.run belongs to another recipe, model or corpus .*resume with that"):
            run_recipe(changed, read, stopped, dense=dense, resume=True)
        assert snapshot(stopped.parent) == before
    report = run_recipe(recipe, corpus, stopped, dense=dense_folder, resume=True, command=["train", "--resume"])
    assert (stopped / "model.safetensors").read_bytes() == unbroken[0]
    assert (report.protocol.command, report.protocol.resumed) == ("dopant train", True)


@pytest.mark.parametrize("damaged", ["checkpoint.safetensors", "log.jsonl"])
def test_a_damaged_run_is_refused(
    damaged: str,
    stopped: Path,
    recipe: Recipe,
    corpus: Corpus,
    dense_folder: Path,
    snapshot: Callable[[Path], dict[str, bytes]],
) -> None:
    file = stopped.with_name("m.run") / damaged
    os.truncate(file, file.stat().st_size // 2)
    before = snapshot(stopped.parent)
    with pytest.raises(ResumeError, match=r"is damaged|is not the log"):
        run_recipe(recipe, corpus, stopped, dense=dense_folder, resume=True)
    assert snapshot(stopped.parent) == before


def test_a_stopped_run_is_not_overwritten_unasked(
    stopped: Path, recipe: Recipe, corpus: Corpus, dense_folder: Path, snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    before = snapshot(stopped.parent)
    with pytest.raises(InputError, match=r"m\.run exists; go on with --resume, replace it with --force"):
        run_recipe(recipe, corpus, stopped, dense=dense_folder)
    assert snapshot(stopped.parent) == before
