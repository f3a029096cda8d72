"""An experiment: recipes that are to be compared, each with its seeds, and a sweep over the factor."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field

from dopant.cost import Values
from dopant.errors import InputError, RecipeError, did_you_mean
from dopant.plan.target import parse_target
from dopant.recipes.overrides import Override
from dopant.recipes.read import checked, read_recipe, read_text
from dopant.recipes.row_label import Usual, usual
from dopant.recipes.schema import Recipe, Section
from dopant.recipes.text import read_yaml

FILE = "experiment.yaml"
_ALIKE = (
    "corpus", "tokenizer", "scope", "model.size", "model.hidden", "model.layers", "model.init", "model.tied",
    "training.epochs", "training.batch", "training.unroll", "training.learning_rate", "training.clip", "training.tf32",
)  # fmt: skip
"""Settings that all recipes of an experiment share: else a table of them would compare schedules, not structures.

Dropout is not among them: what has fewer weights wants less of it. Where it is not the model's usual, labels say so,
as where a target is not that of most rows.
"""

_FALL = ("training.constant_epochs", "training.decay")
"""How the rate falls: shared by the rows that keep their last weights, and by those that keep a mean instead."""


def _seeds(value: list[int]) -> list[int]:
    if len(set(value)) < len(value):
        raise ValueError(f"each seed once, got {', '.join(map(str, value))}")
    return value


def _factor(value: str) -> str:
    if parse_target(value).factor is None:
        raise ValueError(f"a factor such as 10x is needed, got {value!r}")
    return value


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1), AfterValidator(_seeds)]
Factor = Annotated[str, AfterValidator(_factor)]


class Sweep(Section):
    """Rows made again at other factors, as a picture of loss against factor.

    Args:
        rows: names of rows of the experiment.
        targets: factors such as 10x; where one is the row's own, the row itself is the point.
        seeds: of each point.
    """

    rows: Annotated[list[str], Field(min_length=1)]
    targets: Annotated[list[Factor], Field(min_length=1)]
    seeds: Seeds = Field(default_factory=lambda: [0])


class ExperimentFile(Section):
    """What `experiment.yaml` says; the recipes lie beside it.

    Args:
        description: for the reader.
        rows: by the name of a recipe, without .yaml, its seeds; in the order of the table.
        dense: the dense row that losses are against, and whose models those rows start from or learn from that need a
            trained one, seed by seed; null for the only one.
        sweep: over the factor; null for none.
    """

    description: str = ""
    rows: Annotated[dict[str, Seeds], Field(min_length=1)]
    dense: str | None = None
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Trial:
    """One run of an experiment: a row with a seed.

    Args:
        row: the name of the recipe, with the factor where a sweep sets it: "pruning-10x".
        base: the name of the recipe.
        recipe: with that seed and factor.
    """

    row: str
    base: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its record and its folder: "pruning-10x-seed0"."""
        return f"{self.row}-seed{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """An experiment with all its runs spelt out.

    Args:
        name: of its folder.
        trials: every run, those of the table first, of these the first seed of every row first.
        rows: names of the table's rows in their order.
        swept: by the name of a recipe, names of the rows that make up its line in the picture.
        dense: name of the dense row whose models others start from or learn from, and that losses are against; None
            where none is named and no row needs one, and losses are against the first.
    """

    name: str
    trials: tuple[Trial, ...]
    rows: tuple[str, ...]
    swept: Mapping[str, tuple[str, ...]]
    dense: str | None = None

    @property
    def usual(self) -> Usual:
        """What most rows of the table have, whatever their seeds."""
        return usual({trial.row: trial.recipe for trial in self.trials if trial.row in self.rows}.values())

    def finest_of(self, trial: Trial) -> Trial | None:
        """The run whose weights are these with the least rounding: it differs in storage alone.

        None where that is this one itself. A target in bytes has other structures with another storage.
        """
        target = trial.recipe.plan_target()
        if target.bytes is not None or target.count == "bytes":
            return None
        storage = {"storage": trial.recipe.storage}
        alike = [other for other in self.trials if other.recipe.model_copy(update=storage) == trial.recipe]
        own = _rounding(trial)
        finer = [other for other in alike if all(a <= b for a, b in zip(_rounding(other), own, strict=True))]
        finest = min(finer, key=_rounding)
        return None if finest == trial else finest

    def dense_of(self, trial: Trial) -> Trial | None:
        """The run of the same seed whose model this one starts from or learns from; None where it needs none."""
        if not trial.recipe.needs_dense:
            return None
        return next(other for other in self.trials if (other.row, other.seed) == (self.dense, trial.seed))

    def choose(self, rows: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> list[Trial]:
        """The runs of some rows and seeds; None for all.

        Args:
            rows: names of rows, or patterns such as "pruning*".
            seeds: numbers.

        Raises:
            InputError: a name or a seed that no run has, or none is named.
        """
        names = list(dict.fromkeys(trial.row for trial in self.trials))
        for what, named in (("row", rows), ("seed", seeds)):
            if named is not None and not named:
                raise InputError(f"no {what} is named; name one at least, or leave it out for all")
        for pattern in rows or ():
            if not fnmatch.filter(names, pattern):
                way_out = did_you_mean(pattern, names, f"there are {', '.join(names)}")
                raise InputError(f"{self.name} has no row {pattern!r}; {way_out}")
        known = sorted({trial.seed for trial in self.trials})
        for seed in seeds or ():
            if seed not in known:
                raise InputError(f"no row of {self.name} has seed {seed}; there are {', '.join(map(str, known))}")
        return [
            trial
            for trial in self.trials
            if (rows is None or any(fnmatch.fnmatchcase(trial.row, pattern) for pattern in rows))
            and (seeds is None or trial.seed in seeds)
        ]


def _rounding(trial: Trial) -> tuple[int, int]:
    """How much a run's file rounds, of what is compressed and of all else."""
    kinds = (None, *get_args(Values))  # all else as it is: no more than it was rounded already
    return kinds.index(trial.recipe.storage.values), kinds.index(trial.recipe.storage.others)


