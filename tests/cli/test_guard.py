from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from dopant import errors
from dopant.cli.guard import explain, guarded
from dopant.errors import DopantError, InputError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DopantError)]


def failing(error: BaseException) -> typer.Exit:
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as found:
        command()
    return found.value


@pytest.mark.parametrize("kind", KINDS)
def test_our_errors_are_one_message_and_code_2(kind: type[DopantError], capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(kind("target 0.5x is below 1x; say 2x")).exit_code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: target 0.5x is below 1x; say 2x\n"


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: the disk is full", 2),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: permission denied", 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), "/a: no such file", 2),
        (OSError("odd"), "odd", 2),
        (MemoryError(), "not enough memory", 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "not enough memory", 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), "not enough memory", 2),
        (ValueError("bad\nsecond line"), "ValueError: bad\nThis is a mistake in dopant", 1),
        (AssertionError(), "AssertionError: \nThis is a mistake in dopant", 1),
    ],
)
def test_all_others_are_explained(error: BaseException, text: str, code: int) -> None:
    message, found = explain(error)
    assert message.startswith(text)
    assert found == code


def test_an_exit_stays_an_exit() -> None:
    assert failing(typer.Exit(7)).exit_code == 7


def test_the_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPANT_TRACEBACK", "1")

    @guarded
    def command() -> None:
        raise InputError("asked for")

    with pytest.raises(InputError, match="asked for"):
        command()


def test_the_signature_stays_for_typer() -> None:
    import inspect

    @guarded
    def command(folder: Path, quiet: bool = False) -> None:
        """Help."""

    assert list(inspect.signature(command).parameters) == ["folder", "quiet"]
    assert command.__doc__ == "Help."


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"resume": False, "force": False}, "; the same command with --resume goes on"),
        ({"resume": True, "force": False}, "; the same command with --resume goes on"),
        ({"resume": False, "force": True}, "; the same command with --resume instead of --force goes on"),
        ({"force": True}, ""),
    ],
)
def test_an_interrupt_tells_of_resume_where_there_is_one(
    given: dict[str, bool], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def train(**flags: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        train(**given)
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == f"error: interrupted{told}\n"


def test_a_closed_pipe_is_silent(comparison: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "dopant", "report", str(comparison), "--json", "-q"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_interrupt_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from dopant.cli.guard import guarded\n"
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "@guarded\n"
        "def wait() -> None:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "app()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "error: interrupted\n"


def test_a_terminal_without_unicode_gets_the_rest(comparison: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dopant", "report", str(comparison)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"25.0?" in done.stdout


def test_colours_are_left_out_where_nobody_wants_any(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("dopant.cli.guard.say", said.append)
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        failing(InputError("no"))
    assert ["\x1b" in text for text in said] == [True, False]
