from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import dopant.recipes.setting as module
from dopant.cost import Storage
from dopant.data import Corpus, make_corpus, make_tokenizer
from dopant.errors import FileError, InputError
from dopant.layers import slots
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan import Plan, apply_plan, make_plan
from dopant.recipes.read import resolved_yaml
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import encode, evaluation_batch, load_dense, load_with_tokenizer, make_setting, rejoined
from dopant.storage.folder import save

Tiny = Callable[..., Recipe]
LEARNS = {"distillation": {"weight": 0.5}}


def fingerprint(recipe: Recipe, corpus: Corpus, dense: Path | None = None) -> str:
    return make_setting(recipe, corpus, dense).fingerprint(resolved_yaml(recipe))


def test_every_split_is_read_with_the_vocabulary_of_train(corpus: Corpus) -> None:
    odd = make_corpus("odd", corpus.train, "a zebra sees\n", "the dog\n")
    tokenizer = make_tokenizer("word", odd)
    texts = encode(odd, tokenizer)
    assert tokenizer.decode(texts.valid.tolist()) == "a <unk> sees\n"
    assert (len(texts.train), len(texts.valid), len(texts.test)) == (720, 4, 3)
    assert texts.train.dtype == torch.int64


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_of_one_token_is_refused(split: str, corpus: Corpus) -> None:
    texts = {name: corpus.split(name) for name in ("train", "valid", "test")}
    short = make_corpus("short", **{**texts, split: "word"})
    with pytest.raises(InputError, match=f"the {split} split of short has 1 token; 2 or more are needed"):
        encode(short, make_tokenizer("word", corpus))


@pytest.mark.parametrize(
    ("batch", "unroll", "ways"),
    [
        (4, 180, "take training.unroll=179 or training.batch=3 or more text"),
        (500, 5, "take training.batch=120 or more text"),
        (300, 800, "take training.unroll=1 or more text"),
        (500, 720, "take more text"),
    ],
)
def test_a_text_too_short_to_train_on_is_told_with_what_would_do(
    batch: int, unroll: int, ways: str, corpus: Corpus
) -> None:
    texts = encode(corpus, make_tokenizer("word", corpus))
    needed = f"need {batch * (unroll + 1):,} or more, {unroll + 1} for each of {batch} streams; {ways}"
    with pytest.raises(InputError) as error:
        texts.columns(batch, unroll)
    start = "the train split of made-up has 720 tokens; "
    assert str(error.value) == f"{start}training.batch {batch} and training.unroll {unroll} {needed}"
    for way in re.findall(r"training\.(\w+)=(\d+)", ways):
        changed = {"batch": batch, "unroll": unroll, way[0]: int(way[1])}
        assert texts.columns(**changed).shape[0] > changed["unroll"]
        with pytest.raises(InputError):
            texts.columns(**{**changed, way[0]: int(way[1]) + 1})


def test_short_texts_are_cut_into_fewer_streams() -> None:
    assert [evaluation_batch("valid", tokens) for tokens in (2, 39, 40, 10_000)] == [1, 19, 20, 20]
    assert [evaluation_batch("test", tokens) for tokens in (2, 10_000)] == [1, 1]


