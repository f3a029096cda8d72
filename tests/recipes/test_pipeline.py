from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dopant
from dopant.data import Corpus
from dopant.errors import FileError, InputError, RecipeError
from dopant.recipes.pipeline import compare, compress, evaluate, generate, train
from dopant.recipes.read import read_recipe, resolved_yaml
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.setting import load_with_tokenizer
from dopant.reporting.report import Distillation, Report, read_report
from dopant.storage import save

Tiny = Callable[..., Recipe]


def test_a_recipe_a_file_and_a_shipped_name_with_overrides_are_the_same_run(
    tiny: Tiny, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    recipe = tiny("lmf")
    (tmp_path / "mine.yaml").write_text(resolved_yaml(recipe))
    overrides = ["model={hidden: 16, layers: 2, init: 0.2}", "storage.values=float32"]
    overrides += [f"training={recipe.training.model_dump_json()}"]
    train(recipe, corpus, out=tmp_path / "a")
    train(tmp_path / "mine.yaml", corpus_folder, out=tmp_path / "b")
    overrides += [f"storage.values={recipe.storage.values}"]
    train("lmf", corpus, out=tmp_path / "c", target="5x", count="parameters", scope="lstm", seed=0, overrides=overrides)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]


def test_the_recipe_s_own_corpus_is_read(tiny: Tiny, corpus_folder: Path, tmp_path: Path) -> None:
    report = train(tiny("lmf", corpus=str(corpus_folder)), out=tmp_path / "m")
    assert report.protocol.source["path"] == str(corpus_folder)


def test_the_corpus_that_is_read_is_named_beside_the_model(
    tiny: Tiny, corpus_folder: Path, dense_folder: Path, tmp_path: Path
) -> None:
    """By another path it is the same text, and a run of it can be gone on with."""
    out, small = tmp_path / "m", tmp_path / "small"
    train(tiny("lmf", corpus="nowhere"), corpus_folder, out=out)
    assert read_recipe(out / "recipe.yaml").corpus == str(corpus_folder)
    compress(dense_folder, corpus_folder, out=small, method="lmf", target="1.5x")
    assert read_recipe(small / "recipe.yaml").corpus == str(corpus_folder)
    before = (out / "recipe.yaml").read_text()
    train(tiny("lmf", corpus="nowhere"), f"{corpus_folder}/../{corpus_folder.name}", out=out, resume=True)
    assert (out / "recipe.yaml").read_text() == before