def read_experiment(path: str | Path) -> Experiment:
    """The experiment in a folder with an `experiment.yaml`, or in that file.

    Raises:
        InputError: there is none.
        RecipeError: it or one of its recipes has mistakes, or the recipes are not alike enough to be compared.
    """
    given = Path(path)
    file = given if given.suffix in (".yaml", ".yml") else given / FILE
    if not file.is_file():
        raise InputError(f"there is no experiment at {given}; needed is a folder with {FILE} and recipes")
    document = read_yaml(read_text(file), str(file))
    if document.data is None and not document.mistakes:
        document.mistake(0, (), "the experiment is empty; write its rows, each with its seeds")
    content = checked(ExperimentFile, document)
    recipes = {name: _read_row(name, file) for name in content.rows}
    _check_alike(recipes, str(file))
    dense = _dense_row(content.dense, recipes, file)
    found = [
        Trial(name, name, seed, _seeded(recipes[name], seed)) for name, seeds in content.rows.items() for seed in seeds
    ]
    swept: dict[str, tuple[str, ...]] = {}
    if content.sweep is not None:
        for base in content.sweep.rows:
            if base not in recipes:
                raise RecipeError(f"{file}: sweep.rows: {base!r} is no row; {_near(base, list(recipes))}")
            points = [_swept(base, recipes[base], target, file) for target in content.sweep.targets]
            if taken := [row for row, _ in points if row != base and row in recipes]:
                raise RecipeError(
                    f"{file}: {taken[0]} is a recipe among the rows, and a point of the sweep of {base} has the same "
                    f"name; rename {taken[0]}.yaml"
                )
            swept[base] = tuple(dict.fromkeys(row for row, _ in points))
            found += [
                Trial(row, base, seed, _seeded(recipe, seed)) for row, recipe in points for seed in content.sweep.seeds
            ]
    for trial in found:
        if dense is not None and trial.recipe.needs_dense and trial.seed not in content.rows[dense]:
            has = ", ".join(map(str, content.rows[dense]))
            raise RecipeError(
                f"{file}: {trial.name} needs the model of {dense} of the same seed, and {dense} has {has}; "
                f"add {trial.seed} to rows.{dense}"
            )
    trials = {(trial.row, trial.seed): trial for trial in reversed(found)}
    place = {name: index for index, name in enumerate(recipes)}
    ordered = sorted(
        trials.values(), key=lambda t: (t.row != t.base, t.seed, place[t.base], t.recipe.plan_target().factor or 0)
    )
    return Experiment(file.resolve().parent.name, tuple(ordered), tuple(recipes), swept, dense)


