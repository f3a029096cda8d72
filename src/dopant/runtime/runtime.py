"""A language model ready to run: token ids in, log-probabilities out, the state in the caller's hands."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dopant.data.tokenizers import Tokenizer
from dopant.errors import InputError
from dopant.evaluation.generation import check_seed, generate
from dopant.models.language_model import LanguageModel
from dopant.native import status
from dopant.native.library import library
from dopant.runtime.checks import as_array
from dopant.runtime.handle import Floats
from dopant.runtime.packed import PackedWeight, Packer, Precision, check_precision, own_bias
from dopant.runtime.packed_lstm import PackedLSTM
from dopant.runtime.state import State
from dopant.runtime.torch_path import TorchLSTM, TorchState, TorchWeight

Ids = npt.NDArray[np.int64]
AnyState = State | TorchState

_TOGETHER = 1024  # rows of logits that `score` holds at a time


class Runtime:
    """A packed language model. Calls may come from several threads at once, each with a state of its own.

    Args:
        model: what to pack; it is not changed, and not needed afterwards.
        tokenizer: for text in and out; None if there is none.
        precision: `"exact"` is as accurate as float32; `"fast"` has 8-bit values and activations of the LSTM's
            overlays and low ranks and of the decoder, 16-bit ones of Kronecker products of batches, and σ and tanh
            from tables (perplexity moves by some hundredths of a per cent).

    Attributes:
        active: the native library's level, or `torch` where there is none (`dopant env` says why).
        precision: as it computes; without the native library always exact.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer | None = None, *, precision: Precision = "exact"
    ) -> None:
        check_precision(precision)
        self.vocabulary = model.config.vocabulary
        self.tokenizer = tokenizer
        self.active = status().active
        native = library()
        self.precision: Precision = precision if native is not None else "exact"
        self._bias = own_bias(model.decoder.bias, self.vocabulary, "the decoder's bias")
        self.lstm: Any
        self._embedding: PackedWeight | TorchWeight
        self._decoder: PackedWeight | TorchWeight
        if native is None:
            self.lstm = TorchLSTM(model.lstm)
            self._embedding = TorchWeight(model.embedding.weight)
            self._decoder = TorchWeight(model.decoder.weight)
            return
        self.lstm = PackedLSTM(model.lstm, native, precision)
        shape = (self.vocabulary, model.config.hidden)
        self._embedding = PackedWeight(model.embedding.weight, Packer(native, "exact", lookup=True), shape)
        self._decoder = PackedWeight(model.decoder.weight, Packer(native, precision), shape)

    @property
    def bytes(self) -> int:
        """Bytes of the packed weights."""
        return int(self.lstm.bytes + self._embedding.bytes + self._decoder.bytes)

    def initial(self, batch: int = 1) -> AnyState:
        """The state before any token.

        Raises:
            InputError: batch is below 1.
        """
        state: AnyState = self.lstm.initial(batch)
        return state

    def step(self, tokens: npt.ArrayLike, state: AnyState | None = None) -> tuple[Floats, AnyState]:
        """Read a token of each sequence.

        Args:
            tokens: (batch,) ids.
            state: what the step before returned; it stays as it is.

        Returns:
            logits (batch, vocabulary) float32 of the token that follows, and the new state.

        Raises:
            InputError: ids out of range, or a state of another batch or model.
        """
        ids = self._ids(tokens, 1)
        hidden, state = self.lstm.step(self._embedding.rows(ids), state)
        return self._decoder.linear(hidden, self._bias), state

    def sequence(self, tokens: npt.ArrayLike, state: AnyState | None = None) -> tuple[Floats, AnyState]:
        """Read many tokens of each sequence: tokens (time, batch) -> logits (time, batch, vocabulary), and the state.

        Raises:
            InputError: ids out of range, or a state of another batch or model.
        """
        hidden, state = self.hidden(tokens, state)
        logits = self._decoder.linear(hidden.reshape(-1, hidden.shape[-1]), self._bias)
        return logits.reshape(*hidden.shape[:2], self.vocabulary), state

    def hidden(self, tokens: npt.ArrayLike, state: AnyState | None = None) -> tuple[Floats, AnyState]:
        """As `sequence`, but without the decoder: what the last layer says, (time, batch, hidden)."""
        ids = self._ids(tokens, 2)
        rows = self._embedding.rows(ids.reshape(-1)).reshape(*ids.shape, self._embedding.shape[1])
        hidden, state = self.lstm.sequence(rows, state)
        return hidden, state

    def score(self, tokens: npt.ArrayLike, state: AnyState | None = None) -> Floats:
        """How likely a text is, token after token.

        Args:
            tokens: (n,) ids of one text, two or more.
            state: what came before; None for nothing.

        Returns:
            (n - 1,) natural logarithms of each token's probability given those before it.

        Raises:
            InputError: fewer than two tokens, or ids out of range.
        """
        ids = self._ids(tokens, 1)
        if len(ids) < 2:
            raise InputError(f"a score needs two tokens or more, got {len(ids)}")
        scores = np.empty(len(ids) - 1, np.float32)
        for start in range(0, len(scores), _TOGETHER):
            targets = ids[start + 1 : start + 1 + _TOGETHER]
            logits, state = self.sequence(ids[start : start + len(targets), None], state)
            scores[start : start + len(targets)] = log_softmax(logits[:, 0])[np.arange(len(targets)), targets]
        return scores

    def generate(
        self, prompt: str | npt.ArrayLike, tokens: int = 40, *, seed: int = 0, temperature: float = 1.0
    ) -> list[int]:
        """Continue a prompt, text or ids; equal seeds give equal tokens.

        Raises:
            InputError: an empty prompt, a text where there is no tokenizer, or numbers out of range.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise InputError("this model has no tokenizer; give token ids")
            prompt = self.tokenizer.encode(prompt)
        ids = torch.from_numpy(self._ids(prompt, 1))
        check_seed(seed)
        generator = torch.Generator().manual_seed(int(seed))
        return generate(self, ids, tokens, temperature=temperature, generator=generator)

    def __call__(self, tokens: torch.Tensor, state: AnyState | None = None) -> tuple[torch.Tensor, AnyState]:
        """As the language model's own forward, so that whatever evaluates a model evaluates a runtime."""
        logits, state = self.sequence(tokens, state)
        return torch.from_numpy(logits), state

    def _ids(self, tokens: npt.ArrayLike, dimensions: int) -> Ids:
        ids = as_array("tokens", tokens)
        if ids.ndim != dimensions or (ids.size and ids.dtype.kind not in "iu"):
            shape = "(batch,)" if dimensions == 1 else "(time, batch)"
            raise InputError(f"tokens must be whole numbers of shape {shape}, got {ids.dtype} {ids.shape}")
        if not ids.size:
            raise InputError(f"there are no tokens: got an array of shape {ids.shape}; give one at least")
        if not 0 <= int(ids.min()) <= int(ids.max()) < self.vocabulary:
            raise InputError(
                f"token ids must be in 0 … {self.vocabulary - 1}, got {int(ids.min())} to {int(ids.max())}"
            )
        return ids.astype(np.int64, copy=False)


def log_softmax(logits: Floats) -> Floats:
    """Logits (n, vocabulary) -> log-probabilities, in place where the native library is there."""
    native = library()
    if native is None:
        return np.asarray(torch.log_softmax(torch.from_numpy(logits), dim=-1).numpy())
    logits = np.ascontiguousarray(logits)
    native.dopant_log_softmax(logits.ctypes.data, *logits.shape)
    return logits
