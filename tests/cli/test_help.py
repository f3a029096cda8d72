from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dopant import __version__
from dopant.cli import app

if TYPE_CHECKING:
    from tests.cli.conftest import Run

COMMANDS = ["compare", "compress", "train", "plan", "evaluate", "inspect", "generate", "bench", "export", "report"]
COMMANDS += ["env", "results", "store"]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_is_there() -> None:
    assert {command.name for command in app.registered_commands} == set(COMMANDS)


def test_help_comes_in_half_a_second() -> None:
    """By the processor's time, since other work may share the machine."""

    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "dopant", "--help"], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dopant.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'safetensors', 'jinja2', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    python(code)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_it_understands(command: str, dopant: Run) -> None:
    result = dopant(command, "--help")
    assert result.exit_code == 0
    example = importlib.import_module(f"dopant.cli.{command}").EXAMPLE
    assert f"Example:\n    {example}" in result.stdout
    words = shlex.split(example)
    assert words[:2] == ["dopant", command]
    for option in [word for word in words if word.startswith("-")]:
        assert re.search(rf"(?<!\S){re.escape(option)}(?!\S)", result.stdout.replace(example, "")), option


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_with_data_speak_json(command: str, dopant: Run) -> None:
    assert "--json" in dopant(command, "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_are_kebab_case(command: str, dopant: Run) -> None:
    flags = re.findall(r"(?<![\w-])--[\w-]+", dopant(command, "--help").stdout)
    assert flags
    assert not [flag for flag in flags if "_" in flag or flag != flag.lower()]


def test_the_list_of_commands_is_not_cut(dopant: Run) -> None:
    assert "..." not in dopant("--help").stdout.partition("Commands:")[2]


def test_version(dopant: Run) -> None:
    assert dopant("--version").stdout == f"dopant {__version__}\n"


def test_no_command_shows_the_help(dopant: Run) -> None:
    assert "Commands:" in dopant().output


@pytest.mark.parametrize("arguments", [["repot", "x"], ["report"], ["report", "x", "--no-such"], ["compare"]])
def test_mistyped_command_lines_are_refused(arguments: list[str], dopant: Run) -> None:
    result = dopant(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "dopant", "--version"], capture_output=True, text=True)
    assert done.stdout == f"dopant {__version__}\n"
