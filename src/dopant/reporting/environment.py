"""What is installed, where it runs, and which path computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dopant.native.status import Status, status
from dopant.reporting.records import Versions, find_machine, find_versions, installed

EXTRAS = ("onnxruntime", "onnx", "accelerate", "tokenizers")


@dataclass(frozen=True)
class Environment:
    """What is installed and where it runs.

    Args:
        versions: of dopant, python, torch and numpy.
        os: the operating system and its version.
        cpu: the processor's model name.
        cores: logical cores this process may use.
        native: the native library.
        extras: each optional package and its version, None where it is absent.
    """

    versions: Versions
    os: str
    cpu: str
    cores: int
    native: Status
    extras: dict[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """As `dopant env --json` prints it."""
        return {**asdict(self), "versions": self.versions.model_dump()}


def environment() -> Environment:
    """Look around; nothing is imported for it, torch least of all.

    Raises:
        InputError: DOPANT_NATIVE forces a level of the native library that cannot be used.
    """
    machine = find_machine(threads=1)
    extras = {name: installed(name) for name in EXTRAS}
    return Environment(find_versions(), machine.os, machine.cpu, machine.cores, status(), extras)
