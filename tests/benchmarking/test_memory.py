from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dopant.benchmarking import memory
from dopant.benchmarking.torch_engines import TORCH
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage.folder import save


def test_a_process_that_fails_measures_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(command: list[str], **options: Any) -> Any:
        assert command[1:] == ["-m", "dopant.benchmarking.memory", str(tmp_path), "torch", "float32", "lstm"]
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(memory, "_STATUS", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    assert memory.held(TORCH, "lstm", tmp_path).bytes is None


@pytest.mark.slow
def test_a_process_of_its_own_measures_what_a_dense_model_takes(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", LanguageModel(LanguageModelConfig(100, 400)))
    found = memory.held(TORCH, "lstm", folder).bytes
    size = 4 * 2 * 1600 * 800
    assert found is not None
    assert 0.9 * size < found < 2.5 * size
