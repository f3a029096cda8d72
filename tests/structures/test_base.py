from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from dopant.errors import InputError
from dopant.structures import KINDS, Dense, LowRank, register
from dopant.structures.base import check_whole, checked_index, linear_std, uniform


def test_a_kind_belongs_to_one_class() -> None:
    @dataclass(frozen=True)
    class Impostor(LowRank):
        kind: ClassVar[str] = "dense"

    with pytest.raises(InputError, match="structure kind 'dense' is taken by Dense"):
        register(Impostor)
    assert KINDS["dense"] is Dense
    assert register(Dense) is Dense  # again is no clash: modules may be reloaded


def test_the_kinds_that_files_rely_on() -> None:
    assert {"dense", "sparse", "low_rank", "kronecker", "stacked", "doped"} <= set(KINDS)


def test_linear_std_is_that_of_torchs_linear() -> None:
    torch.manual_seed(0)
    assert float(torch.nn.Linear(64, 4000).weight.detach().std()) == pytest.approx(linear_std((4000, 64)), rel=0.01)


def test_uniform_has_the_spread_asked_for() -> None:
    drawn = uniform(300, 300, std=0.25, generator=torch.Generator().manual_seed(0))
    assert float(drawn.std()) == pytest.approx(0.25, rel=0.01)
    assert float(drawn.abs().max()) <= 0.25 * 3**0.5


@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, None])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="the count must be a whole number of 1 or more, got"):
        check_whole("the count", value, 1)


def test_row_indices_are_checked() -> None:
    assert torch.equal(checked_index(torch.tensor([[0, 2]], dtype=torch.int32), 3), torch.tensor([0, 2]))
    assert checked_index(torch.zeros(0, dtype=torch.int64), 0).numel() == 0
    with pytest.raises(IndexError, match=r"row indices must be in 0 \.\.\. 2, got -1 to 3"):
        checked_index(torch.tensor([3, -1]), 3)


def test_a_weight_prints_its_shape() -> None:
    assert "24×36" in repr(LowRank(2).new((24, 36)))
