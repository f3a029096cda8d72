from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.errors import PlanError
from dopant.plan.target import Target, parse_bytes, parse_target


@pytest.mark.parametrize("value", ["25x", "25", " 25 X", "25×", "2.5e1x", 25, 25.0, np.int64(25), np.float32(25)])
def test_a_factor(value: str | float) -> None:
    target = parse_target(value)
    assert target == Target(factor=25.0, count="bytes", scope="lstm")
    assert type(target.factor) is float
    assert parse_bytes(np.int64(25)) == 25


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.2MB", 1_200_000),
        ("800kB", 800_000),
        ("800 kb", 800_000),
        ("1MiB", 2**20),
        ("1.5 KiB", 1536),
        ("12345B", 12345),
        (".5kB", 500),
    ],
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
    assert parse_target(text, "parameters", "model") == Target(bytes=size, count="bytes", scope="model")


def test_a_plain_number_of_bytes() -> None:
    assert parse_bytes("12345") == parse_bytes(12345) == 12345


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", "no finite number"),
        ("infx", "inf is no finite number"),
        (math.inf, "no finite number"),
        pytest.param(10**400, "no finite number", id="beyond all floats"),
        ("1e999x", "no finite number"),
        ("0.5x", "below 1x"),
        ("0", "below 1x"),
        ("-25x", "below 1x"),
        ("small", "'small' is no number; write a factor such as 25x"),
        ("", "is no number"),
        ("25%", "is no number"),
        (True, "is no number"),
        (None, "give one of the two"),
        ([25], "is no number"),
        ("0B", "less than one byte"),
        ("1e40MB", "more than any file"),
        ("1e9999999MB", "more than any file"),
        ("1e-9999999MB", "less than one byte"),
    ],
)
def test_what_is_no_target(value: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_target(value)


@pytest.mark.parametrize("value", ["", "25x", "-3", "1.2TB", "MB", True, None, math.nan, 0, "9" * 5000])
def test_what_is_no_number_of_bytes(value: str) -> None:
    with pytest.raises(PlanError):
        parse_bytes(value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of the two"),
        ({"factor": 25.0, "bytes": 10}, "give one of the two"),
        ({"factor": 25.0, "count": "bits"}, "choose parameters or bytes"),
        ({"factor": 25.0, "scope": "lstms"}, "choose lstm, model, or re:"),
        ({"factor": 25.0, "scope": "re:["}, "no regular expression"),
        ({"bytes": 10, "count": "parameters"}, "counts bytes"),
        ({"bytes": 0}, "above zero"),
    ],
)
def test_impossible_fields(fields: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Target(**fields)  # type: ignore[arg-type]


def test_limits() -> None:
    assert Target(factor=25.0, count="parameters").limit(6_760_000) == 270_400
    assert Target(factor=30.0, count="parameters").limit(6_760_000) == 225_333
    assert Target(factor=25.0).limit(6_760_000) == 4 * 270_400
    assert Target(bytes=100).limit(25) == 100
    with pytest.raises(PlanError, match="below 1x: the weights in scope 'lstm' take 96 bytes"):
        Target(bytes=100).limit(24)


@given(st.floats(1, 1e6), st.integers(1, 10**9))
def test_a_limit_always_meets_the_factor(factor: float, parameters: int) -> None:
    limit = Target(factor=factor, count="parameters").limit(parameters)
    assert limit == 0 or parameters / limit >= factor or math.isclose(parameters / limit, factor)
    assert parameters / (limit + 1) <= factor * (1 + 1e-12)
