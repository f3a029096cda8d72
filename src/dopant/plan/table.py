"""A plan for the eye: a table in plain text and its totals in sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dopant.plan.plan import Plan, Total
from dopant.plan.words import reading

COLUMNS: tuple[tuple[str, str], ...] = (
    ("weight", "name"),
    ("shape", "shape"),
    ("method", "method"),
    ("structure", "structure"),
    ("parameters", "parameters"),
    ("bytes", "stored_bytes"),
    ("MACs", "macs"),
)
"""(heading, key of the record) of each column."""


def totals(plan: Plan) -> list[str]:
    """The sums in sentences: the planned weights by parameters and bytes, then the whole model."""
    lines = [*_sums("planned", plan.scope())]
    if plan.total().weights > plan.scope().weights:
        lines += _sums("all", plan.total())
    lines.append(f"stored as {plan.storage}; target: {plan.target or 'none'}")
    lines += [f"pattern {pattern!r}: {count} weight{'s' * (count != 1)}" for pattern, count in plan.matches]
    return lines


def plan_table(plan: Plan) -> str:
    """The plan as a table in plain text, with its totals under it; the last line has no newline."""
    records = plan.rows()
    cells = [[heading for heading, _ in COLUMNS]]
    cells += [[_cell(row[key]) for _, key in COLUMNS] for row in records]
    numeric = [bool(records) and isinstance(records[0][key], int) for _, key in COLUMNS]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    lines = ["  ".join(_aligned(numeric[i])(cell, widths[i]) for i, cell in enumerate(row)).rstrip() for row in cells]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join([*lines, "", *totals(plan)])


def _sums(what: str, total: Total) -> list[str]:
    cost, dense = total.cost, total.dense
    weights = f"{what} {total.weights} weight{'s' * (total.weights != 1)}"
    return [
        f"{weights}, parameters: {cost.parameters:,} of {dense.parameters:,}, {reading(total.parameter_factor)}",
        f"{weights}, bytes: {cost.stored_bytes:,} of {dense.stored_bytes:,}, {reading(total.byte_factor)}",
        f"{weights}, MACs: {cost.macs:,} of {dense.macs:,}",
    ]


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _aligned(numeric: bool) -> Callable[[str, int], str]:
    return str.rjust if numeric else str.ljust