def _read_row(name: str, file: Path) -> Recipe:
    recipe = file.parent / f"{name}.yaml"
    there = sorted(path.stem for path in file.parent.glob("*.yaml") if path.name != file.name)
    if name not in there:  # also where the name is a path to somewhere else
        raise RecipeError(f"{file}: rows: there is no recipe {name}.yaml beside it; {_near(name, there)}")
    # prose is no part of a run: to change it must not begin one anew
    return read_recipe(recipe, [Override("description", "", FILE)])


def _dense_row(named: str | None, recipes: Mapping[str, Recipe], file: Path) -> str | None:
    """The row whose models others start from or learn from; None where none is named and no row needs one."""
    trained = [name for name, recipe in recipes.items() if recipe.method == "dense" and not recipe.needs_dense]
    if named is not None:
        if named not in recipes:
            raise RecipeError(f"{file}: dense: {named!r} is no row; {_near(named, trained)}")
        if named not in trained:
            recipe = recipes[named]
            what = "needs a dense model itself" if recipe.method == "dense" else f"is of method {recipe.method}"
            raise RecipeError(
                f"{file}: dense: {named} {what}, and a row of method dense is needed that starts from scratch and "
                f"distils nothing; there are {', '.join(trained) or 'none'}"
            )
        return named
    needy = [name for name, recipe in recipes.items() if recipe.needs_dense]
    if not needy:
        return None
    if not trained:
        raise RecipeError(
            f"{file}: {needy[0]}.yaml needs a trained dense model, and no row is one; add a row of method dense that "
            "starts from scratch and distils nothing"
        )
    if len(trained) > 1:
        raise RecipeError(
            f"{file}: {needy[0]}.yaml needs a trained dense model, and there are {' and '.join(trained)}; say which, "
            f"as in dense: {trained[0]}"
        )
    return trained[0]


def _check_alike(recipes: Mapping[str, Recipe], file: str) -> None:
    last = {name: recipe for name, recipe in recipes.items() if recipe.training.average_from == 1.0}
    means = {name: recipe for name, recipe in recipes.items() if name not in last}
    for key, alike in [*((key, recipes) for key in _ALIKE), *((key, of) for key in _FALL for of in (last, means))]:
        values = {name: flat(recipe)[key] for name, recipe in alike.items()}
        first = next(iter(values), "")
        for name, value in values.items():
            if value != values[first]:
                raise RecipeError(
                    f"{file}: rows of an experiment share a model and a schedule, but {key} is {values[first]} in "
                    f"{first}.yaml and {value} in {name}.yaml; make them equal"
                )


def _swept(base: str, recipe: Recipe, target: str, file: Path) -> tuple[str, Recipe]:
    """The row at another factor, and its name; the row itself at its own."""
    if recipe.method == "dense":
        raise RecipeError(f"{file}: sweep.rows: {base!r} is dense and has no factor; name compressed rows")
    factor = parse_target(target).factor
    if recipe.target is not None and parse_target(recipe.target).factor == factor:
        return base, recipe
    place, target = f"sweep.targets {target}", f"{factor:g}x"
    changes = [
        Override("description", "", FILE),
        Override("target_bytes", None, place),
        Override("target", target, place),
    ]
    return f"{base}-{target}", read_recipe(file.parent / f"{base}.yaml", changes)


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"seed": seed})


def flat(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its dotted key."""

    def walk(data: Mapping[str, Any], before: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, dict) and key not in ("tokenizer", "structure"):
                found |= walk(value, f"{before}{key}.")
            else:
                found[f"{before}{key}"] = value
        return found

    return walk(recipe.model_dump(mode="json"), "")


def _near(name: str, known: list[str]) -> str:
    return did_you_mean(name, known, f"there are {', '.join(known) or 'none'}")
