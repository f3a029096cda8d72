"""The build, with a compiler that is a shell script; the real one is too slow for every run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
COMPILER = """#!/bin/sh
case "$*" in
  *-dumpmachine*) echo {machine}; exit ;;
  *--version*) echo "{version}"; exit ;;
  *{refused}*) echo "fake: error: what is {refused}?" >&2; exit 1 ;;
esac
while [ $# -gt 1 ]; do shift; done
echo "a library" > "$1"
"""


@pytest.fixture(scope="module")
def build_native() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_native", ROOT / "build_native.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, still empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("DOPANT_NATIVE", raising=False)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    folder.mkdir()
    return folder


def compiler(
    folder: Path,
    name: str = "g++",
    machine: str = "x86_64-linux-gnu",
    refused: str = "-nothing",
    version: str = "fake 1.0",
) -> Path:
    program = folder / name
    program.write_text(COMPILER.format(machine=machine, refused=refused, version=version))
    program.chmod(0o755)
    return program


def test_the_compiler_is_the_first_on_the_path(build_native: ModuleType, path: Path) -> None:
    with pytest.raises(build_native.BuildError, match=r"no C\+\+ compiler was found \(c\+\+, g\+\+, clang\+\+\)"):
        build_native.find_compiler()
    compiler(path, "clang++")
    assert build_native.find_compiler() == ["clang++"]
    compiler(path, "g++")
    assert build_native.find_compiler() == ["g++"]


def test_cxx_goes_first(build_native: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(path, "g++")
    monkeypatch.setenv("CXX", "nowhere++")
    with pytest.raises(build_native.BuildError, match=r"CXX is 'nowhere\+\+', which is not there"):
        build_native.find_compiler()
    compiler(path, "mine++")
    monkeypatch.setenv("CXX", "mine++ -m64")
    assert build_native.find_compiler() == ["mine++", "-m64"]
    monkeypatch.setenv("CXX", 'mine++ "')
    with pytest.raises(
        build_native.BuildError, match=r"CXX is 'mine\+\+ \"', which is no command: No closing quotation"
    ):
        build_native.find_compiler()


def test_levels_are_those_of_the_compilers_machine(build_native: ModuleType, path: Path) -> None:
    assert build_native.levels_of([str(compiler(path))]) == ["generic", "avx2", "avx512", "avx512vnni"]
    assert build_native.levels_of([str(compiler(path, machine="aarch64-linux-gnu"))]) == ["generic"]


def test_a_level_that_the_compiler_does_not_know_is_left_out(build_native: ModuleType, path: Path, place: Path) -> None:
    compiler(path, refused="-mavx512vnni")
    files = build_native.build(place)
    levels = ["generic", "avx2", "avx512"]
    assert files == [*(build_native.library_path(level, place) for level in levels), place / "built.txt"]
    assert sorted(place.iterdir()) == sorted(files)  # nothing unfinished
    note = (place / "built.txt").read_text()
    by, problem = "built by fake 1.0 for x86_64-linux-gnu", "avx512vnni: g++: fake: error: what is -mavx512vnni?"
    assert note == f"{by}: generic, avx2, avx512; {problem}\n"


def test_what_is_newer_than_the_sources_is_kept(build_native: ModuleType, path: Path, place: Path) -> None:
    compiler(path)
    generic, avx2 = build_native.build(place)[:2]
    for library in (generic, avx2):
        library.write_text("mine")
    os.utime(avx2, (0, 0))
    build_native.build(place)
    assert (generic.read_text(), avx2.read_text()) == ("mine", "a library\n")


def test_what_another_compiler_made_is_made_again(
    build_native: ModuleType, path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(path)
    generic = build_native.build(place)[0]
    compiler(path, "late++", version="fake 2.0")
    for wanted in ("late++", "late++ -m64", "g++"):
        generic.write_text("mine")
        monkeypatch.setenv("CXX", wanted)
        build_native.build(place)
        assert generic.read_text() == "a library\n"
    compiler(path, machine="aarch64-linux-gnu")
    assert build_native.build(place) == [generic, place / "built.txt"]
    assert sorted(place.iterdir()) == sorted([generic, place / "built.txt"])


def test_a_compiler_may_say_what_is_no_text(build_native: ModuleType, path: Path, place: Path) -> None:
    compiler(path, refused="-mavx2", version=r"$(printf 'fake \\344')").chmod(0o755)
    build_native.build(place)
    assert (
        (place / "built.txt")
        .read_text(encoding="utf-8")
        .startswith("built by fake \ufffd for x86_64-linux-gnu: generic;")
    )


def test_without_a_compiler_nothing_stale_is_left(
    build_native: ModuleType, path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiler(path)
    monkeypatch.setenv("DOPANT_NATIVE", "0")  # of programs, and of an install: here it says nothing
    assert len(build_native.build(place)) == 5
    assert build_native.build(place, without="not wanted") == [place / "built.txt"] == list(place.iterdir())
    assert (place / "built.txt").read_text() == "not built: not wanted\n"
    build_native.build(place)
    program.unlink()
    assert build_native.build(place) == [place / "built.txt"] == list(place.iterdir())
    assert "no C++ compiler was found" in (place / "built.txt").read_text()


def make(kind: str, folder: Path, out: Path) -> Path:
    """A wheel or an sdist of a copy of this project."""
    pytest.importorskip("hatchling")
    if not folder.exists():
        folder.mkdir()
        for name in ("pyproject.toml", "hatch_build.py", "build_native.py", "README.md", "LICENSE", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        for name in ("native", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
    code = f"import hatchling.build as b; print(b.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def test_a_wheel_with_libraries_is_for_one_platform(path: Path, tmp_path: Path) -> None:
    compiler(path)
    wheel = make("wheel", tmp_path / "project", tmp_path)
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len([name for name in names if name.startswith("dopant/native/libdopant-")]) == 4
    assert "dopant/native/built.txt" in names


def test_a_wheel_without_a_compiler_is_for_all(path: Path, tmp_path: Path) -> None:
    wheel = make("wheel", tmp_path / "project", tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "libdopant" in name]
        assert archive.read("dopant/native/built.txt").startswith(b"not built: no C++ compiler was found")


def test_an_install_may_leave_the_libraries_out(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(path)
    monkeypatch.setenv("DOPANT_NATIVE", "0")
    with zipfile.ZipFile(make("wheel", tmp_path / "project", tmp_path)) as archive:
        assert archive.read("dopant/native/built.txt") == b"not built: DOPANT_NATIVE was 0 at the build\n"


def test_an_sdist_has_the_sources(path: Path, tmp_path: Path) -> None:
    with tarfile.open(make("sdist", tmp_path / "project", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"native/library.cpp", "native/weight.hpp", "hatch_build.py", "build_native.py"} <= inside
    assert not [name for name in inside if "libdopant" in name]
