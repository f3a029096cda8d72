from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dopant.errors import InputError, RecipeError
from dopant.plan.target import Target
from dopant.recipes.experiments import FILE, Trial, flat, read_experiment
from dopant.recipes.planning import plan_recipes
from dopant.recipes.row_label import Usual, label

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.parent for path in (ROOT / "experiments").glob(f"*/{FILE}"))
Write = Callable[..., Path]


def names(trials: Any) -> list[str]:
    return [trial.name for trial in trials]


def test_runs_are_spelt_out_the_table_first_and_the_first_seed_of_each_row_first(write: Write) -> None:
    folder = write("rows: {dense: [0, 1], lmf: [0, 1], pruning: [0]}\nsweep: {rows: [lmf], targets: [3x, 4x]}\n")
    experiment = read_experiment(folder)
    first = ["dense-seed0", "lmf-seed0", "pruning-seed0"]
    assert names(experiment.trials) == [*first, "dense-seed1", "lmf-seed1", "lmf-3x-seed0"]
    assert experiment.rows == ("dense", "lmf", "pruning")
    assert experiment.swept == {"lmf": ("lmf-3x", "lmf")}  # at its own factor the row itself is the point
    swept = experiment.trials[-1].recipe
    assert (swept.target, swept.seed, swept.method) == ("3x", 0, "lmf")
    assert experiment.trials[4].recipe.seed == 1
    assert read_experiment(folder / FILE) == experiment


def test_rows_that_need_a_dense_model_have_that_of_their_seed(write: Write) -> None:
    rows = "rows: {recovered: [0, 1], dense: [0, 1], distilled: [1], lmf: [0]}\n"
    experiment = read_experiment(write(rows + "sweep: {rows: [recovered], targets: [2x], seeds: [1]}\n"))
    dense = {trial.name: experiment.dense_of(trial) for trial in experiment.trials}
    assert {name: None if needed is None else needed.name for name, needed in dense.items()} == {
        "recovered-seed0": "dense-seed0",
        "recovered-seed1": "dense-seed1",
        "dense-seed0": None,
        "dense-seed1": None,
        "distilled-seed1": "dense-seed1",
        "lmf-seed0": None,
        "recovered-2x-seed1": "dense-seed1",
    }
    two = "rows: {dense: [0], dense-more: [0], dense-on: [0]}\ndense: dense-more\n"
    experiment = read_experiment(write(two))
    needed = experiment.dense_of(experiment.trials[2])
    assert needed is not None
    assert (experiment.trials[2].name, needed.name) == ("dense-on-seed0", "dense-more-seed0")


