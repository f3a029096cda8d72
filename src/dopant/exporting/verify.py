"""An exported file in ONNX Runtime, held to the model it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dopant.errors import ExportError
from dopant.exporting.extra import extra
from dopant.models.language_model import LanguageModel, LanguageModelConfig

TOLERANCE = 1e-4
"""Of the largest logit: float32 sums in another order differ by less."""

State = tuple[Tensor, Tensor]


class OnnxModel(nn.Module):
    """A file of ours behind the face of a `LanguageModel`: (tokens, state) -> (logits, state).

    Raises:
        ExportError: ONNX Runtime cannot load the file.
        InputError: it is not installed.
    """

    anchor: Tensor

    def __init__(self, path: str | Path, config: LanguageModelConfig, *, threads: int = 1) -> None:
        super().__init__()
        runtime = extra("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone
        try:
            self.session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base of their own
            raise ExportError(
                f"onnxruntime {runtime.__version__} cannot load {path}: {str(error).strip():.300}; "
                "1.19 and later are known to"
            ) from error
        self.config = config
        self.anchor = nn.Parameter(torch.zeros(()))  # tells the device to whoever asks the parameters

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (time, batch) int64 -> logits (time, batch, vocabulary), and the state after them."""
        shape = (self.config.layers, tokens.shape[1], self.config.hidden)
        h, c = (torch.zeros(shape), torch.zeros(shape)) if state is None else state
        given = {"tokens": tokens.numpy(), "h0": h.numpy(), "c0": c.numpy()}
        logits, h, c = (torch.from_numpy(array) for array in self.session.run(["logits", "h", "c"], given))
        return logits, (h, c)


def logits_difference(
    model: LanguageModel, onnx: OnnxModel, *, steps: int = 20, batch: int = 3, seed: int = 0
) -> float:
    """The largest difference of logits and states on random tokens in two calls, over the largest logit or state.

    Raises:
        ExportError: it is above `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.config.vocabulary, (2, steps, batch), generator=generator)
    differences, ours, theirs = [], None, None
    with torch.no_grad():
        for call in tokens:  # the second begins with the state that the first has left
            logits, ours = model(call, ours)
            scores, theirs = onnx(call, theirs)
            for want, got in ((logits, scores), (ours[0], theirs[0]), (ours[1], theirs[1])):
                differences.append((want - got).abs().max() / want.abs().max().clamp(min=1e-6))
    worst = float(torch.stack(differences).max())  # of NaN NaN, which `max` of Python would pass over
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the exported file differs from the model by {worst:.1e} of its largest logit, more than {TOLERANCE:.0e}; "
            "do not use it, and tell us the model's structures (dopant inspect) and the version of onnxruntime"
        )
    return worst


def check_perplexity(model: float, onnx: float) -> float:
    """The relative difference of two perplexities of one text.

    Raises:
        ExportError: it is above `TOLERANCE`.
    """
    difference = 0.0 if model == onnx else abs(onnx / model - 1.0)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the exported file has perplexity {onnx:,.4f} where the model has {model:,.4f}; do not use it"
        )
    return difference
