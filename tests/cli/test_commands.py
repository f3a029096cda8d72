"""Each command by itself, on a small model that the command line has trained, or with the pipeline replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dopant.errors import DivergenceError, PlanError
from dopant.recipes.read import recipe_from
from dopant.reporting.report import Report, read_report

if TYPE_CHECKING:
    from tests.cli.conftest import Recorded, Run

    Pipeline = Callable[[str, object], Recorded]


@pytest.fixture
def report(golden_report: Path) -> Report:
    return read_report(golden_report)


def test_report_makes_the_page_again(comparison: Path, dopant: Run) -> None:
    result = dopant("report", comparison)
    assert result.exit_code == 0
    assert "Doped Kronecker: 25.0× fewer parameters" in result.stdout
    assert result.stderr == f"wrote {comparison / 'report.html'}\n"
    assert (comparison / "report.html").read_text().startswith("<!doctype html>")


def test_report_joins_runs_that_were_made_apart(comparison: Path, tmp_path: Path, dopant: Run) -> None:
    whole = read_report(comparison / "report.json")
    files = []
    for row in whole.rows:
        files.append(tmp_path / f"{row.method}.json")
        files[-1].write_text(whole.model_copy(update={"rows": (row,)}).model_dump_json())
    refused = dopant("report", *files)
    assert refused.exit_code == 2
    assert "say where with --out" in refused.stderr
    assert dopant("report", *files, "--out", tmp_path / "joined").exit_code == 0
    joined = read_report(tmp_path / "joined" / "report.json")
    assert [row.method for row in joined.rows] == [row.method for row in whole.rows]
    assert (tmp_path / "joined" / "report.html").exists()
    before = (tmp_path / "joined" / "report.json").read_bytes()
    refused = dopant("report", files[0], "--out", tmp_path / "joined")
    assert refused.exit_code == 2
    assert "joined holds a report already; choose another folder, or replace it with --force" in refused.stderr
    assert (tmp_path / "joined" / "report.json").read_bytes() == before
    assert dopant("report", files[0], "--out", tmp_path / "joined", "--force").exit_code == 0
    assert len(read_report(tmp_path / "joined" / "report.json").rows) == 1


def test_report_as_markdown_and_json(comparison: Path, dopant: Run) -> None:
    assert dopant("report", comparison, "--markdown").stdout.startswith("| method ")
    result = dopant("report", comparison / "report.json", "--json", "-q")
    assert Report.model_validate_json(result.stdout) == read_report(comparison / "report.json")
    assert result.stderr == ""


def test_report_refuses_what_is_none(tmp_path: Path, dopant: Run) -> None:
    (tmp_path / "report.json").write_text("{}")
    result = dopant("report", tmp_path)
    assert result.exit_code == 2
    assert "is not a report" in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_report_of_a_model_folder_says_where_it_is(trained: Path, dopant: Run) -> None:
    result = dopant("report", trained)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {trained} is a model folder; the report of its run is in {trained}.run, name that\n"
    )


def test_plan_of_a_named_model(dopant: Run) -> None:
    result = dopant("plan", "--model", "medium", "--target", "25x", "--count", "parameters")
    assert result.exit_code == 0
    assert "52×26 ⊗ 50×50 + 131,348 non-zeros" in result.stdout
    assert "25.0x smaller, 4.0 % kept" in result.stdout


def test_plan_as_json(dopant: Run) -> None:
    data = json.loads(dopant("plan", "--method", "lmf", "--vocabulary", 500, "--json").stdout)
    assert data["method"] == "lmf"
    assert [w["shape"] for w in data["weights"] if w["name"].startswith("embedding")] == [[500, 128]]


def test_plan_of_a_model_folder(trained: Path, dopant: Run) -> None:
    result = dopant("plan", "--model", trained, "--method", "pruning", "--target", "4x")
    assert "64×32" in result.stdout
    assert "non-zeros" in result.stdout
    apart = dopant("plan", "--model", trained, "--method", "hmf", "--target", "2x")
    assert "lstm.weight_ih_l0" in apart.stdout  # x and h apart, as compress makes it


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--target", "0.5x"], "below 1x"),
        (["--target", "soon"], "is no number"),
        (["--method", "lfm"], "did you mean 'lmf'?"),
        (["--model", "gigantic"], "neither tiny, small, medium, large nor a model folder"),
        (["--set", "training.epoch=3"], "did you mean 'epochs'?"),
        (["--method", "lmf", "--target", "1000000x"], "closest possible target"),
        (["--count", "weights"], "count"),
        (["--scope", "re:nothing"], "match"),
    ],
)
def test_plan_refuses(arguments: list[str], complaint: str, dopant: Run) -> None:
    result = dopant("plan", *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


def test_inspect(trained: Path, dopant: Run) -> None:
    result = dopant("inspect", trained)
    assert result.exit_code == 0
    assert "lstm.weight_l0" in result.stdout
    assert "model.safetensors" in result.stdout
    assert "gaps" not in result.stdout  # it is dense, and has no positions
    data = json.loads(dopant("inspect", trained, "--json").stdout)
    assert data["stored_bytes"] > 0


def test_tables_fit_a_narrow_terminal(trained: Path, dopant: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for arguments in (["inspect", trained], ["plan", "--model", "medium"]):
        lines = dopant(*arguments).stdout.splitlines()
        assert "lstm.weight_l0" in lines
        assert max(map(len, lines[1:])) <= 60


def test_evaluate_says_under_which_protocol(trained: Path, corpus: Path, dopant: Run) -> None:
    result = dopant("evaluate", trained, "--corpus", corpus, "--split", "valid")
    assert result.exit_code == 0
    assert result.stdout.startswith("perplexity ")
    for name in ("checksum", "tokens", "vocabulary", "batch", "state carried", "commit", "versions torch"):
        assert f"\n{name}" in result.stdout
    data = json.loads(dopant("evaluate", trained, "--corpus", corpus, "--split", "valid", "--json").stdout)
    assert f"{data['perplexity']:,.2f}" in result.stdout.splitlines()[0]
    assert data["protocol"]["command"].startswith("dopant evaluate ")


def test_generate_is_repeatable_and_names_unknown_words_once(trained: Path, dopant: Run) -> None:
    arguments = ("generate", trained, "--prompt", "one zebra two zebra", "--tokens", 5, "--seed", 1)
    result = dopant(*arguments)
    assert result.exit_code == 0
    assert result.stderr.count("zebra") == 1
    assert result.stdout.startswith("one <unk> two <unk> ")
    assert dopant(*arguments).stdout == result.stdout
    assert len(json.loads(dopant(*arguments, "--json").stdout)["text"].split()) == 5


@pytest.mark.parametrize("command", ["inspect", "evaluate", "generate"])
def test_what_is_no_model_is_refused(command: str, tmp_path: Path, dopant: Run) -> None:
    result = dopant(command, tmp_path / "nothing")
    assert result.exit_code == 2
    assert "nothing" in result.stderr
    assert result.stdout == ""


def test_train_says_its_plan_and_what_it_wrote(trained: Path, corpus: Path, dopant: Run) -> None:
    again = dopant("train", "dense", "--corpus", corpus, "--out", trained)
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    assert "--force" in again.stderr
    assert read_report(trained.with_name("dense.run") / "report.json").protocol.command.startswith(
        f"dopant train dense --corpus {corpus}"
    )


def test_compress_makes_a_trained_model_small(trained: Path, corpus: Path, tmp_path: Path, dopant: Run) -> None:
    result = dopant(
        "compress", trained, "--corpus", corpus, "--target", "3x", "--out", tmp_path / "small", "--distill",
        "--threads", 1, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "huffman, huffman" in dopant("inspect", tmp_path / "small").stdout
    row = json.loads(result.stdout)["rows"][0]
    assert row["byte_factor"] >= 3
    again = ("store", tmp_path / "small", "--values", "int8", "--indices", "gaps", "--out", tmp_path / "larger")
    stored = dopant(*again)
    assert stored.exit_code == 0, stored.stderr
    told = [line.split("  ") for line in stored.stdout.splitlines()]
    assert [cell.strip() for cell in told[3] if cell.strip()][1:3] == ["huffman, huffman", "int8, gaps"]
    assert "the same" in stored.stdout.splitlines()[2]
    assert stored.stderr.endswith(f"what rounding costs: dopant evaluate {tmp_path / 'larger'}\n")
    whole = dopant("store", tmp_path / "larger", "--values", "float32", "--out", tmp_path / "whole")
    assert whole.stderr == f"wrote {tmp_path / 'whole'}\n"  # nothing is rounded
    assert "int8, gaps" in dopant("inspect", tmp_path / "larger").stdout
    assert "choose another place" in dopant(*again).stderr
    data = json.loads(dopant(*again, "--force", "--json", "-q").stdout)["weights"][1]
    assert data["after"] == {"values": "int8", "indices": "gaps"}
    assert data["bytes_after"] > data["bytes_before"]
    assert row["loss_percent"] is not None
    assert "The plan:" in result.stderr
    assert (tmp_path / "small" / "model.safetensors").exists()


def test_compare_hands_everything_on(report: Report, tmp_path: Path, pipeline: Pipeline, dopant: Run) -> None:
    compare = pipeline("compare", report)
    arguments = [
        "compare", "--corpus", "texts", "--model", "small", "--target", "10x", "--count", "parameters",
        "--scope", "model", "--methods", "lmf, pruning,", "--seed", 4, "--jobs", 2, "--threads", 3, "--out",
        tmp_path / "out", "--force", "--values", "int8", "--set", "training.epochs=2", "--device", "cuda",
    ]  # fmt: skip
    result = dopant(*arguments)
    assert result.exit_code == 0, result.stderr
    found = compare.arguments
    expected = {
        "corpus": "texts", "model": "small", "methods": ["lmf", "pruning"], "jobs": 2, "threads": 3,
        "device": "cuda", "force": True, "resume": False, "out": tmp_path / "out",
        "command": [str(argument) for argument in arguments],
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["overrides"][-1] == "training.epochs=2"
    recipe = recipe_from({}, found["overrides"])
    assert (recipe.target, recipe.count, recipe.scope, recipe.seed) == ("10x", "parameters", "model", 4)
    assert (recipe.storage.values, recipe.training.epochs) == ("int8", 2)
    assert "Doped Kronecker" in result.stdout
    assert f"wrote {tmp_path / 'out' / 'report.html'}" in result.stderr


def test_compare_by_default(report: Report, tmp_path: Path, pipeline: Pipeline, dopant: Run) -> None:
    compare = pipeline("compare", report)
    result = dopant("compare", "--out", tmp_path / "out", "--json", "--quiet")
    assert json.loads(result.stdout) == report.model_dump(mode="json")
    assert result.stderr == ""
    found = compare.arguments
    assert (found["corpus"], found["model"], found["methods"], found["threads"]) == (None, None, None, 1)
    recipe = recipe_from({}, found["overrides"])
    assert (recipe.target, recipe.count, recipe.scope, recipe.seed) == ("25x", "bytes", "lstm", 0)


@pytest.mark.parametrize(("impossible", "code"), [(False, 2), (True, 0)])
def test_compare_tells_scripts_that_a_row_failed(
    impossible: bool, code: int, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dopant: Run
) -> None:
    """What no plan could be made for was told before, and was not asked for by name."""
    from dopant.recipes import pipeline

    row = report.rows[1].model_copy(update={"note": "the loss became nan", "folder": "pruning"})

    def compare(*args: object, announce: Callable[..., None], **options: object) -> Report:
        announce({"pruning": PlanError("the target cannot be met")} if impossible else {})
        return report.model_copy(update={"rows": (report.rows[0], row)})

    monkeypatch.setattr(pipeline, "compare", compare)
    result = dopant("compare", "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == code
    assert ("pruning failed, as the table's notes say; --resume tries again" in result.stderr) == (not impossible)
    assert row.label in result.stdout


def test_a_target_in_bytes_is_a_setting(report: Report, tmp_path: Path, pipeline: Pipeline, dopant: Run) -> None:
    compare = pipeline("compare", report)
    dopant("compare", "--out", tmp_path / "out", "--target-bytes", "1.2MB")
    assert recipe_from({}, compare.arguments["overrides"]).target_bytes == 1_200_000


def test_train_has_the_flags_of_a_target(report: Report, tmp_path: Path, pipeline: Pipeline, dopant: Run) -> None:
    train = pipeline("train", report)
    flags = ["--target", "10x", "--count", "parameters", "--scope", "model", "--values", "float16", "--indices", "rice"]
    result = dopant("train", "lmf", "--out", tmp_path / "out", *flags)
    assert result.exit_code == 0, result.stderr
    recipe = recipe_from({}, train.arguments["overrides"])
    assert (recipe.target, recipe.count, recipe.scope) == ("10x", "parameters", "model")
    assert (recipe.storage.values, recipe.storage.indices) == ("float16", "rice")
    dopant("train", "lmf", "--out", tmp_path / "out")
    assert train.arguments["overrides"] == []


@pytest.mark.parametrize("command", [["train", "lmf"], ["compare", "--methods", "lmf"]])
def test_a_mistaken_flag_is_named(command: list[str], corpus: Path, tmp_path: Path, dopant: Run) -> None:
    result = dopant(*command, "--corpus", corpus, "--out", tmp_path / "out", "--target", "0.5x", "--quiet")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --target 0.5x: target 0.5x is below 1x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "weight"), [([], None), (["--distill"], 0.5), (["--distill-weight", "0.3"], 0.3)])
def test_distillation(
    flags: list[str], weight: float, report: Report, tmp_path: Path, pipeline: Pipeline, dopant: Run
) -> None:
    compress = pipeline("compress", report)
    dopant("compress", "model", "--out", tmp_path / "out", *flags)
    assert compress.arguments["distill"] == weight


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("compare", ["compare", "--out", "out"]),
        ("compress", ["compress", "model", "--out", "out"]),
        ("train", ["train", "recipe", "--out", "out"]),
        ("evaluate", ["evaluate", "model"]),
        ("generate", ["generate", "model"]),
    ],
)
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PlanError("target 3x cannot be met; say 2x"), 2, "error: target 3x cannot be met; say 2x"),
        (DivergenceError("the loss became nan"), 2, "error: the loss became nan"),
        (OSError(28, "No space left on device", "out"), 2, "error: out: the disk is full"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (ValueError("oops"), 1, "error: ValueError: oops"),
    ],
)
def test_errors_of_the_pipeline_are_messages(
    name: str,
    arguments: list[str],
    error: BaseException,
    code: int,
    text: str,
    pipeline: Pipeline,
    dopant: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline(name, error)
    result = dopant(*arguments)
    assert result.exit_code == code
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())
