"""Fill the tables of README.md from the records they name: `make readme`."""

from __future__ import annotations

import re
from pathlib import Path

from dopant.report.report import read_report
from dopant.report.table import markdown_table

ROOT = Path(__file__).parent.parent


def _filled(match: re.Match[str]) -> str:
    return f"{match[1]}{markdown_table(read_report(ROOT / match[2])).strip()}\n{match[4]}"


path = ROOT / "README.md"
path.write_text(re.sub(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- /table -->)", _filled, path.read_text(), flags=re.DOTALL))
