from __future__ import annotations

import platform
import sysconfig
import time
from pathlib import Path

import pytest

from dopant.data import Corpus, make_tokenizer, read_corpus
from dopant.data.python_docs import docstrings, library_files, python_docs, sentences, share_out, split_words
from dopant.errors import InputError


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    start = time.process_time()
    corpus = read_corpus("python-docs")
    assert time.process_time() - start < 10
    return corpus


def test_it_is_a_word_level_corpus_of_a_useful_size(corpus: Corpus) -> None:
    tokenizer = make_tokenizer("word", corpus)
    tokens = {split: len(tokenizer.encode(corpus.split(split))) for split in ("train", "valid", "test")}
    total = sum(tokens.values())
    assert 200_000 < total < 800_000
    assert tokens["train"] / total == pytest.approx(0.9, abs=0.01)
    assert tokens["valid"] / total == pytest.approx(0.05, abs=0.005)
    assert tokens["test"] / total == pytest.approx(0.05, abs=0.005)
    assert 3_000 < tokenizer.size < 9_000
    unknown = tokenizer.encode("<unk>")[0]
    assert 0 < (tokenizer.encode(corpus.test) == unknown).mean() < 0.08
    capitals = {word for word in corpus.train.split() if word != word.lower()}
    assert capitals == {"N"}


def test_it_says_where_it_comes_from(corpus: Corpus) -> None:
    assert corpus.name == "python-docs"
    assert corpus.source["kind"] == "python-docs"
    assert corpus.source["python"] == platform.python_version()
    assert int(corpus.source["docstrings"]) > 1_000
    assert not any("/" in value for value in corpus.source.values())


def test_tests_and_installed_packages_are_left_out() -> None:
    files = library_files(Path(sysconfig.get_path("stdlib")))
    assert "json/decoder.py" in files
    assert files == sorted(files)
    for name in files:
        assert not {"test", "tests", "idle_test", "site-packages"} & set(name.split("/"))


def test_a_library_is_read_without_being_run_and_without_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        (tmp_path / f"m{i}.py").write_text(f'"""Module {"abcde"[i]} does it."""\ndef f():\n    """The same."""\n')
    (tmp_path / "bad.py").write_text("raise SystemExit(1)\ndef (:\n")
    (tmp_path / "bomb.py").write_text('"""A bomb."""\nraise SystemExit(1)\n')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('"""A test."""')
    monkeypatch.setattr("dopant.data.python_docs.sysconfig.get_path", lambda name: str(tmp_path))
    splits, source = python_docs()
    lines = "".join(splits.values()).splitlines()
    modules = [f"module {letter} does it ." for letter in "abcde"]
    assert sorted(lines) == ["a bomb .", *modules, "the same ."]
    assert source["modules"] == "6"
    assert source["docstrings"] == "7"


def test_a_python_without_source_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dopant.data.python_docs.sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="needs the source files of Python's standard library"):
        read_corpus("python-docs")


def test_docstrings_come_in_the_order_of_the_file() -> None:
    source = (
        b'"""A."""\nif x:\n    class C:\n        """B."""\n        async def f():\n            """C."""\ny = "no"\n'
    )
    assert docstrings(source) == ["A.", "B.", "C."]
    assert docstrings(b"def (") == []
    assert docstrings(b"\0") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("It doesn't matter; Python's own.", "it does n't matter ; python 's own ."),
        ("Takes 3.5 MB, 0x1F or 1e5.", "takes N mb , N or N ."),
        ("------ >>> x == 'd'", "--- >>> x == ' d '"),
        ("os.path_like utf8 [a]", "os . path_like utf8 [ a ]"),
        ("na\u00efve caf\u00e9", "na\u00efve caf\u00e9"),
    ],
)
def test_words_are_split_in_penn_treebanks_manner(line: str, words: str) -> None:
    assert " ".join(split_words(line)) == words


def test_lines_are_sentences_and_in_doctests_lines() -> None:
    text = "One thing\nand more. Another.\n\n---\n\n    >>> f(1)\n    two\n"
    assert list(sentences(text)) == ["one thing and more .", "another .", ">>> f ( N )", "two"]


def test_modules_stay_whole() -> None:
    modules = {f"m{i:03d}": [f"m{i:03d} word word"] * 5 for i in range(200)}
    owners = [{line.split()[0] for line in text.splitlines()} for text in share_out(modules).values()]
    assert set.union(*owners) == set(modules)
    assert [len(owner) for owner in owners] == [180, 10, 10]


@pytest.mark.parametrize("place", range(40, 60))
def test_a_large_module_is_never_held_out(place: int) -> None:
    names = [f"m{i:03d}" for i in range(200)]
    modules = {name: [f"{name} word word"] * (50 if i == place else 5) for i, name in enumerate(names)}
    assert names[place] in share_out(modules)["train"]
