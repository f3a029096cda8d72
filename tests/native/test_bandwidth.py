from __future__ import annotations

from pathlib import Path

import pytest

from dopant.native import bandwidth as module
from dopant.native import cache_sizes


def test_caches_as_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "Unified", "260M"))
    for number, one in enumerate(told):
        (tmp_path / f"index{number}").mkdir()
        for name, text in zip(("level", "type", "size"), one, strict=True):
            (tmp_path / f"index{number}" / name).write_text(text + "\n")
    monkeypatch.setattr(module, "_CACHES", tmp_path)
    assert cache_sizes() == {"L1": 48 << 10, "L2": 2 << 20, "L3": 260 << 20}
    monkeypatch.setattr(module, "_CACHES", tmp_path / "nothing")
    assert cache_sizes() == {}
