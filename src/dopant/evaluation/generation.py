"""Text from a language model, one token after the other."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.evaluation.mode import Scorer, evaluating


def check_seed(seed: object) -> None:
    """Raise InputError unless it is a whole number that torch's generators take."""
    if not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise InputError(f"seed must be a whole number from 0 to below 2**63, got {seed!r}")


def generate(
    model: Scorer, prompt: Tensor, tokens: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
) -> list[int]:
    """Continue a prompt.

    Args:
        model: a model, or a runtime.
        prompt: (n,) int64, one token at least.
        tokens: how many to draw.
        temperature: 0 takes the likeliest, 1 draws from the model's distribution.
        generator: source of the draws, on the CPU.

    Returns:
        the new token ids.

    Raises:
        InputError: an empty prompt, numbers out of range, or a model whose scores are not finite.
    """
    if prompt.numel() == 0:
        raise InputError("the prompt has no tokens; give one word at least")
    if not isinstance(tokens, Integral) or tokens < 1:
        raise InputError(f"tokens must be a whole number of 1 or more, got {tokens!r}")
    if not isinstance(temperature, Real) or not 0.0 <= temperature < math.inf:
        raise InputError(f"temperature must be a number of 0 or more, got {temperature!r}")
    drawn: list[int] = []
    with evaluating(model) as device:
        logits, state = model(prompt.to(device).view(-1, 1), None)
        while True:
            scores = logits[-1, 0].float().cpu()
            largest = scores.max()
            if not largest.isfinite():  # NaN if any is; single tokens may be impossible, -inf
                raise InputError(f"the largest of the model's scores is {largest}; nothing can be drawn from these")
            if temperature == 0.0:
                token = int(scores.argmax())
            else:
                chances = torch.softmax((scores - largest).double() / temperature, dim=-1)  # 0 / tiny is 0
                token = int(torch.multinomial(chances, 1, generator=generator))
            drawn.append(token)
            if len(drawn) == tokens:
                return drawn
            logits, state = model(torch.tensor([[token]], device=device), state)
