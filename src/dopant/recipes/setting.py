"""From a recipe and a text to everything that training needs: tokenizer, ids, model, plan. Nothing is trained here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dopant.data import SPLITS, Corpus, Tokenizer, batchify, make_tokenizer, read_corpus, tokenizer_from
from dopant.data.corpus import PYTHON_DOCS
from dopant.data.huggingface import HuggingFaceTokenizer
from dopant.data.tokenizers import TRAINED
from dopant.errors import FileError, InputError
from dopant.evaluation import perplexity
from dopant.evaluation.mode import Scorer
from dopant.layers import convert, revert, slots
from dopant.models import LanguageModel
from dopant.plan.plan import Plan, make_plan
from dopant.recipes.read import read_recipe
from dopant.recipes.schema import Recipe
from dopant.storage.config import RECIPE, TOKENIZER
from dopant.storage.folder import load_model
from dopant.storage.read import naming
from dopant.structures import DenseWeight
from dopant.training.overlay import check_overlays

VALID_BATCH = 20  # Zaremba et al.: the validation set in as many streams as the training set
TEST_BATCH = 1  # and the test set as one


@dataclass(frozen=True)
class Texts:
    """The splits as token ids (tokens,), with what they came from."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: Tensor
    valid: Tensor
    test: Tensor

    def perplexity(self, model: Scorer, split: str) -> float:
        """Perplexity on a split: validation in 20 streams, test in one, the state carried."""
        ids = getattr(self, split)
        return perplexity(model, batchify(ids, evaluation_batch(split, len(ids))))

    def perplexity_of_a_sample(self, model: Scorer) -> float:
        """Perplexity on as many tokens of the training split as the validation split has, from 20 places of it."""
        streams = evaluation_batch("valid", min(len(self.train), len(self.valid)))
        return perplexity(model, batchify(self.train, streams)[: max(2, len(self.valid) // streams)])

    def columns(self, batch: int, unroll: int) -> Tensor:
        """The training split as columns (steps, batch), long enough for one window of `unroll` steps or more.

        Raises:
            InputError: it is too short for that.
        """
        tokens, needed = len(self.train), batch * (unroll + 1)
        if tokens < needed:
            ways = [f"training.unroll={tokens // batch - 1}"] * (tokens >= 2 * batch)
            ways += [f"training.batch={tokens // (unroll + 1)}"] * (tokens > unroll)
            raise InputError(
                f"the train split of {self.corpus.name} has {tokens:,} tokens; training.batch {batch} and "
                f"training.unroll {unroll} need {needed:,} or more, {unroll + 1} for each of {batch} streams; "
                f"take {' or '.join([*ways, 'more text'])}"
            )
        return batchify(self.train, batch)


def evaluation_batch(split: str, tokens: int) -> int:
    """Streams that a split is cut into, fewer of them where a short text has not two tokens for each."""
    return min(TEST_BATCH if split == "test" else VALID_BATCH, tokens // 2)


def encode(corpus: Corpus, tokenizer: Tokenizer) -> Texts:
    """Every split of a corpus as ids.

    Raises:
        InputError: a split has no token to predict.
    """
    splits = {split: torch.as_tensor(tokenizer.encode(corpus.split(split))) for split in SPLITS}
    for split, ids in splits.items():
        if len(ids) < 2:
            raise InputError(
                f"the {split} split of {corpus.name} has {len(ids)} token{'s' * (len(ids) != 1)}; "
                "2 or more are needed, one to read and one to predict"
            )
    return Texts(corpus, tokenizer, **splits)


@dataclass(frozen=True)
class Setting:
    """Where training starts from.

    Args:
        texts: what is read.
        model: dense, random or trained before.
        teacher: a second copy of the trained dense model, if the recipe distils.
        plan: what the weights are to become.
    """

    texts: Texts
    model: LanguageModel
    teacher: LanguageModel | None
    plan: Plan

    def fingerprint(self, recipe_text: str) -> str:
        """Tells this run from every other: recipe, text, vocabulary, plan, and the weights it starts or learns from."""
        parts = [
            recipe_text,
            self.texts.corpus.checksum,
            json.dumps(self.texts.tokenizer.to_json(), sort_keys=True),
            self.plan.fingerprint,
            *(_digest(tensor) for _, tensor in sorted(self.model.state_dict().items())),
        ]
        if self.teacher is not None:
            parts += [_digest(tensor) for _, tensor in sorted(self.teacher.state_dict().items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_setting(recipe: Recipe, corpus: Corpus, dense: str | Path | None = None) -> Setting:
    """Resolve a recipe on a text.

    Args:
        recipe: what to do.
        corpus: on what.
        dense: folder of a trained dense model: needed to start from it or to distil, and it brings the vocabulary.

    Raises:
        InputError: the recipe needs a dense model and none is given, or has no use for the one given; or that is not
            dense, has a tokenizer of another kind or, to be started from, other sizes; or a structure is asked for
            that training cannot anneal.
        PlanError: the target cannot be met.
    """
    distils = recipe.training.distillation.weight > 0.0
    from_dense = recipe.start == "dense"
    if recipe.needs_dense and dense is None:
        raise InputError(
            f"this recipe {'starts from' if from_dense else 'learns from'} a trained dense model; name its folder, "
            "or set start to scratch and training.distillation.weight to 0"
        )
    if dense is not None and not recipe.needs_dense:
        raise InputError(
            f"this recipe trains from scratch on the text alone, and {dense} is named to start or learn from; leave it "
            "out, or set start to dense or training.distillation.weight above 0"
        )
    teacher = None if dense is None else load_dense(dense)
    tokenizer = new_tokenizer(recipe, corpus) if teacher is None else teacher[1]
    wanted = recipe.tokenizer.kind if recipe.tokenizer.kind in TRAINED else HuggingFaceTokenizer.kind
    if tokenizer.kind != wanted:
        kind = tokenizer.kind if tokenizer.kind in TRAINED else "the path of its tokenizer.json"
        raise InputError(
            f"the dense model reads text by a {tokenizer.kind} tokenizer, the recipe's is {recipe.tokenizer.kind}; "
            f"set tokenizer.kind={kind}, or name another dense model"
        )
    texts = encode(corpus, tokenizer)
    torch.manual_seed(recipe.seed)
    if teacher is not None and from_dense:
        model = _opened(teacher[0], recipe)
    else:
        model = LanguageModel(recipe.config(tokenizer.size))
    plan = make_plan(model, **recipe.plan_arguments())
    check_overlays({weight.name: weight.structure for weight in plan.weights if weight.method is not None})
    return Setting(
        texts=texts,
        model=model,
        teacher=teacher[0] if teacher is not None and distils else None,
        plan=plan,
    )


def take_setting(recipe: Recipe, corpus: Corpus, folder: str | Path) -> Setting:
    """The setting of a recipe whose weights are those of a model that is trained already, and only stored otherwise.

    Args:
        folder: the model, of a recipe that differs in storage alone.

    Raises:
        FileError: it cannot be read.
    """
    model, tokenizer = load_with_tokenizer(folder)
    return Setting(encode(corpus, tokenizer), model, None, make_plan(model, **recipe.plan_arguments()))


def corpus_for(given: str | Path | Corpus | None, folder: str | Path | None = None) -> Corpus:
    """The text that is named; where none is, the one that a model folder's recipe names, without a folder the embedded.

    Raises:
        InputError: it cannot be read, or the folder does not say which it is.
    """
    if isinstance(given, Corpus):
        return given
    if given is not None or folder is None:
        return read_corpus(PYTHON_DOCS if given is None else given)
    recipe = Path(folder) / RECIPE
    if not recipe.is_file():
        raise InputError(f"{folder} has no {RECIPE} that would say which text it is of; name a corpus")
    try:
        return read_corpus(read_recipe(recipe).corpus)
    except InputError as error:
        raise InputError(f"no corpus is named, and that of {folder} is not here: {error}") from None


def with_corpus(recipe: Recipe, corpus: Corpus) -> Recipe:
    """The recipe with the corpus that is read, where that has a place: what lies beside a model shall name its text."""
    place = corpus.source.get("path", PYTHON_DOCS if corpus.source.get("kind") == PYTHON_DOCS else None)
    return recipe if place is None else recipe.model_copy(update={"corpus": place})


def new_tokenizer(recipe: Recipe, corpus: Corpus) -> Tokenizer:
    """The tokenizer that a recipe asks for, with the vocabulary of the text where it has none of its own.

    Raises:
        InputError: there is no such tokenizer.
    """
    wanted = recipe.tokenizer
    return make_tokenizer(wanted.kind, corpus, size=wanted.size, minimum=wanted.minimum)


def load_dense(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """A trained model all of whose weights are dense, with its tokenizer.

    Raises:
        InputError: a weight is compressed, or the folder has no tokenizer.
        FileError: the folder cannot be read.
    """
    model, tokenizer = load_with_tokenizer(folder)
    for slot in slots(model):
        if not isinstance(slot.weight, DenseWeight):
            raise InputError(
                f"{folder} is compressed already ({slot.name} is {slot.weight.structure.kind}); name a dense model"
            )
    return model, tokenizer


def load_with_tokenizer(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """A model folder's model and tokenizer.

    Raises:
        FileError: the folder cannot be read, or its tokenizer does not belong to the model.
    """
    loaded = load_model(folder)
    if loaded.tokenizer is None:
        raise FileError(f"{folder} has no tokenizer.json, so no text can be read with it")
    with naming(Path(folder) / TOKENIZER):
        tokenizer = tokenizer_from(loaded.tokenizer)
    if tokenizer.size != loaded.model.config.vocabulary:
        raise FileError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the model {loaded.model.config.vocabulary}; "
            "they belong to different models"
        )
    return loaded.model, tokenizer


def _opened(dense: LanguageModel, recipe: Recipe) -> LanguageModel:
    """A copy of a dense model with the recipe's dropout, and with [x; h] as one matrix or two as that has it."""
    joint = recipe.joint
    for name in ("hidden", "layers", "tied"):
        own, wanted = getattr(dense.config, name), getattr(recipe.model, name)
        if own != wanted:
            raise InputError(
                f"the dense model to start from has {name} {own}, the recipe's {name} is {wanted}; "
                f"set model.{name}={own}, or name another dense model"
            )
    model = LanguageModel(replace(dense.config, joint=joint, dropout=recipe.model.dropout))
    source = rejoined(dense, joint)
    model.load_state_dict(source.state_dict())
    _remember_storage(model, source)
    return model


def rejoined(model: LanguageModel, joint: bool) -> nn.Module:
    """A dense model with [x; h] of its LSTM layers as one matrix, or as two; the model itself where it is so.

    Raises:
        InputError: it is not so, and not dense.
    """
    if joint == model.config.joint:
        return model
    compressed = [slot for slot in slots(model) if not isinstance(slot.weight, DenseWeight)]
    if compressed:
        raise InputError(
            f"the method keeps x and h {'together' if joint else 'apart'}, which the model does not, and "
            f"{compressed[0].name} is compressed already; name the dense model that it was made from"
        )
    made = convert(revert(model), joint=joint)
    _remember_storage(made, model)
    return made


def _remember_storage(model: nn.Module, source: nn.Module) -> None:
    """Weights of one name are written as those of `source` are."""
    known = {slot.name: slot.weight.storage for slot in slots(source)}
    for slot in slots(model):
        slot.weight.storage = known.get(slot.name, slot.weight.storage)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
