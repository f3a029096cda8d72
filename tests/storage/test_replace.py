from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest

from dopant.errors import FileError, InputError
from dopant.storage import replace
from dopant.storage.replace import existing, written_beside

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
SIZE = 20_000


def write(folder: Path, letter: str, **options: bool) -> None:
    with written_beside(folder, **{"replace": True} | options) as beside:
        (beside / "a").write_text(letter * SIZE)
        (beside / "b").write_text(letter * SIZE)


def contents(folder: Path) -> str:
    """The letter of which both files consist, after checking that they do."""
    first, second = ((existing(folder) / name).read_text() for name in "ab")
    assert first == second == first[0] * SIZE
    return first[0]


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "model", "x", replace=False)
    assert contents(tmp_path / "deep" / "model") == "x"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


def test_an_old_folder_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "model", "x")
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "model", "y", replace=False)
    assert contents(tmp_path / "model") == "x"
    write(tmp_path / "model", "y")
    assert contents(tmp_path / "model") == "y"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_made_by_someone_else_in_the_meantime_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def overtaken() -> None:
        with written_beside(folder, replace=False) as beside:
            (beside / "a").touch()
            folder.mkdir()
            (folder / "theirs").touch()

    with pytest.raises(InputError, match="meantime"):
        overtaken()
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with written_beside(tmp_path / "model", replace=True) as beside:
            (beside / "a").touch()
            raise error

    write(tmp_path / "model", "x")
    with pytest.raises(error):
        interrupted()
    assert contents(tmp_path / "model") == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "cannot be written")])
@pytest.mark.parametrize("where", ["write", "sync"])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str, where: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def failing() -> None:
        with written_beside(tmp_path / "model", replace=True) as beside:
            (beside / "a").touch()
            if where == "write":
                fail()

    write(tmp_path / "model", "x")
    if where == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=text):
        failing()
    assert contents(tmp_path / "model") == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    sync = replace._sync

    def record(path: Path) -> None:
        sync(path)
        synced.append((path.name, (tmp_path / "model").exists()))

    monkeypatch.setattr(replace, "_sync", record)
    write(tmp_path / "model", "x")
    assert {name for name, named in synced if not named} >= {"a", "b"}
    assert [name.startswith(".model.partial-") for name, _ in synced] == [False, False, True, False]
    assert synced[-1] == (tmp_path.name, True)


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "file" / "model", "x")


def test_a_link_to_a_folder_goes_on_pointing_to_it(tmp_path: Path) -> None:
    write(tmp_path / "model", "x")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    write(tmp_path / "link", "y")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "model") == "y"


@needs_fork
@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_any_moment_the_old_or_the_new_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(replace, "_exchange", lambda first, second: False)
    folder = tmp_path / "model"
    write(folder, "x")
    chance = random.Random(0)
    for _ in range(25):
        child = os.fork()
        if child == 0:
            while True:
                write(folder, "y")
                write(folder, "x")
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert contents(folder) in "xy"
    write(folder, "z")
    assert contents(folder) == "z"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@needs_fork
def test_killed_between_the_two_renames_the_old_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write(folder, "x")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(replace, "_exchange", lambda first, second: False)
        rename = Path.rename

        def then_die(self: Path, target: Path) -> None:
            rename(self, target)
            os._exit(0)

        monkeypatch.setattr(Path, "rename", then_die)
        write(folder, "y")
    os.waitpid(child, 0)
    assert not folder.exists()
    assert contents(folder) == "x"
    with pytest.raises(InputError, match="exists already"):
        write(folder, "y", replace=False)
    assert contents(folder) == "x"
    write(folder, "y")
    assert contents(folder) == "y"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_running_writer_has_open_is_left_alone(tmp_path: Path) -> None:
    with written_beside(tmp_path / "model", replace=True) as beside:
        (beside / "a").touch()
        theirs = beside.with_name(beside.name.rsplit("-", 2)[0] + f"-{os.getppid()}-0")
        gone = beside.with_name(beside.name.rsplit("-", 2)[0] + "-999999999-0")
        theirs.mkdir()
        gone.mkdir()
    write(tmp_path / "model", "x")
    assert theirs.exists()
    assert not gone.exists()


def test_two_writers_in_one_process_do_not_mix(tmp_path: Path) -> None:
    with written_beside(tmp_path / "model", replace=True) as first:
        (first / "a").write_text("x" * SIZE)
        write(tmp_path / "model", "y")
        (first / "b").write_text("x" * SIZE)
    assert contents(tmp_path / "model") == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_files_are_opened_for_writing_to_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows syncs no others."""
    flags: dict[str, int] = {}
    opened = os.open

    def seen(path: Path, flag: int) -> int:
        flags[path.name] = flag
        return opened(path, flag)

    monkeypatch.setattr(replace.os, "open", seen)
    write(tmp_path / "model", "x")
    assert {flags["a"], flags["b"]} == {os.O_RDWR}
