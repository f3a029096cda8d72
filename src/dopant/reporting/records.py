"""What was run, where and from which code: the record that every measured number is kept with."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dopant import version
from dopant.errors import InputError
from dopant.reporting.writing import write_text

UNKNOWN = "unknown"
BUILT_FROM = "commit.txt"  # in a built package: the commit, and a word more if there were changes
_MADE = (
    "results",
    "docs",
    "README.md",
)  # as in hatch_build.py: where records and their tables go: to write one does not change the code


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity: both are written as null, like a number that was never measured."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value) if isfinite(value) else None
    return value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A measured number; None where there is none (not measured, NaN, infinite)."""

Count = Annotated[int, Field(ge=0)]


class Kept(BaseModel):
    """The base of all that goes into a JSON file: unchangeable, and read back without surplus or missing keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, revalidate_instances="never")


class Machine(Kept):
    """The machine a number was measured on; no host name, no user, no path.

    Args:
        cpu: the processor's model name.
        cores: logical cores this process may use.
        memory_bytes: physical memory.
        os: the operating system and its version.
        threads: threads that torch computed with.
        device: "cpu", or the accelerator's name.
    """

    cpu: str
    cores: Count
    memory_bytes: Count
    os: str
    threads: Count
    device: str = "cpu"


class Versions(Kept):
    """The versions of what computed."""

    dopant: str
    python: str
    torch: str
    numpy: str


class Record(Kept):
    """What was run.

    Args:
        command: the command line, `dopant ...`, quoted for a shell; without --resume, so that it does it all again.
        commit: the git commit of dopant's checkout, or of the one that an installed package was built from; "unknown"
            where there was no git.
        dirty: the checkout had changes that are not in `commit`; not counting what is made from records.
        time: when the run began, UTC, ISO 8601.
        seconds: how long it took, wall clock.
    """

    command: str
    commit: str
    dirty: bool
    versions: Versions
    machine: Machine
    seed: int
    time: str
    seconds: Number = None


def make_record(
    arguments: Sequence[str],
    *,
    seed: int,
    threads: int | None = None,
    device: str = "cpu",
    started: datetime | None = None,
    code: tuple[str, bool] | None = None,
) -> Record:
    """The record of a run that began at `started` (default: now) and ends now.

    Args:
        arguments: the command's arguments, without the program: ``["compare", "--corpus", "python-docs"]``.
        threads: threads that torch computes with (default: asks torch).
        code: what `find_code` found when the run began, as the checkout may have moved on (default: asks now).
    """
    now = datetime.now(UTC)
    began = (started or now).astimezone(UTC)
    commit, dirty = code or find_code()
    return Record(
        command=shlex.join(["dopant", *(argument for argument in arguments if argument != "--resume")]),
        commit=commit,
        dirty=dirty,
        versions=find_versions(),
        machine=find_machine(threads, device),
        seed=seed,
        time=began.isoformat(timespec="seconds"),
        seconds=round((now - began).total_seconds(), 3),
    )


def find_code() -> tuple[str, bool]:
    """The commit of this package, and whether there are changes; see `find_commit`. A wheel brings its own along."""
    folder = Path(version.__file__).parent
    found = find_commit(folder)
    if found[0] != UNKNOWN:
        return found
    try:
        commit, *changed = (folder / BUILT_FROM).read_text().split()
    except (OSError, ValueError):
        return found
    return commit, bool(changed)


def find_commit(folder: Path) -> tuple[str, bool]:
    """The commit of the checkout that tracks the package in `folder`, and whether tracked files differ from it.

    Records, and pages that are made from them, may differ: else no second record could be made of one commit. Where git
    does not say in ten seconds, files are held to differ.

    ("unknown", False) without git, outside a checkout, or when the package merely lies inside someone else's
    (a virtual environment within another project).
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(folder, "rev-parse", "HEAD")
    if tracked is None or commit is None:
        return UNKNOWN, False
    made = [f":(top,exclude){name}" for name in _MADE]
    return commit, _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", *made) != ""


def find_versions() -> Versions:
    """The versions of python and of the packages, without importing them."""
    return Versions(
        dopant=version.VERSION,
        python=platform.python_version(),
        torch=installed("torch") or UNKNOWN,
        numpy=installed("numpy") or UNKNOWN,
    )


def installed(package: str) -> str | None:
    """The version of a package, without importing it; None where it is absent."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None


def find_machine(threads: int | None = None, device: str = "cpu") -> Machine:
    """This machine; `threads` defaults to those torch uses."""
    if threads is None:
        import torch  # seconds to import, and only this line needs it

        threads = torch.get_num_threads()
    return Machine(cpu=_cpu(), cores=cores(), memory_bytes=_memory_bytes(), os=_os(), threads=threads, device=device)


K = TypeVar("K", bound=Kept)


def write_kept(path: str | Path, kept: Kept) -> Path:
    """Write as indented JSON, whole or not at all."""
    return write_text(path, kept.model_dump_json(indent=1) + "\n")


def read_kept(path: str | Path, kind: type[K]) -> K:
    """Read what `write_kept` wrote.

    Raises:
        InputError: no such file, not JSON, or keys missing, left over or of the wrong type; all are named.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors()]
        more = f"\n  and {len(mistakes) - 8} more" if len(mistakes) > 8 else ""
        raise InputError(
            f"{path} is not a {kind.__name__.lower()} of this version of dopant "
            f"({version.VERSION}); make it again with the command that wrote it:\n  " + "\n  ".join(mistakes[:8]) + more
        ) from error


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found.group(1).strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        try:
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or platform.machine() or UNKNOWN


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
