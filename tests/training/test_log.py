from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dopant.errors import FileError, ResumeError
from dopant.training.log import TrainingLog


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write("step", step=1, loss=0.5)
    log.write("epoch", epoch=1, valid_perplexity=math.inf)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log.events
    assert log.of("step") == [{"step": 1, "loss": 0.5}]
    assert log.size() == (tmp_path / "log.jsonl").stat().st_size
    log.close()
    log.close()


def test_a_log_is_cut_back_to_what_the_checkpoint_knew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path)
    log.write("step", step=1)
    size = log.size()
    log.write("step", step=2)
    log.close()
    with path.open("ab") as file:
        file.write(b'{"event": "st')  # the process was killed here
    again = TrainingLog(path, size)
    assert again.of("step") == [{"step": 1}]
    again.write("step", step=3)
    again.close()
    assert path.read_text() == '{"event": "step", "step": 1}\n{"event": "step", "step": 3}\n'


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("old\n")
    TrainingLog(tmp_path / "log.jsonl").close()
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_without_a_file_it_stays_in_memory() -> None:
    log = TrainingLog(None)
    log.write("step", step=1)
    assert (log.of("step"), log.size()) == ([{"step": 1}], 0)


@pytest.mark.parametrize(
    "there", [None, "", '{"event": "step"}\n', '{"event": "step", "a": 1]\n', "[1, 2, 3, 4, 5]\n" * 3]
)
def test_a_lost_or_altered_log_is_refused_and_left_as_it_is(tmp_path: Path, there: str | None) -> None:
    path = tmp_path / "log.jsonl"
    if there is not None:
        path.write_text(there)
    with pytest.raises(ResumeError, match=r"is not the log that the checkpoint beside it goes with.*--force"):
        TrainingLog(path, 25)
    assert (path.read_text() if path.exists() else "") == (there or "")


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the log .* could not be written: No such file"):
        TrainingLog(tmp_path / "nowhere" / "log.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log._file = Path("/dev/full").open("r+b")  # noqa: SIM115
    with pytest.raises(FileError, match="No space left on device; free some space and resume"):
        log.write("step", step=1)
    with pytest.raises(FileError, match="No space left"):
        log.close()
