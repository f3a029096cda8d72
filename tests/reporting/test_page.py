from __future__ import annotations

import base64
import json
import re
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dopant.reporting.join import join, join_seeds
from dopant.reporting.page import make_page, write_page
from dopant.reporting.report import Distillation, Report

APART = {"p", "h1", "h2", "h3", "dt", "dd", "td", "th", "span", "div"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps what a test may ask for."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.text += " " if tag in APART else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.text += " " if tag in APART else ""

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text += data


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return make_page(report)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def plain(text: str) -> str:
    return " ".join(text.split())


def row_changed(report: Report, **changes: object) -> Report:
    rows = (report.rows[0], report.rows[1].model_copy(update=changes))
    return report.model_copy(update={"rows": rows})


def test_every_element_is_closed(read: Reader) -> None:
    assert read.open == []


def test_the_pictures_are_well_formed(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 2 * (2 + 4)  # bytes, curves and four doped rows, each wide and narrow
    for picture in pictures:
        ET.fromstring(picture)


def test_nothing_comes_from_elsewhere(page: str, read: Reader) -> None:
    for tag, key, value in read.attributes:
        if key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert value.startswith(("#", "data:")), (tag, key, value)
    assert not re.search(r"@import|@font-face|url\((?!#)", page)
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    assert read.tags["script"] == 0
    assert not any(key.startswith("on") for _, key, _ in read.attributes)
    policy = [value for tag, key, value in read.attributes if (tag, key) == ("meta", "content")]
    assert any(value.startswith("default-src 'none'") for value in policy)


def test_every_colour_that_is_used_is_defined(page: str) -> None:
    """In the light scheme, the dark one, and in print."""
    defined = re.findall(r"(--\w+): #", page)
    for colour in set(re.findall(r"var\((--\w+)\)", page)):
        assert defined.count(colour) >= 2, colour


def test_ids_are_unique(read: Reader) -> None:
    ids = Counter(value for _, key, value in read.attributes if key == "id")
    assert not [name for name, times in ids.items() if times > 1]


def test_the_result_stands_at_the_top_in_words(read: Reader) -> None:
    text = plain(read.text)
    assert text.startswith("dopant comparison · 22 November 2026 Ten ways to make the LSTM weights 25× smaller ")
    headline = (
        "Doped Kronecker: 25.0× fewer parameters, 51.1× fewer bytes (LSTM weights), "
        "perplexity 42.4 against 41.3 (+2.7 %)."
    )
    assert headline in text
    assert "then come Doped HMD (+4.3 %), Doped Kronecker, co-matrix dropout (+4.4 %) and Doped LMF (+4.9 %)." in text


def test_a_second_dense_row_is_no_way_to_make_the_model_small(report: Report) -> None:
    more = report.rows[0].model_copy(update={"label": "Dense, trained on", "loss_percent": 0.1})
    page = make_page(report.model_copy(update={"rows": (*report.rows, more)}))
    assert "then come Doped HMD (+4.3 %)" in page
    assert "Dense, trained on (" not in page


def test_every_row_and_every_weight_is_there(read: Reader, report: Report) -> None:
    text = plain(read.text)
    for row in report.rows:
        assert row.label in text
        assert f"{row.perplexity_test:.2f}" in text
    assert text.count("lstm.weight_l1") == len(report.rows)


def test_the_whole_protocol_is_there(read: Reader, report: Report) -> None:
    text = plain(read.text)
    protocol = report.protocol
    for part in (
        protocol.checksum, protocol.commit, protocol.machine.cpu, "torch 2.13.0+cpu", "Seed 1", "state carried over",
        "20 streams × 35 steps", "20 streams for validation, 1 for test", "4,538 (word)", "int8 values", "7 min 12 s",
        "2 threads",
    ):  # fmt: skip
        assert part in text


def test_what_not_every_run_has_is_there_where_it_was(page: str, report: Report) -> None:
    assert "Distillation" not in page
    assert "since it was resumed" not in page
    changed = {"distillation": Distillation(weight=0.5, temperature=2.0), "resumed": True}
    other = make_page(report.model_copy(update={"protocol": report.protocol.model_copy(update=changed)}))
    assert "weight 0.5, temperature 2" in other
    assert "7 min 12 s since it was resumed" in other
    mixed = report.model_copy(update={"protocol": report.protocol.model_copy(update={"start": "mixed"})})
    assert "from scratch, but where a row says otherwise" in Reader(make_page(mixed)).text


def test_the_command_can_be_pasted_into_a_shell(page: str, report: Report) -> None:
    found = re.search(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    assert found
    assert "\\\n" in found[1]
    assert shlex.split(found[1].replace("\\\n", " ")) == shlex.split(report.protocol.command)


def one_of(report: Report, row: int, **protocol: object) -> Report:
    changed = report.protocol.model_copy(update=protocol)
    return report.model_copy(update={"rows": report.rows[row : row + 1], "protocol": changed})


def test_joined_seeds_tell_every_run(report: Report) -> None:
    runs = [one_of(report, 1, seed=seed, command=f"dopant {seed}", commit=f"{seed}" * 40) for seed in (0, 1)]
    other = runs[1].rows[0].model_copy(update={"perplexity_test": 46.49})
    runs[1] = runs[1].model_copy(update={"rows": (other,)})
    page = make_page(join_seeds({"dense": [one_of(report, 0, command="dopant 2")], "pruning": runs}))
    text = plain(Reader(page).text)
    assert "was trained on python-docs (349,184 tokens, vocabulary 4,538) 3 times" in text
    assert f"Commits {report.protocol.commit}; {'0' * 40}; {'1' * 40} Versions" in text
    assert "45.49 ± 1.41" in text
    assert "training non-zeros seeds" in text
    assert "how to run it again" not in text
    assert "Begun" not in text
    assert "Took" not in text


def test_the_command_is_told_where_it_made_all_rows(report: Report) -> None:
    runs = [one_of(report, row, command=f"dopant train {report.rows[row].method}") for row in (0, 1)]
    assert "how to run it again" not in make_page(join(runs))
    assert "how to run it again" in make_page(join(runs[:1]))


@pytest.mark.parametrize(
    "command", ["dopant compare --corpus 'my texts; rm -rf' --out a", "dopant report a 'unclosed", ""]
)
def test_odd_commands_are_shown_as_they_are(command: str, report: Report) -> None:
    protocol = report.protocol.model_copy(update={"command": command})
    text = Reader(make_page(report.model_copy(update={"protocol": protocol, "rows": report.rows[:1]}))).text
    assert command in text


def test_the_numbers_travel_with_the_page(read: Reader, report: Report) -> None:
    link = next(value for tag, key, value in read.attributes if (tag, key) == ("a", "href"))
    data = base64.b64decode(link.removeprefix("data:application/json;base64,"))
    assert Report.model_validate(json.loads(data)) == report


def test_equal_reports_give_equal_pages(page: str, report: Report) -> None:
    assert make_page(report) == page


@pytest.mark.parametrize("field", ["label", "note", "folder", "method"])
def test_user_text_is_escaped(field: str, report: Report) -> None:
    hostile = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    read = Reader(make_page(row_changed(report, **{field: hostile})))
    assert read.tags["script"] == 0
    assert read.open == []
    if field != "method":
        assert hostile in read.text


@pytest.mark.parametrize("field", ["corpus", "model", "optimiser", "command", "scope", "target", "source"])
def test_the_protocol_is_escaped(field: str, report: Report) -> None:
    hostile = "</style><img src=x onerror=alert(1)>"
    value = {hostile: hostile} if field == "source" else hostile
    protocol = report.protocol.model_copy(update={field: value})
    read = Reader(make_page(report.model_copy(update={"protocol": protocol, "rows": report.rows[:2]})))
    assert read.tags["img"] == 0
    assert read.open == []


def test_missing_numbers_are_dashes(report: Report) -> None:
    broken = row_changed(
        report, perplexity_test=None, perplexity_valid=None, loss_percent=None, train_seconds=None, note="diverged"
    )
    text = plain(Reader(make_page(broken)).text)
    assert "Pruning diverged – – 25.0× 49.9× 9.41 MB 41,943 – 84.1 kB – 41,943" in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 2), slice(7, 8)])
