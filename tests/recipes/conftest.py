from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus, make_corpus
from dopant.recipes.read import recipe_from
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.text import write_yaml
from dopant.reporting.report import Report

SUBJECTS, VERBS = ["a cat", "the dog", "some bird", "my fish"], ["sees", "eats", "likes", "finds", "is"]
OBJECTS = ["a mouse", "the tree", "some bread", "my house", "cold water"]


def made_up_text(sentences: int, seed: int) -> str:
    draw = random.Random(seed).choice
    return "".join(f"{draw(SUBJECTS)} {draw(VERBS)} {draw(OBJECTS)}\n" for _ in range(sentences))


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """720, 150 and 150 tokens."""
    return make_corpus("made-up", made_up_text(120, 0), made_up_text(25, 1), made_up_text(25, 2))


@pytest.fixture(scope="session")
def corpus_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up")
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(corpus.split(split))
    return folder


def tiny_data(method: str = "dense", training: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """35 steps an epoch."""
    how = {"epochs": 1, "batch": 4, "unroll": 5, "constant_epochs": 1, "checkpoint_every": 10, **(training or {})}
    model = {"hidden": 16, "layers": 2, "init": 0.2}
    return {"method": method, "target": "5x", "count": "parameters", "model": model, "training": how, **changes}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """A recipe that takes a fraction of a second."""

    def make(method: str = "dense", **changes: Any) -> Recipe:
        return recipe_from(tiny_data(method, **changes))

    return make


@pytest.fixture(scope="session")
def dense_run(
    tiny: Callable[..., Recipe], corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Report]:
    """The folder of a trained dense model and its report; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "dense"
    return folder, run_recipe(tiny("dense"), corpus, folder)


@pytest.fixture
def dense_folder(dense_run: tuple[Path, Report]) -> Path:
    return dense_run[0]


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder, to see that nothing was lost."""
    return everything_in


EXPERIMENT_RECIPES: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense"},
    "lmf": {"method": "lmf", "target": "4x", "count": "parameters"},
    "pruning": {"method": "pruning", "target": "5x", "count": "parameters"},
    "doped": {
        "method": "doped-kronecker",
        "target": "5x",
        "count": "parameters",
        "training": {"co_matrix_dropout": {"rate": 0.1}},
    },
    "bytes": {"method": "lmf", "target": "5x", "count": "bytes"},
    "longer": {"method": "lmf", "count": "parameters", "training": {"epochs": 2}},
    "longest": {"method": "lmf", "target": "4x", "count": "parameters", "training": {"epochs": 20}},
    "diverging": {"method": "lmf", "count": "parameters", "training": {"structure_learning_rate": 1e30}},
    "recovered": {"method": "lmf", "count": "parameters", "start": "dense"},
    "distilled": {"method": "lmf", "count": "parameters", "training": {"distillation": {"weight": 0.5}}},
    "dense-more": {"method": "dense", "model": {"hidden": 16, "layers": 2, "init": 0.2, "dropout": 0.1}},
    "dense-on": {"method": "dense", "start": "dense"},
    "dense-longest": {"method": "dense", "training": {"epochs": 20}},
    "recovered-8": {
        "method": "lmf",
        "count": "parameters",
        "start": "dense",
        "storage": {"values": "int8", "indices": "gaps"},
    },
    "bytes-8": {"method": "lmf", "target": "5x", "count": "bytes", "storage": {"values": "int8", "indices": "gaps"}},
    "recovered-longest": {"method": "lmf", "count": "parameters", "start": "dense", "training": {"epochs": 20}},
}


@pytest.fixture(scope="session")
def write_in() -> Callable[[Path, str], Path]:
    """Write an experiment with these recipes into a folder."""

    def write(folder: Path, text: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, recipe in EXPERIMENT_RECIPES.items():
            changes = {key: value for key, value in recipe.items() if key not in ("method", "training")}
            data = tiny_data(recipe["method"], recipe.get("training"), corpus="nowhere", **changes)
            (folder / f"{name}.yaml").write_text(write_yaml(data))
        (folder / "experiment.yaml").write_text(text)
        return folder

    return write


@pytest.fixture
def write(write_in: Callable[[Path, str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Write an experiment whose file says this, with recipes to choose from."""
    return lambda text: write_in(tmp_path / "experiment", text)
