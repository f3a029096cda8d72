"""Numbers and results in words, the same on the terminal, in Markdown and in HTML."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from math import isfinite

from dopant.reporting.records import Machine, Record
from dopant.reporting.report import TENSOR_FLOAT, Protocol, Report, Row

MISSING = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def count(number: int | None) -> str:
    """``1,234,567``."""
    return MISSING if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count(number)} {noun}{'s' * (number != 1)}"


def size(number: float | None) -> str:
    """Bytes in decimal units, three digits: ``138 kB``, ``1.20 MB``."""
    if number is None or not isfinite(number):
        return MISSING
    power = 0
    while number >= 999.5 and power < len(_UNITS) - 1:
        number /= 1000.0
        power += 1
    digits = 0 if power == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {_UNITS[power]}"


def factor(number: float | None) -> str:
    """Dense over compressed: ``25.0×``."""
    if number is None or not isfinite(number):
        return MISSING
    return f"{number:,.{0 if number >= 999.5 else 1 if number >= 9.95 else 2}f}×"


def perplexity(number: float | None, digits: int = 2) -> str:
    """``83.21``; whole numbers from a thousand on, powers of ten from a million on."""
    if number is None or not isfinite(number):
        return MISSING
    if number >= 1e6:
        return f"{number:.1e}"
    return f"{number:,.{0 if number >= 1000 else digits}f}"


def percent(number: float | None, spread: str = "") -> str:
    """A difference with its sign: ``+1.4 %``; with the spread of several seeds ``+1.4 ± 0.3 %``."""
    if number is None or not isfinite(number):
        return MISSING
    shown = f"{abs(number):,.{0 if abs(number) >= 99.95 else 1}f}"
    sign = "±" if float(shown.replace(",", "")) == 0 else "+" if number > 0 else "−"
    return f"{sign}{shown}{spread} %"


def spread(values: Iterable[float | None], digits: int = 2) -> str:
    """`` ± 0.41``, the standard deviation of several seeds; nothing for one."""
    known = [value for value in values if value is not None and isfinite(value)]
    return "" if len(known) < 2 else f" ± {statistics.stdev(known):,.{digits}f}"


def duration(seconds: float | None) -> str:
    """``41 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds is None or not isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def scope(protocol: Protocol) -> str:
    """Of which weights the factors speak: ``LSTM weights``."""
    known = {"lstm": "LSTM weights", "model": "all weights of the model"}
    return known.get(protocol.scope, f"weights that match {protocol.scope.removeprefix('re:')}")


def the_scope(protocol: Protocol) -> str:
    """The same in the middle of a sentence: ``the LSTM weights``, ``all weights of the model``."""
    return scope(protocol) if protocol.scope == "model" else f"the {scope(protocol)}"


def target(protocol: Protocol) -> str:
    """How small: ``25×``, ``1.20 MB``; other words as they are."""
    text = protocol.target.strip()
    if re.fullmatch(r"[\d.]+x", text):
        return f"{text[:-1]}×"
    in_bytes = re.fullmatch(r"(\d+) bytes", text)
    return size(int(in_bytes[1])) if in_bytes else text


def distillation(protocol: Protocol) -> str:
    """``the dense model's predictions, weight 0.5, temperature 1``; nothing where there was none."""
    used = protocol.distillation
    return (
        ""
        if used is None
        else f"the dense model's predictions, weight {used.weight:g}, temperature {used.temperature:g}"
    )


def fewer(number: float | None, noun: str) -> str:
    """``25.0× fewer parameters``; ``1.10× more bytes`` where nothing was saved."""
    if number is None or not isfinite(number) or number <= 0:
        return f"{MISSING} {noun}"
    return f"{factor(number)} fewer {noun}" if number >= 1 else f"{factor(1 / number)} more {noun}"


def summary(row: Row, report: Report) -> str:
    """One row in one sentence: what shrank, by how much, and what it cost."""
    if row.dense:
        return (
            f"{row.label}: {count(row.parameters)} parameters, {size(row.stored_bytes)} ({scope(report.protocol)}), "
            f"perplexity {perplexity(row.perplexity_test, 1)}"
        )
    shrunk = (
        f"{row.label}: {fewer(row.parameter_factor, 'parameters')}, {fewer(row.byte_factor, 'bytes')} "
        f"({scope(report.protocol)}), perplexity {perplexity(row.perplexity_test, 1)}"
    )
    if report.dense is None:
        return shrunk if row.loss_percent is None else f"{shrunk} ({percent(row.loss_percent)} against dense)"
    against = f"{shrunk} against {perplexity(report.dense.perplexity_test, 1)}"
    return f"{against} ({percent(row.loss_percent)})" if row.loss_percent is not None else against


def headline(report: Report) -> str:
    """The best compressed row in one sentence; if there is none, the first compressed row or the dense one."""
    compressed = next((row for row in report.rows if not row.dense), report.rows[0])
    return summary(report.best or compressed, report)


