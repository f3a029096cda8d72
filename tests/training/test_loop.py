from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import DivergenceError, FileError, InputError, ResumeError
from dopant.evaluation import perplexity
from dopant.layers import slots
from dopant.models import LanguageModel
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse, Stacked, Structure
from dopant.training.loop import Result

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))
Make = Callable[..., LanguageModel]
Training = Callable[..., Result]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def by_the_book(model: LanguageModel, columns: Tensor, epochs: int, unroll: int, clip: float) -> None:
    """Zaremba et al. written down once more: mean over the batch, sum over time, state carried, rate halved."""
    for epoch in range(epochs):
        state = None
        for start in range(0, len(columns) - unroll, unroll):
            inputs, targets = columns[start : start + unroll], columns[start + 1 : start + 1 + unroll]
            logits, (h, c) = model(inputs, state)
            state = (h.detach(), c.detach())
            loss = unroll * F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            model.zero_grad()
            loss.backward()
            parameters = list(model.parameters())
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
            rate = 0.5**epoch * min(1.0, clip / norm)
            with torch.no_grad():
                for p in parameters:
                    assert p.grad is not None
                    p -= rate * p.grad


@pytest.mark.parametrize("clip", [0.9, 1e6])
def test_the_loop_does_what_the_paper_says(
    make_model: Make, run_training: Training, columns: Tensor, clip: float
) -> None:
    ours, theirs = make_model().double(), make_model().double()
    result = run_training(ours, epochs=3, clip=clip)
    by_the_book(theirs, columns, 3, 5, clip)
    for name, tensor in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], tensor, rtol=1e-9, atol=1e-12)
    assert result.steps == 24
    assert [point["tokens"] for point in result.curves] == [160, 320, 480]
    assert result.curves[-1]["valid_perplexity"] == pytest.approx(perplexity(theirs, columns))


def test_without_a_clip_gradients_are_as_they_are(make_model: Make, run_training: Training) -> None:
    free, loose = make_model(), make_model()
    run_training(free, clip=0.0)
    run_training(loose, clip=1e6)
    assert equal(free, loose)


