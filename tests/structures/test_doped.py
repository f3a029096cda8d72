from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.structures import Doped, Kronecker, LowRank, MaskedWeight, Sparse, Structure
from dopant.structures.doped import DopedWeight
from dopant.structures.presets import doped_hmd

BASES: list[tuple[str, Structure]] = [
    ("Kronecker", Kronecker(((4, 6), (6, 6)))),
    ("Kronecker of three", Kronecker(((2, 3), (4, 3), (3, 4)))),
    ("low rank", LowRank(2)),
    ("HMD", doped_hmd(6, 1, 1, gates=4).base),
]


def recorded_turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    errors: list[float] = []
    turn = Doped._turn

    def spy(self: Doped, matrix: Tensor, rest: Tensor):  # type: ignore[no-untyped-def]
        result = turn(self, matrix, rest)
        errors.append(result[2])
        return result

    monkeypatch.setattr(Doped, "_turn", spy)
    return errors


@pytest.mark.parametrize(("name", "base"), BASES)
@pytest.mark.parametrize("seed", range(3))
def test_alternation_never_raises_the_error_and_stops_at_the_lowest(
    name: str, base: Structure, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = recorded_turns(monkeypatch)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(24, 36, generator=generator, dtype=torch.float64)
    matrix[torch.rand(24, 36, generator=generator) < 0.05] *= 10
    weight = Doped(base, Sparse(60)).fit(matrix)
    turns = [min(errors[:2]), *errors[2:]]  # the first two are the two ways to begin
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(turns))
    final = float((weight.to_dense().detach() - matrix).square().sum())
    assert final == pytest.approx(min(errors), rel=1e-9)
    assert len(errors) < 50


def test_a_doped_matrix_is_found_again() -> None:
    structure = Doped(Kronecker(((4, 6), (6, 6))), Sparse(20))
    weight = structure.new((24, 36), std=1.0, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        weight.overlay.values.mul_(5.0)  # spikes that stand out
    own = weight.to_dense().detach()
    assert float((structure.fit(own).to_dense() - own).detach().norm()) < 1e-6 * float(own.norm())


def test_fitting_again_changes_nothing_much() -> None:
    structure = Doped(LowRank(2), Sparse(60))
    matrix = torch.randn(24, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = structure.fit(matrix).to_dense().detach()
    twice = structure.fit(once).to_dense().detach()
    first, second = (once - matrix).norm(), (twice - once).norm()
    assert float(second) < 0.05 * float(first)


def test_paths_and_cost_are_those_of_both() -> None:
    weight = Doped(LowRank(2), Sparse(60)).new((24, 36))
    assert weight.paths() == (weight.base, weight.overlay)
    assert weight.cost() == weight.base.cost() + weight.overlay.cost()


def test_the_overlay_may_be_in_its_training_form() -> None:
    weight = Doped(LowRank(2), Sparse(60)).new((24, 36))
    trained = DopedWeight(weight.base, MaskedWeight.from_sparse(weight.overlay))
    x = torch.randn(3, 36)
    assert trained.structure == weight.structure
    assert torch.allclose(trained.linear(x), weight.linear(x), atol=1e-6)
    assert trained.cost() == weight.cost()


@pytest.mark.parametrize(("base", "overlay"), [(LowRank(1), LowRank(1)), ("low_rank", Sparse(1)), (LowRank(1), 5)])
def test_what_is_no_doping(base: object, overlay: object) -> None:
    with pytest.raises(InputError, match="needs a structure and a sparse overlay"):
        Doped(base, overlay)  # type: ignore[arg-type]


def test_both_parts_are_asked_for_the_shape() -> None:
    with pytest.raises(InputError, match="rank 9"):
        Doped(LowRank(9), Sparse(1)).check((4, 9))
    with pytest.raises(InputError, match="37 non-zeros"):
        Doped(LowRank(1), Sparse(37)).check((4, 9))
