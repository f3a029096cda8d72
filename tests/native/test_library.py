from __future__ import annotations

import re
import shutil
from ctypes import c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopant.errors import InputError
from dopant.native import library as module
from dopant.native import limits, set_threads, status
from dopant.native.interface import FUNCTIONS, VERSION
from dopant.native.library import LEVELS, VARIABLE, built, library

SOURCE = Path(__file__).parent.parent.parent / "native" / "library.cpp"
needs_library = pytest.mark.skipif("generic" not in built(), reason="the native library was not built")


def doubled(x: np.ndarray) -> np.ndarray:
    """2 x, by a dense weight of the library."""
    loaded = library()
    assert loaded is not None
    weight = (2 * np.eye(x.shape[1])).astype(np.float32)
    handle = loaded.dopant_dense(*weight.shape, weight.ctypes.data)
    y = np.empty_like(x)
    assert loaded.dopant_linear(handle, None, x.ctypes.data, len(x), y.ctypes.data) == 0
    loaded.dopant_free_weight(handle)
    return y


def test_python_and_c_agree_on_every_function() -> None:
    results = {"int": c_int, "const char*": c_char_p, "void*": c_void_p, "void": None}
    results |= {"int64_t": c_int64, "double": c_double}
    found = {}
    for result, name, arguments in re.findall(r"^API ([\w\s*]+?) ?(dopant_\w+)\(([^)]*)\)", SOURCE.read_text(), re.M):
        kinds = [argument.strip() for argument in arguments.split(",") if argument.strip()]
        types = tuple(c_void_p if "*" in kind else results[kind.rpartition(" ")[0]] for kind in kinds)
        found[name] = (results[result], types)
    assert found == FUNCTIONS


@needs_library
def test_the_best_level_of_this_processor_serves() -> None:
    found = status()
    assert found.active in LEVELS
    assert found.active == module._processor()
    assert found.reason == f"the best level of this processor is {found.active}"
    assert found.active in found.built
    assert found.build.startswith("built by ")
    assert library() is library()


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_a_forced_level_serves_or_is_refused(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    best = module._processor()
    monkeypatch.setenv(VARIABLE, level)
    if level not in built() or LEVELS.index(level) > LEVELS.index(best):
        with pytest.raises(InputError, match=f"DOPANT_NATIVE is '{level}', but"):
            library()
        return
    assert status().active == level
    assert status().reason == f"DOPANT_NATIVE={level} in the environment"
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_array_equal(doubled(x), 2 * x)


def test_zero_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    assert library() is None
    assert (status().active, status().reason) == ("torch", "DOPANT_NATIVE=0 in the environment")
    with pytest.raises(InputError, match="the native library measures them, and it does not serve: DOPANT_NATIVE=0"):
        limits()


def test_a_level_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sse9")
    with pytest.raises(InputError, match="DOPANT_NATIVE is 'sse9'; it can be 0 or one of generic, avx2"):
        library()


@needs_library
def test_a_level_beyond_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_processor", lambda: "generic")
    monkeypatch.setattr(module, "built", lambda: LEVELS)
    assert status().active == "generic"
    module.choice.cache_clear()
    monkeypatch.setenv(VARIABLE, "avx2")
    with pytest.raises(InputError, match="but the best level of this processor is generic; unset it"):
        library()


@needs_library
def test_the_next_best_serves_where_the_best_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_processor", lambda: "avx512")
    monkeypatch.setattr(module, "built", lambda: ("generic",))
    assert status().active == "generic"
    assert status().reason == "the best level of this processor is avx512, which was not built"


@needs_library
def test_the_next_best_serves_where_the_best_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(module._path("generic"), tmp_path)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module._path("avx2").write_bytes(b"no library")
    monkeypatch.setattr(module, "_processor", lambda: "avx2")
    assert status().active == "generic"
    assert "libdopant-avx2" in status().reason
    assert "cannot be loaded" in status().reason


@needs_library
@pytest.mark.parametrize("count", [0, -1, 2.0, True, "2"])
def test_threads_are_a_whole_number(count: Any) -> None:
    with pytest.raises(InputError, match="threads must be a whole number of 1 or more, got"):
        set_threads(count)


@needs_library
def test_threads_are_set_until_they_are_set_again() -> None:
    assert set_threads(np.int64(3)) == 1  # type: ignore[arg-type]
    try:
        x = np.arange(500, dtype=np.float32).reshape(100, 5)
        np.testing.assert_array_equal(doubled(x), 2 * x)
    finally:
        assert set_threads(1) == 3


def test_torch_serves_where_nothing_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert library() is None
    assert status().reason == "not built: this copy of dopant was never installed"
    (tmp_path / "built.txt").write_text("not built: no C++ compiler was found (c++)\n")
    module.choice.cache_clear()
    assert (status().active, status().reason) == ("torch", "not built: no C++ compiler was found (c++)")
    module.choice.cache_clear()
    monkeypatch.setenv(VARIABLE, "generic")
    with pytest.raises(InputError, match=r"that level was not built \(built: none\)"):
        library()


def test_torch_serves_where_the_library_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module._path("generic").write_bytes(b"no library")
    assert library() is None
    assert "libdopant-generic" in status().reason
    assert "cannot be loaded" in status().reason


@needs_library
def test_a_library_of_another_interface_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERSION", -1)
    assert library() is None
    assert f"speaks interface {VERSION} and not -1: build it again" in status().reason


@needs_library
def test_the_limits_of_the_machine() -> None:
    found = limits()
    assert list(found["bandwidth_gb_per_s"]) == ["L1", "L2", "L3", "DRAM"]
    assert min(*found["bandwidth_gb_per_s"].values(), found["fma_gflops"]) > 0
