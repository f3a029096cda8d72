from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dopant.errors import DivergenceError
from dopant.evaluation import perplexity
from dopant.layers import slots
from dopant.models import LanguageModel
from dopant.structures import Doped, Kronecker, LowRank, Sparse, Structure
from dopant.training.loop import Result

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))
SOME = {"rate": 0.4, "begin": 0.3, "end": 0.7}  # steps 8 to 16 of 24
Make = Callable[..., LanguageModel]
Training = Callable[..., Result]
Step = Callable[[], Tensor]


class Tape(TorchDispatchMode):
    """Stands in for a CUDA graph: notes operations, the tensors they were given and those they left.

    Repeated, they read and write these very tensors, whatever the Python objects have become; and none may look at a
    number while it is noted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nand more of this")
        left = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, left))
        return left

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, left in self.calls:
            again = func(*args, **kwargs)
            for place, tensor in zip(tree_leaves(left), tree_leaves(again), strict=True):
                if place.data_ptr() != tensor.data_ptr():  # else a view, or what was changed in place
                    place.copy_(tensor)


class Recorder:
    """In the place of `dopant.training.graph.record`; its `replays` counts those of each recording."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def __call__(self, step: Step, device: torch.device) -> Step:
        before = torch.get_rng_state()
        try:
            step()
            with Tape() as tape:
                result = step()
        finally:
            torch.set_rng_state(before)
        number = len(self.replays)
        self.replays.append(0)

        def replay() -> Tensor:
            self.replays[number] += 1
            tape.repeat()
            return result

        return replay


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """As if the CPU were a GPU that records."""
    made = Recorder()
    monkeypatch.setattr("dopant.training.graph.record", made)
    monkeypatch.setattr("dopant.training.loop.can_record", lambda device: True)
    return made


@pytest.fixture
def both(make_model: Make, run_training: Training) -> Callable[..., tuple[Result, Result]]:
    """Train with the setting and without, and see that nothing else differs."""

    def run(
        structure: Structure | None = None, wrap: Callable[[nn.Module], nn.Module] = lambda model: model, **how: Any
    ) -> tuple[Result, Result]:
        models, results = [], []
        for cuda_graph in (True, False):
            models.append(wrap(make_model(structure, dropout=0.2).double()))
            torch.manual_seed(0)
            results.append(run_training(models[-1], cuda_graph=cuda_graph, **how))
        assert_same(*models)
        assert_alike(*results)
        return results[0], results[1]

    return run


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-9, atol=1e-12, msg=name)


def assert_alike(one: Result, other: Result) -> None:
    assert len(one.curves) == len(other.curves)
    for ours, theirs in zip(one.curves + one.paths, other.curves + other.paths, strict=True):
        assert ours | {"seconds": 0} == pytest.approx(theirs | {"seconds": 0}, rel=1e-9)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("structure", "settings", "replays"),
    [
        (None, {}, [19]),
        (None, {"clip": 0.0}, [19]),
        (DOPED, {}, [19]),
        (DOPED, {"co_matrix_dropout": SOME}, [12, 7]),
        (DOPED, {"co_matrix_dropout": SOME | {"path": "whole"}}, [12, 7]),
        (DOPED, {"co_matrix_dropout": SOME | {"path": "overlay", "sharing": "element"}}, [12, 7]),
        (DOPED, {"co_matrix_dropout": {"rate": 0.4}, "contraction": "factored"}, [19]),
        (Sparse(20), {"co_matrix_dropout": SOME, "trace_every": 5}, [12, 7]),
        (LowRank(2), {"co_matrix_dropout": SOME | {"path": "structure"}}, [19]),  # which has no masks then
    ],
)
def test_a_replayed_step_is_the_same_step(
    both: Callable[..., Any], recorder: Recorder, structure: Structure | None, settings: dict[str, Any], replays: Any
) -> None:
    """Over three epochs of 8 steps: with a clip that acts, dropout, rates that fall, overlays that are pruned."""
    both(structure, epochs=3, **{"clip": 0.9, "learning_rate": 2.0, **settings})
    assert recorder.replays == replays  # all but three at the start, and the first of two epochs


