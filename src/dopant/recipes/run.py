"""One run: a recipe and a text go in; a model folder, its log and a report of one row come out."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dopant.data import Corpus, batchify
from dopant.errors import InputError
from dopant.evaluation import perplexity
from dopant.layers import slots
from dopant.plan.apply import apply_plan
from dopant.plan.plan import Plan
from dopant.recipes.describing import describe_folder, make_protocol
from dopant.recipes.places import Places, alone, begin, check_claim, is_finished
from dopant.recipes.read import kept_text, resolved_yaml
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import Setting, evaluation_batch, make_setting, take_setting
from dopant.reporting.records import find_code, make_record
from dopant.reporting.report import (
    Report,
    read_report,
    write_report,
)
from dopant.storage.folder import save
from dopant.training.loop import Result, Run, train
from dopant.training.overlay import close_overlays, meet_byte_target, open_overlays
from dopant.training.processes import Processes

PATH_SAMPLE_STEPS = 200  # of the validation set's columns, for perplexities with a path switched off


def run_recipe(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    *,
    dense: str | Path | None = None,
    weights_of: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    accelerator: Any = None,
    device: str = "cpu",
    announce: Callable[[Plan], None] | None = None,
    command: Sequence[str] = (),
    code: tuple[str, bool] | None = None,
) -> Report:
    """Train a recipe's model, write its folder, and evaluate what was written.

    Args:
        recipe: what to do.
        corpus: the text.
        out: the model folder; `<out>.run` beside it keeps log, plan, report, and while training a checkpoint.
        dense: a trained dense model, for recipes that start from one or distil.
        weights_of: the model of a run that differs in storage alone: its weights are stored as this recipe says, and
            nothing is trained.
        force: start anew and replace what is there.
        resume: go on from the checkpoint, if there is one; a finished run is returned as it is.
        accelerator: an `accelerate.Accelerator`, to run on several processes.
        device: where to train, and to evaluate the file, if not the accelerator's.
        announce: told the plan before anything is done.
        command: the arguments after `dopant` that ask for this run, for the record.
        code: the commit that runs, and whether it has changes; None to look now, before anything is done.

    Returns:
        a report of one row, `loss_percent` left open: it takes a dense row to compare with.

    Raises:
        InputError: something is in the way, another process is at this run, the text is too short, or the recipe
            needs a dense model.
        PlanError: the target cannot be met.
        TrainingError: the run diverged, or what is to be resumed is another run.
        FileError: a log, checkpoint or model cannot be written.
    """
    started = datetime.now(UTC)
    code = code or find_code()
    places, processes = Places.of(out), Processes(accelerator)
    check_claim(places, force=force, resume=resume)
    if dense is not None and Path(out).resolve() == Path(dense).resolve():
        raise InputError(f"{out} is the model to be started or learnt from; write the result to another folder")
    device = device if accelerator is None else str(accelerator.device)
    check_device(device)
    setting = make_setting(recipe, corpus, dense) if weights_of is None else take_setting(recipe, corpus, weights_of)
    settings, texts = recipe.training, setting.texts
    columns = texts.columns(settings.batch, settings.unroll)
    processes.streams(settings.batch)
    sample = batchify(texts.valid, evaluation_batch("valid", len(texts.valid)))[: PATH_SAMPLE_STEPS + 1]
    # the text has a checksum: the same one by another path is no other run
    text = (kept_text(places.recipe, recipe, any_corpus=True) if resume else None) or resolved_yaml(recipe)
    fingerprint = setting.fingerprint(text)
    resumed = resume and places.run.exists()
    finished = resume and is_finished(places, fingerprint)
    processes.wait()  # all have looked before the first changes anything
    if finished:
        with alone(places) if processes.main else contextlib.nullcontext():  # which removes a lock left behind, too
            places.checkpoint.unlink(missing_ok=True)  # if the run was killed just before it did so
        return read_report(places.report)
    if processes.main and announce is not None:
        announce(setting.plan)
    with alone(places) if processes.main else contextlib.nullcontext():
        if processes.main:
            check_claim(places, force=force, resume=resume)  # again, now that no other process can be at work there
            if resume:
                is_finished(places, fingerprint)
            begin(places, recipe=text, plan=setting.plan.to_json(), fingerprint=fingerprint, force=force)
        processes.wait()

        curves, paths, seconds = [], [], None
        if weights_of is None:
            run = Run(
                columns=columns,
                validate=lambda m: texts.perplexity(m, "valid"),
                validate_paths=lambda m: perplexity(m, sample),
                seed=recipe.seed,
                folder=places.run,
                fingerprint=fingerprint,
                resume=resume,
                teacher=setting.teacher,
                accelerator=accelerator,
            )
            result = _train(setting, recipe, run, device)
            curves, paths, seconds = result.curves, result.paths, result.seconds
        meet_byte_target(setting.model, setting.plan)
        if processes.main:
            save(
                places.model,
                setting.model,
                storage=setting.plan.storages(),
                tokenizer=texts.tokenizer,
                recipe=text,
                extra={"method": recipe.method},
                force=force or resume,
            )
        processes.wait()
        record = make_record(command, seed=recipe.seed, device=device_name(device), started=started, code=code)
        row = describe_folder(places.model, setting, recipe, curves, paths, seconds, device)
        if weights_of is not None:
            row = row.model_copy(update={"weights_of": Path(weights_of).name})
        report = Report(
            protocol=make_protocol(recipe, setting, record, resumed=resumed),
            rows=(row,),
        )
        if processes.main:
            write_report(report, places.report)
            places.checkpoint.unlink(missing_ok=True)
        return report


def _train(setting: Setting, recipe: Recipe, run: Run, device: str) -> Result:
    """Give the model the plan's structures and train it; it ends in its stored form, on the CPU."""
    model, settings = setting.model, recipe.training
    originals = {slot.name: slot.weight.to_dense().detach().clone() for slot in slots(model)}
    apply_plan(model, setting.plan, "fit" if recipe.start == "dense" else "new", _generator(recipe.seed))
    overlays = open_overlays(model, originals, start=recipe.start, overlay_start=settings.overlay_start)
    model.to(device)
    result = train(model, settings, run, overlays)
    close_overlays(model)
    model.cpu()
    return result


def check_device(device: str) -> None:
    """Raise InputError unless torch can compute on `device`."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):  # torch has devices, too, that compute nothing
        raise InputError(f"device {device!r} cannot be used; needed is cpu or cuda, or cuda:0 for one of several")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).strip().splitlines() or ["not available"])[0]
        raise InputError(f"device {device!r} cannot be used ({first}); cpu always can") from None


def device_name(device: str) -> str:
    """What a record calls the device: the accelerator by its model name, the processor `cpu`."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def _generator(seed: int) -> torch.Generator:
    """For structures' random starts. Seeded as torch's own, from which the model was drawn, it would draw the same."""
    digest = hashlib.sha256(f"{seed}/structures".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
