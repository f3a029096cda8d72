"""The report as one HTML file that opens anywhere: no script, no request to the network, its data within."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dopant.reporting import plots, words
from dopant.reporting.drawing import NARROW, WIDE
from dopant.reporting.records import Record
from dopant.reporting.report import Report
from dopant.reporting.svg import resource
from dopant.reporting.table import COLUMNS, columns_of, important_first
from dopant.reporting.writing import write_text

T = TypeVar("T")


_STARTS = {
    "scratch": "from scratch",
    "dense": "from a trained dense model",
    "mixed": "from scratch, but where a row says otherwise",
}
_COMMAND = 72  # characters that a command may have in one line
_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


class Drawn(NamedTuple):
    """One picture in two widths; the page shows the one that suits."""

    wide: Markup
    narrow: Markup


def write_page(report: Report, path: str | Path) -> Path:
    """Write the report as one self-contained HTML file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    return write_text(path, make_page(report))


def make_page(report: Report) -> str:
    """The page as text; equal reports give equal pages."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.globals["w"] = words
    template = environment.from_string(resource("page.html"))
    return template.render(
        report=report,
        protocol=report.protocol,
        best=report.best,
        dense=report.dense,
        title=_title(report),
        runners_up=_runners_up(report),
        colours=plots.colours(report),
        style=Markup(resource("colours.css") + resource("page.css")),
        scatter=_drawn(plots.perplexity_against_bytes, report, name="bytes"),
        curves=_drawn(plots.training_curves, report, name="curves"),
        paths=[
            (row, words.path_summary(row), _drawn(plots.path_contributions, row, name=f"paths{index}"))
            for index, row in enumerate(report.rows)
            if row.paths
        ],
        several="seeds" in columns_of(report),
        columns=[COLUMNS[name] for name in important_first(report)[1:]],
        command=_in_lines(report.protocol.command) if _by_one_command(report) else "",
        run=_what_was_run(report),
        when=_day(max(record.time for record in words.records(report))),
        data=base64.b64encode(report.model_dump_json(indent=1).encode()).decode(),
    )


def _drawn(plot: Callable[[T, int, str], str | None], subject: T, name: str) -> Drawn | None:
    wide = plot(subject, WIDE, f"{name}-wide")
    narrow = plot(subject, NARROW, f"{name}-narrow")
    return None if wide is None or narrow is None else Drawn(Markup(wide), Markup(narrow))


def _title(report: Report) -> str:
    """What was tried: how many ways, of what, how small."""
    ways = sum(not row.dense for row in report.rows)
    if not ways:
        return f"The {report.protocol.model} model on {report.protocol.corpus}"
    many = _NUMBERS[ways] if ways < len(_NUMBERS) else str(ways)
    target, scope = words.target(report.protocol), words.the_scope(report.protocol)
    if {"target", "count"} & set(report.protocol.differing):
        how = f"make {scope} smaller"  # each row has a target of its own
    elif target.endswith("×"):
        how = f"make {scope} {target} smaller"
    else:
        how = f"fit {scope} into {target}"
    return f"{many} way{'s' * (ways != 1)} to {how}"


def _runners_up(report: Report) -> str:
    """The three compressed rows after the best, in order of their validation perplexity, with their losses."""
    rest = [row for row in report.rows if row is not report.best and not row.dense and row.loss_percent is not None]
    rest.sort(key=lambda row: inf if row.perplexity_valid is None else row.perplexity_valid)
    named = [f"{row.label} ({words.percent(row.loss_percent)})" for row in rest[:3]]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]])) if named else ""


def _what_was_run(report: Report) -> list[tuple[str, str]]:
    """The protocol as names and values."""
    protocol, tokens = report.protocol, report.protocol.tokens
    commits = _each(report, lambda r: r.commit + (", with uncommitted changes" if r.dirty else ""))
    source = "; ".join(f"{key} {value}" for key, value in protocol.source.items())
    told = [
        ("Corpus", protocol.corpus + (f" ({source})" if source else "")),
        ("Checksum of the text", f"sha256 {protocol.checksum}"),
        ("Tokens", f"{tokens.train:,} training, {tokens.valid:,} validation, {tokens.test:,} test"),
        ("Vocabulary", f"{protocol.vocabulary:,} ({protocol.tokenizer})"),
        ("Model", protocol.model),
        ("Start", _STARTS.get(protocol.start, protocol.start)),
        ("Target", f"{words.target(protocol)} by {protocol.count}, of {words.the_scope(protocol)}"),
        ("Distillation", words.distillation(protocol)),
        ("Stored as", protocol.storage),
        ("Optimiser", words.optimiser(report)),
        ("Epochs", str(protocol.epochs)),
        ("Mini-batches", f"{protocol.batch} streams × {protocol.unroll} steps, state carried over"),
        ("Evaluation", f"{protocol.valid_batch} streams for validation, {protocol.test_batch} for test"),
        ("Seed", words.seeds(report).partition(" ")[2]),
        ("Commits" if "; " in commits else "Commit", commits),
        ("Versions", _each(report, _versions)),
        ("Machine", _each(report, _machine)),
    ]  # fmt: skip
    if _by_one_command(report):  # else the protocol's are those of one run of several
        took = words.duration(protocol.seconds) + (" since it was resumed" if protocol.resumed else "")
        told += [("Begun", protocol.time), ("Took", took)]
    return [(name, value) for name, value in told if value]


def _by_one_command(report: Report) -> bool:
    return {record.command for record in words.records(report)} == {report.protocol.command}


def _each(report: Report, told: Callable[[Record], str]) -> str:
    """What is told of each run, each once."""
    return "; ".join(dict.fromkeys(map(told, words.records(report))))


def _versions(record: Record) -> str:
    found = record.versions
    return f"dopant {found.dopant}, Python {found.python}, torch {found.torch}, numpy {found.numpy}"


def _machine(record: Record) -> str:
    found = record.machine
    return (
        f"{found.cpu}, {words.counted(found.cores, 'core')}, {words.size(found.memory_bytes)} of memory, {found.os}, "
        f"computed on {found.device}, {words.counted(found.threads, 'thread')}"
    )


def _in_lines(command: str) -> str:
    """A long command with an option a line, still fit to be pasted into a shell."""
    try:
        arguments = shlex.split(command)
    except ValueError:  # an unclosed quote: no command line of ours
        return command
    if len(command) <= _COMMAND:
        return command
    lines: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("-") and len(argument) > 1:
            lines.append([])
        lines[-1].append(argument)
    return " \\\n  ".join(shlex.join(line) for line in lines if line)


def _day(time: str) -> str:
    try:
        day = datetime.fromisoformat(time).astimezone(UTC)
    except ValueError:
        return time
    return f"{day.day} {day:%B %Y}"
