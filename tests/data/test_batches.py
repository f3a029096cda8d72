from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dopant.data import batchify, count_windows, windows
from dopant.errors import InputError


def test_columns_are_contiguous_stretches() -> None:
    columns = batchify(np.arange(11), 3)
    assert columns.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert columns.dtype == torch.int64
    assert torch.equal(batchify(list(range(11)), 3), columns)
    assert torch.equal(batchify(torch.arange(11, dtype=torch.int32), 3), columns)


def test_windows_follow_one_another() -> None:
    columns = batchify(np.arange(12), 2)
    pairs = [(x.tolist(), y.tolist()) for x, y in windows(columns, 2, drop_last=False)]
    assert pairs == [
        ([[0, 6], [1, 7]], [[1, 7], [2, 8]]),
        ([[2, 8], [3, 9]], [[3, 9], [4, 10]]),
        ([[4, 10]], [[5, 11]]),
    ]
    assert len(list(windows(columns, 2, drop_last=True))) == 2


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 40), st.booleans())
def test_every_step_is_a_target_once(tokens: int, batch: int, unroll: int, drop_last: bool) -> None:
    if tokens // batch < 2:
        return
    columns = batchify(np.arange(tokens), batch)
    count = count_windows(len(columns), unroll, drop_last=drop_last)
    if count == 0:
        return
    pairs = list(windows(columns, unroll, drop_last=drop_last))
    assert len(pairs) == count
    targets = torch.cat([y for _, y in pairs])
    assert torch.equal(targets, torch.cat([x for x, _ in pairs]) + 1)
    if drop_last:
        assert all(len(x) == unroll for x, _ in pairs)
        assert count == (len(columns) - 1) // unroll  # Zaremba's epoch_size
    else:
        assert torch.equal(targets, columns[1:])


def test_too_few_tokens_for_the_batch_say_so() -> None:
    with pytest.raises(InputError, match=r"30 tokens are too few for batch 20: .* a batch of at most 15"):
        batchify(np.arange(30), 20)
    with pytest.raises(InputError, match=r"1 tokens are too few for batch 1: .* more text is needed"):
        batchify([7], 1)
    with pytest.raises(InputError, match="batch is 0; at least 1"):
        batchify(np.arange(30), 0)
    with pytest.raises(InputError, match=r"ids have shape \(2, 3\); one dimension"):
        batchify(np.zeros((2, 3), dtype=np.int64), 1)


def test_too_few_steps_for_a_window_say_so_at_the_call() -> None:
    columns = batchify(np.arange(40), 4)
    with pytest.raises(InputError, match=r"10 steps hold no window of 35 .* unroll of at most 9"):
        windows(columns, 35, drop_last=True)
    assert len(list(windows(columns, 35, drop_last=False))) == 1
    with pytest.raises(InputError, match="unroll is 0"):
        windows(columns, 0, drop_last=False)
    with pytest.raises(InputError, match="1 steps hold no window"):
        windows(columns[:1], 1, drop_last=False)
