from __future__ import annotations

import subprocess
import sys
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


def test_no_public_name_is_that_of_a_part() -> None:
    """Else whichever is imported last would take the name: the import system binds a part to its package."""
    parts = {path.stem for path in Path(dopant.__file__).parent.iterdir()}
    assert {"training", "errors"} <= parts
    assert not parts & set(dopant.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        dopant.nothing  # noqa: B018


def test_the_installed_version_is_the_packages() -> None:
    try:
        assert version("dopant") == dopant.__version__
    except ImportError:
        pytest.skip("not installed")
