from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.data.text_files import cut_text, decode_text, find_splits, read_text
from dopant.errors import InputError


def test_line_ends_and_byte_order_mark_are_made_plain() -> None:
    assert decode_text("\ufeffa\r\nb\rc\n".encode(), "x") == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\xe9d", "note.txt is not UTF-8: byte 3 is 0xe9"),
        (b"ab\0c", "note.txt is binary: it holds a NUL at byte 2"),
        ("hello".encode("utf-16"), "note.txt begins with a UTF-16 mark"),
        (b"", "note.txt is empty; text is needed"),
        (b" \n\t\n", "note.txt holds only whitespace"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "note.txt"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_text(path)
    assert message in str(error.value)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a")
    with pytest.raises(InputError, match=r"there is no file .*tran\.txt; did you mean 'train\.txt'\?"):
        read_text(tmp_path / "tran.txt")
    with pytest.raises(InputError, match="is a folder; a text file is needed"):
        read_text(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        read_text(tmp_path / "pipe")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("a")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"secret\.txt cannot be read: Permission denied; check"):
        read_text(path)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("train.txt", "dev.txt", "test.txt"),
        ("train.txt", "validation.txt", "test"),
        ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"),
    ],
)
def test_the_usual_names_are_found(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name in (*names, "README"):
        (tmp_path / name).write_text(name)
    found = find_splits(tmp_path)
    assert {split: path.name for split, path in found.items()} == dict(
        zip(("train", "valid", "test"), names, strict=True)
    )


def test_a_folder_without_a_split_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    for name in ("train.txt", "vaild.txt", "test.txt"):
        (tmp_path / name).write_text("a")
    with pytest.raises(InputError) as error:
        find_splits(tmp_path)
    message = str(error.value)
    assert "has no valid split: looked for valid, valid.txt" in message
    assert "wiki.dev.raw" in message
    assert "found test.txt, train.txt, vaild.txt; did you mean 'vaild.txt'?" in message


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no train split: .* found nothing"):
        find_splits(tmp_path)


def test_two_files_for_a_split_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("train.txt", "wiki.train.raw", "valid.txt", "test.txt"):
        (tmp_path / name).write_text("a")
    with pytest.raises(InputError, match=r"2 files for the train split: train\.txt, wiki\.train\.raw"):
        find_splits(tmp_path)


def test_a_folder_with_the_name_of_a_split_gives_way_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text("a")
    assert find_splits(tmp_path)["train"].name == "train.txt"


@pytest.mark.parametrize(("lines", "piece"), [(4000, 20), (400, 20)])
def test_a_text_is_cut_into_blocks_spread_over_it(lines: int, piece: int) -> None:
    text = "".join(f"line {i:05d}\n" for i in range(lines))
    splits = cut_text(text, "x")
    assert [len(part.splitlines()) for part in splits.values()] == [
        lines * 18 // 20,
        lines // 20,
        lines // 20,
    ]
    assert sorted("".join(splits.values()).splitlines()) == text.splitlines()
    # contiguous: the first block of valid is the tenth twentieth of the first period
    first = [int(line.split()[1]) for line in splits["valid"].splitlines()[:piece]]
    period = 20 * piece
    assert first == list(range(9 * period // 20, 10 * period // 20))


def test_a_text_of_one_line_is_cut_at_spaces() -> None:
    text = " ".join(f"w{i}" for i in range(5000))
    splits = cut_text(text, "x")
    assert sorted(" ".join(splits.values()).split()) == sorted(text.split())
    assert 240 <= len(splits["test"].split()) <= 260


def test_a_text_too_short_to_cut_is_refused() -> None:
    with pytest.raises(InputError, match="note is too short to be split: 1 lines, 3 words; at least 20"):
        cut_text("three words here\n", "note")


@given(st.lists(st.text("ab \n", max_size=12), min_size=0, max_size=80))
def test_cutting_loses_nothing(parts: list[str]) -> None:
    text = "\n".join(parts)
    try:
        splits = cut_text(text, "x")
    except InputError:
        return
    assert sorted("".join(splits.values())) == sorted(text)
    assert cut_text(text, "x") == splits
