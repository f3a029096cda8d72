"""The main job: one dense model and the same model made small by every method, side by side in one report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dopant.cost import Cost
from dopant.data import Corpus, Tokenizer
from dopant.errors import DopantError, InputError, PlanError, ResumeError
from dopant.models.sizes import SIZES
from dopant.plan.methods import METHODS, method_named
from dopant.plan.plan import Plan
from dopant.recipes.describing import model_name
from dopant.recipes.overrides import Override, arguments
from dopant.recipes.places import Places, check_claim
from dopant.recipes.planning import plan_recipes, read_vocabularies
from dopant.recipes.read import read_recipe, shipped_recipes, written_keys
from dopant.recipes.row_label import label
from dopant.recipes.run import check_device
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import corpus_for, load_dense, with_corpus
from dopant.recipes.side_by_side import Job, Listener, run_jobs
from dopant.reporting.join import common_protocol, told_apart, with_losses, with_records
from dopant.reporting.page import write_page
from dopant.reporting.records import cores
from dopant.reporting.report import Report, Row, write_report
from dopant.storage.config import CONFIG, FILES
from dopant.storage.folder import check_place
from dopant.storage.replace import written_beside
from dopant.training.settings import RECOVERY_AVERAGED, RECOVERY_PRUNED

_RECOVERY = ("batch", "unroll", "clip", "epochs", "learning_rate")
"""What the training of a recovery has from that of the dense model."""

_FALL = ("constant_epochs", "decay")
_HELD = {"decay": 1.0, "average_from": RECOVERY_AVERAGED, "sparsify.end": RECOVERY_PRUNED}
"""The rest, see docs/decisions/0015-averaging.md: the rate is held, and weights are averaged once pruning is over.
Where a recipe's file says something of the rate or the mean, the rate falls as the dense model's, but for that."""

_DROPOUT = 0.5  # of the dense model's: what has fewer weights overfits less


def compare(
    corpus: str | Path | Corpus | None = None,
    model: str | Path | None = None,
    target: str | float | None = None,
    methods: Sequence[str] | None = None,
    *,
    out: str | Path,
    target_bytes: int | str | None = None,
    count: str | None = None,
    scope: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str | Override] = (),
    jobs: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    force: bool = False,
    resume: bool = False,
    announce: Callable[[Mapping[str, Plan | PlanError]], None] | None = None,
    listener: Listener | None = None,
    command: Sequence[str] = (),
) -> Report:
    """Train a dense model and a compressed one by each method, and write `report.json` and `report.html`.

    Each run is a process of its own that imports the script again: a script calls this below
    `if __name__ == "__main__":`.

    Args:
        corpus: `python-docs`, a folder, a file, or a corpus; None for that of a trained model, else `python-docs`.
        model: tiny, small, medium, large, or the folder of a trained dense model: all methods then start from it. None
            for the size that the recipes' files say, else tiny.
        target: a factor such as 25x or bytes such as 1.2MB; None for the recipes' own, else 25x.
        methods: names of methods or of shipped recipes, or recipe files; None for every method. Dense is always there.
        out: a folder for the report and one model folder a method.
        target_bytes: bytes, also as 1.2MB; instead of `target`.
        count, scope: what the factor counts, and of which weights; None for the recipes' own, else bytes and lstm.
        seed: of every random number; None for the recipes' own, else 0.
        overrides: `training.epochs=3` and the like, for all rows alike.
        jobs: runs at a time; None for one a core.
        threads: threads of each run. Equal seeds give equal bits only with equal threads.
        force, resume: replace, or go on with, what is in `out`.
        announce: told the plan of each method before anything is done, or why there is none.
        listener: told twice a second how the runs stand.
        command: the arguments after `dopant` that ask for this, for the record.

    Raises:
        PlanError: a method that was named, or every method, cannot meet the target.
        DopantError: anything else wrong with the arguments, before any work is done; or every method failed.
    """
    started = datetime.now(UTC)
    check_device(device)
    out = Path(out)
    start_folder, tokenizer = (None, None) if model is None or str(model) in SIZES else _dense_folder(model)
    text = corpus_for(corpus, start_folder)
    common = arguments(target=target, target_bytes=target_bytes, count=count, scope=scope, seed=seed)
    sources = _sources(methods)
    changes = [*common, *overrides]
    recipes = {
        name: with_corpus(recipe, text) for name, recipe in _recipes(sources, model, start_folder, changes).items()
    }
    own = [name for name in recipes if start_folder is None or name != "dense"]
    _claim(out, own, force=force, resume=resume)
    vocabularies = read_vocabularies(recipes, text, tokenizer)
    _check_comparable(recipes, vocabularies)
    plans = plan_recipes(recipes, vocabularies)
    _check_plans(plans, all_must_do=methods is not None)
    if announce is not None:
        announce(plans)
    resumed = resume and out.exists() and any(out.iterdir())
    out.mkdir(parents=True, exist_ok=True)
    if start_folder is not None:
        _bring(start_folder, out / "dense", force=force, resume=resume)
    work = [_job(name, recipe, out, start_folder) for name, recipe in recipes.items()]
    ended = run_jobs(
        work,
        text,
        workers=cores() if jobs is None else jobs,
        threads=threads,
        options={"resume": resume, "force": force, "device": device, "command": tuple(command)},
        listener=listener,
    )
    report = join_reports({name: ended[name] for name in recipes}, {name: recipes[name] for name in recipes})
    took = {
        "resumed": resumed,
        "time": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 3),
    }
    report = report.model_copy(update={"protocol": report.protocol.model_copy(update=took)})  # all runs, not one
    write_report(report, out / "report.json")
    write_page(report, out / "report.html")
    return report


def _check_comparable(recipes: Mapping[str, Recipe], vocabularies: Mapping[str, int]) -> None:
    """See that one table can have all rows: before training, as after it nothing could be done about it."""
    dense = [name for name, recipe in recipes.items() if recipe.method == "dense"]
    if len(dense) > 1:
        raise InputError(
            f"{' and '.join(dense)} are dense, and rows are measured against one; "
            "a recipe of your own for it has the file name dense.yaml"
        )
    first, *others = recipes
    scopes = {name: recipe.scope for name, recipe in recipes.items()}
    models = {name: model_name(recipe.model) for name, recipe in recipes.items()}
    for what, values in (("vocabulary", vocabularies), ("scope", scopes), ("model", models)):
        if odd := [name for name in others if values[name] != values[first]]:
            raise InputError(
                f"{what} is {values[first]} in {first} and {values[odd[0]]} in {odd[0]}, and perplexities and factors "
                "of the two cannot be compared; give one for all, as with --set, or compare them apart"
            )


def _check_plans(plans: Mapping[str, Plan | PlanError], *, all_must_do: bool) -> None:
    errors = [plan for plan in plans.values() if isinstance(plan, PlanError)]
    compressed = [plan for name, plan in plans.items() if name != "dense"]
    if errors and (all_must_do or not any(isinstance(plan, Plan) for plan in compressed)):
        raise errors[0]


def join_reports(ended: Mapping[str, Report | DopantError], recipes: Mapping[str, Recipe]) -> Report:
    """The runs' reports as one, with each row's loss against the dense row.

    Raises:
        DopantError: not one run succeeded; the first error of them.
    """
    reports = {name: report for name, report in ended.items() if isinstance(report, Report)}
    if not reports:
        raise next(error for error in ended.values() if isinstance(error, DopantError))
    made = dict(zip(reports, with_records(list(reports.values())), strict=True))
    rows = [
        made[name].rows[0] if name in made else _failed(name, recipes[name], str(report))
        for name, report in ended.items()
    ]
    return Report(protocol=common_protocol(list(reports.values())), rows=told_apart(with_losses(rows)))


def _failed(name: str, recipe: Recipe, reason: str) -> Row:
    none = dict.fromkeys(("parameter_factor", "byte_factor", "perplexity_valid", "perplexity_test", "loss_percent"))
    nothing: dict[str, Any] = {**none, **dict.fromkeys(Cost().__dict__, 0)}
    nothing.pop("macs")
    return Row(
        method=recipe.method,
        label=label(recipe),
        **nothing,
        file_bytes=0,
        model_parameters=0,
        model_bytes=0,
        train_seconds=None,
        folder=name,
        note=reason,
    )


def _sources(methods: Sequence[str] | None) -> dict[str, str]:
    """By the name of the row's folder: a method, a shipped recipe, or the file of a recipe."""
    known = shipped_recipes()
    found: dict[str, str] = {}
    for source in dict.fromkeys(METHODS if methods is None else methods):
        path = Path(source)
        is_file = path.suffix in (".yaml", ".yml")
        if not is_file and source not in known:
            method_named(source)  # raises, with the nearest name
        name = path.stem if is_file else source
        if name in found:
            raise InputError(f"{source} and {found[name]} would both be written to a folder {name}; rename one")
        found[name] = source
    if not found:
        raise InputError(f"no method is named; choose from {', '.join(METHODS)}")
    return found if "dense" in found else {"dense": "dense", **found}


