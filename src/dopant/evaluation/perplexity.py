"""Perplexity of a language model on a text, the recurrent state carried from its first token to its last."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from dopant.errors import InputError
from dopant.evaluation.mode import Scorer, evaluating


def perplexity(model: Scorer, columns: Tensor, *, unroll: int = 64) -> float:
    """exp of the mean negative log-likelihood of each token given all before it in its stream.

    Args:
        model: a model, or a runtime.
        columns: (steps, batch) int64; batch 1 scores a text as a whole (Zaremba et al.'s way for the test set).
        unroll: tokens a stream a call; the result does not depend on it, memory does.

    Returns:
        the perplexity, infinite if it overflows. The model's mode is put back.

    Raises:
        InputError: there is no token to predict, or `unroll` is below 1.
    """
    if columns.dim() != 2 or columns.numel() == 0 or len(columns) < 2:
        raise InputError(
            f"perplexity needs columns (steps, batch) of two tokens or more each, got shape {tuple(columns.shape)}"
        )
    if unroll < 1:
        raise InputError(f"unroll is {unroll}; at least 1 is needed")
    total, count, state = 0.0, 0, None
    with evaluating(model) as device:
        columns = columns.to(device)
        for start in range(0, len(columns) - 1, unroll):
            inputs, targets = columns[start : start + unroll], columns[start + 1 : start + 1 + unroll]
            inputs = inputs[: len(targets)]
            logits, state = model(inputs, state)
            total += float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
            count += targets.numel()
    mean = total / count
    return math.exp(mean) if mean < 700.0 else math.inf
