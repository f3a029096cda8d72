"""Builds `test_kernels` and runs it with the library of each level: `make native-test`.

Every level that this machine can run, as it is shipped and with the address and undefined-behaviour sanitizers; then
the generic one on an old processor and on ARM, and the best one by another compiler, where Debian's qemu-user,
g++-aarch64-linux-gnu and clang are there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / "build" / "native-test"

sys.path.insert(0, str(ROOT))

import build_native  # noqa: E402

SANITIZED = (
    *("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-include", str(HERE / "interface.hpp")),
)
OLD_PROCESSOR = ("qemu-x86_64", "-cpu", "core2duo")
OTHER_COMPILER = "clang++"
ARM, ARM_COMPILER = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"), "aarch64-linux-gnu-g++"


@dataclass(frozen=True)
class Build:
    """One compiler with one set of flags; the test itself is compiled once, and as it is for users."""

    name: str
    compiler: Sequence[str]
    libraries: Path
    more: Sequence[str] = ()

    @property
    def place(self) -> Path:
        """The folder of the test itself."""
        return PLACE / self.name

    def start(self) -> None:
        """Compile the test."""
        self.place.mkdir(parents=True, exist_ok=True)
        flags = ["-std=gnu++17", "-O2", "-Wall", "-Wextra", "-Werror"]
        run([*self.compiler, *flags, "-c", str(HERE / "test_kernels.cpp"), "-o", str(self.place / "test.o")])

    def program(self, level: str) -> Path:
        """Compile the library of a level, and link the test with it, unless that is done."""
        build_native.compile_level(self.compiler, level, self.libraries, self.more)
        library = build_native.library_path(level, self.libraries)
        test, program = self.place / "test.o", self.place / f"test-{level}"
        if not program.exists() or program.stat().st_mtime < max(test.stat().st_mtime, library.stat().st_mtime):
            run([*self.compiler, *self.more, str(test), str(library), "-pthread", "-o", str(program)])
        return program


def run(command: Sequence[str]) -> str:
    """Its output.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        lines = done.stdout.splitlines()[:30]  # of a sanitizer's pages the first tells
        raise SystemExit("\n".join([f"{' '.join(command)} ended with {done.returncode}:", *lines]))
    return done.stdout.strip()


def try_level(build: Build, level: str, machine: Sequence[str] = ()) -> str:
    """Run the test with one level; what there is to say of it, which begins with FAILED where it failed."""
    name = ", ".join([build.name, level, *([" ".join(machine)] if machine else [])])
    try:
        said = run([*machine, str(build.program(level))])
    except (SystemExit, build_native.BuildError) as error:
        return f"FAILED {name}: {error}"
    return f"{name}: {said}"


def main() -> None:
    """Try all; exit with 1 where one failed."""
    try:
        compiler = build_native.find_compiler()
    except build_native.BuildError as error:
        print(f"nothing to test: {error}")
        return
    shipped = Build("shipped", compiler, build_native.PLACE)
    sanitized = Build("sanitized", compiler, PLACE / "sanitized", SANITIZED)
    jobs: list[tuple[Build, str, Sequence[str]]] = []
    absent: list[str] = []
    shipped.start()
    sanitized.start()
    generic = str(shipped.program("generic"))
    best = run([generic, "--best"])
    levels = build_native.levels_of(compiler)
    for build in (sanitized, shipped):
        jobs += [(build, level, ()) for level in reversed(levels[: levels.index(best) + 1])]
    if len(levels) > 1 and shutil.which(OLD_PROCESSOR[0]):
        jobs.append((shipped, "generic", OLD_PROCESSOR))
        assert run([*OLD_PROCESSOR, generic, "--best"]) == "generic"
    else:
        absent.append(f"an old processor ({OLD_PROCESSOR[0]})")
    if shutil.which(ARM[0]) and shutil.which(ARM_COMPILER):
        arm = Build("arm", [ARM_COMPILER], PLACE / "arm")
        arm.start()
        jobs.append((arm, "generic", ARM))
    else:
        absent.append(f"ARM ({ARM[0]}, {ARM_COMPILER})")
    if shutil.which(OTHER_COMPILER):
        other = Build(OTHER_COMPILER, [OTHER_COMPILER], PLACE / OTHER_COMPILER)
        other.start()
        jobs.append((other, best, ()))
    else:
        absent.append(f"another compiler ({OTHER_COMPILER})")
    with ThreadPoolExecutor(2) as pool:
        outcomes = []
        for outcome in pool.map(lambda job: try_level(*job), jobs):
            print(outcome, flush=True)
            outcomes.append(outcome)
    if absent:
        print(f"left out, as it is not installed here: {' and '.join(absent)}")
    if any(outcome.startswith("FAILED") for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
