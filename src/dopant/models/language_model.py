"""The word-level LSTM language model of Zaremba, Sutskever & Vinyals (arXiv 1409.2329)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear
from dopant.layers.lstm import State
from dopant.structures import Dense
from dopant.structures.base import uniform


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes of a language model.

    Args:
        vocabulary: number of token ids.
        hidden: columns of the embedding and of each LSTM layer.
        layers: LSTM layers.
        dropout: rate on the embedding's and on each layer's output, never on the recurrent path.
        init: weights start uniform within ±init, LSTM biases at zero.
        tied: let the decoder use the embedding's matrix.
        joint: keep the [x; h] matrix of an LSTM layer as one weight.
    """

    vocabulary: int
    hidden: int = 200
    layers: int = 2
    dropout: float = 0.0
    init: float = 0.1
    tied: bool = False
    joint: bool = True

    def __post_init__(self) -> None:
        for name in ("vocabulary", "hidden", "layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"a language model's {name} must be a whole number of 1 or more, got {value!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout is a rate from 0 to below 1, got {self.dropout!r}")
        if not self.init > 0.0:
            raise InputError(f"init is the bound of the starting weights, above 0, got {self.init!r}")


class LanguageModel(nn.Module):
    """embedding → LSTM layers → decoder, with dropout between them.

    Its structured weights are `embedding.weight` (vocabulary, hidden), `lstm.weight_l0`, … (4·hidden, 2·hidden) and
    `decoder.weight` (vocabulary, hidden).
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        size, hidden = config.vocabulary, config.hidden
        std = config.init / 3.0**0.5
        self.embedding = Embedding(size, hidden, weight=Dense().new((size, hidden), std=std))
        self.lstm = LSTM(hidden, hidden, config.layers, dropout=config.dropout, joint=config.joint)
        self.decoder = Linear(
            hidden,
            size,
            weight=self.embedding.weight if config.tied else Dense().new((size, hidden), std=std),
        )
        for layer in range(config.layers):
            for name in ("weight",) if config.joint else ("weight_ih", "weight_hh"):
                columns = 2 * hidden if config.joint else hidden
                setattr(self.lstm, f"{name}_l{layer}", Dense().new((4 * hidden, columns), std=std))
            nn.init.zeros_(self.lstm.get_parameter(f"bias_l{layer}"))
        self.decoder.bias = nn.Parameter(uniform(size, std=std))

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Score the token after each token.

        Args:
            tokens: (time, batch) int64.
            state: what an earlier call returned, to carry on from there.

        Returns:
            logits (time, batch, vocabulary), and the state after the last token.
        """
        x = F.dropout(self.embedding(tokens), self.config.dropout, self.training)
        x, state = self.lstm(x, state)
        x = F.dropout(x, self.config.dropout, self.training)
        return self.decoder(x), state
