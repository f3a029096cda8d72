from __future__ import annotations

import pytest

from dopant.errors import InputError
from dopant.report.join import join
from dopant.report.report import Report


def apart(report: Report) -> list[Report]:
    rows = [row.model_copy(update={"loss_percent": None}) for row in report.rows]
    return [Report(protocol=report.protocol, rows=(row,)) for row in rows]


def test_rows_measured_apart_give_the_report_they_would_have_given_together(report: Report) -> None:
    joined = join(apart(report))
    assert [row.method for row in joined.rows] == [row.method for row in report.rows]
    assert joined.rows[0].loss_percent is None
    assert joined.rows[1].loss_percent == pytest.approx(100 * (44.49 / 41.29 - 1))


def test_other_text_or_another_model_cannot_be_joined(report: Report) -> None:
    first, second, *_ = apart(report)
    for change, word in (({"checksum": "0" * 64}, "checksum"), ({"model": "large"}, "model is tiny in one report")):
        other = second.model_copy(update={"protocol": second.protocol.model_copy(update=change)})
        with pytest.raises(InputError, match=word):
            join([first, other])


def test_two_dense_rows_are_refused(report: Report) -> None:
    first = apart(report)[0]
    with pytest.raises(InputError, match="2 dense rows"):
        join([first, first])


def test_nothing_to_join_is_refused() -> None:
    with pytest.raises(InputError, match="name one at least"):
        join([])
