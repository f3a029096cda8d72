"""Recipes from files, overridden by `a.b=c`; all mistakes are told at once, each with its place."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dopant.errors import RecipeError, did_you_mean
from dopant.recipes.overrides import Override
from dopant.recipes.schema import SHORTHANDS, Recipe
from dopant.recipes.text import MAX_CHARACTERS, Document, KeyPath, Mistake, dotted, read_yaml, write_yaml

M = TypeVar("M", bound=BaseModel)


def read_recipe(path: str | Path, overrides: Sequence[str | Override] = ()) -> Recipe:
    """The recipe in a file, or the shipped one of this name (see `shipped_recipes`).

    Args:
        path: a YAML file.
        overrides: "training.epochs=3" and the like, each with a value in YAML; or with a value and a name of its own.

    Raises:
        RecipeError: the file cannot be read, or the recipe has mistakes; all of them are listed with their places.
    """
    text, name = _text(path)
    return recipe_from_text(text, overrides, name)


def written_keys(path: str | Path) -> set[str]:
    """The keys, such as "training.epochs", that a recipe's file says itself and does not leave to defaults.

    Raises:
        RecipeError: the file cannot be read.
    """
    return {dotted(key) for key in read_yaml(*_text(path)).lines}


def recipe_from_text(text: str, overrides: Sequence[str | Override] = (), name: str = "recipe") -> Recipe:
    """The recipe in a text, called `name` in messages.

    Raises:
        RecipeError: the recipe has mistakes.
    """
    document = read_yaml(text, name)
    if document.data is None and not document.mistakes:
        document.mistake(0, (), "the recipe is empty; write at least a method or a model")
    return checked(Recipe, document, overrides)


def recipe_from(data: Mapping[str, Any], overrides: Sequence[str | Override] = (), name: str = "recipe") -> Recipe:
    """The recipe of a mapping such as command-line flags make.

    Raises:
        RecipeError: the recipe has mistakes.
    """
    return checked(Recipe, Document(name, _copied(data)), overrides)


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with every default written out; reading it gives an equal recipe."""
    return write_yaml(recipe.model_dump(mode="json"))


def kept_text(path: Path, recipe: Recipe, *, any_corpus: bool = False) -> str | None:
    """What a resolved recipe's file says, where that is `recipe`, be it without settings that there were not yet.

    Args:
        any_corpus: its corpus may have another name, as where something else tells one text from another.

    Returns:
        None where the file says something else, or nothing.
    """
    try:
        text = path.read_text("utf-8")
        kept = recipe_from_text(text)
        same = kept.model_copy(update={"corpus": recipe.corpus}) if any_corpus else kept
        return text if same == recipe else None
    except (OSError, ValueError, RecipeError):
        return None


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the library."""
    folder = resources.files("dopant.recipes") / "shipped"
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _text(path: str | Path) -> tuple[str, str]:
    names = shipped_recipes()
    name = str(path)
    try:
        if name in names and not Path(path).is_file():
            shipped = resources.files("dopant.recipes") / "shipped" / f"{name}.yaml"
            return shipped.read_text(encoding="utf-8"), f"{name}.yaml"
        return read_text(path), name
    except FileNotFoundError:
        way_out = did_you_mean(name, names, f"shipped recipes are {', '.join(names)}")
        raise RecipeError(f"there is no recipe {name!r}; {way_out}") from None


def read_text(path: str | Path) -> str:
    """The text of a recipe's file, or of another as small.

    Raises:
        FileNotFoundError: there is none.
        RecipeError: it cannot be read, or is no text.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError(f"recipe {name!r} cannot be read: {reason}") from None
    if len(data) > MAX_CHARACTERS:
        raise RecipeError(f"recipe {name!r} has more than {MAX_CHARACTERS:,} bytes; no recipe needs that")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"recipe {name!r} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None


def checked(kind: type[M], document: Document, overrides: Sequence[str | Override] = ()) -> M:
    """What a document says, as `kind`.

    Raises:
        RecipeError: it has mistakes; all of them are listed with their places.
    """
    places: dict[KeyPath, str] = {}
    if document.data is not None and not isinstance(document.data, dict):
        document.mistake(document.lines.get((), 0), (), "a recipe is a mapping of keys to values")
        document.data = None
    data = document.data or {}
    for override in overrides:
        _override(data, override, places, document)
    try:
        whole = kind.model_validate(data, strict=True)
    except ValidationError as error:
        if document.data is not None or places:
            found = error.errors(include_url=False)
            document.mistakes += [_mistake(details, data, places, document, kind) for details in found]
    if document.mistakes:
        raise RecipeError(_listed(sorted(set(document.mistakes)), document, {_place(o) for o in overrides}))
    return whole


def _listed(mistakes: list[Mistake], document: Document, outside: set[str]) -> str:
    """All mistakes; those from outside of the recipe are not the recipe's."""
    lines = [str(mistake) for mistake in mistakes]
    if all(mistake.place in outside for mistake in mistakes):
        return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings have mistakes:", *lines])
    counted = "a mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return "\n  ".join([f"{document.name} has {counted}:", *lines])


