"""Numbers and results in words, the same on the terminal, in Markdown and in HTML."""

from __future__ import annotations

import re
from math import isfinite

from dopant.report.report import Protocol, Report, Row

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


def percent(number: float | None) -> str:
    """A difference with its sign: ``+1.4 %``."""
    if number is None or not isfinite(number):
        return MISSING
    shown = f"{abs(number):,.{0 if abs(number) >= 99.95 else 1}f}"
    sign = "±" if float(shown.replace(",", "")) == 0 else "+" if number > 0 else "−"
    return f"{sign}{shown} %"


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


def protocol_line(protocol: Protocol) -> str:
    """The protocol in one paragraph, to stand under a table."""
    tokens = protocol.tokens
    carried = "state carried" if protocol.state_carried else "state not carried"
    distilled = f"distilled from {distillation(protocol)}, " if protocol.distillation is not None else ""
    commit = f"commit {protocol.commit[:12]}{' with changes' if protocol.dirty else ''}"
    return (
        f"Perplexity of the test split of {protocol.corpus} (sha256 {protocol.checksum[:12]}; "
        f"{count(tokens.train)} / {count(tokens.valid)} / {count(tokens.test)} tokens, {protocol.tokenizer} "
        f"vocabulary {count(protocol.vocabulary)}), model {protocol.model}, computed from the files; "
        f"batch {protocol.batch}, unroll {protocol.unroll}, {carried}, evaluation batch "
        f"{protocol.valid_batch} (valid) and {protocol.test_batch} (test); {counted(protocol.epochs, 'epoch')}, "
        f"{protocol.optimiser}, {distilled}seed {protocol.seed}. "
        f"Target {target(protocol)} by {protocol.count}; factors, parameters and bytes are those of the "
        f"{scope(protocol)} as stored ({protocol.storage}), against dense float32; "
        f"the file is that of the whole model. "
        f"dopant {protocol.versions.dopant} ({commit}), python {protocol.versions.python}, "
        f"torch {protocol.versions.torch}; {protocol.machine.cpu}, {counted(protocol.machine.threads, 'thread')}."
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
