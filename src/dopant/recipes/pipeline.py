"""What the commands do, as functions of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dopant.data import Corpus, read_corpus
from dopant.errors import InputError
from dopant.evaluation.generation import check_seed
from dopant.plan.plan import Plan
from dopant.recipes.comparing import compare, recovery_recipe
from dopant.recipes.overrides import Override, arguments
from dopant.recipes.places import Places
from dopant.recipes.read import read_recipe
from dopant.recipes.results import Results, results
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import corpus_for, encode, evaluation_batch, load_with_tokenizer, with_corpus
from dopant.reporting.join import join
from dopant.reporting.page import write_page
from dopant.reporting.records import make_record
from dopant.reporting.report import Report, loss_percent, read_report, write_report
from dopant.runtime import Runtime
from dopant.runtime.packed import Precision, check_precision
from dopant.training.processes import make_accelerator

__all__ = [
    "Evaluation",
    "Generated",
    "Results",
    "compare",
    "compress",
    "evaluate",
    "generate",
    "report",
    "results",
    "train",
]


def train(
    recipe: Recipe | str | Path,
    corpus: str | Path | Corpus | None = None,
    *,
    out: str | Path,
    dense: str | Path | None = None,
    target: str | float | None = None,
    target_bytes: int | str | None = None,
    count: str | None = None,
    scope: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str | Override] = (),
    threads: int | None = 1,
    device: str = "cpu",
    accelerate: bool = False,
    force: bool = False,
    resume: bool = False,
    announce: Callable[[Plan], None] | None = None,
    command: Sequence[str] = (),
) -> Report:
    """Train what a recipe describes and write its model folder; see `dopant.recipes.run.run_recipe`.

    Args:
        recipe: a recipe, its file, or the name of a shipped one.
        corpus: what to read; None for the recipe's own.
        out: the model folder.
        dense: a trained dense model, for recipes that start from one or distil.
        target, target_bytes, count, scope: as for `compare`; None for the recipe's own.
        seed: of every random number; None for the recipe's own.
        overrides: `training.epochs=3` and the like.
        threads: threads that torch uses; None leaves them as they are.
        device: cpu or cuda.
        accelerate: share the batch with the other processes that `torchrun` or `accelerate launch` has started.
        announce: told the plan before anything is done.
    """
    changes = [
        *arguments(target=target, target_bytes=target_bytes, count=count, scope=scope, seed=seed),
        *overrides,
    ]
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, changes)
    elif changes:
        raise InputError("overrides belong to a recipe that is read; change the recipe object itself")
    text = corpus if isinstance(corpus, Corpus) else read_corpus(recipe.corpus if corpus is None else corpus)
    accelerator = make_accelerator(device) if accelerate else None
    try:
        with _torch_as_it_was(threads):
            return run_recipe(
                with_corpus(recipe, text),
                text,
                out,
                dense=dense,
                force=force,
                resume=resume,
                accelerator=accelerator,
                device=device,
                announce=announce,
                command=command,
            )
    finally:
        if accelerator is not None:
            accelerator.end_training()


@contextmanager
def _torch_as_it_was(threads: int | None) -> Iterator[None]:
    """So many threads for a while; they, and the processor's random numbers, which a training seeds, are put back."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def compress(
    model: str | Path,
    corpus: str | Path | Corpus | None = None,
    *,
    out: str | Path,
    method: str = "doped-kronecker",
    target: str | float | None = None,
    target_bytes: int | str | None = None,
    count: str | None = None,
    scope: str | None = None,
    seed: int | None = None,
    distill: float | None = None,
    overrides: Sequence[str | Override] = (),
    threads: int | None = 1,
    device: str = "cpu",
    force: bool = False,
    resume: bool = False,
    announce: Callable[[Plan], None] | None = None,
    command: Sequence[str] = (),
) -> Report:
    """Make a trained dense model small: fit, then recover by training on, and compare with what it was.

    How it recovers: docs/decisions/0015-averaging.md, where the recipe and `overrides` do not say.

    Args:
        model: folder of a trained dense model.
        corpus: None for the one that it was trained on.
        distill: weight of the dense model's own distribution in the loss, 0 to 1; None for the recipe's own, else 0.
        method, target, target_bytes, count, scope, overrides: as for `compare`.

    Returns:
        a report of one row, with its loss against the dense model.

    Raises:
        DopantError: as for `compare`; or `out` is the model's own folder.
    """
    wanted = arguments(target=target, target_bytes=target_bytes, count=count, scope=scope, seed=seed, distill=distill)
    recipe = recovery_recipe(method, Path(model), [*wanted, *overrides])
    text = corpus_for(corpus, model)
    report = train(
        recipe,
        text,
        out=out,
        dense=model,
        threads=threads,
        device=device,
        force=force,
        resume=resume,
        announce=announce,
        command=command,
    )
    before = evaluate(model, text, "test").perplexity
    row = report.rows[0].model_copy(update={"loss_percent": loss_percent(report.rows[0].perplexity_test, before)})
    report = report.model_copy(update={"rows": (row,)})
    write_report(report, Places.of(out).report)
    return report


