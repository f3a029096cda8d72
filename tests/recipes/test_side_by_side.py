from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import dopant.recipes.side_by_side as module
from dopant.data import Corpus
from dopant.errors import DivergenceError, InputError, TrainingError
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.side_by_side import Job, Standing, _answer, _Running, last_standing, run_jobs, stamp
from dopant.reporting.report import Report

Tiny = Callable[..., Recipe]


def test_jobs_that_fail_do_not_stop_the_others(
    tiny: Tiny, corpus: Corpus, dense_run: tuple[Path, Report], tmp_path: Path
) -> None:
    """One goes well, one diverges, one needs that one's model, one follows the good one, one is there already."""
    diverges = tiny("pruning", training={"learning_rate": 1e30, "clip": 0})
    distilled = tiny("lmf", training={"distillation": {"weight": 0.5}, "epochs": 1, "batch": 4, "unroll": 5})
    jobs = [
        Job("orphan", distilled, tmp_path / "orphan", dense=tmp_path / "bad", after="bad"),
        Job("child", distilled, tmp_path / "child", dense=tmp_path / "good", after="good"),
        Job("good", tiny("dense"), tmp_path / "good"),
        Job("bad", diverges, tmp_path / "bad"),
        Job("there", tiny("dense", start="dense"), dense_run[0], trained=True),
        Job("nowhere", tiny("dense"), tmp_path / "file" / "nowhere"),
    ]
    (tmp_path / "file").write_text("in the way")
    told: list[Mapping[str, Standing]] = []
    ended = run_jobs(jobs, corpus, workers=2, options={"command": ["compare"]}, listener=told.append)

    good, child, there = (ended[name] for name in ("good", "child", "there"))
    assert isinstance(good, Report)
    assert isinstance(child, Report)
    assert isinstance(there, Report)
    assert isinstance(ended["bad"], DivergenceError)
    assert "lower training.learning_rate" in str(ended["bad"])
    assert str(ended["orphan"]) == "orphan needs the model of bad, which failed"
    assert isinstance(ended["nowhere"], TrainingError)
    assert str(ended["nowhere"]).startswith("nowhere: ")
    assert str(ended["nowhere"]).endswith("nowhere.run: not a directory")

    assert good.protocol.command == "dopant compare"
    assert there.rows[0].perplexity_test == dense_run[1].rows[0].perplexity_test
    run_recipe(tiny("dense"), corpus, tmp_path / "alone")
    assert (tmp_path / "alone" / "model.safetensors").read_bytes() == (
        tmp_path / "good" / "model.safetensors"
    ).read_bytes()
    last = {name: standing.phase for name, standing in told[-1].items()}
    assert last == {
        "orphan": "failed", "child": "done", "good": "done", "bad": "failed", "there": "done", "nowhere": "failed"
    }  # fmt: skip
    assert told[-1]["good"].perplexity == good.rows[0].perplexity_valid


