"""Several reports as one: rows that were measured apart, but alike."""

from __future__ import annotations

from collections.abc import Sequence

from dopant.errors import InputError
from dopant.report.report import Report, Row, loss_percent

_ALIKE = ("checksum", "vocabulary", "tokens", "model", "state_carried", "valid_batch", "test_batch", "scope")


def join(reports: Sequence[Report]) -> Report:
    """All rows in their order, each with its loss against the dense row; the protocol of the first compressed row's.

    Raises:
        InputError: no report, two dense rows, or reports whose perplexities cannot be compared: other text, other
            vocabulary, another model.
    """
    if not reports:
        raise InputError("there are no reports to join; name one at least")
    first = reports[0].protocol
    for report in reports[1:]:
        for name in _ALIKE:
            ours, theirs = getattr(first, name), getattr(report.protocol, name)
            if ours != theirs:
                raise InputError(
                    f"rows of different protocols cannot be compared: {name} is {ours} in one report "
                    f"and {theirs} in another; join what was measured alike"
                )
    rows = [row for report in reports for row in report.rows]
    protocol = next((r.protocol for r in reports if not r.rows[0].dense), first)
    return Report(protocol=protocol, rows=with_losses(rows))


def with_losses(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their loss against the dense one among them, if there is one.

    Raises:
        InputError: there are two.
    """
    dense = [row for row in rows if row.dense]
    if len(dense) > 1:
        raise InputError(f"there are {len(dense)} dense rows to measure the others against; keep one")
    base = dense[0].perplexity_test if dense else None
    return tuple(
        row.model_copy(update={"loss_percent": None if row.dense else loss_percent(row.perplexity_test, base)})
        for row in rows
    )
