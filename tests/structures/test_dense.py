from __future__ import annotations

import torch

from dopant.cost import Cost, Storage
from dopant.structures import Dense


def test_cost() -> None:
    assert Dense().cost((2600, 1300)) == Cost(3_380_000, 3_380_000, 13_520_000)
    assert Dense().cost((10, 4), Storage("float16")).stored_bytes == 80
    assert Dense().cost((10, 4), Storage("int8")).stored_bytes == 40 + 2 * 10


def test_fit_is_the_matrix() -> None:
    matrix = torch.randn(3, 4)
    weight = Dense().fit(matrix)
    assert torch.equal(weight.to_dense(), matrix)
    assert list(dict(weight.named_parameters())) == ["matrix"]
