from __future__ import annotations

from math import inf, nan

import pytest

from dopant.reporting import words
from dopant.reporting.report import Distillation, Report, SeedLine


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_994, "9.99 kB"), (9_996, "10.0 kB"), (84_120, "84.1 kB"),
        (99_960, "100 kB"), (999_600, "1.00 MB"), (4_194_304, "4.19 MB"), (25_800_000_000, "25.8 GB"), (None, "–"),
    ],
)  # fmt: skip
def test_size(number: float | None, text: str) -> None:
    assert words.size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1.00×"), (9.949, "9.95×"), (9.951, "10.0×"), (25, "25.0×"), (999.4, "999.4×"), (1092.3, "1,092×"),
     (None, "–"), (nan, "–")],
)  # fmt: skip
def test_factor(number: float | None, text: str) -> None:
    assert words.factor(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(83.214, "83.21"), (999.9, "999.90"), (1234.5, "1,234"), (2.5e7, "2.5e+07"), (None, "–"), (nan, "–"), (inf, "–")],
)
def test_perplexity(number: float | None, text: str) -> None:
    assert words.perplexity(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.377, "+1.4 %"), (-1.34, "−1.3 %"), (0.0, "±0.0 %"), (-0.04, "±0.0 %"), (123.4, "+123 %"),
     (12345.0, "+12,345 %"), (None, "–"), (nan, "–")],
)  # fmt: skip
def test_percent(number: float | None, text: str) -> None:
    assert words.percent(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.42, "0.4 s"), (41.2, "41 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"),
     (7199.9, "2 h 00 min"), (None, "–"), (nan, "–")],
)  # fmt: skip
def test_duration(number: float | None, text: str) -> None:
    assert words.duration(number) == text


def test_the_headline_says_of_what_each_factor_is(report: Report) -> None:
    assert words.headline(report) == (
        "Doped Kronecker: 25.0× fewer parameters, 51.1× fewer bytes (LSTM weights), "
        "perplexity 42.4 against 41.3 (+2.7 %)"
    )


def test_the_headline_without_a_dense_row(report: Report) -> None:
    rows = tuple(row.model_copy(update={"loss_percent": None}) for row in report.rows[1:])
    assert words.headline(report.model_copy(update={"rows": rows})).endswith("perplexity 42.4")


def test_the_headline_of_a_compression_names_its_loss(report: Report) -> None:
    assert words.headline(report.model_copy(update={"rows": report.rows[7:8]})).endswith("42.4 (+2.7 % against dense)")


@pytest.mark.parametrize(
    ("target", "text"), [("25x", "25×"), ("12.5x", "12.5×"), ("300000 bytes", "300 kB"), ("none", "none")]
)
def test_target(target: str, text: str, report: Report) -> None:
    assert words.target(report.protocol.model_copy(update={"target": target})) == text


def test_the_headline_of_a_dense_model_alone(report: Report) -> None:
    alone = report.model_copy(update={"rows": report.rows[:1]})
    assert words.headline(alone) == "Dense: 1,048,576 parameters, 4.19 MB (LSTM weights), perplexity 41.3"


def test_what_grew_is_not_called_smaller() -> None:
    assert words.fewer(0.8, "bytes") == "1.25× more bytes"


@pytest.mark.parametrize(
    ("scope", "text", "within"),
    [
        ("lstm", "LSTM weights", "the LSTM weights"),
        ("model", "all weights of the model", "all weights of the model"),
        ("re:.*_l0", "weights that match .*_l0", "the weights that match .*_l0"),
    ],
)
def test_scope(scope: str, text: str, within: str, report: Report) -> None:
    protocol = report.protocol.model_copy(update={"scope": scope})
    assert (words.scope(protocol), words.the_scope(protocol)) == (text, within)
    line = words.protocol_line(report.model_copy(update={"protocol": protocol}))
    assert f"bytes are those of {within} as stored" in line


def test_what_the_paths_are_worth_is_said_to_come_from_a_sample(report: Report) -> None:
    row = next(row for row in report.rows if row.paths)
    assert "perplexity on a sample of the validation text is" in words.path_summary(row)


def test_one_is_not_plural(report: Report) -> None:
    machine = report.protocol.machine.model_copy(update={"threads": 1})
    protocol = report.protocol.model_copy(update={"epochs": 1, "machine": machine})
    line = words.protocol_line(report.model_copy(update={"protocol": protocol}))
    assert "1 epoch," in line
    assert line.endswith("1 thread.")


def test_distillation_is_part_of_the_protocol(report: Report) -> None:
    assert "distill" not in words.protocol_line(report)
    distilled = report.protocol.model_copy(update={"distillation": Distillation(weight=0.5, temperature=2.0)})
    told = "distilled from the dense model's predictions, weight 0.5, temperature 2, seed 1."
    assert told in words.protocol_line(report.model_copy(update={"protocol": distilled}))


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (["NVIDIA H200", "NVIDIA H200"], "SGD, in TensorFloat-32, seed"),
        (["NVIDIA H200", "cpu"], "SGD, in TensorFloat-32 on the GPU, seed"),
        (["cpu", "cpu"], "SGD, seed"),
        ([], "SGD, seed"),
    ],
)
def test_tensor_float_32_is_told_of_gpus_alone(report: Report, devices: list[str], told: str) -> None:
    protocol = report.protocol.model_copy(update={"optimiser": "SGD, in TensorFloat-32"})
    rows = report.rows[: len(devices)]
    for number, device in enumerate(devices):
        record = protocol.model_copy(update={"machine": protocol.machine.model_copy(update={"device": device})})
        line = SeedLine(record=record, perplexity_valid=1.0, perplexity_test=1.0, loss_percent=None, train_seconds=1.0)
        rows = (*rows[:number], rows[number].model_copy(update={"seeds": (line,)}), *rows[number + 1 :])
    assert told in words.protocol_line(Report(protocol=protocol, rows=rows or report.rows))


def test_the_protocol_names_what_a_perplexity_depends_on(report: Report) -> None:
    line = words.protocol_line(report)
    for part in (
        "python-docs", "349,184", "39,115", "4,538", "batch 20", "unroll 35", "state carried", "1 (test)", "10 epochs",
        "seed 1", "25× by parameters", "LSTM weights", "int8", "58c8ea7d2f1b", "2.13.0", "2 threads",
    ):  # fmt: skip
        assert part in line