def test_the_fingerprint_tells_runs_apart(tiny: Tiny, corpus: Corpus, dense_folder: Path, tmp_path: Path) -> None:
    run_recipe(tiny("dense", seed=5), corpus, tmp_path / "other")
    text = make_corpus("made-up", corpus.train, corpus.valid, corpus.test + "a cat is water\n")
    moved = make_corpus("made-up", corpus.train, corpus.test, corpus.valid)
    found = [
        fingerprint(tiny("lmf"), corpus),
        fingerprint(tiny("hmd"), corpus),
        fingerprint(tiny("lmf", seed=1), corpus),
        fingerprint(tiny("lmf", description="another"), corpus),
        fingerprint(tiny("lmf", tokenizer="character"), corpus),
        fingerprint(tiny("lmf"), text),
        fingerprint(tiny("lmf"), moved),
        fingerprint(tiny("lmf", training=LEARNS), corpus, dense_folder),
        fingerprint(tiny("lmf", training=LEARNS), corpus, tmp_path / "other"),
        fingerprint(tiny("lmf", start="dense"), corpus, dense_folder),
        fingerprint(tiny("lmf", start="dense"), corpus, tmp_path / "other"),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(tiny("lmf"), corpus) == found[0]
    assert fingerprint(tiny("lmf", training=LEARNS), corpus, dense_folder) == found[7]


@pytest.mark.parametrize("method", ["hmf", "hmd"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_dense_model_is_opened_in_the_layout_of_the_method(
    joint: bool, method: str, tiny: Tiny, corpus: Corpus, tmp_path: Path
) -> None:
    """Its function stays; hmf has x and h apart, hmd has them in one, whichever way the dense model was trained."""
    model = {"hidden": 16, "layers": 2, "joint": joint}
    run_recipe(tiny("dense", model=model), corpus, tmp_path / "dense")
    setting = make_setting(tiny(method, start="dense"), corpus, tmp_path / "dense")
    names = [slot.name for slot in slots(setting.model)]
    assert ("lstm.weight_hh_l1" in names) is (method == "hmf")
    assert ("lstm.weight_l1" in names) is (method == "hmd")
    dense, _ = load_dense(tmp_path / "dense")
    tokens = setting.texts.test[:20].view(10, 2)
    expected, state = dense.eval()(tokens)
    logits, own = setting.model.eval()(tokens)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(own, state)
    assert setting.teacher is None


@pytest.mark.parametrize("method", ["lmf", "hmf"])
def test_weights_outside_the_plan_are_stored_as_the_dense_model_s(
    method: str, tiny: Tiny, corpus: Corpus, dense_folder: Path, tmp_path: Path
) -> None:
    """Whether or not the method has [x; h] as the dense model has it."""
    dense, tokenizer = load_dense(dense_folder)
    folder = save(tmp_path / "halves", dense, storage=Storage("float16"), tokenizer=tokenizer)
    recipe = tiny(method, target="1.5x", start="dense")
    for plan in (make_setting(recipe, corpus, folder).plan, plan_of(folder, recipe)):
        stored = {weight.name: weight.cost.stored_bytes / weight.cost.parameters for weight in plan.weights}
        assert (stored["embedding.weight"], stored["decoder.weight"]) == (2.0, 2.0)


def plan_of(folder: Path, recipe: Recipe) -> Plan:
    return make_plan(rejoined(load_dense(folder)[0], recipe.joint), **recipe.plan_arguments())


def test_what_is_compressed_is_not_rejoined() -> None:
    model = LanguageModel(LanguageModelConfig(30, 8))
    apply_plan(model, make_plan(model, target="2x", method="lmf"))
    assert rejoined(model, joint=True) is model
    with pytest.raises(InputError, match=r"keeps x and h apart, .* lstm\.weight_l0 is compressed already"):
        rejoined(model, joint=False)


def test_what_starts_from_dense_has_the_dropout_of_its_own_recipe(
    tiny: Tiny, corpus: Corpus, dense_folder: Path
) -> None:
    setting = make_setting(tiny("lmf", start="dense", model={"hidden": 16, "dropout": 0.25}), corpus, dense_folder)
    assert setting.model.config.dropout == 0.25
    assert load_dense(dense_folder)[0].config.dropout == 0.0


def test_a_teacher_is_a_copy_of_its_own(tiny: Tiny, corpus: Corpus, dense_folder: Path) -> None:
    setting = make_setting(tiny("lmf", start="dense", training=LEARNS), corpus, dense_folder)
    assert setting.teacher is not None
    shared = {p.data_ptr() for p in setting.teacher.parameters()} & {p.data_ptr() for p in setting.model.parameters()}
    assert not shared


def test_the_dense_model_brings_its_vocabulary(tiny: Tiny, corpus: Corpus, dense_folder: Path) -> None:
    other = make_corpus("other", "x y z\n" * 50, "x\n", "a zebra\n")
    setting = make_setting(tiny("lmf", start="dense"), other, dense_folder)
    assert setting.texts.tokenizer.size == 21
    assert setting.texts.tokenizer.decode(setting.texts.test.tolist()) == "a <unk>\n"


def test_the_plan_is_for_the_storage_asked_for(tiny: Tiny, corpus: Corpus) -> None:
    for others in (None, "float16"):
        setting = make_setting(tiny("lmf", storage={"values": "int8", "others": others}), corpus)
        storages = setting.plan.storages()
        assert storages["lstm.weight_l0"] == Storage("int8", "huffman")
        assert storages["embedding.weight"] == Storage(others or "float32")


def test_folders_that_cannot_be_started_from(tiny: Tiny, corpus: Corpus, dense_folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "mute", LanguageModel(LanguageModelConfig(21, 16)))
    with pytest.raises(FileError, match=r"has no tokenizer\.json, so no text can be read with it"):
        load_with_tokenizer(tmp_path / "mute")
    tokenizer = make_tokenizer("word", corpus)
    save(tmp_path / "odd", LanguageModel(LanguageModelConfig(22, 16)), tokenizer=tokenizer)
    with pytest.raises(FileError, match="the tokenizer has 21 ids, the model 22; they belong to different models"):
        load_with_tokenizer(tmp_path / "odd")
    with pytest.raises(FileError):
        make_setting(tiny("lmf", start="dense"), corpus, tmp_path / "nowhere")
    shutil.copytree(dense_folder, tmp_path / "altered")
    config = json.loads((tmp_path / "altered" / "config.json").read_text())
    (tmp_path / "altered" / "config.json").write_text(json.dumps(config)[:-5])
    with pytest.raises(FileError, match=rf"^{re.escape(str(tmp_path / 'altered'))}: config\.json is not valid JSON"):
        make_setting(tiny("lmf", start="dense"), corpus, tmp_path / "altered")

    class Odd:
        def to_json(self) -> dict[str, str]:
            return {"kind": "word"}

    odd = save(tmp_path / "odder", LanguageModel(LanguageModelConfig(22, 16)), tokenizer=Odd())
    with pytest.raises(FileError, match=rf"^{re.escape(str(odd / 'tokenizer.json'))}: word tokenizer lacks vocabulary"):
        load_with_tokenizer(odd)


@pytest.mark.parametrize(
    ("model", "message"), [({"hidden": 8}, "has hidden 16, the recipe's hidden is 8"), ({"tied": True}, "tied")]
)
def test_a_dense_model_of_other_sizes_is_refused(
    model: dict[str, Any], message: str, tiny: Tiny, corpus: Corpus, dense_folder: Path
) -> None:
    recipe = tiny("lmf", start="dense", model={"hidden": 16, "layers": 2, **model})
    with pytest.raises(InputError, match=message):
        make_setting(recipe, corpus, dense_folder)


@pytest.mark.parametrize(
    "structure",
    [
        {"kind": "stacked", "rows": [32, 32], "parts": [{"kind": "sparse", "nonzeros": 9}] * 2},
        {
            "kind": "doped",
            "base": {
                "kind": "stacked",
                "rows": [32, 32],
                "parts": [{"kind": "dense"}, {"kind": "sparse", "nonzeros": 9}],
            },
            "overlay": {"kind": "sparse", "nonzeros": 9},
        },
    ],
)
def test_non_zeros_that_training_would_leave_where_they_are_are_refused(
    structure: dict[str, Any], tiny: Tiny, corpus: Corpus
) -> None:
    with pytest.raises(InputError, match=r"weight_l0 has a sparse part within a stacked structure.*doped as a whole"):
        make_setting(tiny("doped-kronecker", target="1.5x", structure=structure), corpus)


def test_a_dense_model_that_nothing_is_done_with_is_refused(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"from scratch on the text alone, and .* is named to start or learn from"):
        make_setting(tiny("lmf"), corpus, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("theirs", "ours", "way_out"),
    [
        ("huggingface", "word", "set tokenizer.kind=the path of its tokenizer.json"),
        ("character", "word", "set tokenizer.kind=character"),
        ("word", "tokenizer.json", "set tokenizer.kind=word"),
    ],
)
def test_a_dense_model_with_a_tokenizer_of_another_kind_is_refused(
    theirs: str,
    ours: str,
    way_out: str,
    tiny: Tiny,
    corpus: Corpus,
    dense_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "load_dense", lambda folder: (None, SimpleNamespace(kind=theirs)))
    message = f"reads text by a {theirs} tokenizer, the recipe's is {ours}; {way_out}, or name another"
    with pytest.raises(InputError, match=re.escape(message)):
        make_setting(tiny("lmf", start="dense", tokenizer=ours), corpus, dense_folder)
