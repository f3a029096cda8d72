"""dopant: language models many times smaller, by doped Kronecker products and the baselines they beat.

The names below are found when they are first used, so that `import dopant` and `dopant --help` need no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dopant.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from dopant.bench.run import bench as bench
    from dopant.cost import Cost as Cost
    from dopant.cost import Storage as Storage
    from dopant.data.corpus import Corpus as Corpus
    from dopant.data.corpus import read_corpus as read_corpus
    from dopant.errors import BenchError as BenchError
    from dopant.errors import ChecksumError as ChecksumError
    from dopant.errors import DivergenceError as DivergenceError
    from dopant.errors import DopantError as DopantError
    from dopant.errors import ExportError as ExportError
    from dopant.errors import FileError as FileError
    from dopant.errors import InputError as InputError
    from dopant.errors import KindError as KindError
    from dopant.errors import PlanError as PlanError
    from dopant.errors import RecipeError as RecipeError
    from dopant.errors import ResumeError as ResumeError
    from dopant.errors import TensorError as TensorError
    from dopant.errors import TrainingError as TrainingError
    from dopant.errors import VersionError as VersionError
    from dopant.export.write import export as export
    from dopant.layers.convert import convert as convert
    from dopant.layers.convert import revert as revert
    from dopant.layers.embedding import Embedding as Embedding
    from dopant.layers.linear import Linear as Linear
    from dopant.layers.lstm import LSTM as LSTM
    from dopant.models.language_model import LanguageModel as LanguageModel
    from dopant.models.language_model import LanguageModelConfig as LanguageModelConfig
    from dopant.native.threads import set_threads as set_threads
    from dopant.plan.apply import apply_plan as apply_plan
    from dopant.plan.plan import Plan as Plan
    from dopant.plan.plan import make_plan as make_plan
    from dopant.plan.table import plan_table as plan_table
    from dopant.plan.target import Target as Target
    from dopant.recipes.pipeline import compare as compare
    from dopant.recipes.pipeline import compress as compress
    from dopant.recipes.pipeline import evaluate as evaluate
    from dopant.recipes.pipeline import generate as generate
    from dopant.recipes.pipeline import report as report
    from dopant.recipes.pipeline import results as results
    from dopant.recipes.pipeline import train as train
    from dopant.report.environment import environment as environment
    from dopant.runtime.layers import accelerate as accelerate
    from dopant.runtime.load import load as load
    from dopant.runtime.runtime import Runtime as Runtime
    from dopant.storage.folder import from_pretrained as from_pretrained
    from dopant.storage.folder import load_model as load_model
    from dopant.storage.folder import save_pretrained as save_pretrained
    from dopant.storage.inspect import inspect as inspect
    from dopant.structures.base import Structure as Structure
    from dopant.structures.base import StructuredWeight as StructuredWeight
    from dopant.structures.dense import Dense as Dense
    from dopant.structures.doped import Doped as Doped
    from dopant.structures.kronecker import Kronecker as Kronecker
    from dopant.structures.low_rank import LowRank as LowRank
    from dopant.structures.sparse import Sparse as Sparse
    from dopant.structures.stacked import Stacked as Stacked

_HOMES = {
    "bench": "dopant.bench.run",
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
    "export": "dopant.export.write",
    "convert": "dopant.layers.convert",
    "revert": "dopant.layers.convert",
    "Embedding": "dopant.layers.embedding",
    "Linear": "dopant.layers.linear",
    "LSTM": "dopant.layers.lstm",
    "LanguageModel": "dopant.models.language_model",
    "LanguageModelConfig": "dopant.models.language_model",
    "set_threads": "dopant.native.threads",
    "apply_plan": "dopant.plan.apply",
    "Plan": "dopant.plan.plan",
    "make_plan": "dopant.plan.plan",
    "plan_table": "dopant.plan.table",
    "Target": "dopant.plan.target",
    "compare": "dopant.recipes.pipeline",
    "compress": "dopant.recipes.pipeline",
    "evaluate": "dopant.recipes.pipeline",
    "generate": "dopant.recipes.pipeline",
    "report": "dopant.recipes.pipeline",
    "results": "dopant.recipes.pipeline",
    "train": "dopant.recipes.pipeline",
    "environment": "dopant.report.environment",
    "accelerate": "dopant.runtime.layers",
    "load": "dopant.runtime.load",
    "Runtime": "dopant.runtime.runtime",
    "from_pretrained": "dopant.storage.folder",
    "load_model": "dopant.storage.folder",
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
"""Each public name and where it is; type checkers, who cannot read it, have the imports above."""

_PARTS = ("bench", "evaluate", "export", "report", "train")
"""Functions that are named as the part of the package which they belong to."""

__all__ = ["__version__", *_HOMES]


class _Callable(ModuleType):
    # a package that can also be called: `dopant.train(...)` beside `dopant.train.loop`; help tells of the function
    __doc__ = property(lambda self: self._function().__doc__)

    def _function(self) -> Callable[..., Any]:
        name = self.__name__.rpartition(".")[2]
        found: Callable[..., Any] = getattr(import_module(_HOMES[name]), name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        return signature(self._function())


class _Dopant(ModuleType):
    """This package. Some of its parts share their names with functions, and serve as both."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):  # the import system binds a part to its package
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Dopant


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