def _place(override: str | Override) -> str:
    return override.place if isinstance(override, Override) else f"--set {override}"


def _override(data: dict[str, Any], override: str | Override, places: dict[KeyPath, str], document: Document) -> None:
    """Put the value of an override into `data`, or note what is wrong with it."""
    place = _place(override)

    def wrong(text: str, key: KeyPath = ()) -> None:
        document.mistakes.append(Mistake(0, place, dotted(key), text))

    if isinstance(override, Override):
        path, new = tuple(override.key.split(".")), override.value
    else:
        key, equals, value = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            wrong("an override is written as key.of.key=value")
            return
        read = read_yaml(value, place)
        if read.mistakes:
            wrong(f"{read.mistakes[0].text}; put text with special characters in quotes")
            return
        new = read.data
    holder: Any = data
    walked: KeyPath = ()
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if isinstance(holder, list):
            if not part.isdecimal() or int(part) >= len(holder):
                wrong(f"the list has {len(holder)} items, numbered from 0; got {part!r}", walked)
                return
            step: str | int = int(part)
        else:
            step = part
        walked = (*walked, step)
        if last:
            holder[step] = new
        elif isinstance(holder, list) or isinstance(holder.get(step), (dict, list)):
            holder = holder[step]
        elif walked[0] in SHORTHANDS and len(walked) == 1 and isinstance(holder.get(step), str):
            holder[step] = {SHORTHANDS[str(step)]: holder[step]}
            holder = holder[step]
        elif holder.get(step) is None:
            holder[step] = {}
            holder = holder[step]
        else:
            wrong(f"is {holder[step]!r} and has no keys", walked)
            return
        if not last and not isinstance(holder, (dict, list)):
            wrong(f"is {holder!r} and has no keys", walked)
            return
    places[walked] = place


def _mistake(details: Any, data: Any, places: dict[KeyPath, str], document: Document, kind: type[BaseModel]) -> Mistake:
    """One of pydantic's errors in our words and with its place."""
    path: KeyPath = tuple(details["loc"])
    if path[-1:] == ("[key]",):
        path = path[:-1]
    text = _in_words(details, path, kind)
    # a shorthand's only key is not written down: its section is
    shown = path
    while shown and not _exists(data, shown):
        shown = shown[:-1]
    key = path if details["type"] in ("extra_forbidden", "missing") else shown or path
    for length in range(len(path), -1, -1):
        part = path[:length]
        if part in places:  # which names its own key
            return Mistake(0, places[part], "" if key == part else dotted(key), text)
        if part in document.lines:
            line = document.lines[part]
            return Mistake(line, f"{document.name}:{line}", dotted(key), text)
    return Mistake(0, document.name, dotted(key), text)


def _in_words(details: Any, path: KeyPath, root: type[BaseModel]) -> str:
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return "; ".join(filter(None, ["unknown key", _nearest_key(path, root)]))
    if kind == "missing":
        return "is missing"
    message = str(details["msg"])
    if kind == "value_error":
        return message.removeprefix("Value error, ").removeprefix(f"{path[-1]}: " if path else "")
    text = message[:1].lower() + message[1:]
    shown = repr(value)[:80]
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        options = [part.strip("' ") for part in details["ctx"]["expected"].replace(" or ", ", ").split(",")]
        hint = did_you_mean(value, options)
    return "; ".join(filter(None, [f"{text}, got {shown}", hint]))


def _nearest_key(path: KeyPath, root: type[BaseModel]) -> str:
    *parents, key = path
    section = _section_at(parents, root)
    siblings = list(section.model_fields) if section is not None else []
    elsewhere = [dotted(p) for p in _keys(root, ()) if p[-1] == key]
    if elsewhere and not did_you_mean(key, siblings):
        return f"did you mean {elsewhere[0]!r}?"
    return did_you_mean(key, siblings, f"known are {', '.join(siblings)}" if siblings else "")


def _section_at(path: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = root
    for step in path:
        if isinstance(step, int):
            continue
        known = section.model_fields.get(step) if section is not None else None
        section = None if known is None else _section_in(known.annotation)
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, types.UnionType):
        found = (_section_in(argument) for argument in get_args(annotation))
        return next((section for section in found if section is not None), None)
    return None


def _keys(section: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
    for name, known in section.model_fields.items():
        yield (*path, name)
        inner = _section_in(known.annotation)
        if inner is not None and get_origin(known.annotation) is None:
            yield from _keys(inner, (*path, name))


def _exists(data: Any, path: KeyPath) -> bool:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _copied(data: Any) -> Any:
    """Mappings and sequences as new dicts and lists, so that overrides do not reach into the caller's."""
    if isinstance(data, Mapping):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(value) for value in data] if isinstance(data, (list, tuple)) else data
