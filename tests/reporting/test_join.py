from __future__ import annotations

import pytest

from dopant.errors import InputError
from dopant.reporting import words
from dopant.reporting.join import join, join_seeds
from dopant.reporting.page import make_page
from dopant.reporting.report import CurvePoint, Distillation, Report
from dopant.reporting.table import markdown_table


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


def learnt(report: Report, **otherwise: object) -> Report:
    return report.model_copy(update={"protocol": report.protocol.model_copy(update=otherwise)})


def test_the_protocol_tells_how_rows_began_and_learnt_where_all_of_them_did_so(report: Report) -> None:
    """Of compressed rows alone: what a dense row does or does not is told by what it is."""
    dense, pruning, lmf, *_ = apart(report)
    distils = Distillation(weight=0.5, temperature=2.0)
    pruning = learnt(pruning, start="dense", distillation=distils)
    alike = join([dense, pruning, learnt(lmf, start="dense", distillation=distils)]).protocol
    assert (alike.start, alike.distillation) == ("dense", distils)
    one = join_seeds({"dense": [dense], "pruning": [pruning], "lmf": [lmf]}).protocol
    assert (one.start, one.distillation) == ("mixed", None)
    warmer = join([dense, learnt(pruning, distillation=Distillation(weight=0.5, temperature=1.0)), pruning]).protocol
    assert (warmer.start, warmer.distillation) == ("dense", None)
    assert "distil" not in words.protocol_line(join([dense, pruning, lmf]))


def test_what_differs_among_joined_rows_is_told(report: Report) -> None:
    dense, pruning, lmf, *_ = apart(report)
    alike = join([dense, pruning, lmf])
    assert alike.protocol.differing == ()
    assert "differ" not in words.protocol_line(alike)
    assert "by the\nsame schedule" in make_page(alike)
    assert "same schedule" not in make_page(join([pruning]))
    other = join([dense, pruning, learnt(lmf, epochs=99, target="3x", storage="float16 values")])
    assert other.protocol.differing == ("epochs", "target", "storage")
    assert "Rows differ in epochs, target, storage; told are the first's. dopant" in words.protocol_line(other)
    assert "same schedule" not in make_page(other)
    assert join([other]).protocol.differing == other.protocol.differing
    assert join([learnt(dense, target="none"), pruning]).protocol.differing == ()


def test_a_comparison_that_begins_with_its_dense_row_is_compressed(report: Report) -> None:
    other = learnt(apart(report)[2], target="3x")
    assert join([report, other]).protocol.target == report.protocol.target
    assert join([report, other]).protocol.differing == ("target",)


def test_two_dense_rows_are_refused(report: Report) -> None:
    first = apart(report)[0]
    with pytest.raises(InputError, match="2 dense rows"):
        join([first, first])


def test_one_report_stands_also_with_a_dense_row_that_is_a_control(report: Report) -> None:
    control = report.rows[0].model_copy(update={"label": "Dense, trained on", "loss_percent": 1.5})
    assert control.dense
    kept = report.model_copy(update={"rows": (*report.rows, control)})
    assert join([kept]) == kept


def test_rows_of_one_label_and_folder_are_numbered(report: Report) -> None:
    dense, pruning, *_ = apart(report)
    labels = [row.label for row in join([dense, pruning, pruning]).rows]
    assert labels == ["Dense", "Pruning (pruning 1)", "Pruning (pruning 2)"]


def test_nothing_to_join_is_refused() -> None:
    with pytest.raises(InputError, match="name one at least"):
        join([])


def seeded(report: Report, seed: int, perplexity: float, **row: object) -> Report:
    curve = (CurvePoint(epoch=1, tokens=9, train_perplexity=perplexity, valid_perplexity=perplexity),)
    first = report.rows[0].model_copy(update={"perplexity_test": perplexity, "curves": curve, **row})
    protocol = report.protocol.model_copy(update={"seed": seed, "commit": f"{seed}" * 40})
    return report.model_copy(update={"protocol": protocol, "rows": (first,)})


