"""Several reports as one: rows that were measured apart, but alike."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dopant.errors import InputError
from dopant.reporting.records import Record
from dopant.reporting.report import CurvePoint, Protocol, Report, Row, SeedLine, loss_percent

_ALIKE = ("checksum", "vocabulary", "tokens", "model", "valid_batch", "test_batch", "scope")
_TRAINING = ("batch", "unroll", "epochs", "optimiser", "seed")
_BUDGET = ("target", "count", "storage")


def join(reports: Sequence[Report]) -> Report:
    """All rows in their order, each with its loss against the dense row, under `common_protocol`; one stays as it is.

    Raises:
        InputError: no report, two dense rows in several, or reports whose perplexities cannot be compared: other text,
            other vocabulary, another model.
    """
    check_alike(reports)
    if len(reports) == 1:  # its losses stand, also where a second dense row is a control
        return reports[0]
    rows = [row for report in with_records(reports) for row in report.rows]
    return Report(protocol=common_protocol(reports), rows=told_apart(with_losses(rows)))


def join_seeds(runs: Mapping[str, Sequence[Report]], dense: str | None = None) -> Report:
    """Runs of one row each, by the row's name: a row is the mean of its seeds, with each seed's numbers beside it.

    Args:
        runs: of each row.
        dense: name of the row that losses are against, each seed's against the same seed; None for the first dense one.

    Raises:
        InputError: no run, or runs whose perplexities cannot be compared.
    """
    check_alike([report for reports in runs.values() for report in reports])
    if dense is None:
        dense = next((name for name, reports in runs.items() if reports and reports[0].rows[0].dense), None)
    bases = {report.protocol.seed: report.rows[0].perplexity_test for report in runs.get(dense or "", ())}
    rows = [_mean_row(name, reports, {} if name == dense else bases) for name, reports in runs.items() if reports]
    protocol = common_protocol([reports[0] for reports in runs.values() if reports])
    differing = tuple(name for name in protocol.differing if name != "seed")  # rows have theirs
    return Report(protocol=protocol.model_copy(update={"differing": differing}), rows=tuple(rows))


def check_alike(reports: Sequence[Report]) -> None:
    """See that perplexities of these reports may be compared.

    Raises:
        InputError: there is none, or they may not.
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


def with_records(reports: Sequence[Report]) -> list[Report]:
    """The reports, each row with the record of its run where not all were made by one command, code and machine."""
    by = [
        report.protocol.model_dump(include={"command", "commit", "dirty", "versions", "machine"}) for report in reports
    ]
    if all(one == by[0] for one in by):
        return list(reports)
    return [
        report.model_copy(
            update={
                "rows": tuple(
                    row if row.seeds else row.model_copy(update={"seeds": (_seed_line(report, row),)})
                    for row in report.rows
                )
            }
        )
        for report in reports
    ]


def _seed_line(report: Report, row: Row, loss: float | None = None) -> SeedLine:
    return SeedLine(
        record=Record(**report.protocol.model_dump(include=set(Record.model_fields))),
        perplexity_valid=row.perplexity_valid,
        perplexity_test=row.perplexity_test,
        loss_percent=loss,
        train_seconds=row.train_seconds,
    )


def told_apart(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, those of one label with their folders' names in it: settings that no label tells may differ.

    Where folders have one name, too, the rows are numbered.
    """
    labels = Counter(row.label for row in rows)
    alike = Counter((row.label, row.folder) for row in rows)
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for row in rows:
        place = row.label, row.folder
        seen[place] += 1
        number = f" {seen[place]}" if alike[place] > 1 else ""
        apart = {"label": f"{row.label} ({row.folder}{number})"} if labels[row.label] > 1 else {}
        found.append(row.model_copy(update=apart))
    return tuple(found)


def common_protocol(reports: Sequence[Report]) -> Protocol:
    """That of the first compressed row, which has a target, with the names of what differs in another.

    Args:
        reports: one at least.
    """
    everything = [report.protocol for report in reports]
    compressed = [report.protocol for report in reports if not all(row.dense for row in report.rows)] or everything[:1]
    first = compressed[0]
    differing = [name for name in _TRAINING if any(getattr(one, name) != getattr(first, name) for one in everything)]
    differing += [name for name in _BUDGET if any(getattr(one, name) != getattr(first, name) for one in compressed)]
    differing = [*differing, *(name for one in everything for name in one.differing)]
    first = first.model_copy(update={"differing": tuple(dict.fromkeys(differing))})
    if any(protocol.start != first.start for protocol in compressed):
        first = first.model_copy(update={"start": "mixed"})
    if any(protocol.distillation != first.distillation for protocol in compressed):
        first = first.model_copy(update={"distillation": None})
    return first


def _mean_row(name: str, reports: Sequence[Report], bases: Mapping[int, float | None]) -> Row:
    rows = [report.rows[0] for report in reports]
    seeds = tuple(
        _seed_line(report, row, loss_percent(row.perplexity_test, bases.get(report.protocol.seed)))
        for report, row in zip(reports, rows, strict=True)
    )
    losses = [seed.loss_percent for seed in seeds]
    loss = None if None in losses else _mean(losses)  # beside a perplexity of all seeds one of all stands, or none
    if len(rows) == 1:
        return rows[0].model_copy(update={"seeds": seeds, "loss_percent": loss})
    means = (
        "parameter_factor",
        "byte_factor",
        "perplexity_valid",
        "perplexity_test",
        "perplexity_train",
        "train_seconds",
    )
    # how gaps are coded depends on where the non-zeros are, and how many fit into a number of bytes on that
    whole = ("parameters", "nonzeros", "stored_bytes", "file_bytes", "model_parameters", "model_bytes")
    counted = _mean(row.nonzeros_in_file for row in rows)
    return rows[0].model_copy(
        update={
            "seeds": seeds,
            "loss_percent": loss,
            "folder": name,
            "curves": _mean_curves(rows),
            "nonzeros_in_file": None if counted is None else round(counted),
            **{field: _mean(getattr(row, field) for row in rows) for field in means},
            **{field: round(statistics.fmean(getattr(row, field) for row in rows)) for field in whole},
        }
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_curves(rows: Sequence[Row]) -> tuple[CurvePoint, ...]:
    """Epoch by epoch, as far as all rows go."""
    return tuple(
        points[0].model_copy(
            update={
                "train_perplexity": _mean(point.train_perplexity for point in points),
                "valid_perplexity": _mean(point.valid_perplexity for point in points),
            }
        )
        for points in zip(*(row.curves for row in rows), strict=False)
    )


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
