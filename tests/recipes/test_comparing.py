from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dopant.recipes.comparing as module
from dopant.data import Corpus
from dopant.errors import DivergenceError, InputError, PlanError, RecipeError, ResumeError
from dopant.recipes.comparing import compare, join_reports, recovery_recipe
from dopant.recipes.pipeline import train
from dopant.recipes.read import read_recipe
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.reporting.report import Distillation, Report, read_report
from dopant.reporting.words import protocol_line

Snapshot = Callable[[Path], dict[str, bytes]]
SMALL = [f"model.{key}" for key in ("hidden=16", "dropout=0.0")] + [
    f"training.{key}" for key in ("epochs=1", "batch=4", "unroll=5", "constant_epochs=1")
]


def compared(
    corpus: Corpus, out: Path, methods: list[str] | None, *, more: tuple[str, ...] = (), **options: Any
) -> Report:
    options = {"target": "5x", "count": "parameters", "jobs": 2, **options}
    return compare(corpus, methods=methods, out=out, overrides=[*SMALL, *more], **options)


@pytest.fixture(scope="module")
def first(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A comparison from scratch; not to be written to."""
    out = tmp_path_factory.mktemp("comparison") / "first"
    return out, compared(corpus, out, ["lmf", "doped-kronecker"], command=["compare", "--seed", "0"])


def test_rows_files_and_the_report(first: tuple[Path, Report]) -> None:
    out, report = first
    assert [row.method for row in report.rows] == ["dense", "lmf", "doped-kronecker"]
    dense, *others = report.rows
    assert dense.loss_percent is None
    for row in others:
        assert row.parameter_factor is not None
        assert row.parameter_factor >= 5
        assert row.perplexity_test is not None
        assert dense.perplexity_test is not None
        assert row.loss_percent == pytest.approx(100 * (row.perplexity_test / dense.perplexity_test - 1))
    assert read_report(out / "report.json") == report
    assert "Doped Kronecker" in (out / "report.html").read_text()
    for row in report.rows:
        assert (out / row.folder / "model.safetensors").stat().st_size == row.file_bytes
    assert report.protocol.command == "dopant compare --seed 0"
    assert (report.protocol.target, report.protocol.count) == ("5x", "parameters")


def test_what_is_there_is_not_overwritten_unasked(
    corpus: Corpus, first: tuple[Path, Report], snapshot: Snapshot
) -> None:
    before = snapshot(first[0])
    with pytest.raises(InputError, match="is not empty; go on with --resume, replace with --force"):
        compared(corpus, first[0], ["lmf"])
    with pytest.raises(InputError, match="force starts anew and resume goes on; give one of them"):
        compared(corpus, first[0], ["lmf"], force=True, resume=True)
    assert snapshot(first[0]) == before


def test_all_is_asked_before_anything_is_removed(corpus: Corpus, tmp_path: Path, snapshot: Snapshot) -> None:
    """The last of the places is no model folder: the others stay as they are."""
    for name in ("dense", "dense.run", "lmf"):
        (tmp_path / name).mkdir()
    (tmp_path / "dense.run" / "recipe.yaml").write_text("method: dense\n")
    (tmp_path / "lmf" / "letters.txt").write_text("all that I have written")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"lmf holds more than a model: letters\.txt; force would delete it"):
        compared(corpus, tmp_path, ["lmf"], force=True)
    assert snapshot(tmp_path) == before


def test_a_failing_method_leaves_a_note_and_finished_ones_are_not_repeated(
    corpus: Corpus, first: tuple[Path, Report], tmp_path: Path, snapshot: Snapshot
) -> None:
    """Resumed with a method more, and with one whose run is another's."""
    out = tmp_path / "again"
    for path, data in snapshot(first[0]).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    (out / "lmf.run" / "fingerprint").write_text("of another run\n")
    command = ["compare", "--seed", "0", "--resume"]
    report = compared(corpus, out, ["lmf", "doped-kronecker", "pruning"], resume=True, command=command)
    dense, lmf, doped, pruning = report.rows
    assert (dense, doped) == (first[1].rows[0], first[1].rows[2])
    assert "belongs to another recipe, model or corpus" in lmf.note
    assert (lmf.method, lmf.perplexity_test, lmf.loss_percent, lmf.file_bytes) == ("lmf", None, None, 0)
    assert pruning.loss_percent is not None
    assert (first[1].protocol.resumed, report.protocol.resumed) == (False, True)
    assert read_report(out / "report.json") == report
    assert "belongs to another recipe" in (out / "report.html").read_text()


def test_from_a_trained_model(
    corpus: Corpus, dense_run: tuple[Path, Report], tiny: Callable[..., Recipe], tmp_path: Path, snapshot: Snapshot
) -> None:
    """It is copied, evaluated as it is, and every method starts from it; a resume needs the same model."""
    folder, trained = dense_run
    given, out = snapshot(folder), tmp_path / "out"
    more = ("training.learning_rate=0.1", "training.distillation.weight=0.5")
    report = compared(corpus, out, ["lmf"], model=folder, target="1.5x", more=more)
    dense, lmf = report.rows
    assert dense.perplexity_test == trained.rows[0].perplexity_test
    assert (dense.train_seconds, dense.curves) == (None, ())
    assert abs(lmf.loss_percent or 99) < 15
    assert (dense.label, lmf.label) == ("Dense", "Low rank (LMF), averaged, fit to dense, distilled 0.5")
    assert report.protocol.start == "dense"
    assert snapshot(out / "dense") == given == snapshot(folder)

    assert compared(corpus, out, ["lmf"], model=folder, target="1.5x", more=more, resume=True).rows == report.rows
    # the comparison's own copy will do as well
    again = compared(corpus, out, ["lmf"], model=out / "dense", target="1.5x", more=more, force=True)
    assert again.rows[0] == dense
    run_recipe(tiny("dense", seed=4), corpus, tmp_path / "other")
    before = snapshot(out)
    with pytest.raises(ResumeError, match=r"dense is not .*other; resume with the model it was made with"):
        compared(corpus, out, ["lmf"], model=tmp_path / "other", target="1.5x", more=more, resume=True)
    assert snapshot(out) == before
    replaced = compared(corpus, out, ["dense"], model=tmp_path / "other", force=True)
    assert replaced.rows[0].perplexity_test != dense.perplexity_test


def test_all_rows_can_learn_from_the_dense_one(corpus: Corpus, tmp_path: Path) -> None:
    """Also where the settings of all rows say so: dense itself is trained first, and from the text."""
    more = ("training.distillation.weight=0.5", "start=dense")
    report = compared(corpus, tmp_path / "out", ["lmf", "dense"], more=more)
    assert {row.label for row in report.rows} == {
        "Dense, dropout 0",
        "Low rank (LMF), dropout 0, fit to dense, distilled 0.5",
    }
    assert not any(row.note for row in report.rows)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["lfm"]}, PlanError, "method 'lfm' is not known; did you mean 'lmf'"),
        ({"model": "tyni"}, InputError, "'tyni' is neither tiny, small, medium, large nor a model folder"),
        ({"target": "0.5x"}, RecipeError, "below 1x"),
        ({"target": "20000x"}, PlanError, "cannot be met"),
        ({"count": "stones"}, RecipeError, "count"),
        ({"more": ("training.epoch=1",)}, RecipeError, "epoch"),
        ({"more": ("training.batch=500",)}, InputError, "the train split of made-up has 720 tokens"),
        ({"more": ("training.unroll=300",)}, InputError, "training.batch 4 and training.unroll 300 need 1,204"),
        ({"more": ("tokenizer.kind=wrod",)}, InputError, "unknown tokenizer 'wrod'"),
        ({"device": "abacus"}, InputError, "device 'abacus' cannot be used"),
        ({"methods": ["lmf", "/nowhere/lmf.yaml"]}, InputError, "would both be written to a folder lmf"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, corpus: Corpus, tmp_path: Path
) -> None:
    options = {"methods": ["lmf"], **options}
    with pytest.raises(error, match=message):
        compared(corpus, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: dense\n", "dense and other are dense, and rows are measured against one"),
        ("method: lmf\ntokenizer: {size: 5}\n", r"vocabulary is \d+ in dense and 5 in other"),
        ("method: lmf\nscope: model\n", "scope is lstm in dense and model in other"),
        ("method: lmf\nmodel: {layers: 1}\n", "model is 2×16 in dense and 1×16 in other"),
        ("method: lmf\nmodel: {size: tiny, layers: 1}\n", "model is 2×16 in dense and 1×16 in other"),
    ],
)
def test_recipes_that_no_table_can_hold_together_are_told_before_training(
    text: str, message: str, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        compared(corpus, tmp_path / "out", ["lmf", str(tmp_path / "other.yaml")])
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file; a comparison is written as a folder"):
        compared(corpus, tmp_path / "out", ["lmf"], force=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_compressed_model_cannot_be_compressed_again(
    corpus: Corpus, first: tuple[Path, Report], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"is compressed already .*; name a dense model"):
        compared(corpus, tmp_path / "out", ["hmd"], model=first[0] / "lmf")


def test_if_nothing_went_well_the_first_error_is_raised(tiny: Callable[..., Recipe]) -> None:
    errors = {"dense": DivergenceError("one"), "lmf": DivergenceError("two")}
    with pytest.raises(DivergenceError, match="one"):
        join_reports(errors, {name: tiny(name) for name in errors})


def test_the_protocol_does_not_claim_of_all_rows_what_holds_for_some(
    tiny: Callable[..., Recipe], first: tuple[Path, Report]
) -> None:
    scratch = [first[1].model_copy(update={"rows": (row,)}) for row in first[1].rows]
    learnt = {"start": "dense", "distillation": Distillation(weight=0.5, temperature=2.0)}
    other = scratch[1].model_copy(update={"protocol": scratch[1].protocol.model_copy(update=learnt)})
    ended = {"dense": scratch[0], "distilled": other, "lmf": scratch[2]}
    protocol = join_reports(ended, {name: tiny("lmf") for name in ended}).protocol
    assert (protocol.start, protocol.distillation) == ("mixed", None)


def test_without_a_dense_row_nothing_is_lost_or_gained(tiny: Callable[..., Recipe], first: tuple[Path, Report]) -> None:
    lmf = first[1].model_copy(update={"rows": first[1].rows[1:2]})
    ended = {"dense": DivergenceError("it diverged"), "lmf": lmf}
    report = join_reports(ended, {name: tiny(name) for name in ended})
    assert [(row.note, row.loss_percent) for row in report.rows] == [("it diverged", None), ("", None)]
    assert report.dense is not None


def test_a_recovery_has_the_sizes_and_epochs_of_the_dense_model(dense_folder: Path, tmp_path: Path) -> None:
    recipe = recovery_recipe("doped-kronecker", dense_folder, ["training.epochs=7"])
    assert (recipe.start, recipe.method, recipe.model.hidden, recipe.training.batch) == (
        "dense",
        "doped-kronecker",
        16,
        4,
    )
    assert (recipe.training.epochs, recipe.training.unroll) == (7, 5)
    own = tmp_path / "own.yaml"
    own.write_text(
        "method: lmf\ntarget: 4x\ncount: parameters\nseed: 7\ntraining: {epochs: 9}\nmodel: {dropout: 0.2}\n"
    )
    recipe = recovery_recipe(str(own), dense_folder, [])
    assert (recipe.target, recipe.count, recipe.seed) == ("4x", "parameters", 7)
    assert (recipe.training.epochs, recipe.training.unroll, recipe.model.hidden, recipe.model.dropout) == (
        9,
        5,
        16,
        0.2,
    )
    with pytest.raises(InputError, match=r"has no recipe\.yaml, so nothing says how it was trained"):
        recovery_recipe("lmf", tmp_path, [])


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ("{}", (1.0, 0.5, 0.4)),
        ("{co_matrix_dropout: {rate: 0.1}}", (1.0, 0.5, 0.4)),
        ("{sparsify: {begin: 0.45}}", (1.0, 0.5, 0.5)),
        ("{sparsify: {every: 10}}", (1.0, 0.5, 0.4)),
        ("{decay: 0.7}", (0.7, 1.0, 0.5)),
        ("{average_from: 1.0}", (0.25, 1.0, 0.5)),
        ("{constant_epochs: 3}", (0.25, 1.0, 0.5)),
    ],
)
def test_a_recovery_is_averaged_unless_its_file_says_how_the_rate_falls(
    training: str, expected: tuple[float, ...], dense_folder: Path, tmp_path: Path
) -> None:
    trained, own = tmp_path / "dense", tmp_path / "own.yaml"
    trained.mkdir()
    text = (dense_folder / "recipe.yaml").read_text()
    (trained / "recipe.yaml").write_text(re.sub(r"decay: \S+", "decay: 0.25", text))
    own.write_text(f"method: doped-kronecker\ntraining: {training}\n")
    how = recovery_recipe(str(own), trained, []).training
    assert (how.decay, how.average_from, how.sparsify.end) == expected


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("method: doped-kronecker", [], (0.2, "global")),
        ("method: lmf", [], (0.2, "global")),
        ("method: doped-kronecker", ["model.dropout=0.3", "training.sparsify.allocation=each"], (0.3, "each")),
        ("method: doped-kronecker\nmodel: {dropout: 0.1}\ntraining: {decay: 0.7}", [], (0.1, "global")),
        ("method: doped-kronecker\ntraining: {sparsify: {every: 10, end: 0.5}}", [], (0.2, "global")),
        ("method: doped-kronecker\ntraining: {sparsify: {allocation: each}}", [], (0.2, "each")),
        ("method: pruning\nstructure: {per_bank: 4}", [], (0.2, "each")),
        ("method: doped-kronecker", ["structure.per_bank=4"], (0.2, "each")),
        ("method: dense", [], (0.4, "each")),  # as a control: it has as many weights as before
    ],
)
def test_a_recovery_has_half_of_the_dropout_and_prunes_globally_unless_told_otherwise(
    text: str, more: list[str], expected: tuple[float, str], dense_folder: Path, tmp_path: Path
) -> None:
    trained, own = tmp_path / "dense", tmp_path / "own.yaml"
    trained.mkdir()
    before = (dense_folder / "recipe.yaml").read_text()
    (trained / "recipe.yaml").write_text(re.sub(r"dropout: \S+", "dropout: 0.4", before, count=1))
    own.write_text(f"{text}\n")
    recipe = recovery_recipe(str(own), trained, more)
    assert (recipe.model.dropout, recipe.training.sparsify.allocation) == expected


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Recipe]]:
    """The recipes of a comparison, of which nothing is made."""
    found: dict[str, Recipe] = {}

    def look(recipes: Mapping[str, Recipe], *args: Any) -> None:
        found.update(recipes)
        raise PlanError("looked")

    def compare_nothing(corpus: Corpus, model: str | None, *methods: object) -> dict[str, Recipe]:
        with pytest.raises(PlanError, match="looked"):
            compare(corpus, model, methods=list(map(str, methods)), out=tmp_path / "out")
        return found

    monkeypatch.setattr(module, "plan_recipes", look)
    return compare_nothing


