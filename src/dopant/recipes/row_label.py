"""What a row is called: its method for readers, with what sets its recipe apart."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dopant.models import LanguageModelConfig
from dopant.models.sizes import SIZES
from dopant.plan.methods import method_named
from dopant.plan.target import Target
from dopant.recipes.schema import Recipe, StorageSettings
from dopant.training.settings import CoMatrixDropout

T = TypeVar("T")

LABELS = {
    "dense": "Dense",
    "pruning": "Magnitude pruning",
    "lmf": "Low rank (LMF)",
    "hmd": "Hybrid (HMD)",
    "hmf": "Hybrid, x and h apart (HMF)",
    "kronecker": "Kronecker alone",
    "hybrid-kronecker": "Hybrid Kronecker",
    "doped-kronecker": "Doped Kronecker",
    "doped-lmf": "Doped low rank",
    "doped-hmd": "Doped hybrid",
}

_TOLD = {
    "terms": "{} terms",
    "rank": "rank {}",
    "dense_rows": "{} dense rows a gate",
    "base_share": "{:.0%} for the structure",
    "per_bank": "{} non-zeros in a bank",
}
"""Options of a structure, in words."""


@dataclass(frozen=True)
class Usual:
    """What most rows of a table have, so that labels tell what differs from it; None where labels leave it out.

    Args:
        end: where pruning is over, as a fraction of training.
        target: how small weights are to be.
        storage: how numbers are kept.
    """

    end: float | None = None
    target: Target | None = None
    storage: StorageSettings | None = None


def usual(recipes: Collection[Recipe]) -> Usual:
    """Of one recipe for each row; what no row has, as none is compressed or prunes, is None."""
    compressed = [recipe for recipe in recipes if recipe.method != "dense"]
    return Usual(
        end=_most([recipe.training.sparsify.end for recipe in compressed if recipe.prunes]),
        target=_most([recipe.plan_target() for recipe in compressed]),
        storage=_most([recipe.storage for recipe in compressed]),
    )


def label(recipe: Recipe, usual: Usual = Usual()) -> str:
    """The method's name for readers, with what sets this run apart.

    Args:
        recipe: of the run.
        usual: what others have.
    """
    distillation = recipe.training.distillation
    name = LABELS.get(recipe.method, recipe.method) + _layout(recipe) + _row_dropout(recipe)
    size = SIZES[recipe.model.size].model if recipe.model.size else {"dropout": LanguageModelConfig.dropout}
    if recipe.model.dropout != size["dropout"]:
        name += f", dropout {recipe.model.dropout:g}"
    name += ", averaged" * (recipe.training.average_from < 1.0)
    sparsify = recipe.training.sparsify
    told = " globally" if sparsify.allocation == "global" else ""
    told += f" until {sparsify.end:.0%}" if usual.end not in (None, sparsify.end) else ""
    if recipe.prunes and told:
        name += f", pruned{told}"
    target = recipe.plan_target()
    if recipe.method != "dense" and usual.target not in (None, target):
        name += f", at {target.size}"
    if recipe.method != "dense" and usual.storage is not None:
        name += _storage(recipe, usual.storage)
    if recipe.start == "dense":
        name += ", trained on" if recipe.method == "dense" else ", fit to dense"
    if distillation.weight > 0.0:
        name += f", distilled {distillation.weight:g}"
        name += f" at temperature {distillation.temperature:g}" if distillation.temperature != 1.0 else ""
    return name


def _most(values: Sequence[T]) -> T | None:
    return statistics.mode(values) if values else None


def _row_dropout(recipe: Recipe) -> str:
    """Co-matrix dropout of two paths, or what is left of it where a weight has one: there rows alone can be dropped."""
    dropout, two = recipe.training.co_matrix_dropout, recipe.method.startswith("doped-")
    if dropout.rate == 0.0 or recipe.method == "dense" or not (two or dropout.path in ("both", "overlay")):
        return ""
    of = f" of {dropout.path}" if two and dropout.path != "both" else ""
    spans = (f" {word} {at:.0%}" for word, at, all_of_it in _spans(dropout) if at != all_of_it)
    return f", {'co-matrix' if two else 'row'} dropout {dropout.rate:g}{of}{''.join(spans)}"


def _spans(dropout: CoMatrixDropout) -> tuple[tuple[str, float, float], ...]:
    """From where to where in training it acts, and what would be all of it."""
    return ("from", dropout.begin, 0.0), ("to", dropout.end, 1.0)


def _storage(recipe: Recipe, usual: StorageSettings) -> str:
    """How numbers are kept, where that is not the usual; places only where there are any, all else where there is."""
    storage, told = recipe.storage, ""
    if storage.values != usual.values or (recipe.prunes and storage.indices != usual.indices):
        kinds = dict.fromkeys(
            (storage.values, storage.indices) if recipe.prunes else (storage.values,)
        )  # of one name once
        told += f", as {' and '.join(kinds)}"
    if storage.others != usual.others and recipe.scope != "model":
        told += f", all else {'as it was' if storage.others is None else f'as {storage.others}'}"
    return told


def _layout(recipe: Recipe) -> str:
    """Of what the structures are, where the recipe says so: the method has its own idea of that."""
    options = recipe.structure or {}
    if "kind" in options:
        return f" as given: {_kinds(options)}"
    words = {True: ", gate by gate", False: ", all gates as one", None: ""}[options.get("per_gate")]
    if options.get("shapes") is not None and recipe.method != "kronecker":  # alone, they are what the factor tells
        words += ", " + " ⊗ ".join(f"{rows}×{columns}" for rows, columns in options["shapes"])
    for name, told in _TOLD.items():
        if options.get(name) is not None:
            words += ", " + told.format(options[name])
    if recipe.joint == method_named(recipe.method).joint:
        return words
    return (", x and h together" if recipe.joint else ", x and h apart") + words


def _kinds(structure: Mapping[str, Any]) -> str:
    """Of a whole structure, what is in it: ``doped (kronecker, sparse)``."""
    inner = [_kinds(value) for value in structure.values() if isinstance(value, Mapping)]
    inner += [_kinds(part) for part in structure.get("parts", ())]
    return str(structure["kind"]) + (f" ({', '.join(dict.fromkeys(inner))})" if inner else "")
