"""Packed weights multiply as the weights they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dopant.errors import InputError
from dopant.native.library import choice, library
from dopant.ops.quantise import (
    INT4,
    INT8,
    Grid,
    dequantise_entries,
    dequantise_rows,
    quantise_entries,
    quantise_rows,
)
from dopant.ops.steps import dequantise_steps, quantise_steps
from dopant.runtime.packed import PackedWeight, Packer, Precision, check_precision
from dopant.structures import (
    Dense,
    Doped,
    Kronecker,
    LowRank,
    MaskedWeight,
    Sparse,
    SparseWeight,
    Stacked,
    Structure,
    StructuredWeight,
)
from dopant.structures.dense import DenseWeight
from dopant.structures.presets import doped_hmd, doped_kronecker, doped_lmf, hmd, hybrid_kronecker, per_gate

pytestmark = pytest.mark.skipif(library() is None, reason="there is no native library")

SHAPE = (72, 90)
STRUCTURES: dict[str, Structure] = {
    "dense": Dense(),
    "sparse": Sparse(300),
    "empty sparse": Sparse(0),
    "full sparse": Sparse(72 * 90),
    "sparse in banks": Sparse(560, per_bank=4),
    "low rank": LowRank(5),
    "Kronecker": Kronecker(((8, 6), (9, 15))),
    "Kronecker of a row and a column": Kronecker(((72, 1), (1, 90))),
    "Kronecker sum": Kronecker(((12, 9), (6, 10)), terms=3),
    "Kronecker of three": Kronecker(((2, 3), (6, 5), (6, 6)), terms=2),
    "stacked": Stacked((LowRank(2), Sparse(110), Kronecker(((2, 6), (3, 15)))), (40, 26, 6)),
    "per gate": per_gate(Kronecker(((6, 9), (3, 10))), 18, 4),
    "HMD": hmd(72, 8),
    "hybrid Kronecker": hybrid_kronecker(72, 12, ((6, 9), (10, 10))),
    "doped Kronecker": doped_kronecker(((8, 6), (9, 15)), 240),
    "doped LMF": doped_lmf(2, 230),
    "doped HMD": doped_hmd(18, 1, 230, gates=4),
    "doped with nothing": Doped(LowRank(2), Sparse(0)),
}
BATCHES = (1, 2, 5, 8, 9, 16, 31, 32, 33, 70)


def packed(weight: StructuredWeight, precision: Precision = "exact", *, lookup: bool = False) -> PackedWeight:
    native = library()
    assert native is not None
    return PackedWeight(weight, Packer(native, precision, lookup))


def new(structure: Structure, shape: tuple[int, int] = SHAPE, seed: int = 0) -> StructuredWeight:
    return structure.new(shape, generator=torch.Generator().manual_seed(seed))


def error(weight: StructuredWeight, precision: Precision, batch: int) -> float:
    """The largest error of a product, relative to the largest |W| |x|."""
    x = torch.randn(batch, weight.shape[1], generator=torch.Generator().manual_seed(batch))
    matrix = weight.to_dense().detach().double()
    expected = (x.double() @ matrix.T).numpy()
    scale = (x.double().abs() @ matrix.T.abs()).max().item()
    return float(np.abs(packed(weight, precision).linear(x.numpy()) - expected).max() / max(scale, 1e-30))


@pytest.mark.parametrize("name", STRUCTURES)
def test_products_of_every_structure_are_exact(name: str) -> None:
    weight = new(STRUCTURES[name])
    assert max(error(weight, "exact", batch) for batch in BATCHES) < 1e-6


def test_long_sums_of_kronecker_products_are_made_of_parts() -> None:
    weight = new(Kronecker(((24, 96), (96, 24))), (24 * 96, 96 * 24))
    matrix = weight.to_dense().detach().double()
    for batch in (1, 8, 32):
        x = torch.randn(batch, 96 * 24, generator=torch.Generator().manual_seed(batch))
        expected = (x.double() @ matrix.T).numpy()
        differs = packed(weight).linear(x.numpy()) - expected
        # 2.0e-7 where each row's products are one sum, 1.4e-7 in four parts.
        assert np.sqrt(np.square(differs).mean() / np.square(expected).mean()) < 1.7e-7


@pytest.mark.parametrize("name", STRUCTURES)
def test_fast_products_are_right_to_8_bits(name: str) -> None:
    weight = new(STRUCTURES[name])
    assert max(error(weight, "fast", batch) for batch in BATCHES) < 1e-2


@pytest.mark.parametrize("name", STRUCTURES)
def test_rows_of_every_structure(name: str) -> None:
    weight = new(STRUCTURES[name])
    index = torch.tensor([71, 0, 3, 3, 40, 41])
    for lookup in (False, True):
        rows = packed(weight, lookup=lookup).rows(index.numpy())
        np.testing.assert_allclose(rows, weight.rows(index).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (17, 33), (65, 257), (130, 31)])
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_shapes_that_no_register_divides(shape: tuple[int, int], precision: Precision) -> None:
    for structure in (Dense(), Sparse((shape[0] * shape[1] + 2) // 3), LowRank(1)):
        weight = new(structure, shape)
        assert max(error(weight, precision, batch) for batch in (1, 3, 8, 32)) < (
            1e-6 if precision == "exact" else 2e-2
        )


def test_more_columns_than_16_bits_count() -> None:
    weight = new(Sparse(5000), (20, 70_000))
    for precision in ("exact", "fast"):
        assert max(error(weight, precision, batch) for batch in (1, 8, 32)) < (1e-6 if precision == "exact" else 1e-2)


def test_so_many_columns_that_bytes_would_overflow() -> None:
    ones = DenseWeight(torch.ones(3, 140_000))
    for batch in (1, 16):
        assert packed(ones, "fast").linear(np.ones((batch, 140_000), np.float32))[0, 0] == pytest.approx(
            140_000.0, rel=1e-3
        )


def test_the_training_form_of_an_overlay_is_packed_as_the_stored_form() -> None:
    weight = MaskedWeight(torch.randn(30, 40), torch.rand(30, 40) < 0.1)
    assert error(weight, "exact", 1) < 1e-6


@pytest.mark.parametrize("grid", [INT8, INT4])
def test_values_that_came_from_whole_numbers_stay_in_8_bits_and_exact(grid: Grid) -> None:
    rough = torch.randn(64, 100)
    whole = dequantise_rows(*quantise_rows(rough, grid=grid))
    assert packed(DenseWeight(whole)).bytes < packed(DenseWeight(rough)).bytes / 3
    assert error(DenseWeight(whole), "exact", 1) < 1e-6
    rows = torch.arange(64).repeat_interleave(100)
    values = dequantise_entries(*quantise_entries(rough.flatten(), rows, 64, grid=grid)[:1], rows, torch.ones(64))
    weight = SparseWeight((64, 400), values, torch.arange(6_400) * 4)
    assert packed(weight).bytes < 4 * len(values)
    assert error(weight, "exact", 1) < 1e-5


def test_whole_numbers_of_one_step_stay_in_8_bits_and_exact() -> None:
    """Wherever the largest of a row is: no scale a row would give them back."""
    rough = torch.randn(64, 100) * torch.linspace(0.1, 1.0, 64).unsqueeze(-1)
    whole = dequantise_steps(*quantise_steps(rough))
    assert packed(DenseWeight(whole)).bytes < packed(DenseWeight(rough)).bytes / 3
    assert error(DenseWeight(whole), "exact", 1) < 1e-6
    weight = SparseWeight((64, 400), whole.flatten(), torch.arange(6_400) * 4)
    assert packed(weight).bytes < 4 * whole.numel()
    assert error(weight, "exact", 1) < 1e-5


@pytest.mark.skipif(choice().level != "avx512vnni", reason="only there a kernel looks x up in registers of bytes")
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_values_in_banks_take_two_bytes(precision: Precision) -> None:
    held = {}
    for per_bank in (0, 4):
        weight = new(Sparse(19_000, per_bank), (800, 600))
        assert isinstance(weight, SparseWeight)
        levels, scales = quantise_entries(weight.values.detach(), weight.row_index, 800)
        eight = dequantise_entries(levels, weight.row_index, scales)
        held[per_bank] = packed(SparseWeight(weight.shape, eight, weight.positions), precision).bytes
    assert held[4] < 2.6 * 19_000 < held[0]


def test_a_bias_is_added() -> None:
    weight, x = new(Dense()), np.ones((3, 90), np.float32)
    bias = np.arange(72, dtype=np.float32)
    np.testing.assert_allclose(packed(weight).linear(x, bias), packed(weight).linear(x) + bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_values_that_are_not_finite_go_through(value: float, precision: Precision, batch: int) -> None:
    weight = new(Dense())
    x = np.ones((batch, 90), np.float32)
    x[0, 7] = value
    y = packed(weight, precision).linear(x)
    assert not np.isfinite(y[0]).any()
    assert np.isfinite(y[1:]).all()
    sparse = packed(new(Sparse(400)), precision).linear(x)
    assert not np.isfinite(sparse[0]).all()


def test_a_structure_without_a_kernel_is_named() -> None:
    class Strange(DenseWeight.__mro__[1]):  # type: ignore[misc]
        structure = to_dense = linear = rows = cost = None

    with pytest.raises(InputError, match="no kernel is known for a Strange"):
        packed(Strange((2, 2)))


def test_a_precision_is_known() -> None:
    with pytest.raises(InputError, match="exact, fast, got 'double'"):
        check_precision("double")


def test_more_rows_than_the_kernels_count_are_refused() -> None:
    many = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**32 + 1, 90), (0, 0))
    with pytest.raises(InputError, match=r"1073741824 rows, sequences or steps at most, got 4294967297; make several"):
        packed(new(Dense())).linear(many)


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-6, 1.0, 1e8])
def test_fast_products_of_any_size_are_right_to_8_bits(size: float) -> None:
    matrix = torch.randn(72, 90, generator=torch.Generator().manual_seed(0))
    matrix[5] *= 0.1
    sparse = Sparse(6000).fit(matrix)
    for weight in (DenseWeight(matrix * size), SparseWeight(SHAPE, sparse.values.detach() * size, sparse.positions)):
        assert max(error(weight, "fast", batch) for batch in (1, 8, 32)) < 1e-2
        rows = packed(weight, "fast").rows(np.array([5]))
        assert np.abs(rows - weight.to_dense().detach()[5].numpy()).max() < 1e-2 * np.abs(rows).max()


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_positions_of_any_order_are_packed(precision: Precision) -> None:
    weight = new(Sparse(300))
    assert isinstance(weight, SparseWeight)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = SparseWeight(SHAPE, weight.values.detach()[order], weight.positions[order])
    x = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    np.testing.assert_array_equal(packed(mixed, precision).linear(x), packed(weight, precision).linear(x))
    for positions in ([-1, 0, 5], [0, 5, 6480], [4, 5, 4]):
        with pytest.raises(InputError, match=rf"different numbers from 0 to 6479, got tensor\(\[ *{positions[0]}, "):
            packed(SparseWeight(SHAPE, torch.ones(3), torch.tensor(positions)), precision)


def test_of_a_kronecker_product_one_factor_is_held_twice() -> None:
    """The one that nothing lies behind, which needs another layout for single vectors."""
    for shapes, held in (
        (((8, 6), (9, 15)), 48 + 2 * 135),
        (((72, 90), (1, 1)), 2 * 6480 + 2),
        (((1, 1), (72, 90)), 1 + 2 * 6480),
    ):
        weight = packed(new(Kronecker(shapes)))
        assert weight.bytes == 4 * held
        assert error(new(Kronecker(shapes)), "exact", 1) < 1e-6