@dataclass(frozen=True)
class Evaluation:
    """A perplexity with the whole protocol it was measured under."""

    perplexity: float
    split: str
    protocol: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def evaluate(
    folder: str | Path,
    corpus: str | Path | Corpus | None = None,
    split: str = "test",
    *,
    precision: Precision = "exact",
    command: Sequence[str] = (),
) -> Evaluation:
    """Perplexity of a model folder on a text, computed from the files alone, by the runtime.

    Args:
        corpus: None for the one that the model was trained on.

    Raises:
        InputError: an unknown split or precision, or a text too short.
        FileError: the folder cannot be read.
    """
    if split not in ("train", "valid", "test"):
        raise InputError(f"split {split!r} is not known; choose train, valid or test")
    check_precision(precision)
    model, tokenizer = load_with_tokenizer(folder)
    runtime = Runtime(model, tokenizer, precision=precision)
    text = corpus_for(corpus, folder)
    texts = encode(text, tokenizer)
    record = make_record(command, seed=0)
    protocol = {
        "corpus": text.name,
        "checksum": text.checksum,
        "source": text.source,
        "tokens": len(getattr(texts, split)),
        "vocabulary": tokenizer.size,
        "tokenizer": tokenizer.kind,
        "batch": evaluation_batch(split, len(getattr(texts, split))),
        "state_carried": True,
        "unknown_words": "counted as <unk>",
        "precision": runtime.precision,
        "kernels": runtime.active,
        **record.model_dump(exclude={"seed", "seconds"}),
    }
    return Evaluation(texts.perplexity(runtime, split), split, protocol)


def report(*sources: str | Path, out: str | Path | None = None, force: bool = False) -> tuple[Report, Path]:
    """Make report.html again from report.json; several reports are joined into one.

    Args:
        sources: folders with a report.json, or such files.
        out: a folder for the joined report.json and its page; None for the page beside the only source.
        force: replace the report.json that is in `out`.

    Returns:
        the report, and where its page is.

    Raises:
        InputError: several sources and no `out`, a report in `out` already, or reports that do not belong together.
        FileError: a source cannot be read.
    """
    files = [_report_file(Path(source)) for source in sources]
    if out is None:
        if len(files) != 1:
            raise InputError(f"{len(files)} reports are joined into a new one; say where with --out")
        found = read_report(files[0])
        return found, write_page(found, files[0].with_suffix(".html"))
    found, folder = join([read_report(file) for file in files]), Path(out)
    if not force and (folder / "report.json").exists():
        raise InputError(f"{folder} holds a report already; choose another folder, or replace it with --force")
    folder.mkdir(parents=True, exist_ok=True)
    write_report(found, folder / "report.json")
    return found, write_page(found, folder / "report.html")


def _report_file(source: Path) -> Path:
    """The report in a folder, or the file itself."""
    file = source / "report.json" if source.is_dir() else source
    run = Path(f"{source}.run")
    if not file.exists() and (run / "report.json").exists():
        raise InputError(f"{source} is a model folder; the report of its run is in {run}, name that")
    return file


@dataclass(frozen=True)
class Generated:
    """A prompt and its continuation.

    Args:
        prompt: as it was given.
        text: what the model wrote.
        whole: both, the prompt as the model read it.
        unknown_words: words of the prompt that the vocabulary does not have.
    """

    prompt: str
    text: str
    whole: str
    unknown_words: list[str]


def generate(
    folder: str | Path,
    prompt: str = "",
    tokens: int = 40,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    precision: Precision = "exact",
) -> Generated:
    """Continue a prompt with a model folder; equal seeds give equal texts.

    Raises:
        InputError: numbers out of range, or an unknown precision.
        FileError: the folder cannot be read.
    """
    check_seed(seed)
    check_precision(precision)
    model, tokenizer = load_with_tokenizer(folder)
    ids = tokenizer.encode(prompt)
    if len(ids) == 0:
        ids = tokenizer.encode("\n")
    runtime = Runtime(model, tokenizer, precision=precision)
    new = runtime.generate(ids, tokens, seed=seed, temperature=temperature)
    whole = tokenizer.decode([*map(int, ids), *new]).lstrip("\n") if prompt else tokenizer.decode(new)
    return Generated(prompt, tokenizer.decode(new), whole, tokenizer.unknown_words(prompt))