@pytest.mark.parametrize("tf32", [False, True])
def test_only_training_multiplies_in_tensor_float_32(
    make_model: Make, run_training: Training, tf32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[bool] = []

    @contextmanager
    def noted(device: torch.device, *, tf32: bool) -> Iterator[None]:
        now.append(tf32)
        yield
        now.pop()

    seen: set[tuple[bool, bool]] = set()
    for module in ("dopant.training.loop", "dopant.evaluation.mode"):
        monkeypatch.setattr(f"{module}.matrix_products", noted)
    model = make_model()
    model.register_forward_pre_hook(lambda module, inputs: seen.add((module.training, now[-1])))
    run_training(model, tf32=tf32)
    assert seen == {(True, tf32), (False, False)}


def test_the_train_perplexity_is_that_of_the_epoch(make_model: Make, run_training: Training, columns: Tensor) -> None:
    still = make_model()
    result = run_training(still, learning_rate=1e-9)
    expected = perplexity(still, columns[:41])
    assert [point["train_perplexity"] for point in result.curves] == pytest.approx([expected] * 2, rel=1e-5)


def one_step(model: LanguageModel, run_training: Training, columns: Tensor, **settings: object) -> dict[str, Tensor]:
    """By how much each parameter moves."""
    before: dict[str, Tensor] = {}

    def note(module: nn.Module, inputs: object) -> None:
        before.update({} if before else {name: p.detach().clone() for name, p in module.named_parameters()})

    model.register_forward_pre_hook(note)
    torch.manual_seed(0)
    run_training(model, epochs=1, clip=0.0, text=columns[:6], **settings)
    return {name: before[name] - p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("structure", "multipliers"),
    [
        (DOPED, {".base.": 0.25, ".overlay.": 1.0}),
        (Doped(LowRank(1), Sparse(20)), {".base.": 0.25, ".overlay.": 1.0}),
        (Kronecker(((4, 2), (4, 4))), {".factor_": 0.125}),
        (LowRank(2), {".left": 0.125, ".right": 0.125}),
        (Stacked((Dense(), LowRank(1)), (4, 12)), {".parts.0.": 1.0, ".parts.1.": 0.125}),
        (
            Doped(Stacked((Dense(), LowRank(1)), (4, 12)), Sparse(9)),
            {".parts.0.": 1.0, ".parts.1.": 0.25, ".overlay.": 1.0},
        ),
        (Sparse(20), {".matrix": 1.0}),
        (None, {".matrix": 1.0}),
    ],
)
def test_each_group_has_its_learning_rate(
    make_model: Make,
    run_training: Training,
    columns: Tensor,
    structure: Structure | None,
    multipliers: dict[str, float],
) -> None:
    alike = {"factor_learning_rate": 1.0, "structure_learning_rate": 1.0}
    apart = {"factor_learning_rate": 0.25, "structure_learning_rate": 0.125}
    whole = one_step(make_model(structure).double(), run_training, columns, **alike)
    moved = one_step(make_model(structure).double(), run_training, columns, **apart)
    seen = set()
    for name, distance in moved.items():
        part = next((part for part in multipliers if name.startswith("lstm.weight") and part in name), "")
        torch.testing.assert_close(distance, multipliers.get(part, 1.0) * whole[name])
        assert distance.abs().sum() > 0
        seen.add(part)
    assert seen == {"", *multipliers}


def test_a_multiplier_of_zero_freezes_the_factors(doped_model: LanguageModel, run_training: Training) -> None:
    before = weights(doped_model)
    run_training(doped_model, factor_learning_rate=0.0)
    for name, tensor in weights(doped_model).items():
        if ".overlay." not in name:
            assert torch.equal(before[name], tensor) is (".base." in name), name


@pytest.mark.parametrize(
    "dropout",
    [{}, {"rate": 0.5}, {"rate": 0.5, "path": "whole"}, {"rate": 0.3, "sharing": "element", "path": "overlay"}],
)
@pytest.mark.parametrize("structure", [DOPED, Sparse(20), LowRank(2)])
def test_both_contractions_train_to_the_same_weights(
    make_model: Make, run_training: Training, structure: Doped, dropout: dict[str, object]
) -> None:
    ended = []
    for contraction in ("dense", "factored"):
        model = make_model(structure).double()
        torch.manual_seed(0)
        run_training(model, contraction=contraction, co_matrix_dropout=dropout)
        assert model.lstm.contraction == contraction
        ended.append(weights(model))
    for name, tensor in ended[0].items():
        torch.testing.assert_close(tensor, ended[1][name])


def test_co_matrix_dropout_changes_what_is_learnt_but_not_the_evaluation(
    make_model: Make, run_training: Training, columns: Tensor
) -> None:
    models = [make_model(DOPED) for _ in range(2)]
    for model, rate in zip(models, (0.0, 0.5), strict=True):
        torch.manual_seed(0)
        result = run_training(model, co_matrix_dropout={"rate": rate})
        assert all(slot.weight.row_masks is None for slot in slots(model))
        assert result.curves[-1]["valid_perplexity"] == perplexity(model, columns)
    assert not equal(*models)


def test_overlays_end_at_their_count(doped_model: LanguageModel, run_training: Training) -> None:
    result = run_training(doped_model, trace_every=3)
    assert [int(s.weight.overlay.mask.sum()) for s in slots(doped_model) if s.lstm] == [20, 20]  # type: ignore[union-attr]
    densities = [point["density"] for point in result.paths]
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] == pytest.approx(20 / 128)


def test_equal_seeds_give_equal_bits_and_others_do_not(make_model: Make, run_training: Training) -> None:
    models = [make_model(DOPED, dropout=0.5) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.manual_seed(0)
        run_training(model, seed=seed, co_matrix_dropout={"rate": 0.3})
        torch.rand(7)  # what else draws from torch's generator does not matter
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])


