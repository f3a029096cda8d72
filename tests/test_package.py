from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import dopant


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_needs_no_torch() -> None:
    run("import sys, dopant; dopant.InputError, dopant.Storage, dir(dopant); assert 'torch' not in sys.modules")


@pytest.mark.parametrize("name", dopant.__all__)
def test_every_public_name_is_found(name: str) -> None:
    assert getattr(dopant, name) is not None
    assert name in dir(dopant)


def test_type_checkers_are_told_of_the_same_names() -> None:
    tree = ast.parse(Path(dopant.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [(node.module, name) for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert {name.name: module for module, name in imports} == dopant._HOMES
    assert all(name.asname == name.name for _, name in imports)  # so that they are exported under strict checks


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dopant.nothing  # noqa: B018


FAKE = """
import sys, types
fake = sys.modules["fake"] = types.ModuleType("fake")  # the real functions would import torch
fake.train = lambda *args, **kwargs: (args, kwargs)
import dopant
dopant._HOMES.update(train="fake")
"""


def test_all_such_parts_can_be_called() -> None:
    for name in dopant._PARTS:
        part = getattr(dopant, name)
        assert callable(part)
        assert part.__name__ == f"dopant.{name}"
        function = getattr(import_module(dopant._HOMES[name]), name)
        assert (inspect.signature(part), part.__doc__) == (inspect.signature(function), function.__doc__)
    with pytest.raises(dopant.InputError, match="2 reports are joined into a new one"):
        dopant.report("a", "b")


def test_parts_that_share_their_name_with_a_function_are_both() -> None:
    run(
        f"{FAKE}"
        "train = dopant.train\n"  # before any other import, so this is what finds the package
        "import dopant.train.settings\n"
        "assert train(1, out=2) == ((1,), {'out': 2})\n"
        "assert dopant.train is train and dopant.train.settings.TrainSettings\n"
    )


def test_they_are_both_when_the_import_system_was_first() -> None:
    run(
        f"{FAKE}"
        "import dopant.train.settings\n"
        "from dopant import train\n"
        "import dopant.train as also\n"
        "assert train(1) == also(1) == ((1,), {})\n"
        "from dopant.train import settings\n"
        "assert train.settings is settings and dopant.train.settings is settings\n"
    )


def test_evaluate_is_such_a_part_too() -> None:
    import dopant.evaluate.perplexity

    assert callable(dopant.evaluate)
    assert dopant.evaluate.perplexity is not None


def test_the_installed_version_is_the_packages() -> None:
    try:
        assert version("dopant") == dopant.__version__
    except ImportError:
        pytest.skip("not installed")
