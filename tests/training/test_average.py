from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dopant.errors import ResumeError
from dopant.models import LanguageModel
from dopant.structures import Doped, DopedWeight, Kronecker, Sparse
from dopant.training.average import AVERAGE_EVERY, Average
from dopant.training.descent import Descent
from dopant.training.loop import Result

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))
Make = Callable[..., LanguageModel]
Training = Callable[..., Result]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights after each step."""
    seen: list[dict[str, Tensor]] = []
    real = Average.after

    def noted(self: Average, step: int) -> None:
        seen.append({name: parameter.detach().clone() for name, parameter in self.parameters.items()})
        real(self, step)

    monkeypatch.setattr(Average, "after", noted)
    return seen


@pytest.mark.parametrize("start", [0.0, 0.3, 0.5])
def test_what_is_kept_is_the_mean_of_what_was_passed(
    start: float, make_model: Make, run_training: Training, after: list[dict[str, Tensor]]
) -> None:
    model = make_model(DOPED).double()
    run_training(model, epochs=3, average_from=start)
    due = [step for step in range(1, 25) if step > start * 24 and step % AVERAGE_EVERY == 0]
    assert len(after) == 24
    assert len(due) > 1
    for name, tensor in weights(model).items():
        expected = torch.stack([after[step - 1][name] for step in due]).mean(0)
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(tensor, after[-1][name])


def test_learning_goes_on_from_the_weights_and_not_from_their_mean(
    make_model: Make, run_training: Training, after: list[dict[str, Tensor]]
) -> None:
    run_training(make_model(DOPED), average_from=0.3, epochs=3)
    averaged, after[:] = list(after), []
    plain = make_model(DOPED)
    run_training(plain, epochs=3)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(averaged, after, strict=True) for name in a)
    assert all(torch.equal(tensor, after[-1][name]) for name, tensor in weights(plain).items())


def test_what_is_validated_is_the_mean_as_soon_as_there_is_one(
    make_model: Make, run_training: Training, after: list[dict[str, Tensor]]
) -> None:
    """Of 8 steps an epoch; the first mean is that after step 10."""
    seen: list[tuple[int, dict[str, Tensor]]] = []

    def look(model: nn.Module) -> float:
        seen.append((len(after), weights(model)))
        return 1.0

    run_training(make_model(), epochs=3, average_from=0.4, validate=look)
    for steps, found in seen:
        due = [step for step in (10, 15, 20) if step <= steps] or [steps]
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, torch.stack([after[step - 1][name] for step in due]).mean(0))
    assert [steps for steps, _ in seen] == [8, 16, 24]


def test_pruned_entries_stay_pruned(make_model: Make, run_training: Training) -> None:
    model = make_model(DOPED)
    run_training(model, average_from=0.3, sparsify={"begin": 0.0, "end": 0.9, "every": 3})
    doped = [weight for weight in model.modules() if isinstance(weight, DopedWeight)]
    assert [int(torch.count_nonzero(weight.overlay.to_dense())) for weight in doped] == [20, 20]


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("kill", [3, 10, 13, 16, 23])
def test_a_resumed_run_has_the_same_mean(
    kill: int, make_model: Make, run_training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"average_from": 0.3, "epochs": 3, "checkpoint_every": 2}
    originals = {f"lstm.weight_l{layer}": torch.randn(16, 8) for layer in (0, 1)}
    unbroken = make_model(DOPED)
    run_training(unbroken, originals=originals, **settings)
    real, calls = Descent.step, []

    def step(self: Descent, rate: float | Tensor) -> None:
        calls.append(1)
        if len(calls) == kill:
            raise KilledError
        real(self, rate)

    monkeypatch.setattr(Descent, "step", step)
    with pytest.raises(KilledError):
        run_training(make_model(DOPED), originals=originals, folder=tmp_path, **settings)
    monkeypatch.undo()
    for _ in range(2):  # the second time all steps are done already
        resumed = make_model(DOPED)
        run_training(resumed, originals=originals, folder=tmp_path, resume=True, **settings)
        assert same(resumed, unbroken)


def test_frozen_weights_have_no_mean(make_model: Make) -> None:
    model = make_model()
    model.embedding.weight.requires_grad_(False)
    assert not any(name.startswith("embedding") for name in Average(model, 0).parameters)


def test_a_checkpoint_has_means_only_where_they_are_taken_and_all_of_them(
    make_model: Make, run_training: Training, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    run_training(make_model(DOPED), folder=tmp_path)
    assert not any(name.startswith("mean/") for name in load_file(path))
    run_training(make_model(DOPED), folder=tmp_path, average_from=0.3)
    tensors = load_file(path)
    means = [name for name in tensors if name.startswith("mean/")]
    assert len(means) == len(list(make_model(DOPED).parameters()))
    del tensors[means[0]]
    progress = {"step": 16, "loss_sum": 0.0, "token_steps": 0, "averaged": 2, "log_size": 0, "seconds": 0.0}
    save_file(tensors, path, {"fingerprint": "this run", "progress": json.dumps(progress)})
    with pytest.raises(ResumeError, match=r"is damaged .*means of \d+ weights over 2 steps"):
        run_training(make_model(DOPED), folder=tmp_path, average_from=0.3, resume=True)
