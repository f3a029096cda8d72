from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dopant.cost import Storage
from dopant.errors import InputError
from dopant.layers import Linear, slots
from dopant.models import LanguageModel
from dopant.plan import apply_plan, make_plan
from dopant.plan.plan import Plan
from dopant.structures import (
    Dense,
    Doped,
    DopedWeight,
    Kronecker,
    LowRank,
    MaskedWeight,
    Sparse,
    SparseWeight,
    StructuredWeight,
)
from dopant.training import overlay as module
from dopant.training.loop import Result
from dopant.training.overlay import (
    Annealing,
    Overlay,
    close_overlays,
    drop_smallest,
    meet_byte_target,
    open_overlays,
    prune,
    prune_globally,
)
from dopant.training.settings import Sparsify

DOPED = Doped(Kronecker(((3, 2), (2, 4))), Sparse(5))


def doped_layer() -> tuple[Linear, torch.Tensor]:
    torch.manual_seed(0)
    original = torch.randn(6, 8)
    return Linear(8, 6, weight=DOPED.fit(original)), original


def full(matrix: torch.Tensor) -> MaskedWeight:
    return MaskedWeight(matrix.clone(), torch.ones_like(matrix, dtype=torch.bool))


@pytest.mark.parametrize(
    ("begin", "end", "every", "steps"),
    [(0.1, 0.5, 4, 100), (0.0, 1.0, 7, 60), (0.3, 0.77, 10, 97), (0.0, 0.0, 5, 20), (0.2, 0.2, 3, 10), (0.9, 1, 50, 9)],
)
def test_the_count_is_exact_at_every_step(begin: float, end: float, every: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    overlay = Overlay("w", full(torch.randn(10, 30, generator=generator)), 17)
    annealing = Annealing([overlay], Sparsify(begin=begin, end=end, every=every), steps)
    last = min(int(end * steps), steps - 1)
    expected, before = 300, torch.ones(10, 30, dtype=torch.bool)
    for step in range(steps):
        annealing.before_step(step)
        if step == last:
            expected = 17
        elif step < last and step % every == 0 and step >= begin * steps:
            left = (1 - (step - begin * steps) / ((end - begin) * steps)) ** 3
            expected = round(17 + 283 * left)
        mask = overlay.weight.mask
        assert int(mask.sum()) == expected, step
        assert not (mask & ~before).any()  # what is once pruned stays so
        before = mask.clone()
        with torch.no_grad():  # training goes on, also beneath the mask
            overlay.weight.matrix += torch.randn(10, 30, generator=generator)
    assert expected == 17


def test_globally_the_largest_of_all_stay() -> None:
    generator = torch.Generator().manual_seed(1)
    small, large = torch.randn(6, 5, generator=generator), 3.0 * torch.randn(5, 4, generator=generator)
    overlays = [Overlay("small", full(small), 3), Overlay("large", full(large), 2)]
    annealing = Annealing(overlays, Sparsify(begin=0.1, end=0.5, every=5, allocation="global"), 100)
    before = [torch.ones_like(overlay.weight.mask) for overlay in overlays]
    for step in range(60):
        annealing.before_step(step)
        masks = [overlay.weight.mask for overlay in overlays]
        if step >= 10 and (step % 5 == 0 or step == 50) and step <= 50:
            left = max(0.0, 1 - (step - 10) / 40) ** 3
            assert sum(int(mask.sum()) for mask in masks) == round(3 + 27 * left) + round(2 + 18 * left)
            entries = [overlay.weight.matrix.detach().abs() for overlay in overlays]
            least = min(float(entry[mask].min()) for entry, mask in zip(entries, masks, strict=True) if mask.any())
            for entry, mask, was in zip(entries, masks, before, strict=True):
                assert not (mask & ~was).any()
                assert not (entry[was & ~mask] > least).any()
        before = [mask.clone() for mask in masks]
        with torch.no_grad():
            for overlay in overlays:
                overlay.weight.matrix += 0.1 * torch.randn(overlay.weight.shape, generator=generator)
    assert [int(mask.sum()) for mask in before] != [3, 2]
    layer = nn.ModuleList(
        Linear(n, m, weight=overlay.weight) for overlay, (m, n) in zip(overlays, ((6, 5), (5, 4)), strict=True)
    )
    close_overlays(layer)
    assert sum(part.weight.values.numel() for part in layer) == 5


def test_globally_nothing_is_nothing(
    make_model: Callable[..., LanguageModel], run_training: Callable[..., Result]
) -> None:
    """A dense model under a recipe that would prune globally."""
    assert run_training(make_model(), sparsify={"allocation": "global"}).steps == 16


def test_globally_a_matrix_may_be_left_with_nothing() -> None:
    weights = [full(torch.tensor([[1.0, 2.0]])), full(torch.tensor([[float("nan"), 8.0, 9.0]]))]
    for count, left in ((4, [2, 2]), (9, [2, 2]), (2, [0, 2]), (0, [0, 0])):
        prune_globally(weights, count)
        assert [int(weight.mask.sum()) for weight in weights] == left
    assert weights[0].compact().to_dense().tolist() == [[0.0, 0.0]]


def test_banks_are_not_shared_globally() -> None:
    overlay = Overlay("w", full(torch.randn(4, 6)), 8, banks=2)
    with pytest.raises(InputError, match="w has as many non-zeros in each bank"):
        Annealing([overlay], Sparsify(allocation="global"), 10)


def test_banks_are_even_at_every_step() -> None:
    generator = torch.Generator().manual_seed(1)
    overlay = Overlay("w", full(torch.randn(10, 31, generator=generator)), 37, banks=2)
    annealing = Annealing([overlay], Sparsify(begin=0.1, end=0.5, every=3), 100)
    before = torch.ones(10, 31, dtype=torch.bool)
    for step in range(60):
        annealing.before_step(step)
        mask = overlay.weight.mask
        assert not (mask & ~before).any()
        before, count = mask.clone(), int(mask.sum())
        for part in (mask[:, :15], mask[:, 15:]):
            assert set(part.sum(1).tolist()) <= {count // 20, -(-count // 20)}
        with torch.no_grad():
            overlay.weight.matrix += torch.randn(10, 31, generator=generator)
    assert count == 37


def test_overlays_know_their_banks() -> None:
    layer = Linear(8, 6, weight=Sparse(12, per_bank=1).new((6, 8)))
    (overlay,) = open_overlays(layer, {"weight": torch.randn(6, 8)}, start="scratch", overlay_start=0.1)
    assert overlay.banks == 2
    prune(overlay.weight, 12, overlay.banks)
    close_overlays(layer)
    assert layer.weight.structure == Sparse(12, per_bank=1)
    assert layer.weight.to_dense()[:, :4].ne(0).sum(1).tolist() == [1] * 6


def test_equal_entries_are_counted_exactly_too() -> None:
    weight = full(torch.ones(7, 9))
    for keep in (62, 40, 1, 0):
        prune(weight, keep)
        assert int(weight.mask.sum()) == keep


@pytest.mark.parametrize("banks", [0, 2])
def test_entries_that_are_no_numbers_bring_none_back(banks: int) -> None:
    mask = torch.tensor([[True, True, False, True, True, False]])
    weight = MaskedWeight(torch.tensor([[float("nan"), 1.0, 9.0, float("nan"), float("inf"), 9.0]]), mask)
    prune(weight, 3, banks)
    assert int(weight.mask.sum()) == 3
    assert not (weight.mask & ~mask).any()
    prune(weight, 2, banks)
    assert weight.mask.tolist() == [[False, True, False, False, True, False]]


def test_the_largest_of_those_alive_are_kept() -> None:
    weight = MaskedWeight(torch.tensor([[-9.0, 1.0, -3.0, 2.0]]), torch.tensor([[False, True, True, True]]))
    prune(weight, 3)
    assert weight.mask.tolist() == [[False, True, True, True]]
    prune(weight, 2)
    assert weight.mask.tolist() == [[False, False, True, True]]


def test_a_doped_weight_from_scratch_keeps_its_factors_and_a_small_random_overlay() -> None:
    layer, original = doped_layer()
    weight = layer.weight
    assert isinstance(weight, DopedWeight)
    base = weight.base.to_dense().clone()
    (overlay,) = open_overlays(layer, {"weight": original}, start="scratch", overlay_start=0.1)
    assert (overlay.name, overlay.nonzeros, int(overlay.weight.mask.sum())) == ("weight", 5, 48)
    assert weight.overlay is overlay.weight
    torch.testing.assert_close(weight.overlay.to_dense(), original * 0.1)
    torch.testing.assert_close(weight.base.to_dense(), base)


def test_a_doped_weight_from_a_dense_one_is_that_one() -> None:
    layer, original = doped_layer()
    open_overlays(layer, {"weight": original}, start="dense", overlay_start=0.1)
    torch.testing.assert_close(layer.weight.to_dense(), original)


@pytest.mark.parametrize("start", ["scratch", "dense"])
def test_a_pruned_weight_starts_as_the_matrix_it_replaces(start: str) -> None:
    original = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    layer = Linear(8, 6, weight=Sparse(7).new((6, 8)))
    (overlay,) = open_overlays(layer, {"weight": original}, start=start, overlay_start=0.1)  # type: ignore[arg-type]
    assert overlay.nonzeros == 7
    assert torch.equal(layer.weight.to_dense(), original)


def test_everything_else_is_left_alone() -> None:
    model = nn.Sequential(
        Linear(8, 6, weight=LowRank(2).new((6, 8))),
        Linear(6, 8, weight=Dense().new((8, 6))),
        Linear(8, 6, weight=Sparse(7).new((6, 8))),  # no original is known
    )
    weights = [layer.weight for layer in model]
    assert open_overlays(model, {"0.weight": torch.ones(6, 8)}, start="scratch", overlay_start=1.0) == []
    close_overlays(model)
    assert [layer.weight for layer in model] == weights


def test_closing_leaves_the_stored_form_of_the_same_matrix() -> None:
    layer, original = doped_layer()
    pruned = Linear(8, 6, weight=Sparse(7).new((6, 8)))
    model = nn.ModuleList([layer, pruned])
    opened = open_overlays(model, {"0.weight": original, "1.weight": original}, start="scratch", overlay_start=1.0)
    for overlay in opened:
        prune(overlay.weight, overlay.nonzeros)
    before = [one.weight.to_dense().detach().clone() for one in (layer, pruned)]
    close_overlays(model)
    assert isinstance(layer.weight, DopedWeight)
    for sparse, count in ((layer.weight.overlay, 5), (pruned.weight, 7)):
        assert isinstance(sparse, SparseWeight)
        assert sparse.values.numel() == count
    for one, dense in zip((layer, pruned), before, strict=True):
        assert torch.equal(one.weight.to_dense(), dense)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 25))