def _recipes(
    sources: Mapping[str, str], model: str | Path | None, start_folder: Path | None, overrides: Sequence[str | Override]
) -> dict[str, Recipe]:
    """By the rows' names; where no model is named, each of the size that its file says, else of `_usual_size`."""
    if start_folder is not None:
        return {name: recovery_recipe(source, start_folder, overrides) for name, source in sources.items()}
    own = {name for name, source in sources.items() if model is None and _says_sizes(source)}
    size = str(model) if model is not None else _usual_size(sources[name] for name in sources if name in own)
    found = {}
    for name, source in sources.items():
        usual = [] if name in own else [f"model.size={size}"]
        # the dense row is what the others start or learn from, where the settings of all rows say that they do
        itself = ["start=scratch", "training.distillation.weight=0.0"] if name == "dense" else []
        found[name] = read_recipe(source, [*usual, *overrides, *itself])
    return found


def _says_sizes(source: str) -> bool:
    return read_recipe(source).model.size is not None or bool(written_keys(source) & {"model.hidden", "model.layers"})


def _usual_size(sources: Iterable[str]) -> str:
    """The model's size that the first recipe which says one has, else tiny."""
    return next(filter(None, (read_recipe(source).model.size for source in sources)), "tiny")


def recovery_recipe(name: str, dense: Path, overrides: Sequence[str | Override]) -> Recipe:
    """A recipe made to start from a trained dense model: of its sizes and vocabulary, trained on for as long.

    The rate is held, the weights of the second half are averaged, the largest non-zeros of all matrices stay, and there
    is half of the dropout. A recipe's file that says how to train, or which dropout to have, is followed.
    """
    if not dense.is_dir():
        raise InputError(f"there is no model folder at {dense}; name the folder of a trained dense model")
    trained = dense / "recipe.yaml"
    if not trained.exists():
        raise InputError(f"{dense} has no recipe.yaml, so nothing says how it was trained; compress a model of `train`")
    before, asked = read_recipe(trained), read_recipe(name, overrides)
    model = before.model.model_dump(exclude={"joint"}, exclude_none=True)
    own = {key for key in written_keys(name) if key.startswith("training.") or key == "model.dropout"}
    held = asked.method != "dense" and own.isdisjoint(f"training.{key}" for key in (*_FALL, "average_from"))
    training = before.training.model_dump(include={*_RECOVERY, *(() if held else _FALL)}) | (_HELD if held else {})
    if asked.method != "dense":
        model["dropout"] *= _DROPOUT
        if not asked.in_banks:  # a bank has as many as were planned for it
            training["sparsify.allocation"] = "global"
    ramp = {"training.sparsify.begin", "training.sparsify.end"}
    if ramp & own or asked.training.sparsify.begin > RECOVERY_PRUNED:  # of a ramp that is given, no part is ours
        own.add("training.sparsify.end")
    theirs = {f"model.{key}": value for key, value in model.items()}
    theirs |= {f"training.{key}": value for key, value in training.items()}
    theirs |= {f"tokenizer.{key}": value for key, value in before.tokenizer.model_dump().items()}
    kept = [Override(key, value, str(trained)) for key, value in theirs.items() if key not in own]
    return read_recipe(name, [*kept, "start=dense", *overrides])


