from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.evaluation import perplexity
from dopant.models import LanguageModel
from dopant.plan import make_plan
from dopant.structures import Doped, Kronecker, Sparse
from dopant.training.loop import Result
from dopant.training.processes import Processes, make_accelerator
from dopant.training.recovery import Recovery

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))
HOW = {
    "co_matrix_dropout": {"rate": 0.3, "sharing": "sequence"},
    "distillation": {"weight": 0.3},
    "checkpoint_every": 3,
}
PROGRAM = """
import copy, os, sys
import torch
from accelerate import Accelerator
from dopant.training.loop import Run, train
from dopant.training.overlay import open_overlays
from dopant.training.settings import TrainSettings

torch.set_num_threads(1)
given = torch.load(sys.argv[1], weights_only=False)
accelerator = Accelerator(cpu=True)

def stop(model):
    stop.calls += 1
    if stop.calls == 2:
        raise KeyboardInterrupt
    return 1.0

stop.calls = 0
for name, validate in (("whole", lambda model: 1.0), ("stopped", stop)):
    model, folder = copy.deepcopy(given["model"]), given["folder"] / name
    overlays = open_overlays(model, given["originals"], start="scratch", overlay_start=0.5)
    run = Run(given["columns"], validate, None, 3, folder, "this run", False, given["teacher"], accelerator)
    try:
        train(model, TrainSettings.model_validate(given["how"]), run, overlays)
    except KeyboardInterrupt:
        pass
    if accelerator.is_main_process:
        torch.save(model.state_dict(), folder / "weights")
accelerator.end_training()
os._exit(0)  # torch's threads outlive the group after DistributedDataParallel, and some exits abort on them
"""
RECOVERY = """
import os, sys
import torch
import torch.distributed as processes
from torch.nn.parallel import DistributedDataParallel
import dopant

torch.set_num_threads(1)
given = torch.load(sys.argv[1], weights_only=False)
processes.init_process_group("gloo")
rank, model = processes.get_rank(), given["model"]
recovery = dopant.Recovery(model, given["plan"], len(given["batches"]))
wrapped = DistributedDataParallel(model)
optimizer = torch.optim.SGD(recovery.parameter_groups(0.3))
for batch in given["batches"]:
    mine = batch[:, 2 * rank : 2 * rank + 2]
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(wrapped(mine[:-1])[0].flatten(0, 1), mine[1:].flatten()).backward()
    optimizer.step()
    recovery.step()
recovery.close()
torch.save(model.state_dict(), given["folder"] / str(rank))
processes.destroy_process_group()
os._exit(0)
"""


def test_one_process_has_everything() -> None:
    alone, part = Processes(), torch.randn(2, 4, 3)
    assert (alone.main, alone.count, alone.streams(7)) == (True, 1, slice(0, 7))
    assert alone.gathered(part) is part
    assert alone.mean(torch.tensor(2.5)) == 2.5
    alone.wait()


class Third:
    """The third of four processes, as accelerate tells it."""

    num_processes, process_index, is_main_process = 4, 2, False


def test_each_process_has_an_equal_part_of_the_batch() -> None:
    assert Processes(Third()).streams(20) == slice(10, 15)
    assert not Processes(Third()).main
    with pytest.raises(InputError, match="a batch of 6 cannot be shared among 4 processes; choose a batch"):
        Processes(Third()).streams(6)


def test_without_the_package_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r"pip install 'dopant\[accelerate\]'"):
        make_accelerator("cpu")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def launch(count: int, program: list[str]) -> None:
    """As `accelerate launch` starts processes, without its own seconds."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    processes = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen([sys.executable, *program], env={**os.environ, **address, **own}))
    try:
        assert [process.wait(120) for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()


def close(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor.float(), weights[name].float(), rtol=1e-5, atol=1e-5)


def test_two_processes_train_to_the_weights_of_one(
    make_model: Callable[..., LanguageModel],
    run_training: Callable[..., Result],
    columns: Tensor,
    tmp_path: Path,
) -> None:
    """Doped, with masks for each sequence, distilled; and a run that two have begun is one that one can end."""
    pytest.importorskip("accelerate")
    how: dict[str, Any] = {"epochs": 2, "batch": 4, "unroll": 5, "constant_epochs": 1, "sparsify": {"every": 3}, **HOW}
    model, teacher = make_model(DOPED), make_model(seed=5)
    torch.manual_seed(0)
    originals = {name: torch.randn(16, 8) * 0.3 for name in ("lstm.weight_l0", "lstm.weight_l1")}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    given = {"model": model, "teacher": teacher, "originals": originals, "columns": columns, "how": how}
    torch.save({**given, "folder": tmp_path}, tmp_path / "given")
    launch(2, ["-c", PROGRAM, str(tmp_path / "given")])

    alone = make_model(DOPED)
    result = run_training(alone, teacher=teacher, originals=originals, validate=lambda m: 1.0, **HOW)
    close(alone, torch.load(tmp_path / "whole" / "weights"))
    events = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["epoch", "epoch"]  # told by one of the two, of both
    for event, point in zip(events, result.curves, strict=True):
        assert event["train_perplexity"] == pytest.approx(point["train_perplexity"], rel=1e-5)
    resumed = make_model(DOPED)
    result = run_training(
        resumed,
        teacher=teacher,
        originals=originals,
        folder=tmp_path / "stopped",
        resume=True,
        validate=lambda m: perplexity(m, columns),
        **HOW,
    )
    close(alone, resumed.state_dict())
    assert [point["tokens"] for point in result.curves] == [160, 320]  # of all processes together


def test_a_recovery_of_two_processes_is_that_of_one_which_adds_up_gradients(
    make_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    model = make_model()
    plan = make_plan(model, target="3x", count="parameters", scope="model")
    batches = torch.randint(0, model.config.vocabulary, (12, 6, 4))
    torch.save({"model": model, "plan": plan, "batches": batches, "folder": tmp_path}, tmp_path / "given")
    launch(2, ["-c", RECOVERY, str(tmp_path / "given")])

    recovery = Recovery(model, plan, len(batches))
    optimizer = torch.optim.SGD(recovery.parameter_groups(0.3))
    for batch in batches:
        optimizer.zero_grad()
        for half in batch.split(2, dim=1):
            (F.cross_entropy(model(half[:-1])[0].flatten(0, 1), half[1:].flatten()) / 2).backward()
        optimizer.step()
        recovery.step()
    recovery.close()
    for rank in range(2):
        found = torch.load(tmp_path / str(rank))
        close(model, found)
        positions = [name for name in found if name.endswith("positions")]
        assert positions
        assert all(torch.equal(found[name], model.state_dict()[name]) for name in positions)
