"""Plans on the terminal, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dopant.cli.output import say

if TYPE_CHECKING:
    from dopant.errors import PlanError
    from dopant.plan import Plan


def say_plan(plan: Plan) -> None:
    """Every weight and the totals."""
    from dopant.plan.table import plan_table

    say(f"The plan:\n{plan_table(plan)}\n")


def say_plans(plans: Mapping[str, Plan | PlanError]) -> None:
    """Of each method the weights it decides about, and their sums with both readings of the factor."""
    from dopant.errors import PlanError
    from dopant.plan.words import reading

    heading = ("method", "weight", "shape", "structure", "parameters", "bytes", "MACs")
    rows: list[tuple[str, ...]] = [heading]
    for name, plan in plans.items():
        if isinstance(plan, PlanError):
            rows.append((name, str(plan), "", "", "", "", ""))
            continue
        records = [record for record, weight in zip(plan.rows(), plan.weights, strict=True) if weight.method]
        for record in records:
            numbers = [f"{record[key]:,}" for key in ("parameters", "stored_bytes", "macs")]
            rows.append((name, record["name"], record["shape"], record["structure"], *numbers))
            name = ""
        total = plan.scope()
        sums = (f"{total.cost.parameters:,}", f"{total.cost.stored_bytes:,}", f"{total.cost.macs:,}")
        factors = f"parameters {reading(total.parameter_factor)}; bytes {reading(total.byte_factor)}"
        rows.append(("", "total", "", factors, *sums))
    say("The plan:\n" + _aligned(rows) + "\n")


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width, the last three to the right; a reason why there is no plan may run on."""
    whole = [row for row in rows if row[2] or row[3]]
    widths = [max(len(row[index]) for row in whole) for index in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if index > 3 else cell.ljust(width) for index, (cell, width) in
                 enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
