from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from dopant.cost import FLOAT32, Cost, Storage
from dopant.errors import InputError, KindError, TensorError
from dopant.storage.pack import check_types, layout, matrix_layout, pack, pack_matrix, unpack, unpack_matrix
from dopant.structures import (
    Dense,
    DenseWeight,
    Doped,
    Kronecker,
    LowRank,
    MaskedWeight,
    Sparse,
    Structure,
    StructuredWeight,
)


def size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def crossed(weight: StructuredWeight, storage: Storage) -> StructuredWeight:
    return unpack(weight.structure, weight.shape, pack(weight, storage), storage)


def test_round_trip(weight: StructuredWeight, storage: Storage) -> None:
    back = crossed(weight, storage)
    assert back.structure == weight.structure
    assert back.shape == weight.shape
    error = (back.to_dense() - weight.to_dense()).abs().max().item()
    if storage.values == "float32":
        assert error == 0
    else:
        most = {"float16": 0.002, "int8": 0.02, "int4": 0.35, "huffman": 0.35}[storage.values]
        assert 0 <= error < most * (1e-9 + weight.to_dense().abs().max())


def test_crossing_twice_changes_nothing_more(weight: StructuredWeight, storage: Storage) -> None:
    once = crossed(weight, storage)
    twice = crossed(once, storage)
    for first, second in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3 if storage.scaled else 0, atol=0)


def test_layout_tells_what_is_packed(weight: StructuredWeight, storage: Storage) -> None:
    packed = pack(weight, storage)
    expected = layout(weight.structure, weight.shape, storage)
    check_types(expected, {name: (t.dtype, tuple(t.shape)) for name, t in packed.items()})
    assert list(packed) == list(expected)


def test_the_bytes_are_those_of_the_cost(weight: StructuredWeight, storage: Storage) -> None:
    assert size(pack(weight, storage)) == weight.cost(storage).stored_bytes


def test_closed_form_bytes_are_within_a_hundredth_or_in_huffman_some(storage: Storage) -> None:
    structure = Doped(Kronecker(((20, 10), (20, 20))), Sparse(4_000))
    weight = structure.new((400, 200), generator=torch.Generator().manual_seed(0))
    expected = structure.cost((400, 200), storage).stored_bytes
    assert size(pack(weight, storage)) == pytest.approx(expected, rel=0.04 if storage.values == "huffman" else 0.01)


@pytest.mark.parametrize(
    ("storage", "factor"),
    [
        (Storage("int8", "gaps"), 47),
        (Storage("float16", "gaps"), 32),
        (Storage("int8", "rice"), 53),
        (Storage("int4", "gaps"), 64),
        (Storage("int4", "rice"), 76),
        (Storage("huffman", "huffman"), 76),
    ],
    ids=str,
)
def test_25x_by_parameters_is_far_more_by_bytes(storage: Storage, factor: int) -> None:
    shape = (2600, 1300)
    structure = Doped(Kronecker(((52, 26), (50, 50))), Sparse(131_348))
    weight = structure.new(shape, generator=torch.Generator().manual_seed(0))
    assert weight.cost(storage).parameters * 25 == shape[0] * shape[1]
    packed = pack(weight, storage)
    assert size(packed) == weight.cost(storage).stored_bytes
    assert 4 * shape[0] * shape[1] / size(packed) >= factor


def test_the_training_form_is_packed_as_the_stored_form(storage: Storage) -> None:
    generator = torch.Generator().manual_seed(0)
    masked = MaskedWeight(torch.randn(7, 9, generator=generator), torch.rand(7, 9, generator=generator) < 0.3)
    packed, compact = pack(masked, storage), pack(masked.compact(), storage)
    assert packed.keys() == compact.keys()
    assert all(torch.equal(packed[name], compact[name]) for name in packed)


