from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dopant.data import Corpus
from dopant.recipes.read import resolved_yaml
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.storage.folder import load_model

pytestmark = pytest.mark.slow


def test_torchrun_launches_the_command(
    tiny: Callable[..., Recipe], corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    """Two processes, one set of files and messages; refusals come from both, before anything is written."""
    pytest.importorskip("accelerate")
    recipe = tiny(
        "doped-kronecker", training={"co_matrix_dropout": {"rate": 0.2}, "batch": 4, "unroll": 5, "epochs": 1}
    )
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(recipe))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    launcher += ["-m", "dopant", "train"]
    command = [*launcher, str(tmp_path / "recipe.yaml"), "--corpus", str(corpus_folder), "--accelerate"]

    def launched(*options: str) -> subprocess.CompletedProcess[str]:
        out = ["--out", str(tmp_path / "m")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*command, *out, *options], capture_output=True, text=True, env=environment, timeout=300)

    done = launched("--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"parameter_factor"') == 1
    assert done.stderr.count("wrote ") == 1
    alone = tmp_path / "alone"
    run_recipe(recipe, corpus, alone)
    ours, theirs = load_model(tmp_path / "m").model, load_model(alone).model
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name].float(), tensor.float(), rtol=1e-3, atol=1e-3)

    before = {path: path.read_bytes() for path in (tmp_path / "m.run").iterdir()}
    refused = launched()
    assert refused.returncode != 0
    assert "exists; go on with --resume" in refused.stderr
    assert launched("--resume").returncode == 0
    assert {path: path.read_bytes() for path in (tmp_path / "m.run").iterdir()} == before
    odd = launched("--force", "--set", "training.batch=5")
    assert "a batch of 5 cannot be shared among 2 processes" in odd.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "m.run").iterdir()} == before