def test_some_rows_and_seeds(write: Write) -> None:
    experiment = read_experiment(
        write("rows: {dense: [0, 1], lmf: [0]}\nsweep: {rows: [lmf], targets: [3x], seeds: [0, 1]}\n")
    )
    assert names(experiment.choose(["lmf"])) == ["lmf-seed0"]
    assert names(experiment.choose(["lmf*"])) == ["lmf-seed0", "lmf-3x-seed0", "lmf-3x-seed1"]
    assert names(experiment.choose(["dense", "lmf-3x"], [1])) == ["dense-seed1", "lmf-3x-seed1"]
    with pytest.raises(InputError, match="no row 'lfm'; did you mean 'lmf'"):
        experiment.choose(["lfm"])
    with pytest.raises(InputError, match="has seed 7; there are 0, 1"):
        experiment.choose(seeds=[0, 7])
    with pytest.raises(InputError, match="no row is named"):
        experiment.choose([])
    with pytest.raises(InputError, match="no seed is named"):
        experiment.choose(seeds=[])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the experiment is empty"),
        ("rows: {dense: [0]}\nseeds: [1]\n", r"experiment\.yaml:2: seeds: unknown key"),
        ("rows: {dense: 0}\n", "rows.dense: .*list"),
        ("rows: {dense: []}\n", "rows.dense: .*at least 1"),
        ("rows: {dense: [0, 0]}\n", "rows.dense: each seed once"),
        ("rows: {dense: [-1]}\n", "greater than or equal to 0"),
        ("rows: {}\n", "rows: .*at least 1"),
        ("rows: {lfm: [0]}\n", r"there is no recipe lfm\.yaml beside it; did you mean 'lmf'"),
        ("rows: {../other: [0]}\n", r"there is no recipe \.\./other\.yaml beside it"),
        ("rows: {dense: [0], lmf: [0], longer: [0]}\n", "training.epochs is 1 in dense.yaml and 2 in longer.yaml"),
        ("rows: {lmf: [0], recovered: [0]}\n", "recovered.yaml needs a trained dense model, and no row is one; add a"),
        ("rows: {dense-on: [0]}\n", "dense-on.yaml needs a trained dense model, and no row is one"),
        (
            "rows: {dense: [0], dense-more: [0], distilled: [0]}\n",
            "distilled.yaml needs .* and there are dense and dense-more; say which, as in dense: dense$",
        ),
        ("rows: {dense: [0], lmf: [0]}\ndense: denes\n", "dense: 'denes' is no row; did you mean 'dense'"),
        ("rows: {dense: [0], lmf: [0]}\ndense: lmf\n", "dense: lmf is of method lmf, .*; there are dense$"),
        (
            "rows: {dense: [0], dense-on: [0]}\ndense: dense-on\n",
            "dense: dense-on needs a dense model itself, and a row .* from scratch and distils nothing",
        ),
        (
            "rows: {dense: [0, 2], recovered: [0, 1]}\n",
            "recovered-seed1 needs the model of dense of the same seed, and dense has 0, 2; add 1 to rows.dense",
        ),
        (
            "rows: {dense: [0], distilled: [0]}\nsweep: {rows: [distilled], targets: [2x], seeds: [0, 3]}\n",
            "distilled-2x-seed3 needs .*; add 3 to rows.dense",
        ),
        ("rows: {lmf: [0]}\nsweep: {rows: [pruning], targets: [3x]}\n", "sweep.rows: 'pruning' is no row"),
        ("rows: {dense: [0]}\nsweep: {rows: [dense], targets: [3x]}\n", "'dense' is dense and has no factor"),
        ("rows: {lmf: [0]}\nsweep: {rows: [lmf], targets: [1MB]}\n", "a factor such as 10x is needed, got '1MB'"),
        ("rows: {lmf: [0]}\nsweep: {rows: [lmf], target: [3x]}\n", "sweep.target: unknown key; did you mean 'targets'"),
        ("rows: [dense\n", "not valid YAML"),
    ],
)
def test_mistakes_are_told_with_their_place(write: Write, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_experiment(write(text))


def test_rows_that_keep_a_mean_may_hold_the_rate(write: Write) -> None:
    """All of them alike; and no row that keeps its last weights may."""
    folder = write("rows: {dense: [0], lmf: [0], pruning: [0]}\n")
    told = {name: (folder / f"{name}.yaml").read_text() for name in ("lmf", "pruning")}

    def change(name: str, settings: str) -> None:
        (folder / f"{name}.yaml").write_text(told[name].replace("training:\n", f"training:\n{settings}"))

    assert "training:\n" in told["lmf"]
    for name in told:
        told[name] = told[name].replace("  constant_epochs: 1\n", "")
        change(name, "  constant_epochs: 9\n  average_from: 0.5\n")
    assert {trial.recipe.training.constant_epochs for trial in read_experiment(folder).trials} == {1, 9}
    change("lmf", "  constant_epochs: 8\n  average_from: 0.5\n")
    with pytest.raises(RecipeError, match=r"training.constant_epochs is 8.0 in lmf.yaml and 9.0 in pruning.yaml"):
        read_experiment(folder)
    change("lmf", "  constant_epochs: 9\n")
    with pytest.raises(RecipeError, match=r"training.constant_epochs is 1.0 in dense.yaml and 9.0 in lmf.yaml"):
        read_experiment(folder)


def test_a_recipe_named_like_a_point_of_the_sweep_is_refused(write: Write) -> None:
    folder = write("rows: {lmf: [0], lmf-3x: [0]}\nsweep: {rows: [lmf], targets: [3x, 4x]}\n")
    (folder / "lmf-3x.yaml").write_text((folder / "pruning.yaml").read_text())
    with pytest.raises(RecipeError, match=r"lmf-3x is a recipe among the rows, and a point .*; rename lmf-3x\.yaml"):
        read_experiment(folder)


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match=r"needed is a folder with experiment\.yaml and recipes"):
            read_experiment(place)
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        read_experiment(tmp_path)


