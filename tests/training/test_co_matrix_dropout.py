from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dopant.layers import LSTM, Embedding, Linear, slots
from dopant.models import LanguageModel
from dopant.structures import Doped, DopedWeight, Kronecker, LowRank, Sparse, StructuredWeight
from dopant.training.co_matrix_dropout import RowMasks
from dopant.training.settings import CoMatrixDropout

ROWS, SIZE = 6, (5, 4)  # rows of the weight; (time, batch)
DOPED = Doped(Kronecker(((3, 2), (2, 4))), Sparse(9))
SHAPES = {"step": (ROWS,), "sequence": (4, ROWS), "element": (5, 4, ROWS)}


def doped_layer() -> Linear:
    torch.manual_seed(0)
    return Linear(8, ROWS, weight=DOPED.new((ROWS, 8)))


def drawn(model: Linear, step: int = 0, seed: int = 0, streams: slice = slice(None), **settings: Any) -> Any:
    masks = RowMasks(model, CoMatrixDropout(**settings), steps=100)
    masks.draw(step, torch.Generator().manual_seed(seed), SIZE, streams)
    return model.weight.row_masks


@pytest.mark.parametrize("sharing", SHAPES)
@pytest.mark.parametrize(("scaling", "kept"), [("inverted", 1 / 0.7), ("none", 1.0)])
@pytest.mark.parametrize(("path", "masked"), [("both", (0, 1)), ("structure", (0,)), ("overlay", (1,))])
def test_which_paths_are_masked_and_how(sharing: str, scaling: str, kept: float, path: str, masked: Any) -> None:
    masks = drawn(doped_layer(), rate=0.3, path=path, scaling=scaling, sharing=sharing)
    assert len(masks) == 2
    for number, mask in enumerate(masks):
        if number in masked:
            assert mask.shape == SHAPES[sharing]
            assert {round(value, 5) for value in mask.unique().tolist()} <= {0.0, round(kept, 5)}
        else:
            assert torch.equal(mask, torch.ones(ROWS))
    if path == "both":  # few rows may be drawn alike by chance, but not for three seeds
        others = [drawn(doped_layer(), seed=seed, rate=0.3, path=path, sharing=sharing) for seed in (5, 6)]
        assert not all(torch.equal(*pair) for pair in (masks, *others))


@pytest.mark.parametrize("path", ["both", "structure", "overlay", "whole"])
@pytest.mark.parametrize("sharing", SHAPES)
def test_inverted_scaling_keeps_the_mean(path: str, sharing: str) -> None:
    layer, generator = doped_layer(), torch.Generator().manual_seed(1)
    masks = RowMasks(layer, CoMatrixDropout(rate=0.4, path=path, sharing=sharing), steps=1)  # type: ignore[arg-type]
    sums = [torch.zeros(ROWS), torch.zeros(ROWS)]
    draws = 3000 if path == "whole" else 600
    for _ in range(draws):
        masks.draw(0, generator, (5, 4))
        for total, mask in zip(sums, layer.weight.row_masks or (), strict=True):
            total += mask.reshape(-1, ROWS).mean(0)
    for total in sums:
        torch.testing.assert_close(total.mean() / draws, torch.tensor(1.0), atol=0.05, rtol=0)


def test_the_rate_is_the_share_dropped_and_the_paths_are_independent() -> None:
    layer, generator = doped_layer(), torch.Generator().manual_seed(1)
    masks = RowMasks(layer, CoMatrixDropout(rate=0.3, sharing="element"), steps=1)
    masks.draw(0, generator, (100, 100))
    assert layer.weight.row_masks is not None
    first, second = (mask > 0 for mask in layer.weight.row_masks)
    assert first.float().mean() == pytest.approx(0.7, abs=0.01)
    assert (first & second).float().mean() == pytest.approx(0.49, abs=0.01)


def test_whole_never_drops_all_paths_and_drops_rows_together() -> None:
    layer, generator = doped_layer(), torch.Generator().manual_seed(1)
    masks = RowMasks(layer, CoMatrixDropout(rate=0.6, path="whole", scaling="none"), steps=1)
    seen = set()
    for _ in range(60):
        masks.draw(0, generator, SIZE)
        assert layer.weight.row_masks is not None
        assert all(mask.shape == (ROWS,) and len(mask.unique()) == 1 for mask in layer.weight.row_masks)
        seen.add(tuple(float(mask[0]) for mask in layer.weight.row_masks))
    assert seen == {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)}


@pytest.mark.parametrize(
    ("path", "masked"), [("both", True), ("overlay", True), ("structure", False), ("whole", False)]
)
@pytest.mark.parametrize("structure", [Sparse(9), LowRank(2)])
def test_a_weight_of_one_path_counts_as_an_overlay(structure: Any, path: str, masked: bool) -> None:
    layer = Linear(8, ROWS, weight=structure.new((ROWS, 8)))
    masks = drawn(layer, rate=0.5, path=path)
    assert (masks is not None) is masked
    assert masks is None or [mask.shape for mask in masks] == [(ROWS,)]


def test_dense_weights_are_never_masked() -> None:
    assert drawn(Linear(8, ROWS), rate=0.5) is None


def test_equal_seeds_draw_equal_masks_and_others_do_not() -> None:
    one, same, other = (drawn(doped_layer(), seed=seed, rate=0.5, sharing="element") for seed in (1, 1, 2))
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))