def test_the_log_tells_everything_as_it_happens(
    doped_model: LanguageModel, run_training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dopant.training.loop.LOG_EVERY", 4)
    seen = []

    def validate(model: nn.Module) -> float:
        seen.append(len((tmp_path / "log.jsonl").read_text().splitlines()))
        return 5.0

    result = run_training(doped_model, folder=tmp_path, trace_every=5, validate=validate)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [(event["event"], event["step"]) for event in events]
    assert told == [
        ("step", 4), ("paths", 5), ("step", 8), ("epoch", 8), ("paths", 8),
        ("paths", 10), ("step", 12), ("paths", 15), ("step", 16), ("epoch", 16), ("paths", 16),
    ]  # fmt: skip
    assert seen == [3, 9]
    assert [point["valid_perplexity"] for point in result.curves] == [5.0, 5.0]
    assert {"structure_norm", "overlay_norm", "valid_without_structure", "valid_without_overlay"} <= result.paths[
        0
    ].keys()


class Odd(nn.Module):
    """Loses its mind at the n-th step: in its loss, or only in its gradient."""

    def __init__(self, model: LanguageModel, at: int, *, gradient: bool) -> None:
        super().__init__()
        self.inner, self.at, self.gradient, self.calls = model, at, gradient, 0
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits, state = self.inner(tokens, state)
        if self.training:
            self.calls += 1
            if self.calls > self.at:
                logits = logits + (self.zero.sqrt() if self.gradient else torch.nan)
        return logits, state


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("at", [0, 1, 4, 5, 8, 13])
def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(
    make_model: Make, run_training: Training, tmp_path: Path, at: int, gradient: bool
) -> None:
    """With a checkpoint every two steps, so that one is due on the very step that goes wrong."""
    odd = Odd(make_model(dropout=0.3), at, gradient=gradient)
    with pytest.raises(DivergenceError, match=rf"at step {at} of 16 .*lower training.learning_rate"):
        run_training(odd, folder=tmp_path, checkpoint_every=2)
    kept = tmp_path / "checkpoint.safetensors"
    assert kept.exists() is (at > 0 or gradient)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["event"] == "diverged"
    sound, unbroken = (Odd(make_model(dropout=0.3), 99, gradient=gradient) for _ in range(2))
    run_training(sound, folder=tmp_path, checkpoint_every=2, resume=True)
    run_training(unbroken)
    assert equal(sound, unbroken)


def test_an_absurd_learning_rate_is_noticed(make_model: Make, run_training: Training, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"lower training\.learning_rate"):
        run_training(make_model(), folder=tmp_path, learning_rate=1e30, clip=0.0, checkpoint_every=1)
    model = make_model()
    with pytest.raises(DivergenceError):  # the checkpoint is from before
        run_training(model, folder=tmp_path, learning_rate=1e30, clip=0.0, resume=True)


def test_an_infinite_validation_perplexity_ends_the_run(
    make_model: Make, run_training: Training, tmp_path: Path
) -> None:
    with pytest.raises(DivergenceError, match="the validation perplexity became inf at step 8 of 16"):
        run_training(make_model(), folder=tmp_path, validate=lambda model: math.inf)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("structure", [None, DOPED, Sparse(20)])
def test_a_run_goes_on_where_it_was_stopped(
    make_model: Make, run_training: Training, columns: Tensor, tmp_path: Path, structure: Doped | None, epoch: int
) -> None:
    how = {"co_matrix_dropout": {"rate": 0.3}, "checkpoint_every": 3, "trace_every": 2}
    unbroken, teacher = make_model(structure, dropout=0.2), make_model(seed=5)
    torch.manual_seed(0)
    expected = run_training(unbroken, teacher=teacher, distillation={"weight": 0.5}, **how)

    def stop(model: nn.Module) -> float:
        stop.calls += 1  # type: ignore[attr-defined]
        if stop.calls == epoch:  # type: ignore[attr-defined]
            raise Killed
        return perplexity(model, columns)

    stop.calls = 0  # type: ignore[attr-defined]
    for resume, validate in ((False, stop), (True, lambda model: perplexity(model, columns))):
        model = make_model(structure, dropout=0.2)
        torch.manual_seed(0)
        try:
            result = run_training(
                model,
                teacher=teacher,
                distillation={"weight": 0.5},
                folder=tmp_path,
                resume=resume,
                validate=validate,
                **how,
            )
        except Killed:
            continue
    assert equal(model, unbroken)

    def untimed(points: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{key: value for key, value in point.items() if key != "seconds"} for point in points]

    assert untimed(result.curves) == untimed(expected.curves)
    assert untimed(result.paths) == untimed(expected.paths)
    assert result.seconds >= max(point["seconds"] for point in result.curves)


def test_another_run_s_checkpoint_and_log_are_left_alone(
    make_model: Make, run_training: Training, tmp_path: Path
) -> None:
    run_training(make_model(), folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResumeError, match="belongs to another recipe, model or corpus"):
        run_training(make_model(), folder=tmp_path, resume=True, fingerprint="that run")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_without_a_checkpoint_starts_anew(make_model: Make, run_training: Training, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("from a process that was killed before its first step\n")
    fresh, resumed = make_model(), make_model()
    run_training(fresh)
    assert len(run_training(resumed, folder=tmp_path, resume=True).curves) == 2
    assert equal(fresh, resumed)


def test_a_model_has_nothing_to_learn_from_itself(make_model: Make, run_training: Training) -> None:
    """Weight 1, and its own copy as the teacher: no gradient in any step, as the state of both is carried."""
    model = make_model()
    teacher = copy.deepcopy(model).train()
    before = weights(model)
    for temperature in (1.0, 3.0):
        run_training(model, teacher=teacher, distillation={"weight": 1.0, "temperature": temperature})
        for name, tensor in weights(model).items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-5)
    assert not teacher.training
    run_training(model, teacher=teacher, distillation={"weight": 0.9})
    assert not equal(model, teacher)


def test_distillation_by_hand(make_model: Make, run_training: Training, columns: Tensor) -> None:
    model, teacher = make_model().double(), make_model(seed=1).double()
    expected, twin = {}, copy.deepcopy(model)
    inputs, targets = columns[:5], columns[1:6].flatten()
    student = twin(inputs)[0].flatten(0, 1)
    with torch.no_grad():
        soft = (teacher(inputs)[0].flatten(0, 1) / 2).softmax(-1)
    mixed = (soft * (soft.log() - (student / 2).log_softmax(-1))).sum(-1).mean()
    loss = 5 * (0.25 * F.cross_entropy(student, targets) + 0.75 * 4 * mixed)
    loss.backward()
    expected = {name: p.detach() - p.grad for name, p in twin.named_parameters() if p.grad is not None}
    settings = {"weight": 0.75, "temperature": 2.0}
    run_training(model, teacher=teacher, distillation=settings, text=columns[:6], epochs=1, clip=0.0)
    for name, tensor in expected.items():
        torch.testing.assert_close(model.get_parameter(name).detach(), tensor)


def test_too_little_text_is_refused(make_model: Make, run_training: Training, columns: Tensor) -> None:
    with pytest.raises(InputError, match="5 tokens a stream are too few for an unroll of 5; lower batch or unroll"):
        run_training(make_model(), text=columns[:5])


def test_a_full_disk_ends_the_run_with_its_checkpoint_kept(
    make_model: Make, run_training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        real = torch.nn.Module.eval
        calls = []

        def fill_the_disk(model: nn.Module) -> nn.Module:  # the first validation is the end of the first epoch
            calls.append(1)
            if len(calls) == 2:
                patch.setattr("dopant.training.checkpoint.save_file", full)
            return real(model)

        patch.setattr(torch.nn.Module, "eval", fill_the_disk)
        with pytest.raises(FileError, match="No space left on device; free some space and resume"):
            run_training(make_model(), folder=tmp_path, checkpoint_every=2)
    resumed, unbroken = make_model(), make_model()
    run_training(resumed, folder=tmp_path, resume=True)
    run_training(unbroken)
    assert equal(resumed, unbroken)
