"""A recipe: everything that decides a run, as data. Read one with `dopant.recipes.read`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dopant.cost import Indices, Storage, Values
from dopant.models.language_model import LanguageModelConfig
from dopant.models.sizes import SIZES
from dopant.plan.methods import Options, method_named, read_structure
from dopant.plan.plan import Rule
from dopant.plan.rules import check_pattern
from dopant.plan.target import Count, Target, check_scope, parse_bytes, parse_target
from dopant.training.settings import TrainSettings

DEFAULT_TARGET = "25x"
SHORTHANDS = {"model": "size", "tokenizer": "kind"}
"""Sections that may be written as one word: `model: tiny` is `model: {size: tiny}`."""


class Section(BaseModel):
    """What a mapping of a recipe must look like: no key more, and nothing to change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _pattern(value: str) -> str:
    check_pattern(value)
    return value


def _method(value: str) -> str:
    return method_named(value).name


def _structure(value: dict[str, Any]) -> dict[str, Any]:
    read_structure(value)
    return value


def _target(value: Any) -> str | None:
    if value is None:
        return None
    parse_target(value)
    return str(value)


def _bytes(value: Any) -> int | None:
    return None if value is None else parse_bytes(value)


def _scope(value: str) -> str:
    check_scope(value)
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
MethodName = Annotated[str, AfterValidator(_method)]
StructureData = Annotated[dict[str, Any], AfterValidator(_structure)]


class ModelSettings(Section):
    """The language model; the vocabulary is the tokenizer's.

    Args:
        size: tiny, small, medium or large, whose sizes and training schedule are the defaults of all others.
        hidden, layers, dropout, init, tied: as in `LanguageModelConfig`.
        joint: keep [x; h] of an LSTM layer as one matrix; null takes what suits the method.
    """

    size: str | None = None
    hidden: int = Field(LanguageModelConfig.hidden, ge=1, le=1_000_000)
    layers: int = Field(LanguageModelConfig.layers, ge=1, le=1_000)
    dropout: float = Field(LanguageModelConfig.dropout, ge=0.0, lt=1.0)
    init: float = Field(LanguageModelConfig.init, gt=0.0, allow_inf_nan=False)
    tied: bool = LanguageModelConfig.tied
    joint: bool | None = None

    @field_validator("size")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in SIZES:
            raise ValueError(f"size {value!r} is not known; choose one of {', '.join(SIZES)}")
        return value


class TokenizerSettings(Section):
    """How text becomes token ids.

    Args:
        kind: word, character, or the path of a Hugging Face tokenizer.json.
        minimum: a word counts from so many occurrences on; null is the tokenizer's own default.
        size: at most so many tokens; null for no bound.
    """

    kind: str = Field("word", min_length=1)
    minimum: int | None = Field(None, ge=1)
    size: int | None = Field(None, ge=1)


class StorageSettings(Section):
    """How numbers are written to the file, see `dopant.cost.Storage`.

    Args:
        values, indices: of the weights that are compressed.
        others: values of all other structured weights, such as a dense embedding; null for as they are. A dense row,
            beside which nothing is compressed, is float32 in any case.
    """

    values: Values = "huffman"
    indices: Indices = "huffman"
    others: Values | None = None


class RuleSettings(Section):
    """A pattern of weights' names, and a method or structure where it is not the recipe's."""

    pattern: Pattern
    method: MethodName | None = None
    structure: StructureData | None = None


