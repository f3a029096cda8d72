"""What can be known of recipes ahead of any training: vocabularies and plans. No tensor of a model is made."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dopant.data import Corpus, Tokenizer
from dopant.errors import PlanError
from dopant.models import LanguageModel
from dopant.plan.plan import Plan, make_plan
from dopant.recipes.schema import Recipe, TokenizerSettings
from dopant.recipes.setting import Texts, encode, new_tokenizer


def plan_recipe(recipe: Recipe, vocabulary: int) -> Plan:
    """What becomes of each weight of the recipe's model with so many tokens in its vocabulary.

    Raises:
        PlanError: the target cannot be met, or a pattern matches nothing.
    """
    with torch.device("meta"):  # sizes alone, no memory
        model = LanguageModel(recipe.config(vocabulary))
    return make_plan(model, **recipe.plan_arguments())


def plan_recipes(recipes: Mapping[str, Recipe], vocabularies: Mapping[str, int]) -> dict[str, Plan | PlanError]:
    """The plan of each recipe with so many tokens in its vocabulary, or why there is none."""
    plans: dict[str, Plan | PlanError] = {}
    for name, recipe in recipes.items():
        try:
            plans[name] = plan_recipe(recipe, vocabularies[name])
        except PlanError as error:
            plans[name] = error
    return plans


def read_vocabularies(
    recipes: Mapping[str, Recipe], corpus: Corpus, tokenizer: Tokenizer | None = None
) -> dict[str, int]:
    """How many tokens the vocabulary of each recipe has, once the text is known to be long enough for its training.

    Args:
        recipes: by name.
        corpus: the text.
        tokenizer: that of the trained model all of them start from; None for the recipes' own.

    Raises:
        InputError: there is no such tokenizer, or the text is too short.
    """
    texts: dict[TokenizerSettings, Texts] = {}
    for recipe in recipes.values():
        if recipe.tokenizer not in texts:
            texts[recipe.tokenizer] = encode(corpus, tokenizer or new_tokenizer(recipe, corpus))
        texts[recipe.tokenizer].columns(recipe.training.batch, recipe.training.unroll)
    return {name: texts[recipe.tokenizer].tokenizer.size for name, recipe in recipes.items()}