@pytest.mark.parametrize(("size", "hidden"), [(None, 200), ("tiny", 128)])
def test_the_model_of_a_recipe_s_file_is_followed(
    size: str | None, hidden: int, corpus: Corpus, tmp_path: Path, read: Callable[..., dict[str, Recipe]]
) -> None:
    """All of it but the size where that is asked for; where it is not, rows without one have the first file's."""
    plain, own, joint = tmp_path / "plain.yaml", tmp_path / "own.yaml", tmp_path / "joint.yaml"
    plain.write_text("method: lmf\nmodel: small\n")
    own.write_text("method: kronecker\nmodel: {size: small, joint: false, dropout: 0.25}\n")
    joint.write_text("method: lmf\nmodel: {joint: true}\n")
    found = read(corpus, size, joint, plain, own, "hmd")
    assert {recipe.model.hidden for recipe in found.values()} == {hidden}
    assert (found["own"].model.joint, found["own"].model.dropout) == (False, 0.25)
    assert (found["joint"].model.joint, found["hmd"].model.joint) == (True, None)


def test_the_sizes_of_recipes_files_are_not_overridden_unasked(
    corpus: Corpus, tmp_path: Path, read: Callable[..., dict[str, Recipe]]
) -> None:
    (tmp_path / "a.yaml").write_text("method: lmf\nmodel: small\n")
    (tmp_path / "b.yaml").write_text("method: hmd\nmodel: medium\n")
    with pytest.raises(InputError, match="model is small in dense and medium in b"):
        compare(corpus, methods=[str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], out=tmp_path / "out")
    for name, method in (("dense", "dense"), ("c", "lmf")):
        (tmp_path / f"{name}.yaml").write_text(f"method: {method}\nmodel: {{hidden: 256, layers: 1}}\n")
    found = read(corpus, None, tmp_path / "dense.yaml", tmp_path / "c.yaml")
    assert found == {name: read_recipe(tmp_path / f"{name}.yaml") for name in ("dense", "c")}  # as train has them


