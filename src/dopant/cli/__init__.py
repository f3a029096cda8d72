"""The command line: one file a command. Heavy imports wait inside the commands, so that --help is instant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dopant import __version__
from dopant.cli import (
    bench,
    compare,
    compress,
    env,
    evaluate,
    export,
    generate,
    inspect,
    plan,
    report,
    results,
    store,
    train,
)

app = typer.Typer(
    name="dopant",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for module in (compare, compress, train, plan, evaluate, inspect, store, generate, bench, export, report, results, env):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=f"\b\nExample:\n  {module.EXAMPLE}")(getattr(module, name))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dopant {__version__}")
        raise typer.Exit


@app.callback(epilog=f"\b\nExample:\n  {compare.EXAMPLE}")
def dopant(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Language models many times smaller, by doped Kronecker products and the baselines they beat."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0 done, 1 a mistake in dopant, 2 refused with a message, 130 interrupted, 141 whoever read the output is gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no × still gets the rest
    given = sys.argv[1:] if arguments is None else arguments
    app(given, prog_name="dopant", obj=list(given))
