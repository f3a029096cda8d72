"""What a comparison leaves: one row a method, and the protocol under which the rows may be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dopant.reporting.records import Count, Kept, Number, Record, read_kept, write_kept

TENSOR_FLOAT = ", in TensorFloat-32"


class Tokens(Kept):
    """Tokens of each split."""

    train: Count
    valid: Count
    test: Count


class Distillation(Kept):
    """How the models learnt from the dense one's predictions: its share of the loss, and the temperature of both."""

    weight: float
    temperature: float


class Protocol(Record):
    """All that has to be equal for two perplexities to be comparable.

    Args:
        model: "tiny" ... "large" where it has the sizes of that, else layers × hidden: "2×300".
        corpus: the corpus's name.
        checksum: SHA-256 of its text.
        source: what else is known of the text: Python's version for "python-docs", file names.
        tokenizer: "word", "character" or "huggingface".
        unroll: time steps of one mini-batch.
        state_carried: the LSTM's state goes from one mini-batch to the next; always so.
        valid_batch, test_batch: streams that the split is cut into for evaluation.
        optimiser: in words; at their end `TENSOR_FLOAT` where the recipe asks for that, which only a GPU has.
        start: "scratch"; "dense": from a trained dense model; "mixed": of joined rows, as their labels say.
        distillation: None where the text alone was learnt from, or where joined rows differ in it, as their labels say.
        target: "25x", "1200000 bytes", or "none".
        count: "parameters" or "bytes"; what the target counts.
        scope: "lstm", "model" or "re:PATTERN"; of which weights.
        storage: how numbers are stored, in words.
        resumed: the run was interrupted and gone on with; `time` and `seconds` are then those of its last part.
        differing: of joined rows, the fields above and of the record that are not the same for all.
    """

    model: str
    corpus: str
    checksum: str
    source: dict[str, str] = Field(default_factory=dict)
    tokens: Tokens
    vocabulary: Count
    tokenizer: str = "word"
    batch: Count
    unroll: Count
    state_carried: bool
    valid_batch: Count
    test_batch: Count
    epochs: Count
    optimiser: str
    start: str = "scratch"
    distillation: Distillation | None = None
    target: str
    count: Literal["parameters", "bytes"]
    scope: str
    storage: str
    resumed: bool = False
    differing: tuple[str, ...] = ()


class CurvePoint(Kept):
    """One epoch of training; its training perplexity is the mean of its steps, with all dropout acting."""

    epoch: Count
    tokens: Count
    train_perplexity: Number
    valid_perplexity: Number


class PathPoint(Kept):
    """The two paths of the doped weights at one step of training.

    Args:
        structure_norm, overlay_norm: the size of each path's contribution.
        density: non-zeros / entries of the overlay.
        valid_perplexity: with both paths.
        valid_without_structure, valid_without_overlay: with that path switched off.
    """

    step: Count
    structure_norm: Number
    overlay_norm: Number
    density: Number
    valid_perplexity: Number
    valid_without_structure: Number
    valid_without_overlay: Number


class WeightLine(Kept):
    """One weight as it is stored.

    Args:
        shape: (out, in).
        structure: in words, such as "32×16 ⊗ 32×32 + 20,000 non-zeros".
        parameters, nonzeros, macs, stored_bytes: as in `dopant.cost.Cost`; `nonzeros` those of the overlay.
    """

    name: str
    shape: tuple[Count, Count]
    structure: str
    parameters: Count
    nonzeros: Count = 0
    macs: Count = 0
    stored_bytes: Count


class SeedLine(Kept):
    """What one seed made of a row, and the run that says so.

    Args:
        record: command, commit, versions, machine and seed of that run.
        loss_percent: against the dense row of the same seed.
    """

    record: Record
    perplexity_valid: Number
    perplexity_test: Number
    loss_percent: Number
    train_seconds: Number


class Row(Kept):
    """One method.

    Args:
        method: its name on the command line.
        label: its name for readers.
        parameters, stored_bytes, nonzeros: of the weights in scope, as stored.
        nonzeros_in_file: how many of these are not zero, counted in the file: 8 bits may round one to it.
        parameter_factor, byte_factor: dense over compressed, of the weights in scope; bytes against float32.
        file_bytes: size of `model.safetensors`, the whole model.
        model_parameters, model_bytes: of all tensors of the model.
        perplexity_valid, perplexity_test: computed from the file alone.
        perplexity_train: the same on as much of the training text as there is of the validation text. Unlike that of
            the curves, for which rows and inputs are dropped, it may be compared among rows.
        loss_percent: by how much the test perplexity is above the dense row's; None for the dense row.
        folder: the model's folder, relative to the report's.
        weights_of: the run whose trained weights these are, stored otherwise; "" where they are its own. Curves and the
            time of training are then told of that run alone.
        note: a remark for readers, such as "diverged in epoch 3".
        seeds: the runs that were joined; where there are several, the numbers above are their means.
    """

    method: str
    label: str
    parameters: Count
    parameter_factor: Number
    stored_bytes: Count
    byte_factor: Number
    file_bytes: Count
    model_parameters: Count
    model_bytes: Count
    nonzeros: Count = 0
    nonzeros_in_file: Count | None = None
    perplexity_valid: Number
    perplexity_test: Number
    perplexity_train: Number = None
    loss_percent: Number
    train_seconds: Number
    folder: str
    weights_of: str = ""
    note: str = ""
    weights: tuple[WeightLine, ...] = ()
    curves: tuple[CurvePoint, ...] = ()
    paths: tuple[PathPoint, ...] = ()
    seeds: tuple[SeedLine, ...] = ()

    @property
    def dense(self) -> bool:
        """Whether this is the row that the others are measured against."""
        return self.method == "dense"


class ExperimentRun(Kept):
    """Which run of an experiment a report is of.

    Args:
        experiment: the name of its folder.
        row: the name of its recipe, with the factor where a sweep has set it: "pruning-10x".
        model, seed, epochs: as in the protocol, to be seen at a glance.
        recipe: every setting, also those that were left to their defaults, but description, corpus and seed: the
            protocol has the text's checksum and the seed.
        dense: the same of the dense row whose model it started from or learnt from; None where it needed none.
    """

    experiment: str
    row: str
    model: str
    seed: int
    epochs: Count
    recipe: dict[str, Any]
    dense: dict[str, Any] | None = None


class Report(Kept):
    """A whole comparison; `report.json` is this and nothing else.

    Args:
        run: where the report is of one run of an experiment, which one.
    """

    version: Literal[1] = 1
    run: ExperimentRun | None = None
    protocol: Protocol
    rows: tuple[Row, ...] = Field(min_length=1)

    @property
    def dense(self) -> Row | None:
        """The dense row, if there is one."""
        return next((row for row in self.rows if row.dense), None)

    @property
    def best(self) -> Row | None:
        """The compressed row with the smallest validation perplexity: the test split is no place to choose on."""
        measured = [row for row in self.rows if not row.dense and row.perplexity_valid is not None]
        return min(measured, key=lambda row: row.perplexity_valid or 0.0, default=None)


def loss_percent(perplexity: float | None, dense: float | None) -> float | None:
    """By how many per cent `perplexity` is above the dense model's; None if either is missing."""
    return None if perplexity is None or not dense else 100.0 * (perplexity / dense - 1.0)


def write_report(report: Report, path: str | Path) -> Path:
    """Write the report as JSON, whole or not at all."""
    return write_kept(path, report)


def read_report(path: str | Path) -> Report:
    """Read a report strictly.

    Raises:
        InputError: the file cannot be read or is not a report; all mistakes are named.
    """
    return read_kept(path, Report)