def test_recipes_name_the_corpus_that_is_read(corpus: Corpus, read: Callable[..., dict[str, Recipe]]) -> None:
    elsewhere = replace(corpus, source={"kind": "folder", "path": "elsewhere"})
    assert {recipe.corpus for recipe in read(elsewhere, None, "lmf").values()} == {"elsewhere"}


def test_a_recovery_says_how_long_and_on_what_the_dense_model_was_trained(corpus: Corpus, tmp_path: Path) -> None:
    """Also where the recovery is another, and where the dense model reads characters."""
    train("dense", corpus, out=tmp_path / "dense", overrides=[*SMALL, "training.epochs=2", "tokenizer.kind=character"])
    recipe = recovery_recipe("lmf", tmp_path / "dense", [])
    assert (recipe.training.epochs, recipe.tokenizer.kind) == (2, "character")
    more = ("training.learning_rate=0.25",)
    report = compared(corpus, tmp_path / "out", ["lmf"], model=tmp_path / "dense", target="1.5x", more=more)
    assert report.protocol.tokenizer == "character"
    assert report.protocol.differing == ("epochs", "optimiser")
    assert "starting from the trained dense model" in (tmp_path / "out" / "report.html").read_text()
    text = tmp_path / "words.yaml"
    text.write_text("method: lmf\nstart: dense\n")
    with pytest.raises(InputError, match=r"by a character tokenizer, the recipe's is word; set tokenizer\.kind"):
        train(text, corpus, out=tmp_path / "m", dense=tmp_path / "dense", overrides=[SMALL[0]])


