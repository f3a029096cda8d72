"""Data goes to stdout, messages to stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

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


def show_rich(thing: RenderableType) -> None:
    """A table that was asked for."""
    stdout().print(thing)


def stdout() -> Console:
    """The console for what was asked for; wide enough for tables where it is no terminal."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=_PIPED)
    return console


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
