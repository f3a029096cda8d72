from __future__ import annotations

import pytest

from dopant.plan.columns import text_table, wrapped

HEADINGS = ("weight", "structure", "parameters", "bytes")
ROWS = [
    ("lstm.weight_l0", "52×26 ⊗ 50×50 + 131,348 non-zeros (96.11 % zero)", "135,200", "271,957"),
    ("", "dense", "384", ""),
    ("lmf", "the target cannot be met by lmf: the smallest these weights get is a little more than what was asked for"),
]


def test_columns_where_they_fit() -> None:
    lines = text_table(HEADINGS, ROWS, numbers=2)
    assert lines == text_table(HEADINGS, ROWS, numbers=2, width=200)
    assert lines[0] == "weight          structure                                         parameters    bytes"
    assert set(lines[1]) == {"─", " "}
    assert lines[2] == "  ".join(ROWS[0][:2]) + "     135,200  271,957"
    assert lines[3].split() == ["dense", "384"]
    assert lines[3].startswith(" " * 16)
    assert lines[4] == f"lmf{' ' * 13}{ROWS[2][1]}"


def test_a_remark_that_does_not_fit_is_a_paragraph_while_the_rest_keeps_its_columns() -> None:
    wide, narrow = text_table(HEADINGS, ROWS, numbers=2), text_table(HEADINGS, ROWS, numbers=2, width=100)
    assert narrow[:4] == wide[:4]
    assert narrow[4] == "lmf"
    assert " ".join(line.strip() for line in narrow[5:]) == ROWS[2][1]


def test_paragraphs_where_columns_do_not_fit() -> None:
    assert text_table(HEADINGS, ROWS[:2], numbers=2, width=60) == [
        "lstm.weight_l0",
        "  52×26 ⊗ 50×50 + 131,348 non-zeros (96.11 % zero);",
        "    135,200 parameters; 271,957 bytes",
        "  dense; 384 parameters",
    ]


@pytest.mark.parametrize("width", range(20, 130, 3))
def test_no_line_is_too_long_and_no_word_is_broken(width: int) -> None:
    lines = text_table(HEADINGS, ROWS, numbers=2, width=width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).replace(";", "").split()
    assert {word for row in ROWS for cell in row for word in cell.split()} <= set(words)


def test_lines_are_wrapped_between_words() -> None:
    assert wrapped("one two-three four", 11) == ["one", "  two-three", "  four"]
    assert wrapped("one two", None, indent="  ") == ["  one two"]