def test_rows_of_other_commits_keep_their_records(tiny: Callable[..., Recipe], first: tuple[Path, Report]) -> None:
    runs = [first[1].model_copy(update={"rows": (row,)}) for row in first[1].rows]
    names = ["dense", "lmf", "doped-kronecker"]
    recipes = {name: tiny(name) for name in names}
    alike = join_reports(dict(zip(names, runs, strict=True)), recipes)
    assert not any(row.seeds for row in alike.rows)
    runs[1] = runs[1].model_copy(update={"protocol": runs[1].protocol.model_copy(update={"commit": "a" * 40})})
    joined = join_reports(dict(zip(names, runs, strict=True)), recipes)
    assert [row.seeds[0].record.commit == "a" * 40 for row in joined.rows] == [False, True, False]
    assert "aaaaaaaaaaaa" in protocol_line(joined)


def test_rows_of_one_label_are_told_apart(tiny: Callable[..., Recipe], first: tuple[Path, Report]) -> None:
    dense, lmf, _ = (first[1].model_copy(update={"rows": (row,)}) for row in first[1].rows)
    other = lmf.model_copy(update={"rows": (lmf.rows[0].model_copy(update={"folder": "lmf-other"}),)})
    ended = {"dense": dense, "lmf": lmf, "lmf-other": other}
    labels = [row.label for row in join_reports(ended, {name: tiny("lmf") for name in ended}).rows]
    assert labels[1:] == [f"{lmf.rows[0].label} (lmf)", f"{lmf.rows[0].label} (lmf-other)"]