def test_a_teacher_is_recorded_too(both: Callable[..., Any], recorder: Recorder, make_model: Make) -> None:
    """With a state of its own, which goes on from step to step."""
    teacher = make_model(seed=5, dropout=0.5).double()
    distillation = {"weight": 0.7, "temperature": 2.0}
    both(DOPED, epochs=3, teacher=teacher, distillation=distillation, co_matrix_dropout=SOME)
    assert recorder.replays == [12, 7]


def test_what_runs_as_it_comes(both: Callable[..., Any], recorder: Recorder, tmp_path: Path) -> None:
    """The first steps, those that begin an epoch, and those with a checkpoint: 0 1 2, 8, 4 12."""
    both(folder=tmp_path, checkpoint_every=4, fingerprint="a")
    assert recorder.replays == [16 - 6]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("structure", [None, DOPED])
def test_a_replayed_run_goes_on_where_it_was_stopped(
    make_model: Make,
    run_training: Training,
    columns: Tensor,
    recorder: Recorder,
    tmp_path: Path,
    structure: Structure | None,
    epoch: int,
) -> None:
    how = {"co_matrix_dropout": {"rate": 0.3}, "checkpoint_every": 6, "epochs": 3}
    unbroken = make_model(structure, dropout=0.2).double()
    torch.manual_seed(0)
    expected = run_training(unbroken, **how)
    calls = []

    def stop(model: nn.Module) -> float:
        calls.append(1)
        if len(calls) == epoch:
            raise Killed
        return perplexity(model, columns)

    how |= {"folder": tmp_path, "cuda_graph": True}
    killed, model = (make_model(structure, dropout=0.2).double() for _ in range(2))
    torch.manual_seed(0)
    with pytest.raises(Killed):
        run_training(killed, validate=stop, **how)
    torch.manual_seed(0)
    result = run_training(model, resume=True, **how)
    assert_same(model, unbroken)
    assert_alike(result, expected)
    assert all(recorder.replays)
    assert len(recorder.replays) == 2


class Looks(nn.Module):
    """Looks at a number in training, for which a GPU would have to be waited for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor, state: Any = None) -> Any:
        logits, state = self.inner(tokens, state)
        return logits * (1.0 if not self.training or bool(logits.sum() != 0.0) else 2.0), state


def test_a_step_that_cannot_be_recorded_is_taken_as_it_comes(
    both: Callable[..., Any], recorder: Recorder, tmp_path: Path
) -> None:
    logs = []

    def validate(model: nn.Module) -> float:
        logs.append(events(tmp_path))
        return 5.0

    with pytest.warns(UserWarning, match="step 3 cannot be recorded as a CUDA graph .*; the run goes on without"):
        both(DOPED, Looks, folder=tmp_path, validate=validate)
    assert [event for event in logs[1] if event["event"] == "graph"] == [
        {"event": "graph", "step": 3, "failed": "operation not permitted when stream is capturing"}
    ]
    assert not any(event["event"] == "graph" for event in logs[-1])  # of the run without the setting
    assert recorder.replays == []


def test_a_second_recording_that_fails_changes_nothing(
    both: Callable[..., Any], recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When row masks come in, the state and the weights are those of the last replay."""

    def record(step: Step, device: torch.device) -> Step:
        if not recorder.replays:
            return recorder(step, device)
        before = torch.get_rng_state()
        step()
        torch.set_rng_state(before)
        raise RuntimeError

    monkeypatch.setattr("dopant.training.graph.record", record)
    with pytest.warns(UserWarning, match="cannot be recorded"):
        both(DOPED, co_matrix_dropout=SOME | {"begin": 0.4}, epochs=3)  # from step 10 on
    assert recorder.replays == [5 + 1]


