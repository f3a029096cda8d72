"""Data goes to stdout, messages to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

_PIPED = 120  # columns where no terminal says how many there are


def say(message: str, *, quiet: bool = False) -> None:
    """A message for whoever watches."""
    if not quiet:
        typer.echo(message, err=True)


def show(text: str) -> None:
    """Text that was asked for."""
    typer.echo(text)


def show_json(data: Any) -> None:
    """Data that was asked for; what is not a number is null."""
    typer.echo(json.dumps(_finite(data), ensure_ascii=False, indent=1, allow_nan=False))


def width(stream: TextIO) -> int | None:
    """Characters a line may have, by COLUMNS or the terminal; None where neither says so."""
    stated = os.environ.get("COLUMNS", "")
    try:
        return (
            int(stated) if stated.isdecimal() and int(stated) else os.get_terminal_size(stream.fileno()).columns or None
        )
    except (OSError, ValueError):  # no terminal, no file
        return None


def stdout() -> Console:
    """The console for what was asked for; wide enough for tables where nothing says how wide it is."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=width(sys.stdout) or _PIPED)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
