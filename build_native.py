"""Compiles the native library, once for each level of processor, into src/dopant/native.

The package's build does this by itself (`hatch_build.py`); after a change of the sources `python build_native.py` does
it again. What the same compiler made of these sources is kept. Without a compiler there are no libraries, and torch
serves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "native"
PLACE = ROOT / "src" / "dopant" / "native"
NOTE = "built.txt"
"""Beside the libraries: one line that says what was built and by what, or why nothing was."""

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    *("-std=gnu++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-fPIC", "-shared", "-pthread"),
)
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
LEVELS = {
    "generic": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512vnni": (*_AVX512, "-mavx512vnni", "-mavx512vbmi"),
}
"""Each level of an x86-64 processor and its flags; other processors have the first alone."""


class BuildError(Exception):
    """There is no compiler, or it failed; in one line."""


def find_compiler() -> list[str]:
    """The C++ compiler as the beginning of a command: $CXX, else the first of `COMPILERS` on the path.

    Raises:
        BuildError: there is none.
    """
    wanted = os.environ.get("CXX", "").strip()
    if wanted:
        try:
            command = shlex.split(wanted)
        except ValueError as error:
            raise BuildError(f"CXX is {wanted!r}, which is no command: {error}") from error
        if shutil.which(command[0]) is None:
            raise BuildError(f"CXX is {wanted!r}, which is not there")
        return command
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return [name]
    raise BuildError(f"no C++ compiler was found ({', '.join(COMPILERS)})")


def levels_of(compiler: Sequence[str]) -> list[str]:
    """The levels of the processor that a compiler compiles for."""
    return list(LEVELS) if machine_of(compiler).startswith(("x86_64", "amd64")) else ["generic"]


def machine_of(compiler: Sequence[str]) -> str:
    """What a compiler compiles for."""
    return _answer([*compiler, "-dumpmachine"])


def library_path(level: str, place: Path = PLACE) -> Path:
    """Where the library of a level is."""
    return place / f"libdopant-{level}.{'dylib' if sys.platform == 'darwin' else 'so'}"


def compile_level(compiler: Sequence[str], level: str, place: Path, more: Sequence[str] = ()) -> None:
    """Compile one level, with more flags if given; what is newer than the sources is kept.

    Raises:
        BuildError: the compiler failed.
    """
    target = library_path(level, place)
    sources = [*SOURCES.iterdir(), Path(__file__)]
    if target.exists() and target.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    target.unlink(missing_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")  # renamed when it is whole: another process may be loading
    try:
        _answer([*compiler, *FLAGS, *LEVELS[level], *more, str(SOURCES / "library.cpp"), "-o", str(unfinished)])
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def build(place: Path = PLACE, *, without: str = "") -> list[Path]:
    """All levels, two at a time, and the note: the files that the package is to hold.

    A level that the compiler does not know is left out.

    Args:
        place: where they go; what another compiler made there, or this one for another machine, is made again.
        without: why to leave out all of them.
    """
    made, problems = [], []
    note = place / NOTE
    try:
        if without:
            raise BuildError(without)
        compiler = find_compiler()
        version = _answer([*compiler, "--version"]).partition("\n")[0]
        by = f"built by {' '.join([version, *compiler[1:]])} for {machine_of(compiler)}: "
        levels = levels_of(compiler)
        if not note.exists() or not note.read_text(encoding="utf-8", errors="replace").startswith(by):
            note.unlink(missing_ok=True)  # should this be interrupted, it would be of another compiler
            for level in LEVELS:
                library_path(level, place).unlink(missing_ok=True)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(compile_level, compiler, level, place) for level in levels]
        for level, done in zip(levels, waiting, strict=True):
            if error := done.exception():
                problems.append(f"{level}: {error}")
            else:
                made.append(level)
        line = "; ".join([by + (", ".join(made) or "nothing"), *problems])
    except BuildError as error:
        line = f"not built: {error}"
    for level in LEVELS:
        if level not in made:
            library_path(level, place).unlink(missing_ok=True)
    note.write_text(line + "\n", encoding="utf-8")
    return [library_path(level, place) for level in made] + [note]


def _answer(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["failed"]
        raise BuildError(f"{command[0]}: {lines[0].strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    build()
    print((PLACE / NOTE).read_text(encoding="utf-8").strip())