def differing(protocol: Protocol) -> str:
    """A sentence on what is told of the first compressed row only; nothing where all rows are alike."""
    return f"Rows differ in {', '.join(protocol.differing)}; told are the first's. " if protocol.differing else ""


def trainings(report: Report) -> str:
    """``once``; ``22 times``: every seed of every row that has weights of its own."""
    times = sum(len(row.seeds) or 1 for row in report.rows if not row.weights_of)
    return "once" if times == 1 else f"{times} times"


def seeds(report: Report) -> str:
    """``seed 0``; ``seeds 0, 1, 2`` where rows are means."""
    found = sorted({line.record.seed for row in report.rows for line in row.seeds}) or [report.protocol.seed]
    return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}"


def machine(machine: Machine) -> str:
    """``Intel(R) Xeon(R) Processor, 1 thread``; with the accelerator that computed, if one did."""
    device = "" if machine.device == "cpu" else f"{machine.device}; "
    return f"{device}{machine.cpu}, {counted(machine.threads, 'thread')}"


def optimiser(report: Report) -> str:
    """How weights were moved. TensorFloat-32 is a setting of a recipe, and only a GPU has it."""
    told = report.protocol.optimiser
    plain = told.removesuffix(TENSOR_FLOAT)
    on_gpu = {record.machine.device != "cpu" for record in records(report)}
    if plain == told or on_gpu == {True}:
        return told
    return f"{told} on the GPU" if True in on_gpu else plain


def records(report: Report) -> list[Record]:
    """Of every run behind a report; one where all were made by one command, the same code and the same machine."""
    return [line.record for row in report.rows for line in row.seeds] or [report.protocol]


def _made_by(runs: Sequence[Record]) -> str:
    """Everything that differs among the runs, each once."""

    def each(values: Iterable[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    commits = list(dict.fromkeys(f"{r.commit[:12]}{' with changes' if r.dirty else ''}" for r in runs))
    return (
        f"dopant {each(r.versions.dopant for r in runs)} (commit{'s' * (len(commits) > 1)} {', '.join(commits)}), "
        f"python {each(r.versions.python for r in runs)}, torch {each(r.versions.torch for r in runs)}; "
        f"{'; '.join(dict.fromkeys(machine(r.machine) for r in runs))}."
    )


def protocol_line(report: Report) -> str:
    """The protocol in one paragraph, to stand under a table; of joined runs, whatever made them."""
    protocol = report.protocol
    several = any(len(row.seeds) > 1 for row in report.rows)
    means = " (mean ± standard deviation; loss against the dense row of the same seed)" if several else ""
    tokens = protocol.tokens
    distilled = f"distilled from {distillation(protocol)}, " if protocol.distillation is not None else ""
    compressed = any(not row.dense for row in report.rows)
    wanted = f"Target {target(protocol)} by {protocol.count}; factors" if compressed else "Factors"
    stored = f" ({protocol.storage})" if compressed else ""
    return (
        f"Perplexity of the test split of {protocol.corpus} (sha256 {protocol.checksum[:12]}; "
        f"{count(tokens.train)} / {count(tokens.valid)} / {count(tokens.test)} tokens, {protocol.tokenizer} "
        f"vocabulary {count(protocol.vocabulary)}), model {protocol.model}, computed from the files; "
        f"batch {protocol.batch}, unroll {protocol.unroll}, state carried, evaluation batch "
        f"{protocol.valid_batch} (valid) and {protocol.test_batch} (test); {counted(protocol.epochs, 'epoch')}, "
        f"{optimiser(report)}, {distilled}{seeds(report)}{means}. "
        f"{wanted}, parameters and bytes are those of {the_scope(protocol)} as stored{stored}, against dense float32; "
        f"the file is that of the whole model. {differing(protocol)}"
        f"{_made_by(records(report))}"
    )


def path_summary(row: Row) -> str:
    """The last logged state of a doped row's two paths in one sentence."""
    first, last = row.paths[0], row.paths[-1]
    share = ""
    if last.structure_norm is not None and last.overlay_norm is not None and last.structure_norm + last.overlay_norm:
        part = 100 * last.structure_norm / (last.structure_norm + last.overlay_norm)
        share = f"the structure makes up {part:.0f} % of the two norms; "
    return (
        f"at step {last.step:,}, {share}perplexity on a sample of the validation text is "
        f"{perplexity(last.valid_perplexity, 1)} with both, "
        f"{perplexity(last.valid_without_overlay, 1)} without the overlay and "
        f"{perplexity(last.valid_without_structure, 1)} without the structure; "
        f"the overlay's density (grey) went from {_share(first.density)} to {_share(last.density)}."
    )


def _share(density: float | None) -> str:
    return MISSING if density is None else f"{100 * density:.3g} %"
