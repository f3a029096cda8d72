"""Memory that was freed is taken again without new pages from the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from dopant.training.memory import keep_freed_memory

PROGRAM = """
import ctypes, resource, sys, torch
from dopant.training.memory import keep_freed_memory

def step():
    return torch.zeros(12 << 20)  # 48 MiB: more than glibc would ever keep by itself

if "keep" in sys.argv:
    keep_freed_memory()
for _ in range(8):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def said(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", program, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back")
def test_freed_memory_is_kept() -> None:
    if not said("import ctypes; print(ctypes.CDLL(None).mallopt(-3, 1 << 30))"):
        pytest.skip("this glibc keeps no pieces of so many MiB")
    assert 5 * said(PROGRAM, "keep") < said(PROGRAM)


@pytest.mark.parametrize(("most", "calls"), [(1 << 30, [-3, -1]), (32 << 20, [-3, -3, -1]), (0, [-3, -3])])
def test_what_an_older_glibc_refuses(most: int, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the trim threshold alone set, glibc would keep even less than by itself."""
    asked: list[int] = []

    class Library:
        def mallopt(self, name: int, value: int) -> int:
            asked.append(name)
            return int(name == -1 or value <= most)

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    keep_freed_memory()
    assert asked == calls
