"""Which weight of a model takes which structure: rules, target, budget, plan, and carrying it out."""

from dopant.plan.apply import apply_plan
from dopant.plan.methods import METHODS, Method, Options, method_named
from dopant.plan.plan import Place, Plan, PlannedWeight, Rule, Total, make_plan, places
from dopant.plan.target import Target, parse_bytes, parse_target

__all__ = [
    "METHODS",
    "Method",
    "Options",
    "Place",
    "Plan",
    "PlannedWeight",
    "Rule",
    "Target",
    "Total",
    "apply_plan",
    "make_plan",
    "method_named",
    "parse_bytes",
    "parse_target",
    "places",
]
