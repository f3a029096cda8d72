"""Where a run keeps what, and whether it may: nothing is written before everything has been asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dopant.errors import InputError, ResumeError
from dopant.reporting.writing import write_text
from dopant.storage.folder import check_place


@dataclass(frozen=True)
class Places:
    """The model folder is whole or absent; all else lies in a folder beside it."""

    model: Path

    @classmethod
    def of(cls, out: str | Path) -> Places:
        """The places of a run that is told to write to `out`.

        Raises:
            InputError: nothing can lie beside it.
        """
        path = Path(out)
        path = path if path.name not in ("", "..") else Path(os.path.abspath(path))
        if not path.name:
            raise InputError(f"{path} cannot become a model folder; choose another place")
        return cls(path)

    @property
    def run(self) -> Path:
        """Log, plan, checkpoint and report."""
        return self.model.with_name(self.model.name + ".run")

    @property
    def lock(self) -> Path:
        """Held by the process that is at work in the run's folder; means nothing where no process holds it."""
        return self.model.with_name(self.model.name + ".run.lock")

    @property
    def recipe(self) -> Path:
        """The recipe with every default written out."""
        return self.run / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """What each weight becomes."""
        return self.run / "plan.json"

    @property
    def fingerprint(self) -> Path:
        """Tells this run from every other; written last, when the run is ready to begin."""
        return self.run / "fingerprint"

    @property
    def checkpoint(self) -> Path:
        """Only there while the run is not done."""
        return self.run / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """The training log as it happens."""
        return self.run / "log.jsonl"

    @property
    def report(self) -> Path:
        """The run's report, of one row: it exists when the run is done."""
        return self.run / "report.json"

    @property
    def finished(self) -> bool:
        """Whether the run is done and its model is there."""
        return self.report.exists() and self.model.exists()


def check_claim(places: Places, *, force: bool, resume: bool) -> None:
    """See that a run may write where it was told to; nothing is changed.

    Raises:
        InputError: something is there, and neither `force` nor `resume` says what to do with it; or it is nothing
            that a run has made.
    """
    if force and resume:
        raise InputError("force starts anew and resume goes on; give one of them")
    there = next((path for path in (places.model, places.run) if os.path.lexists(path)), None)
    if there is None:
        return
    if not (force or resume):
        raise InputError(f"{there} exists; go on with --resume, replace it with --force, or choose another place")
    if os.path.lexists(places.run) and not _is_run(places):
        raise InputError(f"{places.run} is not the folder of a run; move it away or choose another place")
    check_place(places.model, force=True)
    if resume and not places.run.exists():
        raise InputError(
            f"{places.model} exists, but not {places.run} with the run that made it: there is nothing to resume; "
            "replace it with --force, or choose another place"
        )


def _is_run(places: Places) -> bool:
    """A run's folder has a recipe; one that was killed at its very start may have only a part of it."""
    if places.recipe.exists():
        return True
    return places.run.is_dir() and all(entry.name.endswith(".part") for entry in places.run.iterdir())


def is_finished(places: Places, fingerprint: str) -> bool:
    """Whether a run to be resumed is done already.

    Raises:
        ResumeError: what is there is another run.
    """
    finished = places.finished
    begun = places.fingerprint.read_text("utf-8").strip() if places.fingerprint.exists() else None
    if begun != fingerprint and (begun is not None or finished):
        raise ResumeError(
            f"{places.run} belongs to another recipe, model or corpus ({places.recipe} is what it was made with); "
            "resume with that, or start anew with --force"
        )
    return finished


@contextlib.contextmanager
def alone(places: Places) -> Iterator[None]:
    """See that no other process works in a run's folder for as long; where files cannot be locked, nothing is seen.

    Raises:
        InputError: another does.
    """
    file = _locked(places.lock)
    try:
        yield
    finally:
        if file is not None:
            places.lock.unlink(missing_ok=True)
            os.close(file)


def _locked(path: Path) -> int | None:
    """A descriptor whose lock ends with the process at the latest."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None  # where nothing can be written, what is written first says so
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            os.close(file)
            raise InputError(
                f"another dopant is at work in {path.with_suffix('')}; wait for it, or choose another place"
            ) from None
        except OSError:  # a file system without locks, or the file went away between two looks
            os.close(file)
            return None
        os.close(file)  # of one that has just ended, which has removed it


def begin(places: Places, *, recipe: str, plan: str, fingerprint: str, force: bool) -> None:
    """Make the run's folder, and with `force` remove the old one first.

    Raises:
        OSError: it cannot be written.
    """
    if force and places.run.exists():
        shutil.rmtree(places.run)
    places.run.mkdir(parents=True, exist_ok=True)
    if not places.fingerprint.exists():
        write_text(places.recipe, recipe)
        write_text(places.plan, plan + "\n")
        write_text(places.fingerprint, fingerprint + "\n")
