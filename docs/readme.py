"""Fill the tables of README.md and of the pages under docs/ from the records they name: `make readme`."""

from __future__ import annotations

import re
from pathlib import Path

from dopant.report.report import read_report
from dopant.report.table import markdown_table

ROOT = Path(__file__).parent.parent


def _filled(match: re.Match[str]) -> str:
    return f"{match[1]}{markdown_table(read_report(ROOT / match[2])).strip()}\n{match[4]}"


for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
    text = path.read_text()
    path.write_text(re.sub(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- /table -->)", _filled, text, flags=re.DOTALL))
