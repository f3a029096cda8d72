"""What a user sees when something goes wrong: one message and an exit code, never a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from dopant.cli.output import say
from dopant.errors import TRACEBACK, as_sentence, is_foreseen

REFUSED = 2
INTERRUPTED = 130  # as the shell has it for SIGINT
BROKEN_PIPE = 141  # and for SIGPIPE
MISTAKE_OF_OURS = 1

P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors end in a message on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(TRACEBACK) == "1":
                raise
            message, code = explain(error)
            if code == INTERRUPTED and "resume" in kwargs:
                changed = "--resume instead of --force" if kwargs.get("force") else "--resume"
                message += f"; the same command with {changed} goes on"
            if code == BROKEN_PIPE:
                _close_stdout()
            elif message:
                plain = bool(os.environ.get("NO_COLOR"))  # https://no-color.org
                say(f"{'error:' if plain else typer.style('error:', fg='red', bold=True)} {message}")
            raise typer.Exit(code) from None

    return run


def explain(error: BaseException) -> tuple[str, int]:
    """The message for an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "", BROKEN_PIPE
    if is_foreseen(error):
        return as_sentence(error), REFUSED
    return (
        f"{as_sentence(error)}\n"
        f"This is a mistake in dopant, not yours. {TRACEBACK}=1 in the environment shows where it is.",
        MISTAKE_OF_OURS,
    )


def _close_stdout() -> None:
    """Else Python complains at exit that it cannot flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