def test_a_process_takes_its_part_of_the_same_masks() -> None:
    for sharing, axis in (("sequence", 0), ("element", 1)):
        whole = drawn(doped_layer(), rate=0.5, sharing=sharing)
        parts = [drawn(doped_layer(), rate=0.5, sharing=sharing, streams=s) for s in (slice(0, 2), slice(2, 4))]
        for path in (0, 1):
            assert torch.equal(torch.cat([part[path] for part in parts], dim=axis), whole[path])
    assert all(map(torch.equal, drawn(doped_layer(), rate=0.5, streams=slice(2, 4)), drawn(doped_layer(), rate=0.5)))


def test_it_acts_within_its_schedule_only_and_is_taken_off() -> None:
    layer = doped_layer()
    acting = [step for step in range(100) if drawn(layer, step=step, rate=0.5, begin=0.25, end=0.5) is not None]
    assert acting == list(range(25, 50))
    assert drawn(layer, rate=0.0) is None
    masks = RowMasks(layer, CoMatrixDropout(rate=0.5), steps=1)
    masks.draw(0, torch.Generator(), SIZE)
    assert layer.weight.row_masks is not None
    masks.clear()
    assert layer.weight.row_masks is None


def test_settled_masks_stay_where_the_first_ones_lie() -> None:
    layer, alike = doped_layer(), doped_layer()
    masks, free = (RowMasks(model, CoMatrixDropout(rate=0.5), steps=9) for model in (layer, alike))
    assert not masks.settle()
    places = set()
    for step in range(5):
        for each in (masks, free):
            each.draw(step, torch.Generator().manual_seed(step), SIZE)
        assert masks.settle()
        assert layer.weight.row_masks is not None
        assert alike.weight.row_masks is not None
        assert all(map(torch.equal, layer.weight.row_masks, alike.weight.row_masks))
        places.add(tuple(mask.data_ptr() for mask in layer.weight.row_masks))
        masks.clear()
    assert len(places) == 1
    assert not masks.settle()


def masked_by_hand(weight: StructuredWeight, x: Tensor, time: int | None = None) -> Tensor:
    assert isinstance(weight, DopedWeight)
    assert weight.row_masks is not None
    base, overlay = (m if time is None or m.dim() < 3 else m[time] for m in weight.row_masks)
    return base * (x @ weight.base.to_dense().T) + overlay * (x @ weight.overlay.to_dense().T)


@pytest.mark.parametrize("sharing", SHAPES)
def test_a_linear_layer_is_the_sum_of_two_masked_products(sharing: str) -> None:
    layer = doped_layer().double()
    drawn(layer, rate=0.5, sharing=sharing)
    x = torch.randn(*SIZE, 8, dtype=torch.float64)
    assert layer.bias is not None
    torch.testing.assert_close(layer(x), masked_by_hand(layer.weight, x) + layer.bias)


@pytest.mark.parametrize("sharing", SHAPES)
def test_an_embedding_is_the_sum_of_two_masked_rows(sharing: str) -> None:
    torch.manual_seed(0)
    layer = Embedding(ROWS, 8, weight=DOPED.new((ROWS, 8))).double()
    drawn(layer, rate=0.5, sharing=sharing)  # type: ignore[arg-type]
    index = torch.randint(ROWS, SIZE)
    assert isinstance(layer.weight, DopedWeight)
    one_hot = torch.nn.functional.one_hot(index, ROWS).double().unsqueeze(-1)
    expected = 0.0
    for mask, path in zip(layer.weight.row_masks or (), layer.weight.paths(), strict=True):
        expected = expected + (one_hot * mask.unsqueeze(-1) * path.to_dense()).sum(-2)
    torch.testing.assert_close(layer(index), expected)


@pytest.mark.parametrize("contraction", ["dense", "factored"])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("sharing", SHAPES)
def test_an_lstm_is_the_sum_of_two_masked_products_in_every_step(sharing: str, joint: bool, contraction: str) -> None:
    torch.manual_seed(0)
    lstm = LSTM(4, 4, joint=joint, contraction=contraction).double()  # type: ignore[arg-type]
    for slot in slots(lstm):
        rows, columns = slot.weight.shape
        slot.set(Doped(Kronecker(((4, 2), (rows // 4, columns // 2))), Sparse(30)).new(slot.weight.shape).double())
    masks = RowMasks(lstm, CoMatrixDropout(rate=0.5, sharing=sharing), steps=1)  # type: ignore[arg-type]
    masks.draw(0, torch.Generator().manual_seed(0), SIZE)
    x = torch.randn(*SIZE, 4, dtype=torch.float64)
    h = c = torch.zeros(4, 4, dtype=torch.float64)
    outputs = []
    for t in range(5):
        if joint:
            gates = masked_by_hand(lstm.weight_l0, torch.cat([x[t], h], dim=1), t)
        else:
            gates = masked_by_hand(lstm.weight_ih_l0, x[t], t) + masked_by_hand(lstm.weight_hh_l0, h, t)
        i, f, g, o = (gates + lstm.bias_l0).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    torch.testing.assert_close(lstm(x)[0], torch.stack(outputs))


def test_both_contractions_have_the_same_gradients_under_masks(make_model: Callable[..., LanguageModel]) -> None:
    gradients = []
    for contraction in ("dense", "factored"):
        model = make_model(Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))).double()
        model.lstm.contraction = contraction  # type: ignore[assignment]
        masks = RowMasks(model, CoMatrixDropout(rate=0.5), steps=1)
        masks.draw(0, torch.Generator().manual_seed(0), SIZE)
        model(torch.arange(20).view(SIZE) % 11)[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])
