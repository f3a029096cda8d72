from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dopant.errors import FileError, ResumeError
from dopant.models import LanguageModel
from dopant.structures import Doped, Kronecker, Sparse
from dopant.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dopant.training.overlay import open_overlays, prune

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))
STATES = {"state": (torch.randn(2, 3, 4), torch.randn(2, 3, 4)), "teacher": (torch.ones(1, 3, 5), torch.zeros(1, 3, 5))}


@pytest.fixture
def model(make_model: Callable[..., LanguageModel]) -> LanguageModel:
    return opened(make_model(DOPED))


def opened(model: LanguageModel) -> LanguageModel:
    originals = {f"lstm.weight_l{layer}": torch.randn(16, 8) for layer in (0, 1)}
    for overlay in open_overlays(model, originals, start="scratch", overlay_start=1.0):
        prune(overlay.weight, 30)
    return model


def contents(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_masks_states_and_progress_come_back(
    model: LanguageModel, make_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    path, progress = tmp_path / "checkpoint", Progress(7, 12.5, 100, 4, 4321, 0.25)
    kept = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    save_checkpoint(path, model, STATES, progress, "mine", kept)
    other = opened(make_model(DOPED, seed=1))
    assert not same(contents(other), contents(model))
    states, found, means = load_checkpoint(path, other, "mine")
    assert same(means, kept)
    assert found == progress
    assert same(contents(other), contents(model))
    for whose, state in STATES.items():
        assert all(map(torch.equal, states[whose], state))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_tied_weights_are_kept_once(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    model = make_model(tied=True)
    save_checkpoint(tmp_path / "checkpoint", model, {}, Progress(), "")
    assert not any(name.startswith("model/decoder.weight") for name in load_file(tmp_path / "checkpoint"))
    other = make_model(tied=True, seed=1)
    assert load_checkpoint(tmp_path / "checkpoint", other, "") == ({}, Progress(), {})
    assert same(contents(other), contents(model))


def refused(path: Path, model: LanguageModel, match: str, fingerprint: str = "mine") -> None:
    before = contents(model)
    with pytest.raises(ResumeError, match=match):
        load_checkpoint(path, model, fingerprint)
    assert same(contents(model), before)  # not even half of it


def test_another_run_s_checkpoint_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", model, STATES, Progress(), "mine")
    refused(tmp_path / "checkpoint", model, "belongs to another recipe, model or corpus; .*--force", "yours")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(model: LanguageModel, tmp_path: Path, keep: float) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model, STATES, Progress(), "mine")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refused(path, model, "is damaged")


def test_noise_and_a_missing_file_are_refused(model: LanguageModel, tmp_path: Path) -> None:
    refused(tmp_path / "checkpoint", model, "is damaged")
    (tmp_path / "checkpoint").write_bytes(os.urandom(1000))
    refused(tmp_path / "checkpoint", model, "is damaged")


def test_tensors_that_do_not_fit_are_refused(
    model: LanguageModel, make_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model, STATES, Progress(), "mine")
    refused(path, make_model(), "is damaged.*names|is damaged.*only one of them has")
    good = load_file(path)
    metadata = {"fingerprint": "mine", "progress": json.dumps(vars(Progress()))}
    last = max(name for name in good if name.startswith("model/"))
    for tensors, match in (
        ({**good, last: good[last][:-1].contiguous()}, "the model's"),
        ({**good, last: good[last].double()}, "float64"),
        ({**good, "model/surplus": torch.zeros(1)}, "surplus"),
        ({name: t for name, t in good.items() if name != last}, last.removeprefix("model/")),
        ({name: t for name, t in good.items() if name != "state/c"}, "state/c"),
    ):
        save_file(tensors, path, metadata)
        refused(path, model, match)


@pytest.mark.parametrize("change", [{"step": -1}, {"step": 1.5}, {"log_size": "x"}, {"loss_sum": None}, {"surplus": 1}])
def test_impossible_progress_is_refused(model: LanguageModel, tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model, {}, Progress(), "mine")
    metadata = {"fingerprint": "mine", "progress": json.dumps(vars(Progress()) | change)}
    save_file(load_file(path), path, metadata)
    refused(path, model, "is damaged")
    save_file(load_file(path), path, {"fingerprint": "mine", "progress": "{"})
    refused(path, model, "is damaged")


@pytest.mark.parametrize("moment", ["save_file", "fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, model, {}, Progress(3), "mine")
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        (tmp_path / "checkpoint.new").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    where = {
        "save_file": "dopant.training.checkpoint.save_file",
        "fsync": "os.fsync",
        "replace": "pathlib.Path.replace",
    }
    monkeypatch.setattr(where[moment], full)
    with pytest.raises(FileError, match=r"could not be written: .*No space left on device; free some space and resume"):
        save_checkpoint(path, model, {}, Progress(4), "mine")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_is_really_full(model: LanguageModel, tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {tmp_path} 2>/dev/null"):
        pytest.skip("no right to mount")
    try:
        save_checkpoint(tmp_path / "checkpoint", model, {}, Progress(), "mine")
        with suppress(OSError), (tmp_path / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(FileError, match="could not be written"):
            save_checkpoint(tmp_path / "checkpoint", model, {}, Progress(1), "mine")
        assert load_checkpoint(tmp_path / "checkpoint", model, "mine")[1].step == 0
    finally:
        os.system(f"umount {tmp_path}")


def test_what_is_loaded_lies_as_what_torch_makes(model: LanguageModel, tmp_path: Path) -> None:
    """Products of states at odd addresses, as in the mapped file, were rounded otherwise than in the unbroken run."""
    states = {str(n): (torch.zeros(n), torch.zeros(n)) for n in range(1, 9)}
    save_checkpoint(tmp_path / "checkpoint", model, states, Progress(), "")
    loaded, _, _ = load_checkpoint(tmp_path / "checkpoint", model, "")
    assert {part.data_ptr() % 64 for state in loaded.values() for part in state} == {0}