def test_each_job_is_told_as_it_ends_and_may_have_options_of_its_own(
    tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    there: list[tuple[str, bool]] = []
    jobs = [
        Job("first", tiny(), tmp_path / "first", options={"command": ["train", "first"]}),
        Job("second", tiny(), tmp_path / "second"),
    ]
    ended = run_jobs(
        jobs,
        corpus,
        workers=1,
        options={"command": ["all"], "code": ("f" * 40, False)},
        on_end=lambda name, report: there.append((name, (tmp_path / "second").exists())),
    )
    assert there == [("first", False), ("second", True)]
    commands = {name: report.protocol.command for name, report in ended.items() if isinstance(report, Report)}
    assert {r.protocol.commit for r in ended.values() if isinstance(r, Report)} == {"f" * 40}
    assert commands == {"first": "dopant train first", "second": "dopant all"}


@pytest.mark.parametrize("after", ["itself", "nobody", "last"])
def test_a_job_cannot_wait_for_ever(after: str, tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    jobs = [
        Job("first", tiny(), tmp_path / "first"),
        Job("waiting", tiny(), tmp_path / "waiting", after="first"),
        Job("itself", tiny(), tmp_path / "itself", after=after),
        Job("last", tiny(), tmp_path / "last", after="itself"),
    ]
    with pytest.raises(InputError, match=f"itself waits for '{after}', which is not among first, waiting$"):
        run_jobs(jobs, corpus, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (-9, "was it killed for memory? resume with fewer jobs"),
        (1, 'a script that calls for it needs `if __name__ == "__main__":` before the call; else resume'),
    ],
)
def test_a_process_that_was_killed_is_told(code: int, why: str, tiny: Tiny, tmp_path: Path) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    sender.close()
    process = SimpleNamespace(exitcode=code, join=lambda: None)
    ended = _answer(_Running(process, receiver, Job("big", tiny(), tmp_path)))
    assert isinstance(ended, TrainingError)
    assert str(ended) == f"the process of big ended with code {code} and no word; {why}"


def test_a_script_without_a_guard_is_told(
    tiny: Tiny, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise BrokenPipeError

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **_: SimpleNamespace(start=start))
    monkeypatch.setattr(module, "_context", lambda: context)
    with pytest.raises(TrainingError, match="of one could not begin; a script that calls for it needs `if __name__"):
        run_jobs([Job("one", tiny(), tmp_path / "one")], corpus, workers=1)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"workers": 0}, "runs at a time: one at least is needed, got 0"),
        ({"workers": -1}, "runs at a time: one at least is needed, got -1"),
        ({"workers": 1, "threads": 0}, "threads of each run: one at least is needed, got 0"),
    ],
)
def test_no_workers_or_threads_are_refused(
    numbers: dict[str, int], message: str, tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    def stop(standings: Mapping[str, Standing]) -> None:
        raise AssertionError(f"begun: {standings}")  # else it would wait for ever

    with pytest.raises(InputError, match=message):
        run_jobs([Job("one", tiny(), tmp_path / "one")], corpus, **numbers, listener=stop)
    assert list(tmp_path.iterdir()) == []


def test_how_far_a_run_is_from_the_end_of_its_log(tmp_path: Path) -> None:
    log, before = tmp_path / "log.jsonl", Standing("training", 7, 9, 5.0)
    assert last_standing(log, before) is before
    events = [{"event": "step", "step": 50 * i, "steps": 5000, "loss": 1.0} for i in range(1, 81)]
    events += [{"event": "epoch", "step": 4010, "valid_perplexity": 80.5, "epoch": 1}, {"event": "paths", "step": 4010}]
    events += [{"event": "graph", "step": 4013, "failed": "out of memory"}]
    log.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "st')
    assert os.path.getsize(log) > 4096  # the first line read is cut
    assert last_standing(log, before) == Standing("training", 4010, 5000, 80.5)
    log.write_text(json.dumps(events[0]) + "\n")
    assert last_standing(log, Standing("training", 30, 5000, 80.5)) == Standing("training", 50, 5000, 80.5)
    assert last_standing(log, before, stamp(log)) is before  # of an older run
    anew = last_standing(log, Standing("training", 4010, 5000, 80.5))  # what the old run had is gone
    assert anew == Standing("training", 50, 5000, None)


def test_workers_end_with_a_parent_that_was_killed(corpus_folder: Path, tmp_path: Path) -> None:
    settings = ["model.hidden=8", "model.layers=1", "training.epochs=100000", "training.batch=4", "training.unroll=5"]
    code = f"""
from dopant.recipes.comparing import compare
compare({str(corpus_folder)!r}, out={str(tmp_path / "out")!r}, methods=["dense"], overrides={settings!r}, jobs=1)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "out" / "dense.run" / "log.jsonl"
    _wait_until(lambda: log.exists() and log.stat().st_size > 0)
    parent.kill()
    parent.wait()
    _wait_until(lambda: _size_after(log, 0.0) == _size_after(log, 1.0))


def _size_after(path: Path, seconds: float) -> int:
    time.sleep(seconds)
    return path.stat().st_size


def _wait_until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    last = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.1)