def test_weights_that_were_moved_end_the_replays(
    both: Callable[..., Any], recorder: Recorder, columns: Tensor, tmp_path: Path
) -> None:
    """As by a validation that takes the model to another device and back."""
    found = []

    def validate(model: nn.Module) -> float:
        found.append([event for event in events(tmp_path) if event["event"] == "graph"])
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return perplexity(model, columns)

    with pytest.warns(UserWarning, match="no longer where they were"):
        both(folder=tmp_path, validate=validate)
    assert recorder.replays == [5]
    assert found[0] == []
    assert [event["step"] for event in found[1]] == [9]
    assert "no longer where they were" in found[1][0]["failed"]


class Poisoned(nn.Module):
    """Goes wrong at the token 10: in its loss, or only in its gradient."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor
        self.zero = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, tokens: Tensor, state: Any = None) -> Any:
        logits, state = self.inner(tokens.clamp(max=9), state)
        wrong = torch.zeros_like(logits[..., 0]).masked_fill(tokens == 10, self.factor) * self.zero
        return logits + wrong.unsqueeze(-1) * torch.arange(11), state


@pytest.mark.parametrize(("factor", "message"), [(torch.inf, "the loss became nan"), (1e200, "the gradient became ")])
def test_a_replay_that_diverges_stops_the_run(
    make_model: Make,
    run_training: Training,
    columns: Tensor,
    recorder: Recorder,
    tmp_path: Path,
    factor: float,
    message: str,
) -> None:
    text = columns.clamp(max=9)
    text[5 * 5 + 2, 1] = 10
    told = []
    for cuda_graph in (True, False):
        model = Poisoned(make_model().double(), factor)
        with pytest.raises(DivergenceError, match=f"{message}.* at step 5 of 16 .*start anew") as error:
            run_training(model, text=text, folder=tmp_path, validate=lambda model: 5.0, cuda_graph=cuda_graph)
        told.append((str(error.value), events(tmp_path)))
    assert told[0] == told[1]
    assert recorder.replays == [3]


def test_on_a_cpu_the_setting_has_no_effect(
    make_model: Make, run_training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(step: Step, device: torch.device) -> Step:
        raise AssertionError

    monkeypatch.setattr("dopant.training.graph.record", record)
    states = []
    for cuda_graph in (True, False):
        model = make_model(DOPED, dropout=0.2)
        torch.manual_seed(0)
        run_training(model, cuda_graph=cuda_graph, co_matrix_dropout={"rate": 0.3})
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("structure", "settings"),
    [
        (None, {}),
        (DOPED, {"co_matrix_dropout": SOME}),
        (DOPED, {"co_matrix_dropout": SOME, "distillation": {"weight": 0.5, "temperature": 2.0}}),
        (DOPED, {"co_matrix_dropout": SOME | {"path": "overlay", "sharing": "element"}}),
        (Sparse(20), {"co_matrix_dropout": SOME}),
        (LowRank(2), {"contraction": "factored"}),
    ],
)
def test_a_gpu_replays_the_same_step(
    make_model: Make,
    run_training: Training,
    tmp_path: Path,
    structure: Structure | None,
    settings: dict[str, Any],
) -> None:
    models = []
    for cuda_graph in (True, False):
        models.append(make_model(structure, dropout=0.2).double().cuda())
        torch.manual_seed(0)
        originals = {s.name: torch.randn(s.weight.shape, dtype=torch.float64).cuda() for s in slots(models[-1])}
        how = {"originals": originals, "teacher": make_model(seed=5).double(), "folder": tmp_path, "epochs": 3}
        run_training(models[-1], cuda_graph=cuda_graph, **how, **settings)
        assert not any(event["event"] == "graph" for event in events(tmp_path))
    assert_same(*models)


@pytest.mark.gpu
def test_on_a_gpu_too_a_step_that_cannot_be_recorded_is_taken_as_it_comes(
    make_model: Make, run_training: Training, tmp_path: Path
) -> None:
    models = []
    for cuda_graph in (True, False):
        models.append(Looks(make_model(dropout=0.2).double().cuda()))
        run_training(models[-1], cuda_graph=cuda_graph, folder=tmp_path)
        assert any(event["event"] == "graph" for event in events(tmp_path)) is cuda_graph
    assert_same(*models)
