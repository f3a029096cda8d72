"""What a run was, for its report: the protocol, and a row of what its file holds and makes of the text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dopant.data import Corpus
from dopant.layers import slots
from dopant.models.sizes import SIZES
from dopant.plan.words import in_words
from dopant.recipes.read import read_recipe
from dopant.recipes.row_label import label
from dopant.recipes.schema import ModelSettings, Recipe
from dopant.recipes.setting import Setting, evaluation_batch, make_setting
from dopant.reporting.records import Record, make_record
from dopant.reporting.report import (
    TENSOR_FLOAT,
    CurvePoint,
    Distillation,
    PathPoint,
    Protocol,
    Report,
    Row,
    Tokens,
    WeightLine,
)
from dopant.storage.folder import load_model
from dopant.storage.inspect import inspect
from dopant.structures import Doped, DopedWeight, Sparse, SparseWeight, Structure, StructuredWeight
from dopant.training.settings import TrainSettings


def report_trained(recipe: Recipe, corpus: Corpus, folder: Path, *, command: Sequence[str] = ()) -> Report:
    """A report of one row on a dense model that is there already; nothing is trained.

    Args:
        recipe: one that starts from a dense model and leaves it dense.
        folder: that model's.

    Raises:
        InputError: the model is compressed.
        FileError: the folder cannot be read.
    """
    started = datetime.now(UTC)
    setting = make_setting(recipe, corpus, folder)
    none = recipe.training.distillation.model_copy(update={"weight": 0.0})
    training = recipe.training.model_copy(update={"distillation": none})
    untouched = recipe.model_copy(update={"start": "scratch", "training": training})  # its label claims no more
    row = describe_folder(folder, setting, untouched)
    protocol = make_protocol(recipe, setting, make_record(command, seed=recipe.seed, started=started))
    trained = folder / "recipe.yaml"
    how = schedule(read_recipe(trained)) if trained.exists() else {}  # as it was, whatever the others have
    return Report(protocol=protocol.model_copy(update=how), rows=(row,))


def make_protocol(recipe: Recipe, setting: Setting, record: Record, *, resumed: bool = False) -> Protocol:
    """All that has to be equal for perplexities to be comparable."""
    distils = recipe.training.distillation.weight > 0.0
    texts, plan = setting.texts, setting.plan
    target = plan.target
    wanted = "none" if target is None else f"{target.factor:g}x" if target.bytes is None else f"{target.bytes} bytes"
    return Protocol(
        **record.model_dump(),
        **schedule(recipe),
        corpus=texts.corpus.name,
        checksum=texts.corpus.checksum,
        source=texts.corpus.source,
        tokens=Tokens(train=len(texts.train), valid=len(texts.valid), test=len(texts.test)),
        vocabulary=texts.tokenizer.size,
        tokenizer=texts.tokenizer.kind,
        state_carried=True,
        valid_batch=evaluation_batch("valid", len(texts.valid)),
        test_batch=evaluation_batch("test", len(texts.test)),
        distillation=Distillation(**recipe.training.distillation.model_dump()) if distils else None,
        target=wanted,
        count=recipe.count if target is None or target.bytes is None else "bytes",
        scope=recipe.scope,
        storage=plan.stored_as,
        resumed=resumed,
    )


def schedule(recipe: Recipe) -> dict[str, Any]:
    """The part of the protocol that the recipe alone decides."""
    training = recipe.training
    return {
        "model": model_name(recipe.model),
        "batch": training.batch,
        "unroll": training.unroll,
        "epochs": training.epochs,
        "optimiser": (
            f"SGD, learning rate {training.learning_rate:g} on the loss summed over the unroll, "
            f"clip {training.clip:g}, {_rate(training)}" + (TENSOR_FLOAT if training.tf32 else "")
        ),
        "start": recipe.start,
    }


def _rate(training: TrainSettings) -> str:
    held = training.constant_epochs >= training.epochs or training.decay == 1.0
    told = "held" if held else f"times {training.decay:g} an epoch after {training.constant_epochs:g}"
    return told + (f", weights averaged from {training.average_from:.0%} on" if training.average_from < 1.0 else "")


def model_name(model: ModelSettings) -> str:
    """`medium` where it has the sizes of that, else layers × hidden."""
    usual = SIZES[model.size].model if model.size else {}
    same = all(getattr(model, name) == usual.get(name) for name in ("hidden", "layers"))
    return f"{model.size if same else f'{model.layers}×{model.hidden}'}{', tied' * model.tied}"


def describe_folder(
    folder: Path,
    setting: Setting,
    recipe: Recipe,
    curves: Sequence[dict[str, Any]] = (),
    paths: Sequence[dict[str, Any]] = (),
    seconds: float | None = None,
    device: str = "cpu",
) -> Row:
    """A row from the file alone: what is stored, and what the loaded model makes of the text, computed on `device`."""
    found = inspect(folder)
    planned = {w.name for w in setting.plan.weights if w.method is not None}
    scope = [weight for weight in found.weights if weight.name in planned]
    parameters, stored = sum(w.parameters for w in scope), sum(w.stored_bytes for w in scope)
    entries = sum(w.shape[0] * w.shape[1] for w in scope)
    model = load_model(folder).model.to(device)
    return Row(
        method=recipe.method,
        label=label(recipe),
        parameters=parameters,
        parameter_factor=entries / max(1, parameters),
        stored_bytes=stored,
        byte_factor=4 * entries / max(1, stored),
        file_bytes=found.file_bytes["model.safetensors"],
        model_parameters=found.parameters,
        model_bytes=found.stored_bytes,
        nonzeros=sum(_nonzeros(w.structure) for w in scope),
        nonzeros_in_file=sum(_count_nonzeros(slot.weight) for slot in slots(model) if slot.name in planned),
        perplexity_valid=setting.texts.perplexity(model, "valid"),
        perplexity_test=setting.texts.perplexity(model, "test"),
        perplexity_train=setting.texts.perplexity_of_a_sample(model),
        loss_percent=None,
        train_seconds=seconds,
        folder=folder.name,
        weights=tuple(
            WeightLine(
                name=w.name,
                shape=w.shape,
                structure=in_words(w.structure, w.shape),
                parameters=w.parameters,
                nonzeros=_nonzeros(w.structure),
                macs=w.macs,
                stored_bytes=w.stored_bytes,
            )
            for w in found.weights
        ),
        curves=tuple(CurvePoint(**{name: c[name] for name in CurvePoint.model_fields}) for c in curves),
        paths=tuple(PathPoint(**p) for p in paths),
    )


def _nonzeros(structure: Structure) -> int:
    """Non-zeros of a structure's overlay, or of a pruned matrix."""
    if isinstance(structure, Sparse):
        return structure.nonzeros
    return structure.overlay.nonzeros if isinstance(structure, Doped) else 0


def _count_nonzeros(weight: StructuredWeight) -> int:
    """Entries that are not zero of a loaded weight's overlay, or of a pruned matrix."""
    overlay = weight.overlay if isinstance(weight, DopedWeight) else weight
    return int(torch.count_nonzero(overlay.values)) if isinstance(overlay, SparseWeight) else 0
