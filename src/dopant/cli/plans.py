"""Plans on the terminal, before anything is done."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dopant.cli.output import say, width

if TYPE_CHECKING:
    from dopant.errors import PlanError
    from dopant.plan import Plan

HEADINGS = ("method", "weight", "shape", "structure", "parameters", "bytes", "MACs")


def say_plan(plan: Plan) -> None:
    """Every weight and the totals."""
    from dopant.plan.table import plan_table

    say(f"The plan:\n{plan_table(plan, width(sys.stderr))}\n")


def say_plans(plans: Mapping[str, Plan | PlanError]) -> None:
    """Of each method the weights it decides about, and their sums with both readings of the factor."""
    from dopant.errors import PlanError
    from dopant.plan.columns import text_table
    from dopant.plan.words import reading

    rows: list[tuple[str, ...]] = []
    for name, plan in plans.items():
        if isinstance(plan, PlanError):
            rows.append((name, str(plan)))
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
    say("\n".join(["The plan:", *text_table(HEADINGS, rows, numbers=3, width=width(sys.stderr)), ""]))
