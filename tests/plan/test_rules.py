from __future__ import annotations

import pytest

from dopant.errors import PlanError
from dopant.plan.rules import match, matches

NAMES = ["embedding.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_ih_l1", "decoder.weight"]


def test_without_targets_every_name_is_meant() -> None:
    found = match(NAMES)
    assert list(found.chosen) == NAMES
    assert found.counts == ()


def test_the_first_pattern_wins_and_counts_tell_who_decided() -> None:
    found = match(NAMES, ["lstm.weight_hh_l0", "re:lstm.*"])
    assert found.chosen == {"lstm.weight_ih_l0": 1, "lstm.weight_hh_l0": 0, "lstm.weight_ih_l1": 1}
    assert found.counts == (("lstm.weight_hh_l0", 1), ("re:lstm.*", 2))


def test_ignore_goes_before_targets() -> None:
    found = match(NAMES, ["re:.*"], ["decoder.weight"])
    assert "decoder.weight" not in found.chosen
    assert found.counts == (("re:.*", 4), ("decoder.weight", 1))


def test_an_expression_matches_the_whole_name_and_an_exact_name_is_no_expression() -> None:
    assert matches("re:layer1", "layer1")
    assert not matches("re:layer1", "layer10")
    assert not matches("decoder.weight", "decoderXweight")


@pytest.mark.parametrize(
    ("targets", "ignore", "message"),
    [
        (["lstm.weight_hx_l0"], [], r"'lstm.weight_hx_l0' matches no weight; did you mean 'lstm.weight_.h_l0'"),
        ([], ["decoder.weigth"], r"did you mean 'decoder.weight'"),
        (["lstm"], [], r"did you mean 're:\.\*lstm\.\*'"),
        (["re:weight_hh"], [], r"has to match the whole name; 're:\.\*weight_hh\.\*' would mean"),
        (["re:("], [], r"'re:\(' is no regular expression: missing \)"),
        (["re:"], [], "a pattern is"),
        ([""], [], "a pattern is"),
        (["re:zzz"], [], "matches no weight; the weights are 'embedding.weight'"),
        (["re:.*", "decoder.weight"], [], "'decoder.weight' decides nothing"),
        (["decoder.weight"], ["decoder.weight"], "went to an earlier pattern or to ignore"),
    ],
)
def test_a_pattern_that_decides_nothing_is_an_error(targets: list[str], ignore: list[str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        match(NAMES, targets, ignore)


def test_a_name_outside_the_scope_is_told_so() -> None:
    with pytest.raises(PlanError, match="outside the scope; widen the scope"):
        match(NAMES[1:4], ["decoder.weight"], outside=["decoder.weight"])
