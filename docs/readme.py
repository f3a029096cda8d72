"""Fill the tables of README.md and of the pages under docs/ from the records they name: `make readme`.

`table` is the whole comparison, `curves` the last epoch of every row: where a model overfits, the two part; `epochs`
the validation perplexities of rows as they train; `bench` is a benchmark; `factors` the picture of an experiment's
sweep; `paths` that of a doped row's two paths, drawn here. The record of an experiment that has not been run yet may be
missing; then the page says how to make it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from dopant.bench.record import Bench
from dopant.bench.table import markdown as bench_markdown
from dopant.report.drawing import WIDE
from dopant.report.plots import path_contributions
from dopant.report.records import read_kept
from dopant.report.report import Report, read_report
from dopant.report.svg import standalone
from dopant.report.table import markdown_table
from dopant.report.words import perplexity
from dopant.report.writing import write_text

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"(<!-- (table|curves|epochs|bench|factors|paths): (\S+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def curves_table(report: Report) -> str:
    """Perplexity of the training text in the last epoch, dropout acting, and of both texts at the end of each row."""
    columns = {"training text, dropout acting": [row.curves[-1].train_perplexity for row in report.rows]}
    if any(row.perplexity_train is not None for row in report.rows):  # records of before that was measured have none
        columns["training text"] = [row.perplexity_train for row in report.rows]
    columns["validation text"] = [row.curves[-1].valid_perplexity for row in report.rows]
    lines = [f"| row | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row, *found in zip(report.rows, *columns.values(), strict=True):
        lines.append(f"| {row.label} | {' | '.join(map(perplexity, found))} |")
    return "\n".join(lines)


def epochs_table(record: Path, shown: Sequence[int] = (1, 2, 4, 6, 8, 11)) -> str:
    """Validation perplexity after some epochs of runs that were stopped early."""
    rows = json.loads(record.read_text())["rows"]
    lines = ["| row | " + " | ".join(f"epoch {epoch}" for epoch in shown) + " |", "| --- |" + " ---: |" * len(shown)]
    for row, epochs in rows.items():
        at = {entry["epoch"]: entry["valid_perplexity"] for entry in epochs}
        lines.append(f"| {row} | " + " | ".join(f"{at[n]:.1f}" if n in at else "–" for n in shown) + " |")
    return "\n".join(lines)


def not_yet(record: str) -> str | None:
    """How to make the record of an experiment that is missing; None for any other."""
    name = Path(record).parent.name
    if (ROOT / record).exists() or not (ROOT / "experiments" / name / "experiment.yaml").exists():
        return None
    return f"*Not measured yet: `dopant results experiments/{name}` makes it.*"


def picture(record: str, page: Path) -> str:
    """The picture beside a sweep's record, as a link from the page."""
    file = (ROOT / record).with_suffix(".svg")
    read_report(ROOT / record)
    return f"![Loss of perplexity against the factor]({os.path.relpath(file, page.parent)})"


def paths_picture(record: str, page: Path) -> str:
    """The picture of a doped row's two paths, as a link from the page."""
    row = read_report(ROOT / record).rows[0]
    return f"![{row.label}: the two paths while training]({os.path.relpath(paths_file(record), page.parent)})"


def paths_file(record: str) -> Path:
    """Where that picture is."""
    return ROOT / "docs" / "images" / f"{Path(record).parent.name}-{Path(record).stem}-paths.svg"


def draw_paths(text: str) -> None:
    """Draw those that a page names."""
    for record in re.findall(r"<!-- paths: (\S+) -->", text):
        drawn = None if not_yet(record) else path_contributions(read_report(ROOT / record).rows[0], WIDE, "paths")
        if drawn is not None:
            write_text(paths_file(record), standalone(drawn))


def filled(text: str, page: Path = ROOT / "README.md") -> str:
    """The text of a page with every table as its record has it now."""

    def table(match: re.Match[str]) -> str:
        if (missing := not_yet(match[3])) is not None:
            made = missing
        elif match[2] == "factors":
            made = picture(match[3], page)
        elif match[2] == "paths":
            made = paths_picture(match[3], page)
        elif match[2] == "bench":
            made = bench_markdown(read_kept(ROOT / match[3], Bench))
        elif match[2] == "epochs":
            made = epochs_table(ROOT / match[3])
        else:
            report = read_report(ROOT / match[3])
            made = markdown_table(report) if match[2] == "table" else curves_table(report)
        return f"{match[1]}{made.strip()}\n{match[4]}"

    return MARK.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        draw_paths(page.read_text())
        page.write_text(filled(page.read_text(), page))