def test_the_smallest_values_of_all_weights_are_dropped(sizes: list[int], count: int) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    weights = [Sparse(n).new((4, 5), generator=generator) for n in sizes]
    doped = DopedWeight(LowRank(1).new((4, 5), generator=generator), weights[0])
    dense = [weight.to_dense().detach().clone() for weight in weights]
    values = torch.cat([weight.values.detach().abs() for weight in weights]).sort().values
    taken = drop_smallest([doped, *weights[1:]], count)
    assert taken == min(count, sum(sizes))
    left = torch.cat([weight.values.detach().abs() for weight in weights]).sort().values
    assert torch.equal(left, values[taken:])
    for weight, before in zip(weights, dense, strict=True):
        after = weight.to_dense().detach()
        assert torch.equal(after[after != 0], before[after != 0])
        assert torch.equal(weight.positions, weight.positions.sort().values)


def test_nothing_sparse_has_nothing_to_give() -> None:
    assert drop_smallest([LowRank(1).new((4, 5))], 3) == 0


def planned_for(method: str, factor: float) -> tuple[nn.Module, Plan]:
    """A layer planned at 8x by bytes, and the plan with another factor."""
    model = nn.Sequential(Linear(300, 200))
    plan = make_plan(model, method=method, target="8x", scope="model", storage=Storage("huffman", "huffman"))
    apply_plan(model, plan)
    assert plan.target is not None
    return model, dataclasses.replace(plan, target=dataclasses.replace(plan.target, factor=factor))


def test_a_byte_target_is_met_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = planned_for("pruning", 10.0)
    counts = []

    def counted(weights: list[StructuredWeight], count: int) -> int:
        counts.append(count)
        return drop_smallest(weights, count)

    monkeypatch.setattr(module, "drop_smallest", counted)
    meet_byte_target(model, plan)
    (slot,) = slots(model)
    assert 0.98 * 24_000 < slot.weight.cost(plan.storage).stored_bytes <= 24_000
    assert len(counts) < 10


def test_a_byte_target_that_cannot_be_met_is_told_of() -> None:
    model, plan = planned_for("lmf", 10.0)
    with pytest.warns(UserWarning, match="of 24,000 allowed, and have no non-zeros to drop"):
        meet_byte_target(model, plan)
