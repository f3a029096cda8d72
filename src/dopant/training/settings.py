"""How a model is trained, as data. Recipes nest these; nothing else decides anything."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RECOVERY_PRUNED, RECOVERY_AVERAGED = 0.4, 0.5
"""Fractions of the steps of a recovery: from when on overlays are as sparse as planned, and weights averaged; see
docs/decisions/0015-averaging.md."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _check_order(begin: float, end: float) -> None:
    if end < begin:
        raise ValueError(f"end {end} lies before begin {begin}; it must be at or after it")


class Sparsify(_Settings):
    """From dense to sparse while training: the cubic schedule of Zhu & Gupta (arXiv 1710.01878).

    `begin` and `end` are fractions of all training steps; between two prunings lie `every` steps. Afterwards the
    mask is frozen.

    Args:
        allocation: `each` matrix keeps as many of its own largest entries as were planned for it; or `global`ly the
            largest of all matrices stay, as many in all, which gives more to a layer that needs more.
    """

    begin: float = Field(0.1, ge=0.0, le=1.0)
    end: float = Field(0.5, ge=0.0, le=1.0)
    every: int = Field(20, ge=1)
    initial_sparsity: float = Field(0.0, ge=0.0, lt=1.0)
    allocation: Literal["each", "global"] = "each"

    @model_validator(mode="after")
    def _ordered(self) -> Sparsify:
        _check_order(self.begin, self.end)
        return self


class CoMatrixDropout(_Settings):
    """Co-matrix dropout regularisation (arXiv 2001.08896): rows of the summands of W are dropped while training.

    Args:
        rate: probability that an output row of a path is dropped.
        path: which summands draw masks: `both` (independent masks), `structure`, `overlay`, or `whole` (all rows
            of one path at once, but never both). A weight with one summand (pruning) is treated as an overlay, and
            is never dropped as a whole.
        scaling: `inverted` divides what stays by its probability of staying, `none` leaves it.
        sharing: one mask for a training `step`, for each `sequence` of the batch, or for every `element`
            (sequence and time step). The last two keep the paths apart in the recurrence and train slower.
        begin, end: fractions of training between which it acts.
    """

    rate: float = Field(0.0, ge=0.0, lt=1.0)
    path: Literal["both", "structure", "overlay", "whole"] = "both"
    scaling: Literal["inverted", "none"] = "inverted"
    sharing: Literal["step", "sequence", "element"] = "step"
    begin: float = Field(0.0, ge=0.0, le=1.0)
    end: float = Field(1.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _ordered(self) -> CoMatrixDropout:
        _check_order(self.begin, self.end)
        return self


class Distillation(_Settings):
    """A dense teacher's distribution as a second target (Hinton et al. 2015, arXiv 1503.02531).

    The loss is (1 - weight) times the likelihood of the text plus weight times temperature² times the
    Kullback-Leibler divergence from the teacher, both softened by `temperature`.
    """

    weight: float = Field(0.0, ge=0.0, le=1.0)
    temperature: float = Field(1.0, gt=0.0, allow_inf_nan=False)


class TrainSettings(_Settings):
    """One training run: plain SGD on the loss summed over the unroll, as Zaremba et al. (arXiv 1409.2329).

    Args:
        epochs, batch, unroll: passes, parallel streams of text, steps of truncated back-propagation.
        learning_rate, constant_epochs, decay: full rate for the first epochs, then times `decay` an epoch.
        average_from: fraction of training from which on the weights are averaged; their mean is what is evaluated and
            kept. 1 keeps the last weights. Best with a rate that is held, once pruning is over.
        clip: bound of the global gradient norm of the summed loss; 0 switches it off.
        factor_learning_rate: multiplier for the factors of a doped weight's structure.
        structure_learning_rate: multiplier for every other structured factor (low rank, Kronecker alone).
        overlay_start: scale of the overlay's random start against a dense weight's, when doped.
        contraction: `dense` forms W once a step and uses torch's fused LSTM, `factored` never forms it.
        trace_every: steps between two looks at the paths' sizes (0: once an epoch).
        tf32: multiply in TensorFloat-32 on a GPU that can, see `dopant.ops.precision`; evaluation never does.
        cuda_graph: on one GPU, record a step once and replay it, see `dopant.training.graph`: less waiting for Python,
            the same numbers up to rounding. Where that fails a warning says why, and the run goes on without.
        checkpoint_every: steps between checkpoints (0: at the end of an epoch only).
    """

    epochs: int = Field(13, ge=1)
    batch: int = Field(20, ge=1)
    unroll: int = Field(20, ge=1)
    learning_rate: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    constant_epochs: float = Field(4.0, ge=0.0)
    decay: float = Field(0.5, gt=0.0, le=1.0)
    average_from: float = Field(1.0, ge=0.0, le=1.0)
    clip: float = Field(5.0, ge=0.0, allow_inf_nan=False)
    factor_learning_rate: float = Field(0.1, ge=0.0, allow_inf_nan=False)
    structure_learning_rate: float = Field(0.3, ge=0.0, allow_inf_nan=False)
    overlay_start: float = Field(0.1, ge=0.0, allow_inf_nan=False)
    sparsify: Sparsify = Sparsify()
    co_matrix_dropout: CoMatrixDropout = CoMatrixDropout()
    distillation: Distillation = Distillation()
    contraction: Literal["dense", "factored"] = "dense"
    tf32: bool = False
    cuda_graph: bool = False
    trace_every: int = Field(0, ge=0)
    checkpoint_every: int = Field(200, ge=0)