def test_mistakes_are_told(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="overrides belong to a recipe that is read"):
        train(tiny("lmf"), corpus, out=tmp_path / "m", overrides=["seed=1"])
    with pytest.raises(InputError, match="overrides belong to a recipe that is read"):
        train(tiny("lmf"), corpus, out=tmp_path / "m", target="2x")
    with pytest.raises(RecipeError, match=r"^target=0\.5: target 0\.5x is below 1x"):
        train("lmf", corpus, out=tmp_path / "m", target=0.5)
    with pytest.raises(RecipeError, match=r"^target_bytes='few': 'few' is no number of bytes"):
        compare(corpus, out=tmp_path / "m", target_bytes="few")
    with pytest.raises(RecipeError, match="there is no recipe 'lfm'; did you mean 'lmf'"):
        train("lfm", corpus, out=tmp_path / "m")
    with pytest.raises(InputError, match="there is no corpus"):
        train(tiny("lmf"), tmp_path / "nowhere", out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_threads_are_set_or_left(tiny: Tiny, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for number, threads in enumerate((None, 3, 1)):
        train(tiny("lmf"), corpus, out=tmp_path / str(number), threads=threads)
    before = torch.get_num_threads()
    assert asked == [before, 3, before, 1, before]  # put back each time


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_evaluation_is_of_the_files_alone(
    split: str, corpus: Corpus, corpus_folder: Path, dense_run: tuple[Path, Report]
) -> None:
    folder, report = dense_run
    found = evaluate(folder, corpus_folder, split, command=["evaluate"])
    row = report.rows[0]
    if split != "train":
        trained = row.perplexity_valid if split == "valid" else row.perplexity_test
        assert found.perplexity == pytest.approx(trained, rel=1e-6)  # torch's sums there, the runtime's here
    data = json.loads(json.dumps(found.to_dict()))
    assert data["split"] == split
    expected = {"checksum": corpus.checksum, "vocabulary": 21, "command": "dopant evaluate", "state_carried": True}
    assert expected.items() <= data["protocol"].items()
    assert data["protocol"]["tokens"] == {"train": 720, "valid": 150, "test": 150}[split]
    assert data["protocol"]["batch"] == (1 if split == "test" else 20)


def test_an_unknown_split_is_refused(corpus: Corpus, dense_folder: Path) -> None:
    with pytest.raises(InputError, match="split 'tset' is not known; choose train, valid or test"):
        evaluate(dense_folder, corpus, "tset")


def test_compress_fits_recovers_and_compares(corpus: Corpus, dense_run: tuple[Path, Report], tmp_path: Path) -> None:
    folder, dense = dense_run
    how = {"method": "pruning", "target": "1.5x", "count": "parameters", "distill": 0.5}
    rate = ["training.learning_rate=0.1"]
    report = compress(folder, corpus, out=f"{tmp_path}/m/", overrides=rate, command=["compress"], **how)  # type: ignore[arg-type]
    (row,) = report.rows
    assert dense.rows[0].perplexity_test is not None
    assert row.perplexity_test is not None
    expected = 100 * (row.perplexity_test / dense.rows[0].perplexity_test - 1)
    assert row.loss_percent == pytest.approx(expected, abs=1e-4)
    assert abs(row.loss_percent) < 15
    assert row.label == "Magnitude pruning, averaged, pruned globally, fit to dense, distilled 0.5"
    assert report.protocol.start == "dense"
    assert report.protocol.distillation == Distillation(weight=0.5, temperature=1.0)
    assert dense.protocol.distillation is None
    assert read_report(tmp_path / "m.run" / "report.json") == report
    assert {path.name for path in tmp_path.iterdir()} == {"m", "m.run"}
    assert compress(folder, corpus, out=tmp_path / "m", overrides=rate, resume=True, **how) == report  # type: ignore[arg-type]


def test_without_a_corpus_that_of_the_trained_model_is_read(
    tiny: Callable[..., Recipe], corpus_folder: Path, tmp_path: Path
) -> None:
    text, dense = tmp_path / "text", tmp_path / "dense"
    shutil.copytree(corpus_folder, text)
    checksum = train(tiny(), text, out=dense).protocol.checksum
    how: dict[str, Any] = {"target": "1.5x", "count": "parameters"}
    assert compress(dense, out=tmp_path / "m", method="lmf", **how).protocol.checksum == checksum
    assert evaluate(tmp_path / "m").protocol["checksum"] == checksum
    report = compare(model=dense, methods=["lmf"], out=tmp_path / "both", jobs=1, **how)
    assert report.protocol.checksum == checksum
    text.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"no corpus is named, and that of .*dense is not here: there is no corpus"):
        evaluate(dense)
    model, tokenizer = load_with_tokenizer(dense)
    save(tmp_path / "bare", model, tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"has no recipe\.yaml that would say which text it is of; name a corpus"):
        evaluate(tmp_path / "bare")


def test_training_leaves_torch_as_it_was(tiny: Callable[..., Recipe], corpus: Corpus, tmp_path: Path) -> None:
    """Its threads and its random numbers: a notebook goes on after a training."""
    before = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(tiny("lmf"), corpus, out=tmp_path / "m", threads=before + 1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(InputError, match="exists"):
        train(tiny("lmf"), corpus, out=tmp_path / "m", threads=before + 1)
    assert torch.get_num_threads() == before


def test_what_cannot_be_compressed_is_refused(corpus: Corpus, dense_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model folder at"):
        compress(tmp_path / "nowhere", corpus, out=tmp_path / "m")
    with pytest.raises(RecipeError, match=r"distill=1\.5: input should be less"):
        compress(dense_folder, corpus, out=tmp_path / "m", distill=1.5)
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_never_written_over_by_its_own_compression(corpus: Corpus, dense_folder: Path) -> None:
    with pytest.raises(
        InputError, match="is the model to be started or learnt from; write the result to another folder"
    ):
        compress(dense_folder, corpus, out=dense_folder, target="4x", force=True)
    with pytest.raises(InputError, match="is the model to be started or learnt from"):
        train("lmf", corpus, out=dense_folder, dense=dense_folder, overrides=["start=dense"], force=True)
    assert evaluate(dense_folder, corpus).perplexity > 1.0


def test_generation_is_the_seed_s(dense_folder: Path) -> None:
    one, same, other = (generate(dense_folder, "the dog", 12, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.text != other.text
    assert one.whole.startswith("the dog")
    assert generate(dense_folder, "the zebra likes a zebra", 1).unknown_words == ["zebra"]
    assert generate(dense_folder, "", 5, temperature=0.0).text


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_impossible_seeds_are_refused(dense_folder: Path, seed: int) -> None:
    with pytest.raises(InputError, match="seed must be a whole number from 0 to below"):
        generate(dense_folder, seed=seed)


def test_folders_that_are_no_models_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    for ask in (lambda: generate(tmp_path, "a"), lambda: evaluate(tmp_path, corpus)):
        with pytest.raises(FileError):
            ask()


def test_the_package_offers_them_all(tiny: Tiny, corpus: Corpus, tmp_path: Path) -> None:
    report = dopant.train(tiny("lmf"), corpus, out=tmp_path / "m")
    found = dopant.evaluate(tmp_path / "m", corpus).perplexity
    assert found == pytest.approx(report.rows[0].perplexity_test, rel=1e-5)  # the report has torch
    assert dopant.generate(tmp_path / "m", "a cat", 3) == generate(tmp_path / "m", "a cat", 3)
    assert run_recipe(tiny("lmf"), corpus, tmp_path / "m", resume=True) == report


def test_several_reports_need_a_place_for_the_one_they_are_joined_into() -> None:
    with pytest.raises(InputError, match="2 reports are joined into a new one"):
        dopant.report("a", "b")
