"""All structures, all checks."""

from __future__ import annotations

import pytest
import torch

from dopant.structures import (
    Dense,
    Doped,
    Kronecker,
    LowRank,
    MaskedWeight,
    Shape,
    Sparse,
    Stacked,
    Structure,
)
from dopant.structures.presets import (
    doped_hmd,
    doped_kronecker,
    doped_lmf,
    hmd,
    hybrid_kronecker,
    lmf,
    per_gate,
    pruned,
)
from dopant.testing.contract import CHECKS, WEIGHT_CHECKS

SHAPE: Shape = (24, 36)

STRUCTURES: dict[str, Structure] = {
    "dense": Dense(),
    "pruned": pruned(40),
    "empty sparse": Sparse(0),
    "full sparse": Sparse(24 * 36),
    "sparse in banks": Sparse(190, per_bank=4),
    "sparse in banks of a column": Sparse(24 * 36, per_bank=1),
    "low rank": lmf(3),
    "rank one": LowRank(1),
    "Kronecker": Kronecker(((4, 6), (6, 6))),
    "Kronecker of a row and a column": Kronecker(((24, 1), (1, 36))),
    "Kronecker sum": Kronecker(((4, 6), (6, 6)), terms=3),
    "Kronecker of three": Kronecker(((2, 3), (4, 3), (3, 4))),
    "Kronecker of four, summed": Kronecker(((2, 3), (2, 2), (3, 3), (2, 2)), terms=2),
    "stacked": Stacked((LowRank(2), Sparse(11), Kronecker(((2, 6), (3, 6)))), (8, 10, 6)),
    "per gate": per_gate(Kronecker(((2, 6), (3, 6))), 6, 4),
    "HMD": hmd(24, 4),
    "HMD per gate": hmd(6, 1, gates=4),
    "hybrid Kronecker": hybrid_kronecker(24, 4, ((4, 6), (5, 6))),
    "doped Kronecker": doped_kronecker(((4, 6), (6, 6)), 30),
    "doped in banks": Doped(Kronecker(((4, 6), (6, 6))), Sparse(31, per_bank=2)),
    "doped sum": doped_kronecker(((4, 6), (6, 6)), 30, terms=2),
    "doped LMF": doped_lmf(2, 30),
    "doped HMD per gate": doped_hmd(6, 1, 30, gates=4),
    "doped with nothing": Doped(LowRank(2), Sparse(0)),
    "stacked doped": Stacked((doped_lmf(1, 9), Dense()), (22, 2)),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_passes_every_check(name: str, check: str) -> None:
    CHECKS[check](STRUCTURES[name], SHAPE)


@pytest.mark.parametrize("check", WEIGHT_CHECKS)
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_the_training_form_passes_the_checks_of_a_weight(density: float, check: str) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(SHAPE, generator=generator) < density
    WEIGHT_CHECKS[check](MaskedWeight(torch.randn(SHAPE, generator=generator), mask))
