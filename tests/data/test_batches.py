from __future__ import annotations

import numpy as np
import pytest
import torch

from dopant.data import batchify
from dopant.errors import InputError


def test_columns_are_contiguous_stretches() -> None:
    columns = batchify(np.arange(11), 3)
    assert columns.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert columns.dtype == torch.int64
    assert torch.equal(batchify(list(range(11)), 3), columns)
    assert torch.equal(batchify(torch.arange(11, dtype=torch.int32), 3), columns)


def test_too_few_tokens_for_the_batch_say_so() -> None:
    with pytest.raises(InputError, match=r"30 tokens are too few for batch 20: .* a batch of at most 15"):
        batchify(np.arange(30), 20)
    with pytest.raises(InputError, match=r"1 tokens are too few for batch 1: .* more text is needed"):
        batchify([7], 1)
    with pytest.raises(InputError, match="batch is 0; at least 1"):
        batchify(np.arange(30), 0)
    with pytest.raises(InputError, match=r"ids have shape \(2, 3\); one dimension"):
        batchify(np.zeros((2, 3), dtype=np.int64), 1)
