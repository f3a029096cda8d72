from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

from dopant.errors import InputError
from dopant.reporting.report import Report, loss_percent, read_report, write_report


def with_row(report: Report, index: int, **changes: object) -> Report:
    rows = list(report.rows)
    rows[index] = rows[index].model_copy(update=changes)
    return report.model_copy(update={"rows": tuple(rows)})


def test_round_trip(report: Report, tmp_path: Path) -> None:
    assert read_report(write_report(report, tmp_path / "report.json")) == report


def test_version_1_loads_for_ever(report: Report, golden: Path) -> None:
    assert read_report(golden) == report


def test_the_promised_keys_are_there(report: Report, tmp_path: Path) -> None:
    data = json.loads(write_report(report, tmp_path / "report.json").read_text())
    assert {
        "method", "parameters", "parameter_factor", "stored_bytes", "byte_factor", "file_bytes",
        "perplexity_valid", "perplexity_test", "loss_percent", "train_seconds",
    } <= set(data["rows"][0])  # fmt: skip
    assert {
        "corpus", "checksum", "tokens", "vocabulary", "batch", "unroll", "state_carried", "commit", "versions",
        "machine", "seed", "command",
    } <= set(data["protocol"])  # fmt: skip


def test_the_file_is_json_even_after_a_divergence(report: Report, tmp_path: Path) -> None:
    row = report.rows[1].model_dump()
    row.update(perplexity_test=nan, perplexity_valid=inf, loss_percent=-inf)
    diverged = Report.model_validate({**report.model_dump(), "rows": [row]})
    path = write_report(diverged, tmp_path / "report.json")
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read_report(path).rows[0].perplexity_test is None


def test_numbers_of_numpy_are_taken(report: Report) -> None:
    row = report.rows[1].model_dump() | {"perplexity_test": np.float32(44.5), "parameters": np.int64(7)}
    made = type(report.rows[1]).model_validate(row)
    assert made.perplexity_test == 44.5
    assert made.parameters == 7


def test_the_dense_and_the_best_row(report: Report) -> None:
    assert report.dense is report.rows[0]
    assert report.best is not None
    assert report.best.method == "doped-kronecker"


def test_a_row_without_perplexity_is_never_the_best(report: Report) -> None:
    index = next(i for i, row in enumerate(report.rows) if row.method == "doped-kronecker")
    best = with_row(report, index, perplexity_valid=None).best
    assert best is not None
    assert best.method == "doped-hmd"


def test_the_best_row_is_not_chosen_on_the_test_split(report: Report) -> None:
    index = next(i for i, row in enumerate(report.rows) if row.method == "doped-hmd")
    best = with_row(report, index, perplexity_test=1.5).best
    assert best is not None
    assert best.method == "doped-kronecker"


def test_loss() -> None:
    assert loss_percent(83.2, 82.07) == pytest.approx(1.377, abs=1e-3)
    assert loss_percent(None, 82.0) is None
    assert loss_percent(83.2, None) is None


@pytest.mark.parametrize(
    ("place", "key", "value", "complaint"),
    [
        (("rows", 2), "perplexity_test", "50", r"rows\.2\.perplexity_test: Input should be a valid number"),
        (("rows", 0), "parameters", -1, r"rows\.0\.parameters: .*greater than or equal to 0"),
        (("rows", 0), "surplus", 1, r"rows\.0\.surplus: Extra"),
        (("protocol",), "count", "weights", r"protocol\.count: Input should be 'parameters' or 'bytes'"),
        ((), "version", 2, "version: Input should be 1"),
        ((), "rows", [], "rows: .* at least 1 item"),
    ],
)
def test_reading_is_strict(
    place: tuple[str | int, ...], key: str, value: object, complaint: str, report: Report, tmp_path: Path
) -> None:
    path = write_report(report, tmp_path / "report.json")
    data = json.loads(path.read_text())
    target = data
    for step in place:
        target = target[step]
    target[key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=complaint):
        read_report(path)


def test_many_mistakes_are_counted(report: Report, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "report.json")
    data = json.loads(path.read_text())
    data["rows"] = [{} for _ in range(3)]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"rows\.0\.method: Field required(.|\n)*and \d+ more"):
        read_report(path)
