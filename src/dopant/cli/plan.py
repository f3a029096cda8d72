"""`dopant plan`: what would become of each weight, before anything is done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import (
    METHODS,
    CountOrRecipes,
    Indices,
    Json,
    ScopeOrRecipes,
    Settings,
    TargetBytes,
    TargetOrRecipes,
    Values,
    overrides,
)
from dopant.cli.output import show, show_json, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dopant.plan import Plan
    from dopant.recipes.overrides import Override

EXAMPLE = "dopant plan --model medium --target 25x --count parameters --method doped-kronecker"


@guarded
def plan(
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="tiny, small, medium, large, or a model folder.")
    ] = "tiny",
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help=f"One of: {METHODS}; or a recipe, shipped or a YAML file.")
    ] = "doped-kronecker",
    target: TargetOrRecipes = None,
    target_bytes: TargetBytes = None,
    count: CountOrRecipes = None,
    scope: ScopeOrRecipes = None,
    values: Values = None,
    indices: Indices = None,
    vocabulary: Annotated[
        int,
        typer.Option("--vocabulary", metavar="N", min=1, help="Words of a model that is not trained yet."),
    ] = 10_000,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Show what would become of each weight.

    Every weight with its shape, structure, parameters, bytes and multiply-accumulates, and the totals. Nothing is
    changed or written.
    """
    from dopant.plan.table import plan_table

    changes = overrides(
        settings,
        target=target,
        target_bytes=target_bytes,
        count=count,
        scope=scope,
        values=values,
        indices=indices,
    )
    found = _plan(model, method, changes, vocabulary)
    if as_json:
        show_json(found.to_dict())
    else:
        show(plan_table(found, width(sys.stdout)))


def _plan(model: str, method: str, changes: Sequence[str | Override], vocabulary: int) -> Plan:
    from pathlib import Path

    from dopant.errors import InputError
    from dopant.models.sizes import SIZES
    from dopant.plan import make_plan
    from dopant.recipes.planning import plan_recipe
    from dopant.recipes.read import read_recipe
    from dopant.recipes.setting import rejoined
    from dopant.storage.folder import load_model

    if model in SIZES:
        return plan_recipe(read_recipe(method, [f"model={model}", *changes]), vocabulary)
    if not Path(model).is_dir():
        raise InputError(f"model {model!r} is neither {', '.join(SIZES)} nor a model folder")
    recipe = read_recipe(method, changes)
    return make_plan(rejoined(load_model(model).model, recipe.joint), **recipe.plan_arguments())