def _dense_folder(model: str | Path) -> tuple[Path, Tokenizer]:
    folder = Path(model)
    if not folder.is_dir():
        raise InputError(f"model {str(model)!r} is neither {', '.join(SIZES)} nor a model folder")
    return folder, load_dense(folder)[1]  # refuses what cannot be started from, before any work is done


def _claim(out: Path, names: Sequence[str], *, force: bool, resume: bool) -> None:
    """All places are asked for before the first is written to."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a comparison is written as a folder, choose another place")
    if out.exists() and not (force or resume) and any(out.iterdir()):
        raise InputError(f"{out} is not empty; go on with --resume, replace with --force, or choose another place")
    for name in names:
        check_claim(Places(out / name), force=force, resume=resume)


def _bring(start_folder: Path, dense: Path, *, force: bool, resume: bool) -> None:
    """A copy of the trained dense model beside those that are made from it, whole or not at all."""
    if dense.exists() and dense.samefile(start_folder):
        return
    if resume and dense.exists():
        if (dense / CONFIG).read_bytes() != (start_folder / CONFIG).read_bytes():  # it has the others' checksums
            raise ResumeError(f"{dense} is not {start_folder}; resume with the model it was made with, or use --force")
        return
    check_place(dense, force=force)
    with written_beside(dense, replace=force) as beside:
        for name in FILES:
            if (start_folder / name).exists():
                shutil.copyfile(start_folder / name, beside / name)


def _job(name: str, recipe: Recipe, out: Path, start_folder: Path | None) -> Job:
    if start_folder is not None and name == "dense":
        return Job(name, recipe, out / name, trained=True)
    if not recipe.needs_dense:
        return Job(name, recipe, out / name)
    return Job(name, recipe, out / name, dense=out / "dense", after="dense" if start_folder is None else None)