def test_a_transposed_bfloat16_or_float64_matrix_is_packed() -> None:
    matrix = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).t()
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        weight = DenseWeight(matrix.to(dtype))
        assert torch.equal(crossed(weight, FLOAT32).to_dense(), matrix.to(dtype).float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_not_packed(bad: float, storage: Storage) -> None:
    for structure in (Dense(), LowRank(2), Kronecker(((2, 3), (3, 2))), Doped(Dense(), Sparse(3))):
        weight = structure.new((6, 6), generator=torch.Generator().manual_seed(0))
        last = list(weight.parameters())[-1]
        with torch.no_grad():
            last.view(-1)[-1] = bad
        with pytest.raises(InputError, match="not finite"):
            pack(weight, storage)


@pytest.mark.parametrize(("values", "largest"), [("float16", 7e4), ("int8", 9e6), ("int4", 5e5)])
def test_values_too_large_for_their_type_are_not_packed(values: str, largest: float) -> None:
    weight = Doped(Dense(), Sparse(1)).fit(torch.full((3, 3), largest))
    with pytest.raises(InputError, match=r"too large for .*keep float32"):
        pack(weight, Storage(values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("base.matrix", torch.full((2, 2), torch.nan), r"base\.matrix .*not finite"),
        ("overlay.values", torch.tensor([torch.inf]), r"overlay\.values .*not finite"),
        ("overlay.positions", torch.tensor([4], dtype=torch.uint8), r"overlay\.positions .*4 places"),
        ("overlay.positions", torch.tensor([0, 0], dtype=torch.uint8), r"overlay\.positions .*2 positions"),
    ],
)
def test_impossible_numbers_are_not_unpacked(name: str, value: Tensor, text: str) -> None:
    weight = Doped(Dense(), Sparse(1)).fit(torch.ones(2, 2))
    tensors = pack(weight, FLOAT32) | {name: value}
    with pytest.raises(TensorError, match=text):
        unpack(weight.structure, weight.shape, tensors, FLOAT32)


@pytest.mark.parametrize(
    ("name", "value"),
    [("matrix", -128), ("matrix.scale", torch.nan), ("matrix.scale", torch.inf), ("matrix.scale", -1.0)],
)
def test_impossible_levels_and_scales_are_not_unpacked(name: str, value: float) -> None:
    storage = Storage("int8")
    tensors = pack(Dense().fit(torch.ones(2, 2)), storage)
    tensors[name].view(-1)[-1] = value
    with pytest.raises(TensorError, match=name):
        unpack(Dense(), (2, 2), tensors, storage)


def test_a_structure_that_does_not_fit_has_no_layout() -> None:
    for structure in (LowRank(9), Sparse(100), Kronecker(((2, 2), (2, 2))), Doped(Dense(), Sparse(100))):
        with pytest.raises(InputError):
            layout(structure, (6, 5), FLOAT32)


@dataclass(frozen=True)
class Diagonal(Structure):
    """A structure from outside."""

    kind: ClassVar[str] = "diagonal-of-a-test"

    def check(self, shape: tuple[int, int]) -> None: ...

    def cost(self, shape: tuple[int, int], storage: Storage = FLOAT32) -> Cost:
        raise NotImplementedError

    def new(self, shape: tuple[int, int], **options: object) -> StructuredWeight:
        return DiagonalWeight(torch.rand(shape[0]))

    def fit(self, matrix: Tensor) -> StructuredWeight:
        return DiagonalWeight(matrix.diagonal())


class DiagonalWeight(StructuredWeight):
    def __init__(self, diagonal: Tensor) -> None:
        super().__init__((len(diagonal), len(diagonal)))
        self.diagonal = torch.nn.Parameter(diagonal)

    @property
    def structure(self) -> Diagonal:
        return Diagonal()

    def to_dense(self) -> Tensor:
        return self.diagonal.diag()

    def linear(self, x: Tensor) -> Tensor:
        return x * self.diagonal

    def rows(self, index: Tensor) -> Tensor:
        return self.to_dense()[index]

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        raise NotImplementedError


def test_a_structure_from_outside_is_stored_once_it_is_registered() -> None:
    weight = Diagonal().new((4, 4))
    for function, arguments in (
        (pack, (weight, FLOAT32)),
        (layout, (Diagonal(), (4, 4), FLOAT32)),
        (unpack, (Diagonal(), (4, 4), {}, FLOAT32)),
    ):
        with pytest.raises(KindError, match=r"diagonal-of-a-test|DiagonalWeight"):
            function(*arguments)

    @layout.register
    def _(structure: Diagonal, shape: tuple[int, int], storage: Storage) -> dict:
        return matrix_layout("diagonal", (1, shape[0]), storage)

    @pack.register
    def _(weight: DiagonalWeight, storage: Storage) -> dict[str, Tensor]:
        return pack_matrix("diagonal", weight.diagonal.unsqueeze(0), storage)

    @unpack.register
    def _(
        structure: Diagonal, shape: tuple[int, int], tensors: Mapping[str, Tensor], storage: Storage
    ) -> StructuredWeight:
        return DiagonalWeight(unpack_matrix("diagonal", tensors, (1, shape[0]), storage).squeeze(0))

    doped = Doped(Diagonal(), Sparse(2)).fit(torch.rand(4, 4))
    assert torch.equal(crossed(doped, FLOAT32).to_dense(), doped.to_dense())
