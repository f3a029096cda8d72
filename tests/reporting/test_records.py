from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dopant
from dopant import version
from dopant.errors import InputError
from dopant.reporting import records
from dopant.reporting.records import Record, find_code, find_commit, find_machine, make_record, read_kept, write_kept


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a package in it."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", "package")
    git(package.parent, "commit", "-q", "-m", "first")
    return package


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_record_says_what_was_run() -> None:
    record = make_record(["compare", "--corpus", "my texts", "--seed", "3"], seed=3, threads=2)
    assert record.command == "dopant compare --corpus 'my texts' --seed 3"
    assert record.seed == 3
    assert record.machine.threads == 2
    assert record.machine.cores >= 1
    assert record.machine.memory_bytes > 1e8
    assert record.versions.dopant == dopant.__version__
    assert re.match(r"2\.\d", record.versions.torch)
    assert re.match(r"\d\.\d", record.versions.numpy)


def test_the_command_of_a_resumed_run_is_the_one_that_does_it_all() -> None:
    assert make_record(["train", "lmf", "--resume", "--out", "m"], seed=0).command == "dopant train lmf --out m"


def test_time_is_utc_and_the_duration_that_since_the_start() -> None:
    started = datetime.now(UTC) - timedelta(seconds=90)
    record = make_record([], seed=0, threads=1, started=started)
    assert datetime.fromisoformat(record.time).utcoffset() == timedelta(0)
    assert record.seconds == pytest.approx(90, abs=30)


def test_a_record_tells_nothing_of_who_ran_it() -> None:
    text = make_record(["train"], seed=0, threads=1).model_dump_json()
    assert str(Path.home()) not in text
    assert str(Path(dopant.__file__).parent) not in text
    for private in {socket.gethostname(), getpass.getuser()} - {"root", "runner", "localhost"}:
        assert private not in text


def test_threads_are_those_of_torch() -> None:
    import torch

    assert find_machine().threads == torch.get_num_threads()


def test_round_trip(tmp_path: Path) -> None:
    record = make_record(["train"], seed=0, threads=1)
    assert read_kept(write_kept(tmp_path / "record.json", record), Record) == record


def test_commit_of_a_clean_checkout(checkout: Path) -> None:
    assert find_commit(checkout) == (git(checkout, "rev-parse", "HEAD"), False)


def test_commit_of_a_changed_checkout(checkout: Path) -> None:
    (checkout / "__init__.py").write_text("changed = True")
    assert find_commit(checkout)[1] is True


def test_a_checkout_of_which_git_says_nothing_is_not_called_clean(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = records._git
    monkeypatch.setattr(records, "_git", lambda folder, *given: None if "status" in given else real(folder, *given))
    assert find_commit(checkout)[1] is True


def test_a_record_that_was_written_is_no_change_of_the_code(checkout: Path) -> None:
    for name in ("results", "docs"):
        (checkout.parent / name).mkdir()
        (checkout.parent / name / "made").write_text("before")
    git(checkout.parent, "add", "results", "docs")
    git(checkout.parent, "commit", "-q", "-m", "records")
    for name in ("results", "docs"):
        (checkout.parent / name / "made").write_text("after")
    assert find_commit(checkout)[1] is False
    (checkout / "__init__.py").write_text("changed = True")
    assert find_commit(checkout)[1] is True


def test_the_code_of_a_record_is_that_of_the_beginning() -> None:
    record = make_record([], seed=0, threads=1, code=("f" * 40, True))
    assert (record.commit, record.dirty) == ("f" * 40, True)


def test_an_untracked_file_is_no_change(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("mine")
    assert find_commit(checkout)[1] is False


def test_commit_is_unknown_outside_a_checkout(tmp_path: Path) -> None:
    assert find_commit(tmp_path) == ("unknown", False)


def test_commit_is_unknown_in_the_checkout_of_another_project(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / "venv" / "dopant"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert find_commit(installed) == ("unknown", False)
    monkeypatch.setattr(version, "__file__", str(installed / "version.py"))
    assert find_code() == ("unknown", False)
    (installed / "commit.txt").write_text("0123abc\n")  # as the build of a wheel leaves it
    assert find_code() == ("0123abc", False)
    (installed / "commit.txt").write_text("0123abc changed\n")
    assert find_code() == ("0123abc", True)
    (installed / "commit.txt").write_text("\n")
    assert find_code() == ("unknown", False)


def test_commit_is_unknown_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_commit(checkout) == ("unknown", False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"surplus": 1}, "surplus: Extra inputs are not permitted"),
        ({"seed": None}, "seed"),
        ({"seed": "3"}, "seed: Input should be a valid integer"),
        ({"machine": {}}, r"machine\.cpu: Field required"),
    ],
)
def test_reading_is_strict(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    path = write_kept(tmp_path / "record.json", make_record([], seed=0, threads=1))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=complaint):
        read_kept(path, Record)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null"])
def test_what_is_no_record_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"record\.json is not a record"):
        read_kept(path, Record)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing\.json: No such file"):
        read_kept(tmp_path / "nothing.json", Record)
