from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dopant.ops.quantise import (
    INT4,
    INT8,
    Grid,
    dequantise_entries,
    dequantise_rows,
    quantise_entries,
    quantise_rows,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(-9, 6), st.integers(1, 7), st.integers(1, 9))
def test_every_value_is_within_half_a_step(seed: int, power: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) * 10.0**power
    codes, scales = quantise_rows(matrix)
    assert codes.dtype == torch.int8
    assert scales.dtype == torch.float16
    assert codes.abs().max() <= 127
    error = (dequantise_rows(codes, scales) - matrix).abs()
    # Half a step; at the ends of the range the scale's own rounding adds 127 * 2^-12 of a step.
    assert (error <= 0.532 * scales.float().unsqueeze(-1)).all()


def test_a_value_that_is_a_level_is_kept_exactly() -> None:
    scales = torch.tensor([0.5, 2.0**-24, 65504.0])
    levels = torch.randint(-127, 128, (3, 50), generator=torch.Generator().manual_seed(0))
    levels[:, 0] = 127
    codes, found = quantise_rows(levels * scales[:, None])
    assert torch.equal(found.float(), scales)
    assert torch.equal(codes.long(), levels)


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-12, 2.0**-25, 3e-6, 9e-6, 1e-3, 1.0, 8.3e6])
def test_scales_at_the_edges_of_float16(largest: float) -> None:
    codes, scales = quantise_rows(torch.tensor([[largest, -largest]]))
    assert torch.isfinite(scales).all()
    assert codes.abs().max() <= 127
    step = max(scales.item(), 2.0**-24)
    assert abs(dequantise_rows(codes, scales)[0, 0].item() - largest) <= 0.532 * step


@pytest.mark.parametrize(
    ("bad", "text"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (9e6, "too large for a float16 scale")],
)
@pytest.mark.parametrize("grid", [INT8, INT4])
def test_what_does_not_fit_is_refused(bad: float, text: str, grid: Grid) -> None:
    with pytest.raises(ValueError, match=text):
        quantise_rows(torch.tensor([[1.0, bad]]), grid=grid)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(-9, 4), st.integers(1, 7), st.integers(1, 40))
def test_each_row_has_the_clip_of_least_error(seed: int, power: int, rows: int, columns: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**power

    def error(grid: Grid) -> torch.Tensor:
        return (dequantise_rows(*quantise_rows(matrix, grid=grid)) - matrix).square().sum(-1)

    codes, scales = quantise_rows(matrix, grid=INT4)
    assert codes.abs().max() <= 7
    assert torch.equal(error(INT4), torch.stack([error(Grid(7, (clip,))) for clip in INT4.clips]).amin(0))
    largest = codes.abs().amax(-1)
    assert ((largest == 7) | (scales < 2.0**-14)).all()  # below, float16 has fewer digits
    again, same = quantise_rows(dequantise_rows(codes, scales), grid=INT4)
    normal = largest == 7
    assert torch.equal(again[normal], codes[normal])
    assert torch.equal(same[normal], scales[normal])
    place = torch.arange(rows).repeat_interleave(columns)
    by_entries = quantise_entries(matrix.flatten(), place, rows, grid=INT4)
    assert torch.equal(by_entries[0].view(rows, columns), codes) or columns > 16  # sums differ by rounding


def test_cutting_the_largest_off_pays() -> None:
    matrix = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    errors = [
        (dequantise_rows(*quantise_rows(matrix, grid=grid)) - matrix).square().mean().sqrt() for grid in (Grid(7), INT4)
    ]
    assert errors[1] < 0.96 * errors[0]


def test_entries_are_quantised_by_their_row() -> None:
    matrix = torch.tensor([[0.0, 3.0, -1.0], [0.0, 0.0, 0.0], [0.02, 0.0, 0.01]])
    rows = matrix.nonzero()[:, 0]
    codes, scales = quantise_entries(matrix[matrix != 0], rows, 3)
    of_rows, by_rows = quantise_rows(matrix)
    assert torch.equal(codes, of_rows[matrix != 0])
    assert torch.equal(scales, by_rows)
    assert scales[1] == 0
    expected = dequantise_rows(of_rows, by_rows)[matrix != 0]
    assert torch.equal(dequantise_entries(codes, rows, scales), expected)


@pytest.mark.parametrize("grid", [INT8, INT4])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (2, 3, 0), (70_000, 3), (2, 70_000)])
def test_shapes_of_all_kinds(shape: tuple[int, ...], grid: Grid) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    codes, scales = quantise_rows(matrix, grid=grid)
    assert (codes.shape, scales.shape) == (matrix.shape, matrix.shape[:-1])
    for row in (0, -1):
        if matrix.numel():
            alone = quantise_rows(matrix[row : row + 1 or None], grid=grid)
            assert torch.equal(alone[0][0], codes[row])
            assert torch.equal(alone[1][0], scales[row])


def test_nothing_to_quantise() -> None:
    codes, scales = quantise_entries(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 4)
    assert codes.shape == (0,)
    assert torch.equal(scales, torch.zeros(4, dtype=torch.float16))


def test_factors_with_terms_have_a_scale_for_each_row_of_each_term() -> None:
    factor = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    codes, scales = quantise_rows(factor)
    assert codes.shape == (3, 4, 5)
    assert scales.shape == (3, 4)
