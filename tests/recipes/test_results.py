from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus, make_corpus
from dopant.errors import InputError, PlanError, ResumeError, TrainingError
from dopant.recipes import results as module
from dopant.recipes.experiments import read_experiment
from dopant.recipes.results import Results, State, results
from dopant.recipes.side_by_side import Standing
from dopant.reporting.report import Report, read_report, write_report

Write = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, bytes]]
ROWS = "rows: {dense: [0, 1], lmf: [0, 1]}\nsweep: {rows: [lmf], targets: [2x, 4x]}\n"


@pytest.fixture(scope="module")
def made(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, write_in: Callable[[Path, str], Path]
) -> tuple[Path, Results]:
    """An experiment with all its records; not to be written to."""
    place = tmp_path_factory.mktemp("made")
    folder = write_in(place / "experiments" / "small-one", ROWS)
    return place, run(folder, place, corpus)


@pytest.fixture
def place(made: tuple[Path, Results], tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


def run(folder: Path, place: Path, corpus: Corpus | Path | None, **options: Any) -> Results:
    return results(
        folder, corpus, out=place / "records", runs=place / "runs", **{"device": "cpu", "jobs": 2, **options}
    )


def again(place: Path, corpus: Corpus | Path | None, **options: Any) -> Results:
    return run(place / "experiments" / "small-one", place, corpus, **options)


def states(found: Results) -> dict[str, str]:
    return {state.run: state.state for state in found.states}


def change(place: Path, row: str, **updates: Any) -> Report:
    """A record with other fields; `run=None` is what older code wrote."""
    file = place / "records" / f"{row}.json"
    report = read_report(file)
    protocol = report.protocol.model_copy(update=updates.pop("protocol", {}))
    report = report.model_copy(update={"protocol": protocol, **updates})
    write_report(report, file)
    return report


def test_every_run_leaves_a_record_and_all_of_them_a_table(made: tuple[Path, Results]) -> None:
    place, found = made
    files = sorted(path.name for path in (place / "records").iterdir())
    runs = ["dense-seed0", "dense-seed1", "lmf-2x-seed0", "lmf-seed0", "lmf-seed1"]
    assert files == sorted([*(f"{name}.json" for name in runs), "factors.json", "factors.svg", "report.json"])
    assert set(states(found).values()) == {"missing"}
    record = read_report(place / "records" / "lmf-2x-seed0.json")
    assert record.run is not None
    assert record.run.model_dump(exclude={"recipe"}) == {
        "experiment": "small-one",
        "row": "lmf-2x",
        "model": "2×16",
        "seed": 0,
        "epochs": 1,
        "dense": None,
    }
    assert record.run.recipe["target"] == "2x"
    assert record.protocol.command.endswith("small-one --rows lmf-2x --seeds 0 --device cpu")
    assert not any(str(place) in path.read_text() for path in (place / "records").iterdir())
    row = record.rows[0]
    assert (place / "runs" / row.folder / "model.safetensors").stat().st_size == row.file_bytes

    assert found.report is not None
    assert [row.label for row in found.report.rows] == ["Dense", "Low rank (LMF)"]
    dense, lmf = found.report.rows
    alone = [read_report(place / "records" / f"lmf-seed{seed}.json").rows[0] for seed in (0, 1)]
    bases = [read_report(place / "records" / f"dense-seed{seed}.json").rows[0] for seed in (0, 1)]
    losses = [100 * (a.perplexity_test / b.perplexity_test - 1) for a, b in zip(alone, bases, strict=True)]  # type: ignore[operator]
    assert [seed.loss_percent for seed in lmf.seeds] == pytest.approx(losses)
    assert lmf.loss_percent == pytest.approx(sum(losses) / 2)
    assert dense.loss_percent is None
    assert dense.perplexity_test == pytest.approx(sum(b.perplexity_test or 0 for b in bases) / 2)
    assert read_report(place / "records" / "report.json") == found.report
    assert found.factors is not None
    assert [row.folder for row in found.factors.rows] == ["dense", "lmf-2x-seed0", "lmf"]
    assert {row.label for row in found.factors.rows} == {"Dense", "Low rank (LMF)"}  # one line in the picture
    assert "<svg" in (place / "records" / "factors.svg").read_text()


def test_what_is_done_is_not_made_again(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    before = snapshot(place)
    heard: list[Sequence[State]] = []
    found = again(place, corpus, announce=heard.append)
    assert set(states(found).values()) == {"done"}
    assert not any(state.make for state in heard[0])
    assert snapshot(place) == before


def test_a_recipe_that_has_changed_makes_its_records_out_of_date(
    place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    """Not so what changes no number; and such a record is no part of the table until it is made again."""
    recipe = place / "experiments" / "small-one" / "lmf.yaml"
    prose = recipe.read_text().replace("checkpoint_every: 10", "checkpoint_every: 0\n  cuda_graph: true")
    recipe.write_text(prose + "description: said otherwise\n")
    assert set(states(again(place, corpus, dry_run=True)).values()) == {"done"}
    recipe.write_text(recipe.read_text() + "structure: {rank: 1}\n")
    before = snapshot(place)
    found = again(place, corpus, dry_run=True)
    assert snapshot(place) == before
    assert states(found)["lmf-seed0"] == "out of date"
    assert states(found)["dense-seed0"] == "done"
    state = found.states[1]
    assert state.why.startswith("structure is {'rank': 1}, was None; made by ")
    assert found.report is not None
    assert [row.method for row in found.report.rows] == ["dense"]
    again(place, corpus, rows=["lmf"], seeds=[0])
    assert states(again(place, corpus, dry_run=True))["lmf-seed0"] == "done"
    assert states(again(place, corpus, dry_run=True))["lmf-seed1"] == "out of date"
    record = read_report(place / "records" / "lmf-seed0.json")
    assert record.run is not None
    assert record.run.recipe["structure"] == {"rank": 1}
    assert record.rows[0].weights[1].structure == "rank 1"


def test_another_text_makes_records_out_of_date(place: Path, corpus: Corpus) -> None:
    other = make_corpus("made-up", corpus.train + "a cat is here\n", corpus.valid, corpus.test)
    found = again(place, other, dry_run=True)
    assert set(states(found).values()) == {"out of date"}
    assert f"the text has sha256 {other.checksum[:12]} now" in found.states[0].why


def test_a_key_that_is_new_since_a_record_was_made_had_its_default(place: Path, corpus: Corpus) -> None:
    file = place / "records" / "lmf-seed0.json"
    data = json.loads(file.read_text())
    del data["run"]["recipe"]["training"]["trace_every"]
    file.write_text(json.dumps(data))
    assert states(again(place, corpus, dry_run=True))["lmf-seed0"] == "done"
    data["run"]["recipe"]["training"]["no_longer_known"] = 1
    file.write_text(json.dumps(data))
    found = again(place, corpus, dry_run=True).states[1]
    assert found.why.startswith("its recipe has settings that this version does not know")


def test_a_record_of_older_code_counts_and_is_only_replaced_when_asked_for(
    place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    old = change(place, "lmf-seed0", run=None, protocol={"commit": "f" * 40})
    before = snapshot(place / "records")
    found = again(place, corpus)
    assert states(found)["lmf-seed0"] == "older code"
    assert "made by commit ffffffffffff" in found.states[1].why
    assert found.report is not None
    assert {line.record.commit[:3] for line in found.report.rows[1].seeds} >= {"fff"}
    after = snapshot(place / "records")
    assert after["lmf-seed0.json"] == before["lmf-seed0.json"]
    assert {state.run for state in again(place, corpus, dry_run=True).states if state.make} == set()

    asked = again(place, corpus, rows=["lmf"], seeds=[0], replace=True)
    assert [state.run for state in asked.states if state.make] == ["lmf-seed0"]
    new = read_report(place / "records" / "lmf-seed0.json")
    assert new.run is not None
    assert new.protocol.commit != old.protocol.commit
    assert new.rows[0].perplexity_test == old.rows[0].perplexity_test  # equal seeds, equal bits
    assert states(again(place, corpus, dry_run=True))["lmf-seed0"] == "done"


def test_an_old_record_that_contradicts_the_recipe_is_no_part_of_the_table(place: Path, corpus: Corpus) -> None:
    change(place, "lmf-seed0", run=None, protocol={"epochs": 5})
    found = again(place, corpus, dry_run=True)
    assert found.states[1].why.endswith("of another recipe: epochs 5, not 1")
    assert found.report is not None
    assert [len(row.seeds) for row in found.report.rows] == [2, 1]


def test_an_old_record_of_another_text_is_no_part_of_the_table(place: Path, corpus: Corpus) -> None:
    change(place, "lmf-seed0", run=None, protocol={"checksum": "0" * 64})
    found = again(place, corpus, dry_run=True)
    assert states(found)["lmf-seed0"] == "older code"
    assert found.states[1].why.endswith(f"on another text: the text has sha256 {corpus.checksum[:12]} now")
    assert not found.states[1].counts
    assert found.report is not None
    assert [len(row.seeds) for row in found.report.rows] == [2, 1]


def test_records_that_contradict_each_other_are_told_before_anything_is_trained(place: Path, corpus: Corpus) -> None:
    change(place, "lmf-seed0", protocol={"vocabulary": 7})
    (place / "records" / "lmf-seed1.json").unlink()
    with pytest.raises(InputError, match=r"dense-seed0\.json and \S*lmf-seed0\.json: .*vocabulary is \d+ .* and 7 in"):
        again(place, corpus)
    assert not (place / "records" / "lmf-seed1.json").exists()
    change(place, "lmf-seed0", run=None, protocol={"commit": "f" * 40})
    again(place, corpus, replace=True, rows=["lmf"])  # which makes the contradiction go away


def spoil(place: Path, row: str = "dense-seed0") -> None:
    """As when a record changes while others are made."""
    change(place, row, protocol={"vocabulary": 7})


def test_a_contradiction_does_not_hide_what_has_failed(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write("rows: {dense: [0], lmf: [0], diverging: [0]}\n")

    def listen(standings: dict[str, Standing]) -> None:
        if standings["diverging-seed0"].phase == "failed":
            spoil(tmp_path)

    told = r"1 of 3 runs failed.*\n  diverging-seed0: .*start anew.*\n  and there are no tables: .*vocabul"
    with pytest.raises(TrainingError, match=told):
        run(folder, tmp_path, corpus, jobs=1, listener=listen)


def test_a_contradiction_does_not_hide_an_interruption(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write("rows: {dense: [0], lmf: [0]}\n")

    def interrupt(standings: dict[str, Standing]) -> None:
        if standings["lmf-seed0"].phase == "done":
            spoil(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, jobs=1, listener=interrupt)


@pytest.mark.parametrize("content", ["{}", "not json", "lmf-seed1.json", "lmf-2x-seed0.json", "report.json"])
def test_a_file_that_is_no_record_of_the_run_is_left_alone(
    content: str, place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    file = place / "records" / "lmf-seed0.json"
    if content.endswith(".json"):
        shutil.copy(place / "records" / content, file)
    else:
        file.write_text(content)
    before = snapshot(place / "records")["lmf-seed0.json"]
    found = again(place, corpus)
    assert states(found)["lmf-seed0"] == "another's"
    assert found.report is not None
    assert [len(row.seeds) for row in found.report.rows] == [2, 1]
    assert file.read_bytes() == before
    again(place, corpus, replace=True, rows=["lmf"], seeds=[0])
    assert states(again(place, corpus, dry_run=True))["lmf-seed0"] == "done"


def test_a_run_that_fails_does_not_lose_the_others(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write("rows: {dense: [0], diverging: [0], lmf: [0]}\n")
    with pytest.raises(
        TrainingError, match=r"1 of 3 runs failed.*\n  diverging-seed0: .*lower training\.learning_rate"
    ):
        run(folder, tmp_path, corpus, jobs=1)
    records = sorted(path.name for path in (tmp_path / "records").iterdir())
    assert records == ["dense-seed0.json", "lmf-seed0.json", "report.json"]
    assert [row.method for row in read_report(tmp_path / "records" / "report.json").rows] == ["dense", "lmf"]


def test_an_interrupted_experiment_goes_on(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """Between two runs, and within one: its log then goes on where its checkpoint was."""
    folder = write("rows: {longest: [0, 1]}\n")

    def interrupt(standings: dict[str, Standing]) -> None:
        if any(standing.step >= 50 for name, standing in standings.items() if name == "longest-seed1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, jobs=1, listener=interrupt)
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == ["longest-seed0.json", "report.json"]
    first = (tmp_path / "records" / "longest-seed0.json").read_bytes()
    log = tmp_path / "runs" / "longest-seed1.run" / "log.jsonl"
    assert log.exists()
    assert not (tmp_path / "runs" / "longest-seed1").exists()
    found = run(folder, tmp_path, corpus)
    assert states(found) == {"longest-seed0": "done", "longest-seed1": "missing"}
    assert (tmp_path / "records" / "longest-seed0.json").read_bytes() == first
    assert read_report(tmp_path / "records" / "longest-seed1.json").protocol.resumed


def test_that_an_unfinished_run_of_another_recipe_is_thrown_away_is_told_first(
    write: Write, corpus: Corpus, tmp_path: Path, snapshot: Snapshot
) -> None:
    folder = write("rows: {longest: [0]}\n")

    def interrupt(standings: dict[str, Standing]) -> None:
        if standings["longest-seed0"].step >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, listener=interrupt)
    assert run(folder, tmp_path, corpus, dry_run=True).states[0].why == ""
    recipe = folder / "longest.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 20", "epochs: 2"))
    before = snapshot(tmp_path / "runs")
    heard: list[Sequence[State]] = []
    found = run(folder, tmp_path, corpus, dry_run=True, announce=heard.append)
    place = tmp_path / "runs" / "longest-seed0.run"
    assert found.states[0].why == heard[0][0].why == f"the unfinished run of another recipe in {place} is thrown away"
    assert snapshot(tmp_path / "runs") == before
    run(folder, tmp_path, corpus)
    record = read_report(tmp_path / "records" / "longest-seed0.json")
    assert (record.protocol.epochs, record.protocol.resumed) == (2, False)


def test_a_damaged_recipe_of_a_run_is_another_recipe(place: Path, corpus: Corpus) -> None:
    (place / "records" / "lmf-seed1.json").unlink()
    (place / "runs" / "lmf-seed1.run" / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is a finished model of another recipe"):
        again(place, corpus)


def test_a_finished_run_whose_record_is_lost_is_not_trained_again(place: Path, corpus: Corpus) -> None:
    file = place / "records" / "lmf-seed1.json"
    before = file.read_bytes()
    model = place / "runs" / "lmf-seed1" / "model.safetensors"
    when = model.stat().st_mtime_ns
    file.unlink()
    again(place, corpus)
    assert file.read_bytes() == before
    assert model.stat().st_mtime_ns == when


def test_a_finished_model_of_another_recipe_is_not_deleted_unasked(
    place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    recipe = place / "experiments" / "small-one" / "lmf.yaml"
    recipe.write_text(recipe.read_text() + "structure: {rank: 1}\n")
    (place / "records" / "lmf-seed0.json").unlink()
    before = snapshot(place)
    with pytest.raises(InputError, match=r"is a finished model of another recipe .* start anew with --replace"):
        again(place, corpus, rows=["lmf"], seeds=[0])
    assert snapshot(place) == before
    again(place, corpus, rows=["lmf"], seeds=[0], replace=True)
    assert states(again(place, corpus, dry_run=True))["lmf-seed0"] == "done"


def test_nothing_is_written_where_something_is_wrong(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write("rows: {dense: [0], lmf: [0]}\nsweep: {rows: [lmf], targets: [20000x]}\n")
    with pytest.raises(PlanError, match=r"lmf-20000x: .*cannot be met"):
        run(folder, tmp_path, corpus)
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        run(folder, tmp_path, corpus, device="abacus")
    for device in ("meta", "cuda:", "CPU"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used; needed is cpu or cuda"):
            run(folder, tmp_path, corpus, device=device, dry_run=True)
    with pytest.raises(InputError, match=r"there is no corpus 'nowhere'.*or name one with --corpus"):
        run(folder, tmp_path, None)
    with pytest.raises(InputError, match="there is no corpus"):
        run(folder, tmp_path, tmp_path / "missing", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment"]
    (tmp_path / "records").write_text("mine")
    with pytest.raises(InputError, match="records is a file, and a folder is needed"):
        run(folder, tmp_path, corpus)


def test_where_no_record_can_be_written_nothing_is_trained(
    write: Write, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("rows: {dense: [0]}\n")
    (tmp_path / "records" / "dense-seed0.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"dense-seed0\.json is a folder, and a record is to be written there"):
        run(folder, tmp_path, corpus, replace=True)

    def refuse(**options: Any) -> None:
        raise PermissionError(errno.EACCES, "", "")

    (tmp_path / "records" / "dense-seed0.json").rmdir()
    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"records cannot be written to \(Permission denied\); .* with --out"):
        run(folder, tmp_path, corpus)
    assert not (tmp_path / "runs").exists()


def test_a_look_needs_no_text_and_changes_nothing(write: Write, tmp_path: Path) -> None:
    folder = write("rows: {dense: [0], lmf: [0]}\n")
    found = run(folder, tmp_path, None, dry_run=True)
    assert [(state.run, state.make) for state in found.states] == [("dense-seed0", True), ("lmf-seed0", True)]
    assert found.report is None
    assert run(folder, tmp_path, None, tables_only=True).report is None
    assert [path.name for path in tmp_path.iterdir()] == ["experiment"]


def test_tables_alone_come_from_the_records_alone(place: Path) -> None:
    shutil.rmtree(place / "runs")
    (place / "records" / "report.json").unlink()
    (place / "records" / "lmf-seed1.json").unlink()
    found = again(place, None, tables_only=True)
    assert found.report is not None
    assert [len(row.seeds) for row in found.report.rows] == [2, 1]
    assert read_report(place / "records" / "report.json") == found.report


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    assert module._device("auto") == "cuda"
    assert 1 <= module._workers("cuda") <= module.JOBS_ON_A_GPU
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    assert module._device("auto") == "cpu"


@pytest.mark.gpu
def test_runs_share_a_gpu(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """With every path that a row can take there: rows dropped, an overlay annealed, a checkpoint."""
    folder = write("rows: {dense: [0], doped: [0], pruning: [0]}\n")
    found = run(folder, tmp_path, corpus, device="auto")
    assert found.report is not None
    assert [row.method for row in found.report.rows] == ["dense", "doped-kronecker", "pruning"]
    record = read_report(tmp_path / "records" / "doped-seed0.json")
    assert record.protocol.machine.device == module.torch.cuda.get_device_name()
    assert record.protocol.command.endswith("--device cuda")


def test_a_damaged_checkpoint_is_called_so_and_the_way_out_is_one_that_there_is(write: Write, tmp_path: Path) -> None:
    trial, *_ = read_experiment(write("rows: {lmf: [0]}\n")).trials
    error = ResumeError("the checkpoint c is damaged (a; b); start anew with --force")
    told = str(module._with_a_way_out(error, trial, tmp_path))
    assert told == f"the checkpoint c is damaged (a; b); remove {tmp_path / 'lmf-seed0.run'} to start anew"


def test_recipes_of_one_label_are_lines_of_their_own(place: Path) -> None:
    report = read_report(place / "records" / "lmf-seed0.json")
    swept = {"lmf": ("lmf-2x", "lmf"), "bytes": ("bytes-2x", "bytes-4x"), "pruning": ("pruning-2x",)}
    points = module._lines_apart({row: [report] for row in ("lmf-2x", "lmf", "bytes-2x")}, swept)
    labels = {row: reports[0].rows[0].label for row, reports in points.items()}
    name = report.rows[0].label
    assert labels == {"lmf-2x": f"{name} (lmf)", "lmf": f"{name} (lmf)", "bytes-2x": f"{name} (bytes)"}