def test_a_row_of_several_seeds_is_their_mean_and_its_loss_is_seed_by_seed(report: Report) -> None:
    dense, pruning, lmf, *_ = apart(report)
    runs = {
        "dense": [seeded(dense, 0, 100.0), seeded(dense, 1, 80.0)],
        "pruning": [
            seeded(pruning, 0, 110.0, stored_bytes=10, parameters=100, nonzeros=90, parameter_factor=20.0),
            seeded(pruning, 1, 96.0, stored_bytes=13, parameters=90, nonzeros=80, parameter_factor=22.0),
        ],
        "lmf": [seeded(lmf, 2, 120.0)],
    }
    joined = join_seeds(runs)
    first, second, third = joined.rows
    assert (first.perplexity_test, first.loss_percent) == (90.0, None)
    assert (second.perplexity_test, second.loss_percent) == (103.0, pytest.approx(15.0))
    assert [seed.loss_percent for seed in second.seeds] == pytest.approx([10.0, 20.0])
    assert (second.stored_bytes, second.folder) == (12, "pruning")
    assert (second.parameters, second.nonzeros, second.parameter_factor) == (95, 85, 21.0)
    assert second.curves[0].valid_perplexity == 103.0
    assert (third.perplexity_test, third.loss_percent) == (120.0, None)  # there is no dense row of that seed
    assert third.model_copy(update={"seeds": (), "loss_percent": None}) == runs["lmf"][0].rows[0]

    assert words.seeds(joined) == "seeds 0, 1, 2"
    assert "differ" not in words.protocol_line(joined)
    table = markdown_table(joined)
    assert "103.00 ± 9.90" in table
    assert "+15.0 ± 7.1 %" in table
    assert table.splitlines()[0].endswith("| seeds |")
    assert "commits 000000000000, 111111111111, 222222222222)" in table
    assert "mean ± standard deviation" in table


def test_a_loss_of_some_seeds_does_not_stand_beside_a_perplexity_of_all(report: Report) -> None:
    dense, pruning, *_ = apart(report)
    runs = {
        "dense": [seeded(dense, 0, 100.0)],
        "pruning": [seeded(pruning, 0, 110.0, nonzeros_in_file=4), seeded(pruning, 1, 96.0, nonzeros_in_file=7)],
    }
    row = join_seeds(runs).rows[1]
    assert (row.perplexity_test, row.loss_percent, row.nonzeros_in_file) == (103.0, None, 6)
    assert [seed.loss_percent for seed in row.seeds] == [pytest.approx(10.0), None]


def test_joined_rows_of_other_machines_and_commits_are_told(report: Report) -> None:
    dense, pruning, *_ = apart(report)
    assert [row.seeds for row in join([dense, pruning]).rows] == [(), ()]
    line = words.protocol_line(join([dense, learnt(pruning, commit="b" * 40)]))
    assert f"(commits {dense.protocol.commit[:12]}, bbbbbbbbbbbb)" in line


def test_a_table_of_dense_rows_has_no_target(report: Report) -> None:
    line = words.protocol_line(join(apart(report)[:1]))
    assert "Target" not in line
    assert "Factors, parameters and bytes are those of the LSTM weights as stored, against dense float32" in line


def test_losses_are_against_the_dense_row_that_is_named(report: Report) -> None:
    dense, pruning, *_ = apart(report)
    worse = dense.model_copy(update={"rows": (dense.rows[0].model_copy(update={"perplexity_test": 80.0}),)})
    runs = {"trained-on": [worse], "dense": [dense], "pruning": [pruning]}
    losses = [row.loss_percent for row in join_seeds(runs, "dense").rows]
    assert losses == [pytest.approx(100 * (80.0 / 41.29 - 1)), None, pytest.approx(100 * (44.49 / 41.29 - 1))]
    assert [row.loss_percent is None for row in join_seeds(runs).rows] == [True, False, False]
    absent = {name: reports for name, reports in runs.items() if name != "dense"}
    assert [row.loss_percent for row in join_seeds(absent, "dense").rows] == [None, None]


def test_one_seed_makes_the_table_that_join_makes(report: Report) -> None:
    runs = apart(report)
    assert markdown_table(join_seeds({str(i): [run] for i, run in enumerate(runs)})) == markdown_table(join(runs))


def test_seeds_of_other_texts_cannot_be_joined(report: Report) -> None:
    first, second, *_ = apart(report)
    other = second.model_copy(update={"protocol": second.protocol.model_copy(update={"checksum": "0" * 64})})
    with pytest.raises(InputError, match="checksum"):
        join_seeds({"dense": [first], "pruning": [other]})
    with pytest.raises(InputError, match="no reports to join"):
        join_seeds({"dense": []})
