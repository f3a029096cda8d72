"""dopant: language models many times smaller, by doped Kronecker products and the baselines they beat.

The names below are found when they are first used, so that `import dopant` and `dopant --help` need no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dopant.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from dopant.cost import Cost, Storage
    from dopant.data.corpus import Corpus, read_corpus
    from dopant.errors import (
        BenchError,
        ChecksumError,
        DivergenceError,
        DopantError,
        ExportError,
        FileError,
        InputError,
        KindError,
        PlanError,
        RecipeError,
        ResumeError,
        TensorError,
        TrainingError,
        VersionError,
    )
    from dopant.layers.convert import convert, revert
    from dopant.layers.embedding import Embedding
    from dopant.layers.linear import Linear
    from dopant.layers.lstm import LSTM
    from dopant.models.language_model import LanguageModel, LanguageModelConfig
    from dopant.plan.apply import apply_plan
    from dopant.plan.plan import Plan, make_plan
    from dopant.plan.table import plan_table
    from dopant.plan.target import Target
    from dopant.recipes.pipeline import compare, compress, evaluate, generate, train
    from dopant.storage.folder import from_pretrained, load, save_pretrained
    from dopant.storage.inspect import inspect
    from dopant.structures.base import Structure, StructuredWeight
    from dopant.structures.dense import Dense
    from dopant.structures.doped import Doped
    from dopant.structures.kronecker import Kronecker
    from dopant.structures.low_rank import LowRank
    from dopant.structures.sparse import Sparse
    from dopant.structures.stacked import Stacked

_HOMES = {
    "Cost": "dopant.cost",
    "Storage": "dopant.cost",
    "Corpus": "dopant.data.corpus",
    "read_corpus": "dopant.data.corpus",
    "BenchError": "dopant.errors",
    "ChecksumError": "dopant.errors",
    "DivergenceError": "dopant.errors",
    "DopantError": "dopant.errors",
    "ExportError": "dopant.errors",
    "FileError": "dopant.errors",
    "InputError": "dopant.errors",
    "KindError": "dopant.errors",
    "PlanError": "dopant.errors",
    "RecipeError": "dopant.errors",
    "ResumeError": "dopant.errors",
    "TensorError": "dopant.errors",
    "TrainingError": "dopant.errors",
    "VersionError": "dopant.errors",
    "convert": "dopant.layers.convert",
    "revert": "dopant.layers.convert",
    "Embedding": "dopant.layers.embedding",
    "Linear": "dopant.layers.linear",
    "LSTM": "dopant.layers.lstm",
    "LanguageModel": "dopant.models.language_model",
    "LanguageModelConfig": "dopant.models.language_model",
    "apply_plan": "dopant.plan.apply",
    "Plan": "dopant.plan.plan",
    "make_plan": "dopant.plan.plan",
    "plan_table": "dopant.plan.table",
    "Target": "dopant.plan.target",
    "compare": "dopant.recipes.pipeline",
    "compress": "dopant.recipes.pipeline",
    "evaluate": "dopant.recipes.pipeline",
    "generate": "dopant.recipes.pipeline",
    "train": "dopant.recipes.pipeline",
    "from_pretrained": "dopant.storage.folder",
    "load": "dopant.storage.folder",
    "save_pretrained": "dopant.storage.folder",
    "inspect": "dopant.storage.inspect",
    "Structure": "dopant.structures.base",
    "StructuredWeight": "dopant.structures.base",
    "Dense": "dopant.structures.dense",
    "Doped": "dopant.structures.doped",
    "Kronecker": "dopant.structures.kronecker",
    "LowRank": "dopant.structures.low_rank",
    "Sparse": "dopant.structures.sparse",
    "Stacked": "dopant.structures.stacked",
}

__all__ = [
    "LSTM",
    "BenchError",
    "ChecksumError",
    "Corpus",
    "Cost",
    "Dense",
    "DivergenceError",
    "DopantError",
    "Doped",
    "Embedding",
    "ExportError",
    "FileError",
    "InputError",
    "KindError",
    "Kronecker",
    "LanguageModel",
    "LanguageModelConfig",
    "Linear",
    "LowRank",
    "Plan",
    "PlanError",
    "RecipeError",
    "ResumeError",
    "Sparse",
    "Stacked",
    "Storage",
    "Structure",
    "StructuredWeight",
    "Target",
    "TensorError",
    "TrainingError",
    "VersionError",
    "__version__",
    "apply_plan",
    "compare",
    "compress",
    "convert",
    "evaluate",
    "from_pretrained",
    "generate",
    "inspect",
    "load",
    "make_plan",
    "plan_table",
    "read_corpus",
    "revert",
    "save_pretrained",
    "train",
]


class _Callable(ModuleType):
    """A package that can also be called: `dopant.train(...)` beside `dopant.train.loop`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(_HOMES[name]), name)(*args, **kwargs)


class _Dopant(ModuleType):
    """This package. Its parts `train` and `evaluate` share their names with functions, and serve as both."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):  # the import system binds a part to its package
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Dopant


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("train", "evaluate"):
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
