"""A plan for the eye: a table in plain text and its totals in sentences."""

from __future__ import annotations

from typing import Any

from dopant.plan.columns import text_table, wrapped
from dopant.plan.families import product_rank
from dopant.plan.plan import Plan, Rest, Total
from dopant.plan.words import reading
from dopant.structures.doped import Doped
from dopant.structures.kronecker import Kronecker

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
NUMBERS = 3
"""So many of the last columns are numbers."""
_UNUSED = 0.02  # the part of a budget that may be left without a word
_POOR = 0.25  # of a doped weight's numbers: what a product of full rank takes less than
_NAMED = 3  # tensors outside structured weights that are named


def totals(plan: Plan) -> list[str]:
    """The sums in sentences: planned weights by parameters and bytes, then all, then what is no structured weight."""
    lines = [*_sums("planned", plan.scope())]
    if plan.total().weights > plan.scope().weights:
        lines += _sums("all", plan.total())
    if plan.rest is not None and plan.rest.tensors:
        lines.append(_rest(plan.rest, plan.whole()))
    lines.append(f"stored as {plan.stored_as}; target: {plan.target or 'none'}{_unused(plan)}")
    lines += _poor_products(plan)
    lines += [f"pattern {pattern!r}: {count} weight{'s' * (count != 1)}" for pattern, count in plan.matches]
    return lines


def plan_table(plan: Plan, width: int | None = None) -> str:
    """The plan as a table in plain text, with its totals under it; the last line has no newline.

    Args:
        plan: what `make_plan` made.
        width: characters a line may have, such as a terminal's; None for as many as it takes.
    """
    headings = [heading for heading, _ in COLUMNS]
    rows = [[_cell(row[key]) for _, key in COLUMNS] for row in plan.rows()]
    lines = text_table(headings, rows, numbers=NUMBERS, width=width)
    return "\n".join([*lines, "", *(piece for line in totals(plan) for piece in wrapped(line, width))])


def _sums(what: str, total: Total) -> list[str]:
    cost, dense = total.cost, total.dense
    weights = f"{what} {total.weights} weight{'s' * (total.weights != 1)}"
    return [
        f"{weights}, parameters: {cost.parameters:,} of {dense.parameters:,}, {reading(total.parameter_factor)}",
        f"{weights}, bytes: {cost.stored_bytes:,} of {dense.stored_bytes:,}, {reading(total.byte_factor)}",
        f"{weights}, MACs: {cost.macs:,} of {dense.macs:,}",
    ]


def _unused(plan: Plan) -> str:
    if plan.target is None:
        return ""
    scope = plan.scope()
    limit = plan.target.limit(scope.dense.parameters)
    left = limit - (scope.cost.parameters if plan.target.count == "parameters" else scope.cost.stored_bytes)
    unused = f"; {left:,} of {limit:,} {plan.target.count} not used: the method's sizes, or those given, come no closer"
    return unused if left > _UNUSED * limit else ""


def _poor_products(plan: Plan) -> list[str]:
    """Of doped weights whose products take many of the numbers without full rank."""
    lines = []
    for weight in plan.weights:
        structure, (rows, columns) = weight.structure, weight.shape
        if weight.method is None or not isinstance(structure, Doped) or not isinstance(structure.base, Kronecker):
            continue
        share = structure.base.cost(weight.shape).parameters / weight.cost.parameters
        rank = product_rank(weight.shape, structure.base)
        if share > _POOR and rank < min(weight.shape):
            lines.append(
                f"{weight.name}: the Kronecker product takes {100 * share:.0f} % of the parameters and has rank "
                f"{rank:,} of {min(weight.shape):,}; sizes with more divisors than {rows:,}×{columns:,} "
                "have a smaller one of full rank"
            )
    return lines


def _rest(rest: Rest, whole: Total) -> str:
    count = len(rest.tensors)
    names = ", ".join([*rest.tensors[:_NAMED], *["…"] * (count > _NAMED)])
    return (
        f"no structured weights, left alone: {rest.parameters:,} parameters in {count} tensor{'s' * (count != 1)} "
        f"({names}); the whole model, bytes: {whole.cost.stored_bytes:,} of {whole.dense.stored_bytes:,}, "
        f"{reading(whole.byte_factor)}"
    )


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
