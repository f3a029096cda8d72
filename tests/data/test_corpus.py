from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dopant.data import Corpus, batchify, make_corpus, make_tokenizer, read_corpus
from dopant.errors import InputError

PTB = Path(os.environ.get("DOPANT_PTB") or Path(__file__).parents[2] / "../shared/data/ptb")


def write(folder: Path, **splits: str) -> Path:
    for split, text in splits.items():
        (folder / f"{split}.txt").write_text(text)
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, train="a b\n", valid="a\n", test="b\n"))
    assert (corpus.train, corpus.valid, corpus.test) == ("a b\n", "a\n", "b\n")
    assert corpus.name == tmp_path.name
    assert corpus.source == {
        "kind": "folder",
        "path": str(tmp_path),
        "train": "train.txt",
        "valid": "valid.txt",
        "test": "test.txt",
    }
    splits = b"train 4\na b\nvalid 2\na\ntest 2\nb\n"
    assert corpus.checksum == hashlib.sha256(splits).hexdigest()
    assert corpus.split("valid") == "a\n"


def test_a_file_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("".join(f"line {i}\n" for i in range(200)))
    corpus = read_corpus(path)
    assert corpus == read_corpus(str(path))
    assert corpus.name == "story"
    assert corpus.source["kind"] == "file"
    assert corpus.test.startswith("line 1") or corpus.test.startswith("line 2")
    assert not set(corpus.train.splitlines()) & set(corpus.test.splitlines())


def test_the_checksum_tells_splits_apart() -> None:
    first = make_corpus("x", "a\nb\n", "c\n", "d\n")
    assert first.checksum != make_corpus("x", "a\n", "b\nc\n", "d\n").checksum
    assert first.checksum == make_corpus("y", "a\nb\n", "c\n", "d\n").checksum


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_an_empty_split_is_refused(tmp_path: Path, split: str) -> None:
    texts = {"train": "a\n", "valid": "a\n", "test": "a\n"}
    write(tmp_path, **{**texts, split: ""})
    with pytest.raises(InputError, match=rf"{split}\.txt is empty"):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match=f"the {split} split of x is empty"):
        make_corpus("x", **{**texts, split: " \n"})


def test_a_split_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train="a", valid="a")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="test is a folder; a text file is needed"):
        read_corpus(tmp_path)


def test_a_missing_path_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "shakespeare").mkdir()
    with pytest.raises(InputError) as error:
        read_corpus(tmp_path / "shakespear")
    message = str(error.value)
    assert "there is no corpus" in message
    assert "a text file, or 'python-docs'; did you mean 'shakespeare'?" in message
    with pytest.raises(InputError, match="did you mean 'python-docs'"):
        read_corpus("python-doc")
    with pytest.raises(InputError, match="no corpus given"):
        read_corpus("")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read_corpus("x" * 5000)


def test_an_unknown_split_name_is_refused() -> None:
    with pytest.raises(InputError, match="unknown split 'tset'; there are train, valid, test; did you mean"):
        make_corpus("x", "a", "a", "a").split("tset")


@pytest.fixture(scope="module")
def penn_treebank() -> Corpus:
    if not PTB.is_dir():
        pytest.skip(f"no Penn Treebank in {PTB}; name its folder in DOPANT_PTB")
    return read_corpus(PTB)


def test_penn_treebank_has_its_published_counts(penn_treebank: Corpus) -> None:
    tokenizer = make_tokenizer("word", penn_treebank)
    assert tokenizer.size == 10_000
    counts = [len(tokenizer.encode(text)) for text in (penn_treebank.train, penn_treebank.valid, penn_treebank.test)]
    assert counts == [929_589, 73_760, 82_430]
    assert tokenizer.unknown_words(penn_treebank.valid + penn_treebank.test) == []
    assert tokenizer.decode([0, 1, 2, 3]) == "the <unk>\nN"


def test_penn_treebank_has_its_published_steps(penn_treebank: Corpus) -> None:
    columns = batchify(make_tokenizer("word", penn_treebank).encode(penn_treebank.train), 20)
    assert (len(columns) - 1) // 35 == 1_327
    assert (len(columns) - 1) // 20 == 2_323