def ramps(trials: tuple[Trial, ...]) -> set[str]:
    """How rows that prune come to their sparsity, but for what labels tell: when they are done, and what is kept."""
    told = {"end": 1.0, "allocation": "each"}
    return {str(trial.recipe.training.sparsify.model_copy(update=told)) for trial in trials if trial.recipe.prunes}


def test_the_usual_end_of_pruning_is_that_of_most_rows(tmp_path: Path) -> None:
    """Not of most runs, nor of rows that do not prune."""
    for row, method, end in (("a", "pruning", 0.3), ("b", "doped-lmf", 0.3), ("c", "pruning", 0.6), ("d", "lmf", 0.7)):
        text = f"method: {method}\nmodel: tiny\ntraining: {{sparsify: {{end: {end}}}}}\n"
        (tmp_path / f"{row}.yaml").write_text(text)
    (tmp_path / FILE).write_text("rows: {a: [0], b: [0], c: [0, 1, 2], d: [0, 1, 2, 3]}\n")
    assert read_experiment(tmp_path).usual.end == 0.3
    (tmp_path / FILE).write_text("rows: {d: [0]}\n")
    assert read_experiment(tmp_path).usual.end is None


def test_the_usual_target_is_that_of_most_compressed_rows_of_the_table(tmp_path: Path) -> None:
    targets = {"a": "{target: 9x}", "b": "{target: 9x, method: lmf}", "c": "{target: 9x, count: parameters}"}
    for row, text in (*targets.items(), ("dense", "{method: dense, target: 25x}"), ("more", "{method: dense}")):
        (tmp_path / f"{row}.yaml").write_text(text)
    sweep = "sweep: {rows: [c], targets: [2x, 3x, 4x], seeds: [1, 2, 3]}"
    (tmp_path / FILE).write_text(f"rows: {{dense: [0], more: [0], c: [0, 1, 2, 3], a: [0], b: [0]}}\n{sweep}\n")
    experiment = read_experiment(tmp_path)
    assert experiment.usual.target == Target(factor=9.0)
    recipes = {trial.row: trial.recipe for trial in experiment.trials}
    told = {row: label(recipe, Usual(target=experiment.usual.target)) for row, recipe in recipes.items()}
    assert told["a"] == "Doped Kronecker"
    assert told["c"] == "Doped Kronecker, at 9x by parameters"
    assert told["dense"] == "Dense"
    assert told["c-2x"] == "Doped Kronecker, at 2x by parameters"
    assert label(recipes["a"], Usual(target=Target(bytes=1_000))) == "Doped Kronecker, at 9x by bytes"
    assert label(recipes["c"]) == "Doped Kronecker"
    (tmp_path / FILE).write_text("rows: {dense: [0]}\n")
    assert read_experiment(tmp_path).usual.target is None


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_shipped_experiments_compare_like_with_like(folder: Path) -> None:
    """Equal schedules (refused otherwise), ramps that begin alike, few dropouts, a label a row, every plan possible."""
    experiment = read_experiment(folder)
    assert len(ramps(experiment.trials)) == 1
    assert {trial.recipe.training.co_matrix_dropout.rate for trial in experiment.trials} <= {0.0, 0.05, 0.1}
    table = {trial.row: trial.recipe for trial in experiment.trials if trial.row in experiment.rows}
    assert len({label(recipe, experiment.usual) for recipe in table.values()}) == len(table)
    if folder.name in ("ptb-small", "ptb-medium"):  # the paper's tables
        assert {"dense", "doped-kronecker", "doped-kronecker-cmr", "pruning", "pruning-dropout"} <= set(table)
    recipes = {trial.row: trial.recipe for trial in experiment.trials}
    plans = plan_recipes(recipes, dict.fromkeys(recipes, 10_000))
    assert not [plan for plan in plans.values() if isinstance(plan, Exception)]
    ramp = next(t for t in experiment.trials if t.row.startswith("pruning")).recipe.training
    late = folder.name == "underfitting-held"  # over just after the learning rate first falls, elsewhere before
    assert ramp.sparsify.end * ramp.epochs < ramp.constant_epochs + late
    corpora = {flat(recipe)["corpus"] for recipe in table.values()}
    assert corpora == {"ptb" if folder.name.startswith("ptb") else "python-docs"}
