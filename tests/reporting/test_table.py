from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from dopant.reporting.report import Report
from dopant.reporting.table import columns_of, fitting_columns, make_table, markdown_table


def printed(report: Report, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(make_table(report, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", range(50, 180, 5))
def test_no_line_is_too_long_and_none_wraps(width: int, report: Report) -> None:
    lines = printed(report, width)
    assert max(map(cell_len, lines)) <= width
    assert len(lines) == 2 + 1 + len(report.rows)  # two lines of header, the rule, one line a method


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_what_matters_most_is_always_there(width: int, report: Report) -> None:
    text = "\n".join(printed(report, width))
    row = next(line for line in text.splitlines() if line.startswith("Doped Kronecker "))
    assert {"42.40", "+2.7", "25.0×", "51.1×"} <= set(row.split())


def test_a_wide_terminal_shows_every_column(report: Report) -> None:
    assert fitting_columns(report, 300) == list(columns_of(report))


def test_the_name_is_cut_only_where_it_must(report: Report) -> None:
    assert any("…" in line for line in printed(report, 55))
    assert not any("…" in line for line in printed(report, 80))


def test_markup_in_a_label_stays_text(report: Report) -> None:
    row = report.rows[1].model_copy(update={"label": "[red]x[/red] [/]"})
    assert any("[red]x[/red] [/]" in line for line in printed(report.model_copy(update={"rows": (row,)}), 80))


def test_missing_numbers_are_dashes(report: Report) -> None:
    row = report.rows[1].model_copy(update={"perplexity_test": None, "loss_percent": None})
    line = printed(report.model_copy(update={"rows": (row,)}), 50)[-1]
    assert line.split()[-2:] == ["–", "–"]


def test_markdown_has_as_many_cells_in_each_line(report: Report) -> None:
    table, _, protocol = markdown_table(report).partition("\n\n")
    lines = table.splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert {line.count("|") for line in lines} == {len(columns_of(report)) + 1}
    assert len({cell_len(line) for line in lines}) == 1
    assert "sha256" in protocol


def test_markdown_aligns_numbers_to_the_right(report: Report) -> None:
    ruler = markdown_table(report).splitlines()[1].strip("| ").split(" | ")
    assert [cell.endswith(":") for cell in ruler] == [False] + [True] * (len(columns_of(report)) - 1)


def test_markdown_marks_the_best_row(report: Report) -> None:
    bold = [line for line in markdown_table(report).splitlines() if "**" in line]
    assert len(bold) == 1
    assert "**Doped Kronecker**" in bold[0]


def test_a_bar_in_a_label_does_not_break_markdown(report: Report) -> None:
    row = report.rows[1].model_copy(update={"label": "a|b"})
    line = markdown_table(report.model_copy(update={"rows": (row,)}), ("method", "test")).splitlines()[2]
    assert line == "| **a\\|b** |   **44.49** |"
