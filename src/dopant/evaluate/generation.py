"""Text from a language model, one token after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.evaluate.mode import Scorer, evaluating


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
        InputError: an empty prompt, or numbers out of range.
    """
    if prompt.numel() == 0:
        raise InputError("the prompt has no tokens; give one word at least")
    if tokens < 1:
        raise InputError(f"tokens must be 1 or more, got {tokens}")
    if not 0.0 <= temperature < math.inf:
        raise InputError(f"temperature must be a number of 0 or more, got {temperature}")
    drawn: list[int] = []
    with evaluating(model) as device:
        logits, state = model(prompt.to(device).view(-1, 1), None)
        while True:
            scores = logits[-1, 0].float().cpu()
            if temperature == 0.0:
                token = int(scores.argmax())
            else:
                chances = torch.softmax((scores - scores.max()).double() / temperature, dim=-1)  # 0 / tiny is 0
                token = int(torch.multinomial(chances, 1, generator=generator))
            drawn.append(token)
            if len(drawn) == tokens:
                return drawn
            logits, state = model(torch.tensor([[token]], device=device), state)
