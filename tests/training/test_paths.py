from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dopant.evaluation import perplexity
from dopant.layers import Linear, slots
from dopant.models import LanguageModel
from dopant.structures import Doped, DopedWeight, Kronecker, LowRank, MaskedWeight, Sparse
from dopant.training.overlay import open_overlays, prune
from dopant.training.paths import trace_paths

DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))


def without(model: LanguageModel, number: int) -> None:
    """Take a path away for good."""
    with torch.no_grad():
        for slot in slots(model):
            if isinstance(slot.weight, DopedWeight):
                for parameter in slot.weight.paths()[number].parameters():
                    parameter.zero_()


def test_what_is_traced_is_what_the_model_is_without_the_path(
    make_model: Callable[..., LanguageModel], columns: Tensor
) -> None:
    model = make_model(DOPED)
    found = trace_paths(model, lambda m: perplexity(m, columns))
    assert found is not None
    assert found["valid_perplexity"] == perplexity(model, columns)
    for number, name in enumerate(("valid_without_structure", "valid_without_overlay")):
        other = make_model(DOPED)
        without(other, number)
        assert found[name] == pytest.approx(perplexity(other, columns), rel=1e-5)
        assert found[name] != found["valid_perplexity"]


def test_sizes_and_density(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(DOPED)
    found = trace_paths(model, lambda m: 1.0)
    assert found is not None
    for number, name in enumerate(("structure_norm", "overlay_norm")):
        dense = [s.weight.paths()[number].to_dense() for s in slots(model) if isinstance(s.weight, DopedWeight)]
        assert found[name] == pytest.approx(torch.stack(dense).norm().item(), rel=1e-5)
    assert found["density"] == pytest.approx(20 / 128)


def test_an_opened_overlay_is_measured_under_its_mask(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(DOPED)
    originals = {f"lstm.weight_l{layer}": torch.ones(16, 8) for layer in (0, 1)}
    for overlay in open_overlays(model, originals, start="scratch", overlay_start=1.0):
        prune(overlay.weight, 32)
    found = trace_paths(model, lambda m: 1.0)
    assert found is not None
    assert found["density"] == 0.25
    assert found["overlay_norm"] == pytest.approx(8.0)  # of 2 · 32 ones
    assert any(isinstance(module, MaskedWeight) for module in model.modules())


def test_nothing_doped_has_no_paths(make_model: Callable[..., LanguageModel]) -> None:
    assert trace_paths(make_model(LowRank(2)), lambda m: 1.0) is None


def test_the_masks_are_taken_off_again_even_after_an_error() -> None:
    layer = Linear(8, 16, weight=DOPED.new((16, 8)))
    calls = 0

    def fails_when_masked(model: nn.Module) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert layer.weight.row_masks is not None
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        trace_paths(layer, fails_when_masked)
    assert layer.weight.row_masks is None