class Recipe(Section):
    """One run from text to report.

    Args:
        description: for the reader.
        corpus: `python-docs`, a folder or a file.
        tokenizer, model, storage, training: sections of their own.
        method: one of `dopant.plan.METHODS`.
        target: a factor such as 25x, or bytes such as 1.2MB; 25x if `target_bytes` is not given either.
        target_bytes: a number of bytes, or 1.2MB; instead of `target`.
        count: whether a factor is one of parameters or of bytes.
        scope: the weights meant: lstm, model, or `re:` and an expression for whole names.
        targets: patterns or rules that narrow the scope, first match wins; null for all of it.
        ignore: patterns of weights to leave alone.
        structure: a whole structure with its kind, or options of the method, such as shapes.
        start: from `scratch`, or from a trained `dense` model: fit, then recover.
        seed: of every random number of the run.
    """

    description: str = ""
    corpus: str = Field("python-docs", min_length=1)
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings = ModelSettings()
    method: MethodName = "doped-kronecker"
    target: Annotated[str | None, BeforeValidator(_target)] = None
    target_bytes: Annotated[int | None, BeforeValidator(_bytes)] = None
    count: Count = "bytes"
    scope: Annotated[str, AfterValidator(_scope)] = "lstm"
    targets: list[RuleSettings] | None = None
    ignore: list[Pattern] = []
    structure: StructureData | None = None
    start: Literal["scratch", "dense"] = "scratch"
    storage: StorageSettings = StorageSettings()
    training: TrainSettings = TrainSettings()
    seed: int = Field(0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: Any) -> Any:
        """Write shorthands in full and fill in what the model's size and the default target say."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        for section, key in SHORTHANDS.items():
            if isinstance(data.get(section), str):
                data[section] = {key: data[section]}
        model = data.get("model", {})
        size = SIZES.get(model["size"]) if isinstance(model, Mapping) and _is_text(model.get("size")) else None
        if size is not None:
            data["model"] = {**size.model, **model}
            training = data.get("training", {})
            if isinstance(training, Mapping):
                data["training"] = {**size.training, **training}
        if data.get("target") is None and data.get("target_bytes") is None:
            data["target"] = DEFAULT_TARGET
        if isinstance(data.get("targets"), list):
            data["targets"] = [{"pattern": t} if isinstance(t, str) else t for t in data["targets"]]
        return data

    @field_validator("target_bytes")
    @classmethod
    def _one_target(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("target") is not None:
            raise ValueError(f"target {info.data['target']} is given too; give one of target and target_bytes")
        return value

    @field_validator("structure")
    @classmethod
    def _options_of_the_method(cls, value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        structure = read_structure(value)
        if isinstance(structure, Options) and "method" in info.data:
            method_named(info.data["method"]).check_options(structure)
        return value

    @model_validator(mode="after")
    def _banks_are_planned(self) -> Recipe:
        if self.training.sparsify.allocation == "global" and self.in_banks:
            raise ValueError(
                "structure.per_bank spreads as many non-zeros as were planned, and training.sparsify.allocation is "
                "global; give one of them"
            )
        return self

    @property
    def joint(self) -> bool:
        """Whether the LSTM is to keep [x; h] as one matrix: as given, else as every method of the recipe wants."""
        if self.model.joint is not None:
            return self.model.joint
        methods = {self.method, *(rule.method for rule in self.targets or () if rule.method is not None)}
        return all(method_named(name).joint for name in methods)

    @property
    def prunes(self) -> bool:
        """Whether its method has non-zeros that are pruned in training: an overlay, or a pruned matrix."""
        return self.method == "pruning" or self.method.startswith("doped-")

    @property
    def in_banks(self) -> bool:
        """Whether any of its structures has as many non-zeros in each bank as were planned."""
        return any(map(_spreads, [self.structure, *(rule.structure for rule in self.targets or ())]))

    @property
    def needs_dense(self) -> bool:
        """Whether a trained dense model is needed, to start from it or to learn from its predictions."""
        return self.start == "dense" or self.training.distillation.weight > 0.0

    def config(self, vocabulary: int) -> LanguageModelConfig:
        """The language model's sizes for a tokenizer of `vocabulary` ids."""
        return LanguageModelConfig(vocabulary, joint=self.joint, **self.model.model_dump(exclude={"size", "joint"}))

    def plan_target(self) -> Target:
        """The target with what is counted and where."""
        if self.target_bytes is not None:
            return Target(bytes=self.target_bytes, scope=self.scope)
        return parse_target(self.target or DEFAULT_TARGET, self.count, self.scope)

    def plan_arguments(self) -> dict[str, Any]:
        """What `make_plan` takes beside the model."""
        rules = self.targets
        return {
            "method": self.method,
            "target": self.plan_target(),
            "storage": Storage(self.storage.values, self.storage.indices),
            "others": self.storage.others,
            "targets": None if rules is None else [Rule(r.pattern, r.method, r.structure) for r in rules],
            "ignore": self.ignore,
            "structure": self.structure,
        }


def _spreads(structure: Any) -> bool:
    """Whether a structure, or one within it, has its non-zeros in banks."""
    return isinstance(structure, Mapping) and bool(structure.get("per_bank") or any(map(_spreads, structure.values())))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
