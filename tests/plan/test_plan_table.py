from __future__ import annotations

import pytest
from torch import nn

from dopant.errors import PlanError
from dopant.layers import convert
from dopant.plan import Place, make_plan
from dopant.plan.table import plan_table
from dopant.plan.words import in_words, reading
from dopant.structures import Dense, Kronecker, LowRank, Sparse, Stacked

PLACES = [
    Place("embedding.weight", (10_000, 650)),
    Place("lstm.weight_l0", (2600, 1300), 4, lstm=True),
    Place("lstm.weight_l1", (2600, 1300), 4, lstm=True),
]


def test_the_table_names_every_weight_and_both_readings_of_both_factors() -> None:
    plan = make_plan(PLACES, target="25x", count="parameters", targets=["re:lstm.*"])
    lines = plan_table(plan).splitlines()
    heading, rule, *rows = lines[:5]
    assert heading.split() == ["weight", "shape", "method", "structure", "parameters", "bytes", "MACs"]
    assert set(rule) == {"─", " "}
    assert [row.split()[0] for row in rows] == [place.name for place in PLACES]
    assert len({len(row) for row in rows}) == 1
    assert "planned 2 weights, parameters: 270,400 of 6,760,000, 25.0x smaller, 4.0 % kept" in lines
    assert any(line.startswith("planned 2 weights, bytes:") and "% kept" in line for line in lines)
    assert any(line.startswith("all 3 weights, bytes:") for line in lines)
    assert "stored as float32 values, gaps indices; target: 25x by parameters (scope: lstm)" in lines
    assert lines[-1] == "pattern 're:lstm.*': 2 weights"


def test_the_table_tells_what_is_no_structured_weight() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 2)
    model = convert(nn.Sequential(nn.Embedding(1000, 256), encoder))
    plan = make_plan(model, target="25x", count="parameters", scope="model")
    assert plan.rest is not None
    assert plan.rest.parameters == sum(p.numel() for p in model.parameters()) - plan.total().dense.parameters
    whole = plan.whole()
    assert whole.dense.stored_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert whole.byte_factor < 5 < 15 < plan.scope().byte_factor
    line = next(line for line in plan_table(plan).splitlines() if line.startswith("no structured weights"))
    assert f"{plan.rest.parameters:,} parameters in 20 tensors (1.layers.0.self_attn.in_proj_weight, " in line
    assert line.endswith(
        f", …); the whole model, bytes: {whole.cost.stored_bytes:,} of "
        f"{whole.dense.stored_bytes:,}, {reading(whole.byte_factor)}"
    )
    assert "no structured" not in plan_table(make_plan(PLACES, target="25x"))


def test_the_table_tells_what_of_the_budget_is_not_used() -> None:
    tiny = [Place("lstm.weight_l0", (512, 256), 4, lstm=True), Place("lstm.weight_l1", (512, 256), 4, lstm=True)]
    table = plan_table(make_plan(tiny, method="lmf", target="25x", count="parameters"))
    assert (
        "(scope: lstm); 1,269 of 10,485 parameters not used: the method's sizes, or those given, come no closer"
        in table
    )
    assert "not used" not in plan_table(make_plan(tiny, target="25x", count="parameters"))
    given = make_plan(tiny, method="pruning", target="2x", structure=LowRank(3))
    assert "505,856 of 524,288 bytes not used: the method's sizes, or those given" in plan_table(given)


def test_the_table_tells_where_sizes_have_few_divisors() -> None:
    found = [Place("prime", (10_007, 650)), Place("even", (10_000, 650))]
    table = plan_table(make_plan(found, target="25x", count="parameters", scope="model"))
    assert "prime: the Kronecker product takes 38 % of the parameters and has rank 10 of 650" in table
    assert "even: " not in table


def test_layers_without_a_size_are_refused() -> None:
    with pytest.raises(PlanError, match=r"'0.weight' has no size yet; run the model once"):
        make_plan(convert(nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 8))), target="4x", scope="model")


def test_a_narrow_terminal_gets_the_same_in_shorter_lines() -> None:
    plan = make_plan(PLACES, target="25x", count="parameters")
    lines = plan_table(plan, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[3:7] == [
        "lstm.weight_l0",
        "  2600×1300; doped-kronecker;",
        "    52×26 ⊗ 50×50 + 131,348 non-zeros (96.11 % zero);",
        "    135,200 parameters; 672,153 bytes; 263,948 MACs",
    ]
    assert " ".join(" ".join(lines).split()).endswith("target: 25x by parameters (scope: lstm)")


def test_structures_in_words() -> None:
    hybrid = Stacked((Dense(), LowRank(1)), (24, 626))
    assert in_words(hybrid, (650, 1300)) == "24 dense rows over rank 1 (626 rows)"
    assert in_words(Stacked((hybrid,) * 4, (650,) * 4), (2600, 1300)).startswith("4 × [24 dense rows")
    assert in_words(Sparse(100, per_bank=4), (10, 50)) == "100 non-zeros (80.00 % zero), 4 to a bank"
    assert in_words(Kronecker(((4, 1), (2, 8)), 2), (8, 8)) == "2 terms of 4×1 ⊗ 2×8, of rank 4"


def test_readings() -> None:
    assert reading(25.0) == "25.0x smaller, 4.0 % kept"
    assert reading(2500.0) == "2500.0x smaller, 0.04 % kept"
