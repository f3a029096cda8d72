"""Plans of recipes ahead of any training: no tensor is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from dopant.data import Corpus, make_tokenizer
from dopant.errors import PlanError
from dopant.models import LanguageModel
from dopant.plan.plan import Plan, make_plan
from dopant.recipes.schema import Recipe, TokenizerSettings
from dopant.storage.inspect import inspect


def plan_recipe(recipe: Recipe, vocabulary: int) -> Plan:
    """What becomes of each weight of the recipe's model with so many tokens in its vocabulary.

    Raises:
        PlanError: the target cannot be met, or a pattern matches nothing.
    """
    with torch.device("meta"):  # sizes alone, no memory
        model = LanguageModel(recipe.config(vocabulary))
    return make_plan(model, **recipe.plan_arguments())


def plan_recipes(
    recipes: Mapping[str, Recipe], corpus: Corpus, dense: str | Path | None = None
) -> dict[str, Plan | PlanError]:
    """The plan of each recipe on a text, or why there is none.

    Args:
        recipes: by name.
        corpus: brings the vocabulary,
        dense: unless this folder of a trained model does.

    Raises:
        FileError: the folder cannot be read.
    """
    known = None if dense is None else inspect(dense).model.get("vocabulary")
    sizes: dict[TokenizerSettings, int] = {}
    plans: dict[str, Plan | PlanError] = {}
    for name, recipe in recipes.items():
        wanted = recipe.tokenizer
        if known is None and wanted not in sizes:
            sizes[wanted] = make_tokenizer(wanted.kind, corpus, size=wanted.size, minimum=wanted.minimum).size
        try:
            plans[name] = plan_recipe(recipe, sizes[wanted] if known is None else known)
        except PlanError as error:
            plans[name] = error
    return plans
