"""Fill the tables of README.md and of the pages under docs/ from the records they name: `make readme`.

`table` is the whole comparison, or some of its rows (`rows=dense,pruning` after the record); `curves` the last epoch
of every row: where a model overfits, the two part; `epochs` the validation perplexities of rows as they train; `bench`
is a benchmark, `times` its picture; `factors` the picture of an experiment's sweep, `bytes` that of a comparison,
`paths` that of a doped row's two paths. The record of an experiment that has not been run yet may be missing; then the
page says how to make it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from dopant.benchmarking import cells
from dopant.benchmarking.picture import draw
from dopant.benchmarking.record import Bench
from dopant.benchmarking.table import markdown as bench_markdown
from dopant.reporting.drawing import WIDE
from dopant.reporting.plots import path_contributions, perplexity_against_bytes
from dopant.reporting.records import read_kept
from dopant.reporting.report import Report, read_report
from dopant.reporting.svg import standalone
from dopant.reporting.table import markdown_table
from dopant.reporting.words import perplexity
from dopant.reporting.writing import write_text

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(
    r"(?P<open><!-- (?P<kind>table|curves|epochs|bench|factors|bytes|paths|times): (?P<record>\S+)"
    r"(?: rows=(?P<rows>\S+))? -->\n)"
    r".*?(?P<close><!-- /(?P=kind) -->)",
    re.DOTALL,
)


def some_rows(report: Report, names: Sequence[str]) -> Report:
    """The rows of these names, in this order. Raises KeyError if there is no such row."""
    rows = {re.sub(r"-seed\d+$", "", row.folder): row for row in report.rows}
    return report.model_copy(update={"rows": tuple(rows[name] for name in names)})


def curves_table(report: Report) -> str:
    """Of rows that trained: perplexity of the training text in the last epoch, dropout acting, of both at the end."""
    rows = [row for row in report.rows if row.curves]
    columns = {"training text, dropout acting": [row.curves[-1].train_perplexity for row in rows]}
    if any(row.perplexity_train is not None for row in rows):  # records of before that was measured have none
        columns["training text"] = [row.perplexity_train for row in rows]
    columns["validation text"] = [row.curves[-1].valid_perplexity for row in rows]
    lines = [f"| row | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row, *found in zip(rows, *columns.values(), strict=True):
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


def sweep(record: str, page: Path) -> str:
    """The picture beside a sweep's record, as a link from the page."""
    file = (ROOT / record).with_suffix(".svg")
    read_report(ROOT / record)
    return f"![Loss of perplexity against the factor]({os.path.relpath(file, page.parent)})"


def caption(kind: str, record: str) -> str:
    """What a picture that is drawn here shows."""
    if kind == "times":
        return f"Times, {cells.sections(read_kept(ROOT / record, Bench))[0]}"
    report = read_report(ROOT / record)
    return "Perplexity against bytes" if kind == "bytes" else f"{report.rows[0].label}: the two paths while training"


def drawn(kind: str, record: str) -> str | None:
    """The picture itself, as an <svg> element; None where the record has nothing of it."""
    if kind == "times":
        bench = read_kept(ROOT / record, Bench)
        return draw(cells.sections(bench)[0], cells.present(bench), WIDE, kind, legend=True)
    report = read_report(ROOT / record)
    if kind == "bytes":
        return perplexity_against_bytes(report, WIDE, kind)
    return path_contributions(report.rows[0], WIDE, kind)


def picture_file(kind: str, record: str) -> Path:
    """Where that picture is."""
    return ROOT / "docs" / "images" / f"{Path(record).parent.name}-{Path(record).stem}-{kind}.svg"


def draw_pictures(text: str) -> None:
    """Draw those that a page names."""
    for kind, record in re.findall(r"<!-- (bytes|paths|times): (\S+) -->", text):
        picture = None if not_yet(record) else drawn(kind, record)
        if picture is not None:
            write_text(picture_file(kind, record), standalone(picture))


def filled(text: str, page: Path = ROOT / "README.md") -> str:
    """The text of a page with every table as its record has it now."""

    def table(match: re.Match[str]) -> str:
        kind, record = match["kind"], match["record"]
        if (missing := not_yet(record)) is not None:
            made = missing
        elif kind == "factors":
            made = sweep(record, page)
        elif kind in ("bytes", "paths", "times"):
            made = f"![{caption(kind, record)}]({os.path.relpath(picture_file(kind, record), page.parent)})"
        elif kind == "bench":
            made = bench_markdown(read_kept(ROOT / record, Bench))
        elif kind == "epochs":
            made = epochs_table(ROOT / record)
        else:
            report = read_report(ROOT / record)
            if match["rows"] is not None:
                report = some_rows(report, match["rows"].split(","))
            made = markdown_table(report) if kind == "table" else curves_table(report)
        return f"{match['open']}{made.strip()}\n{match['close']}"

    return MARK.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        draw_pictures(page.read_text())
        page.write_text(filled(page.read_text(), page))
