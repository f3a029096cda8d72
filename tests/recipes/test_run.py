from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dopant.recipes.run as module
from dopant.data import Corpus, batchify, make_corpus
from dopant.errors import DivergenceError, InputError, PlanError, ResumeError
from dopant.evaluation import perplexity
from dopant.layers import slots
from dopant.plan.methods import METHODS
from dopant.recipes.places import Places, alone
from dopant.recipes.run import device_name, meet_byte_target, run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import load_with_tokenizer
from dopant.reporting.report import Report, read_report
from dopant.storage.folder import load_model
from dopant.storage.inspect import inspect
from dopant.structures import DopedWeight

Tiny = Callable[..., Recipe]
Snapshot = Callable[[Path], dict[str, bytes]]
SCOPE = 2 * 64 * 32  # entries of both LSTM layers
STARTS = {"start": "dense"}


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def stored(folder: Path) -> int:
    """Bytes of the LSTM's matrices, from the file alone."""
    return sum(weight.stored_bytes for weight in inspect(folder).weights if weight.name.startswith("lstm."))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_end_to_end(method: str, tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    report = run_recipe(tiny(method), corpus, tmp_path / "m", command=["train", "x.yaml"])
    (row,) = report.rows
    assert (row.method, row.folder, row.note, row.loss_percent) == (method, "m", "", None)
    assert 1 < (row.perplexity_valid or 0) < 20  # of 21 words: how often each comes is learnt, but not yet after what
    assert 1 < (row.perplexity_test or 0) < 20
    assert row.train_seconds is not None
    assert row.train_seconds > 0
    assert row.parameter_factor is not None
    assert row.parameter_factor == pytest.approx(SCOPE / row.parameters)
    assert row.byte_factor == pytest.approx(4 * SCOPE / row.stored_bytes)
    assert row.parameter_factor == 1 if method == "dense" else 5 <= row.parameter_factor < 8
    assert row.stored_bytes == stored(tmp_path / "m")
    assert row.file_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size
    assert [curve.epoch for curve in row.curves] == [1]
    assert bool(row.paths) is method.startswith("doped")
    assert len(row.weights) == len(slots(load_model(tmp_path / "m").model))
    protocol = report.protocol
    assert (protocol.corpus, protocol.checksum) == ("made-up", corpus.checksum)
    assert protocol.tokens.model_dump() == {"train": 720, "valid": 150, "test": 150}
    assert (protocol.vocabulary, protocol.batch, protocol.unroll, protocol.state_carried) == (21, 4, 5, True)
    assert protocol.command == "dopant train x.yaml"
    assert read_report(tmp_path / "m.run" / "report.json") == report
    left = {path.name for path in (tmp_path / "m.run").iterdir()}
    assert left == {"recipe.yaml", "plan.json", "fingerprint", "log.jsonl", "report.json"}


@pytest.mark.parametrize("method", ["dense", "pruning", "doped-kronecker"])
def test_what_follows_what_is_learnt(method: str, tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    training = {"epochs": 6, "batch": 4, "unroll": 5, "constant_epochs": 6}
    row = run_recipe(tiny(method, training=training), corpus, tmp_path / "m").rows[0]
    assert 1 < (row.perplexity_test or 0) < 6


def test_the_row_is_computed_from_the_file(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    recipe = tiny("doped-kronecker", storage={"values": "int8", "indices": "rice"})
    row = run_recipe(recipe, corpus, tmp_path / "m").rows[0]
    model, tokenizer = load_with_tokenizer(tmp_path / "m")
    ids = torch.as_tensor(tokenizer.encode(corpus.test))
    assert row.perplexity_test == perplexity(model, batchify(ids, 1))
    ids = torch.as_tensor(tokenizer.encode(corpus.valid))
    assert row.perplexity_valid == perplexity(model, batchify(ids, 20))
    assert row.curves[-1].valid_perplexity != row.perplexity_valid  # that one was of float32
    ids = torch.as_tensor(tokenizer.encode(corpus.train))
    assert row.perplexity_train == perplexity(model, batchify(ids, 20)[:7])  # 150 tokens, as the validation text has
    overlays = [slot.weight.overlay.values for slot in slots(model) if isinstance(slot.weight, DopedWeight)]
    assert row.nonzeros_in_file == sum(int((values != 0).sum()) for values in overlays)
    assert 0.9 * row.nonzeros < row.nonzeros_in_file <= row.nonzeros


def test_a_record_names_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the card of {device}")
    assert device_name("cuda:1") == "the card of cuda:1"
    assert device_name("cpu") == "cpu"


@pytest.mark.parametrize("indices", ["gaps", "rice", "huffman"])
@pytest.mark.parametrize(
    ("method", "factor", "hidden", "values"),
    [
        ("pruning", 4, 16, "int8"),
        ("doped-kronecker", 4, 16, "int8"),
        ("pruning", 300, 64, "float16"),  # with gaps of 240 on average, many of which do not fit into a byte
        ("doped-kronecker", 120, 64, "float16"),
        ("doped-kronecker", 20, 64, "huffman"),
    ],
)
def test_the_file_meets_a_byte_target(
    method: str, factor: int, hidden: int, values: str, indices: str, tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"count": "bytes", "storage": {"values": values, "indices": indices}}
    recipe = tiny(method, target=f"{factor}x", model={"hidden": hidden}, **changes)
    row = run_recipe(recipe, corpus, tmp_path / "m").rows[0]
    allowed = 4 * 2 * (4 * hidden * 2 * hidden) // factor
    least = 0.7 if values == "huffman" else 0.95  # after an epoch most numbers are far smaller than the largest ones
    assert least * allowed < stored(tmp_path / "m") <= allowed
    assert (row.byte_factor or 0) >= factor


@pytest.mark.parametrize("values", ["float16", "huffman"])
@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("dense", "pruning", "doped-kronecker")])
def test_the_file_meets_a_byte_target_by_every_method(
    method: str, values: str, tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    training = {"epochs": 1, "batch": 20, "unroll": 30}  # one step
    recipe = tiny(method, target=None, target_bytes=1900, count="bytes", training=training, storage={"values": values})
    row = run_recipe(recipe, corpus, tmp_path / "m").rows[0]
    assert 0.5 * 1900 < stored(tmp_path / "m") <= 1900
    assert run_recipe(recipe, corpus, tmp_path / "m", resume=True).protocol.target == "1900 bytes"
    assert row.stored_bytes == stored(tmp_path / "m")


def test_real_patterns_that_take_more_than_a_random_one_still_fit(
    tiny: Tiny, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlays whose non-zeros all lie at the end, behind a row of escapes, are cut until they fit."""
    excess = []

    def crowded(model: torch.nn.Module, plan: Any) -> None:
        sparse = [slot.weight for slot in slots(model) if slot.lstm]
        for weight in sparse:
            weight.positions = torch.arange(64 * 32)[-len(weight.positions) :]
        excess.append(sum(weight.cost(plan.storage).stored_bytes for weight in sparse) - 4 * SCOPE // 20)
        meet_byte_target(model, plan)

    monkeypatch.setattr(module, "meet_byte_target", crowded)
    recipe = tiny("pruning", target="20x", count="bytes", storage={"values": "int8", "indices": "gaps"})
    run_recipe(recipe, corpus, tmp_path / "m")
    assert 0.95 * 4 * SCOPE // 20 < stored(tmp_path / "m") <= 4 * SCOPE // 20
    assert excess[0] > 0  # the test would tell nothing if the patterns had fitted anyway


def test_equal_seeds_give_equal_files_and_others_do_not(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    training = {"co_matrix_dropout": {"rate": 0.2}, "epochs": 1, "batch": 4, "unroll": 5}
    model = {"hidden": 16, "dropout": 0.3}
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_recipe(tiny("doped-kronecker", seed=seed, training=training, model=model), corpus, tmp_path / name)
        files.append(weights_of(tmp_path / name))
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("method", [m for m in METHODS if m != "dense"])
def test_every_method_starts_from_a_dense_model(
    method: str, tiny: Tiny, corpus: Corpus, dense_run: tuple[Path, Report], tmp_path: Path
) -> None:
    """hmf keeps x and h apart, and splits the joint matrix of the dense model for it."""
    folder, dense = dense_run
    training = {"epochs": 1, "batch": 4, "unroll": 5, "learning_rate": 0.1, "distillation": {"weight": 0.5}}
    recipe = tiny(method, start="dense", target="1.5x", training=training)
    row = run_recipe(recipe, corpus, tmp_path / "m", dense=folder).rows[0]
    names = {weight.name for weight in row.weights}
    assert ("lstm.weight_hh_l0" in names) is (method == "hmf")
    assert (row.perplexity_test or 99) < 1.15 * (dense.rows[0].perplexity_test or 0)  # it did not start anew
    assert row.label.endswith(", fit to dense, distilled 0.5")


def test_what_starts_from_dense_begins_with_that_model(
    tiny: Tiny, corpus: Corpus, dense_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first pruning the model is the dense one, doped or pruned, joint or split."""
    before, tokenizer = load_with_tokenizer(dense_folder)
    ids = batchify(torch.as_tensor(tokenizer.encode(corpus.test)), 1)

    class Looked(Exception):  # noqa: N818
        pass

    def look(model: torch.nn.Module, *args: Any) -> None:
        assert perplexity(model, ids) == pytest.approx(perplexity(before, ids), rel=1e-4)
        raise Looked

    monkeypatch.setattr(module, "train", look)
    for method, joint in (("doped-kronecker", None), ("pruning", False), ("doped-hmd", None)):
        model = {"hidden": 16, "joint": joint}
        with pytest.raises(Looked):
            run_recipe(tiny(method, **STARTS, model=model), corpus, tmp_path / f"{method}{joint}", dense=dense_folder)


def test_a_dense_model_is_needed_and_must_be_dense(
    tiny: Tiny, corpus: Corpus, dense_folder: Path, tmp_path: Path
) -> None:
    for changes, why in (
        (STARTS, "starts from a trained dense model"),
        ({"training": {"distillation": {"weight": 0.5}}}, "learns from a trained dense model"),
    ):
        with pytest.raises(InputError, match=f"this recipe {why}; name its folder"):
            run_recipe(tiny("lmf", **changes), corpus, tmp_path / "m")
    run_recipe(tiny("lmf"), corpus, tmp_path / "lmf")
    with pytest.raises(InputError, match=r"is compressed already .* is low_rank.*; name a dense model"):
        run_recipe(tiny("lmf", **STARTS), corpus, tmp_path / "m", dense=tmp_path / "lmf")
    assert {path.name for path in tmp_path.iterdir()} == {"lmf", "lmf.run"}


def test_a_finished_run_is_returned_as_it_is(tiny: Tiny, corpus: Corpus, tmp_path: Path, snapshot: Snapshot) -> None:
    report = run_recipe(tiny("lmf"), corpus, tmp_path / "m")
    before = snapshot(tmp_path)
    assert run_recipe(tiny("lmf"), corpus, tmp_path / "m", resume=True) == report
    assert snapshot(tmp_path) == before


def test_what_another_process_did_meanwhile_is_seen(
    tiny: Tiny, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    """Between the first look at the place and the work another run begins there and ends."""
    real = module.make_setting

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(module, "make_setting", real)
        run_recipe(tiny("pruning"), corpus, tmp_path / "m")
        return real(*args)

    for options, error, message in (
        ({}, InputError, "exists; go on with --resume"),
        ({"resume": True}, ResumeError, "belongs to another recipe"),
    ):
        for path in (tmp_path / "m", tmp_path / "m.run"):
            shutil.rmtree(path, ignore_errors=True)
        monkeypatch.setattr(module, "make_setting", slow)
        with pytest.raises(error, match=message):
            run_recipe(tiny("lmf"), corpus, tmp_path / "m", **options)
        assert read_report(tmp_path / "m.run" / "report.json").rows[0].method == "pruning"


@pytest.mark.parametrize("method", ["doped-kronecker", "kronecker", "lmf"])
def test_structures_and_the_rest_of_the_model_start_apart(
    method: str, tiny: Tiny, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generators of one seed would draw the same numbers, scaled, for the embedding and for the factors."""

    class Looked(Exception):  # noqa: N818
        pass

    def look(model: torch.nn.Module, *args: Any) -> None:
        weights = {slot.name: slot.weight for slot in slots(model)}
        embedding = weights["embedding.weight"].to_dense().detach().flatten()
        factors = [p.detach().flatten() for p in weights["lstm.weight_l0"].parameters()]
        for factor in sorted(factors, key=len)[:2]:
            pair = torch.stack([factor, embedding[: len(factor)]])
            assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.9
        raise Looked

    monkeypatch.setattr(module, "train", look)
    with pytest.raises(Looked):
        run_recipe(tiny(method), corpus, tmp_path / "m")


def test_a_run_that_another_process_is_at_is_left_alone(
    tiny: Tiny, corpus: Corpus, tmp_path: Path, snapshot: Snapshot
) -> None:
    pytest.importorskip("fcntl")
    run_recipe(tiny(), corpus, tmp_path / "m")
    with alone(Places.of(tmp_path / "m")):
        before = snapshot(tmp_path)
        with pytest.raises(InputError, match="another dopant is at work in"):
            run_recipe(tiny(seed=1), corpus, tmp_path / "m", force=True)
        assert snapshot(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"m", "m.run"}


def test_another_run_is_refused_and_nothing_is_lost(
    tiny: Tiny, corpus: Corpus, tmp_path: Path, snapshot: Snapshot
) -> None:
    run_recipe(tiny("lmf"), corpus, tmp_path / "m")
    before = snapshot(tmp_path)
    other = make_corpus("made-up", corpus.train + "one more\n", corpus.valid, corpus.test)
    for recipe, text in ((tiny("lmf", seed=1), corpus), (tiny("hmd"), corpus), (tiny("lmf"), other)):
        with pytest.raises(ResumeError, match=r"belongs to another recipe, model or corpus .*--force"):
            run_recipe(recipe, text, tmp_path / "m", resume=True)
    assert snapshot(tmp_path) == before


def test_what_is_there_needs_force(tiny: Tiny, corpus: Corpus, tmp_path: Path, snapshot: Snapshot) -> None:
    run_recipe(tiny("lmf"), corpus, tmp_path / "m")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="exists; go on with --resume, replace it with --force"):
        run_recipe(tiny("hmd"), corpus, tmp_path / "m")
    assert snapshot(tmp_path) == before
    assert run_recipe(tiny("hmd"), corpus, tmp_path / "m", force=True).rows[0].method == "hmd"
    assert len((tmp_path / "m.run" / "log.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "100000x"}, PlanError, "closest|smallest"),
        ({"targets": ["nothing"]}, PlanError, "matches no"),
        ({"training": {"batch": 500}}, InputError, "training.batch 500 and training.unroll 5 need 3,000"),
        ({"training": {"unroll": 500}}, InputError, "take training.unroll=179"),
        ({"tokenizer": "nothing.json"}, InputError, "unknown tokenizer"),
    ],
)
def test_what_cannot_be_run_leaves_nothing_behind(
    changes: dict[str, Any], error: type[Exception], message: str, tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run_recipe(tiny("lmf", **changes), corpus, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_unknown_devices_and_short_splits_leave_nothing_behind(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    for device, why in (("cuda:99", "cpu always can"), ("toaster", "needed is cpu or cuda"), ("meta", "needed is cpu")):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used.*{why}"):
            run_recipe(tiny("lmf"), corpus, tmp_path / "m", device=device)
    short = make_corpus("short", corpus.train, "word", corpus.test)
    with pytest.raises(InputError, match="the valid split of short has 1 token; 2 or more are needed"):
        run_recipe(tiny("lmf"), short, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_short_validation_text_is_enough_for_a_large_batch(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    short = make_corpus("short", corpus.train, "a cat\n", "the dog\n")
    row = run_recipe(tiny("doped-kronecker", training={"batch": 20}), short, tmp_path / "m").rows[0]
    assert row.perplexity_valid is not None
    assert math.isfinite(row.perplexity_valid)


def test_a_run_that_diverges_keeps_its_log_and_no_model(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    training = {"learning_rate": 1e30, "clip": 0}
    with pytest.raises(DivergenceError, match=r"lower training\.learning_rate"):
        run_recipe(tiny("dense", training=training), corpus, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    last = (tmp_path / "m.run" / "log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "diverged"


def test_the_plan_is_told_before_anything_is_done(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    told = []

    def announce(plan: Any) -> None:
        told.append(plan)
        assert list(tmp_path.iterdir()) == []

    run_recipe(tiny("lmf"), corpus, tmp_path / "m", announce=announce)
    assert (tmp_path / "m.run" / "plan.json").read_text() == told[0].to_json() + "\n"


@pytest.mark.parametrize("tied", [False, True])
def test_the_whole_model_can_be_compressed(tied: bool, tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    training = {"co_matrix_dropout": {"rate": 0.2, "sharing": "sequence"}, "epochs": 1, "batch": 4, "unroll": 5}
    model = {"hidden": 16, "tied": tied}
    recipe = tiny("doped-lmf", scope="model", target="3x", model=model, training=training)
    row = run_recipe(recipe, corpus, tmp_path / "m").rows[0]
    assert row.parameter_factor == pytest.approx((SCOPE + (1 if tied else 2) * 21 * 16) / row.parameters)
    assert 3 <= (row.parameter_factor or 0) < 3.3
    assert all(weight.nonzeros for weight in row.weights)