def test_a_single_row_makes_a_page(rows: slice, report: Report) -> None:
    read = Reader(make_page(report.model_copy(update={"rows": report.rows[rows]})))
    assert read.open == []
    assert "None" not in read.text


def test_a_target_in_bytes(report: Report) -> None:
    protocol = report.protocol.model_copy(update={"target": "1200000 bytes", "count": "bytes"})
    text = plain(Reader(make_page(report.model_copy(update={"protocol": protocol, "rows": report.rows[:3]}))).text)
    assert "Two ways to fit the LSTM weights into 1.20 MB" in text


@pytest.mark.parametrize("field", ["target", "count"])
def test_a_title_tells_no_target_that_is_not_all_rows(field: str, report: Report) -> None:
    protocol = report.protocol.model_copy(update={"differing": (field,)})
    text = plain(Reader(make_page(report.model_copy(update={"protocol": protocol, "rows": report.rows[:3]}))).text)
    assert "Two ways to make the LSTM weights smaller " in text


def test_a_row_that_failed_shows_why(report: Report) -> None:
    nothing = {"parameters": 0, "stored_bytes": 0, "file_bytes": 0, "parameter_factor": None, "byte_factor": None}
    none = {"perplexity_test": None, "perplexity_valid": None, "loss_percent": None, "train_seconds": None}
    failed = row_changed(report, **nothing, **none, note="the loss became nan at step 3", curves=(), weights=())
    text = plain(Reader(make_page(failed)).text)
    assert "Pruning the loss became nan at step 3 – – – – – – – – – 41,943" in text


def test_it_is_written_as_utf8(report: Report, page: str, tmp_path: Path) -> None:
    path = write_page(report, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page


def test_all_weights_of_a_model_are_told_of_in_words_that_fit(report: Report) -> None:
    whole = report.model_copy(update={"protocol": report.protocol.model_copy(update={"scope": "model"})})
    text = make_page(whole)
    assert "bytes of all weights of the model, logarithmic scale" in text
    assert "the all" not in text
