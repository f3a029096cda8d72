"""The contract of a structured weight as a list of checks, for the structures here and for anybody's own.

    import pytest
    from dopant.testing.contract import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_structure(check):
        CHECKS[check](MyStructure(3), (12, 8))

A check returns None or raises AssertionError with what was wrong. Choose shapes of some dozens of rows and columns: a
check takes milliseconds then, and a structure that saves something has room to show it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.structures import (
    Doped,
    Kronecker,
    Shape,
    Stacked,
    Structure,
    StructuredWeight,
    describe,
    structure_from,
)
from dopant.testing.compare import ROUNDINGS, Run, copy_of, dtype_of, fail, random, same, same_gradients, seeded
from dopant.testing.watch import Watch

WeightCheck = Callable[[StructuredWeight], None]
Check = Callable[[Structure, Shape], None]

_BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (2, 3), (0,), (2, 0))


def check_structure(structure: Structure, shape: Shape) -> None:
    """Hold a structure to every check of `CHECKS`.

    Raises:
        AssertionError: with the name of the first check that failed, and why.
    """
    for name, check in CHECKS.items():
        try:
            check(structure, shape)
        except AssertionError as failure:
            raise AssertionError(f"{structure} at {shape} fails {name!r}: {failure}") from failure


def check_weight(weight: StructuredWeight) -> None:
    """Hold a weight, in whatever form, to every check of `WEIGHT_CHECKS`; it is not changed.

    Raises:
        AssertionError: with the name of the first check that failed, and why.
    """
    for name, check in WEIGHT_CHECKS.items():
        try:
            check(weight)
        except AssertionError as failure:
            raise AssertionError(f"{type(weight).__name__} fails {name!r}: {failure}") from failure


@singledispatch
def fit_is_exact(structure: Structure) -> bool:
    """Whether `fit` promises the nearest weight of all, so that it finds again what was made by `new`.

    True unless registered otherwise; what is not exact must at least not be worse than its parts alone.
    """
    return True


@fit_is_exact.register
def _(structure: Kronecker) -> bool:
    return len(structure.shapes) == 2


@fit_is_exact.register
def _(structure: Stacked) -> bool:
    return all(fit_is_exact(part) for part in structure.parts)


@fit_is_exact.register
def _(structure: Doped) -> bool:
    return False


# ---------------------------------------------------------------- what a weight must do


def linear_is_the_dense_product(weight: StructuredWeight) -> None:
    """linear(x) == F.linear(x, to_dense()), with the gradients of x and of each factor, in three dtypes."""
    for dtype in ROUNDINGS:
        for batch in _BATCHES:
            x = random((*batch, weight.shape[1]), 1, dtype)
            same_gradients(weight, dtype, x, lambda w, x: w.linear(x), lambda w, x: F.linear(x, w.to_dense()))


def rows_are_the_dense_rows(weight: StructuredWeight) -> None:
    """rows(i) == to_dense()[i], with the gradients of each factor, in three dtypes."""
    for dtype in ROUNDINGS:
        for batch in _BATCHES:
            index = torch.randint(weight.shape[0], batch, generator=seeded(2))
            same_gradients(weight, dtype, index, lambda w, i: w.rows(i), lambda w, i: w.to_dense()[i])
    every = torch.arange(weight.shape[0])
    same("rows(all)", weight.rows(every), weight.to_dense(), 64.0)
    same("rows of int32 indices", weight.rows(every.int()), weight.to_dense(), 64.0)


def rows_out_of_range_are_refused(weight: StructuredWeight) -> None:
    """rows raises IndexError for an index below 0 or beyond the last row, as torch.nn.Embedding does."""
    for bad in (-1, weight.shape[0], 10 * weight.shape[0]):
        try:
            weight.rows(torch.tensor([0, bad]))
        except IndexError:
            continue
        fail(f"rows({bad}) of {weight.shape[0]} rows did not raise IndexError")


def every_factor_gets_a_gradient(weight: StructuredWeight) -> None:
    """No parameter is left out when W is trained, by the product or by the formed matrix."""
    runs: dict[str, Run] = {"linear": lambda w, x: w.linear(x), "to_dense": lambda w, x: F.linear(x, w.to_dense())}
    for name, run in runs.items():
        ours = copy_of(weight, torch.float64)
        y = run(ours, random((5, weight.shape[1]), 3, torch.float64))
        torch.autograd.backward(y, random((5, weight.shape[0]), 4, torch.float64))
        for parameter_name, parameter in ours.named_parameters():
            if parameter.grad is None or (parameter.numel() and not parameter.grad.any()):
                fail(f"{parameter_name} gets no gradient from {name}")


def the_big_matrix_is_never_formed(weight: StructuredWeight) -> None:
    """No tensor of out · in elements or more appears in linear or rows, forward and backward.

    Says nothing of a weight that holds as many itself (dense, or in training form).
    """
    entries = weight.shape[0] * weight.shape[1]
    held = [t.numel() for t in (*weight.parameters(), *weight.buffers())]
    if max(held, default=0) >= entries or sum(held) * 2 > entries:
        return
    ours = copy_of(weight, torch.float32)
    index = torch.tensor([0, weight.shape[0] - 1])
    x = random((1, weight.shape[1]), 5, torch.float32).requires_grad_()
    for name, act, given in (("linear", ours.linear, x), ("rows", ours.rows, index)):
        with Watch() as watch:
            torch.autograd.backward(act(given).sum())
        if watch.largest >= entries:
            fail(
                f"{name} makes a tensor of {watch.largest} elements ({watch.where}); "
                f"W of {weight.shape[0]}×{weight.shape[1]} has {entries} and must not be formed"
            )


def parameters_are_those_held(weight: StructuredWeight) -> None:
    """cost().parameters counts the elements of the parameters; cost().macs is not less than linear really does.

    Says nothing of a training form, which holds more than it will store.
    """
    cost = weight.cost()
    held = sum(p.numel() for p in weight.parameters())
    trained = any(b.dtype == torch.bool for b in weight.buffers())  # a mask
    if not trained and held != cost.parameters:
        fail(f"cost() tells of {cost.parameters} parameters, {held} are held")
    if cost.stored_bytes < 4 * cost.parameters:
        fail(f"{cost.parameters} float32 parameters cannot be stored in {cost.stored_bytes} bytes")
    with Watch() as watch, torch.no_grad():
        weight.linear(random((1, weight.shape[1]), 6, torch.float32).to(dtype_of(weight)))
    if not trained and watch.macs > cost.macs:
        fail(f"cost() tells of {cost.macs} multiply-accumulates, linear does {watch.macs}")


def state_dicts_carry_it(weight: StructuredWeight) -> None:
    """What state_dict holds is all that W is made of."""
    ours = copy_of(weight, dtype_of(weight))
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    if missing := [name for name, _ in ours.named_buffers() if name not in state]:
        fail(f"state_dict() lacks {missing[0]}")
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(1.0)
        for buffer in ours.buffers():
            buffer.zero_()
    ours.load_state_dict(state)
    same("to_dense() after load_state_dict", ours.to_dense(), weight.to_dense(), 0.0)


class _Loss(nn.Module):
    """A number that depends on all ways to use a weight."""

    def __init__(self, weight: StructuredWeight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self) -> Tensor:
        x = random((5, self.weight.shape[1]), 8, torch.float64)
        rows = self.weight.rows(torch.arange(self.weight.shape[0]))
        ways = (self.weight.linear(x), rows, self.weight.to_dense())
        return torch.stack([way.square().sum() for way in ways]).sum()


def parameters_may_be_given(weight: StructuredWeight) -> None:
    """torch.func calls it with tensors in the place of its parameters, and has the gradients with respect to them."""
    ours, other = _Loss(copy_of(weight, torch.float64)), _Loss(copy_of(weight, torch.float64))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5).add_(0.25)

    def called(given: dict[str, Tensor]) -> Tensor:
        loss: Tensor = torch.func.functional_call(ours, given, ())
        return loss

    expected = other()
    torch.autograd.backward(expected)
    gradients, loss = torch.func.grad_and_value(called)({name: p.detach() for name, p in other.named_parameters()})
    same("a loss with parameters that are given", loss, expected, 64.0)
    for name, parameter in other.named_parameters():
        assert parameter.grad is not None
        same(f"torch.func's gradient of {name}", gradients[name], parameter.grad, 64.0)


def copies_are_independent(weight: StructuredWeight) -> None:
    """copy.deepcopy gives an equal weight that shares nothing."""
    ours = copy.deepcopy(weight)
    same("to_dense() of a deep copy", ours.to_dense(), weight.to_dense(), 0.0)
    if ours.structure != weight.structure:
        fail(f"a deep copy has another structure: {ours.structure}, not {weight.structure}")
    theirs = {t.data_ptr() for t in (*weight.parameters(), *weight.buffers()) if t.numel()}
    if any(t.data_ptr() in theirs for t in (*ours.parameters(), *ours.buffers())):
        fail("a deep copy shares memory with the original")


def paths_add_up(weight: StructuredWeight) -> None:
    """The paths sum to W, and masks set for training change neither linear nor rows nor to_dense."""
    ours = copy_of(weight, torch.float64)
    same("the sum of the paths", torch.stack([path.to_dense() for path in ours.paths()]).sum(0), ours.to_dense(), 64.0)
    x = random((3, weight.shape[1]), 7, torch.float64)
    index = torch.arange(weight.shape[0])
    before = [ours.to_dense(), ours.linear(x), ours.rows(index)]
    ours.row_masks = tuple(torch.zeros(weight.shape[0], dtype=torch.float64) for _ in ours.paths())
    after = [ours.to_dense(), ours.linear(x), ours.rows(index)]
    for name, old, new in zip(("to_dense", "linear", "rows"), before, after, strict=True):
        same(f"{name} under row_masks", new, old, 0.0)


# ---------------------------------------------------------------- what a structure must do


def cost_is_known_beforehand(structure: Structure, shape: Shape) -> None:
    """structure.cost(shape) is the cost of what `new` makes; bytes to 1 %, their indices being a matter of chance."""
    before, weight = structure.cost(shape), structure.new(shape, generator=seeded(0))
    after = weight.cost()
    if (before.parameters, before.macs) != (after.parameters, after.macs):
        fail(f"cost(shape) says {before}, the weight {after}")
    if abs(before.stored_bytes - after.stored_bytes) > 64 + after.stored_bytes / 100:
        fail(f"cost(shape) says {before.stored_bytes} stored bytes, the weight {after.stored_bytes}")


def descriptions_bring_it_back(structure: Structure, shape: Shape) -> None:
    """The structure survives JSON, and a weight knows the structure it has."""
    text = json.dumps(describe(structure))
    if (again := structure_from(json.loads(text))) != structure:
        fail(f"described as {text} it comes back as {again}")
    for made, weight in (
        ("new", structure.new(shape, generator=seeded(0))),
        ("fit", structure.fit(random(shape, 8, torch.float32))),
    ):
        if weight.structure != structure or weight.shape != shape:
            fail(f"{made} makes a weight of {weight.structure} at {weight.shape}")


def new_is_drawn_from_its_generator(structure: Structure, shape: Shape) -> None:
    """Equal generators give equal weights, others others; the global generator is not touched when one is given."""
    state = torch.get_rng_state()
    first, second = (structure.new(shape, generator=seeded(9)).to_dense() for _ in range(2))
    if not torch.equal(state, torch.get_rng_state()):
        fail("new() draws from the global generator although one was given")
    same("new() from an equal generator", first, second, 0.0)
    other = structure.new(shape, generator=seeded(10)).to_dense()
    if first.any() and torch.equal(first, other):
        fail("new() gives the same weight whatever the generator")


def new_has_the_promised_spread(structure: Structure, shape: Shape) -> None:
    """W has mean zero and the standard deviation asked for, by default torch.nn.Linear's 1 / sqrt(3 in)."""
    draws = max(8, min(200, 2**20 // (shape[0] * shape[1])))
    draw = seeded(11)
    for std in (None, 0.3):
        promised = (3 * shape[1]) ** -0.5 if std is None else std
        drawn = torch.stack([structure.new(shape, std=std, generator=draw).to_dense().detach() for _ in range(draws)])
        if not drawn.any():
            return  # an empty sparse matrix
        spread = float(drawn.double().square().mean().sqrt())
        if not abs(spread / promised - 1) <= 0.15:  # nor is NaN
            fail(f"W of new(std={std}) has standard deviation {spread:.4g}, promised is {promised:.4g}")
        if not abs(float(drawn.mean())) <= 0.15 * promised:
            fail(f"W of new(std={std}) has mean {float(drawn.mean()):.4g}, at a standard deviation of {promised:.4g}")


def impossible_shapes_are_refused(structure: Structure, shape: Shape) -> None:
    """What `check` accepts can be made and fitted; what it refuses, with InputError, `new` and `fit` refuse so too."""
    m, n = shape
    structure.check(shape)
    for other in ((m + 1, n), (m, n + 1), (m + 1, n + 1), (n + 7, m), (1, 1), (1, n), (m, 1)):
        possible = _accepts(structure.check, other)
        if _accepts(structure.new, other) != possible:
            fail(f"check({other}) {'accepts' if possible else 'refuses'} what new does not")
        if _accepts(structure.fit, random(other, 12, torch.float32)) != possible:
            fail(f"check({other}) {'accepts' if possible else 'refuses'} what fit does not")


def fit_finds_the_nearest(structure: Structure, shape: Shape) -> None:
    """fit gives back what new made where it can; it is never worse than nothing, nor than a part alone."""
    for dtype in (torch.float32, torch.float64):
        own = copy_of(structure.new(shape, std=1.0, generator=seeded(13)), dtype).to_dense().detach()
        strange = random(shape, 14, dtype)
        weight = structure.fit(strange)
        if dtype_of(weight) != dtype and any(p.numel() > 0 for p in weight.parameters()):
            fail(f"fit of a {dtype} matrix holds {dtype_of(weight)}")
        if any(not p.requires_grad for p in weight.parameters()):
            fail("fit makes a weight that cannot be trained")
        error = _distance(weight, strange)
        if not error <= float(strange.norm()) * (1 + 1e-6):  # nor is NaN
            fail(f"fit is off by {error:.4g}, a matrix of zeros by {float(strange.norm()):.4g}")
        if fit_is_exact(structure):
            rounding = 1e3 * torch.finfo(dtype).eps * max(1.0, float(own.norm()))
            if not (off := _distance(structure.fit(own), own)) <= rounding:
                fail(f"fit of its own {dtype} matrix of norm {float(own.norm()):.4g} is off by {off:.4g}")
            _is_stationary(weight, strange)
        for part in _parts(structure):
            theirs = copy_of(part.new(shape, std=1.0, generator=seeded(17)), dtype).to_dense().detach()
            for matrix in (strange, theirs):
                off, alone = _distance(structure.fit(matrix), matrix), _distance(part.fit(matrix), matrix)
                if not off <= alone + 1e3 * torch.finfo(dtype).eps * float(matrix.norm()):
                    fail(f"fit is off by {off:.6g}, its part {part} alone by {alone:.6g}")


def fit_leaves_the_matrix(structure: Structure, shape: Shape) -> None:
    """fit neither changes the matrix nor shares its memory, nor keeps its autograd history."""
    matrix = random(shape, 15, torch.float32).requires_grad_()
    before = matrix.detach().clone()
    weight = structure.fit(matrix)
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.add_(1.0)
    if not torch.equal(matrix.detach(), before):
        fail("fit changes the matrix, or shares its memory")
    if any(not p.is_leaf for p in weight.parameters()):
        fail("a factor of fit is no leaf")


WEIGHT_CHECKS: dict[str, WeightCheck] = {
    check.__name__: check
    for check in (
        linear_is_the_dense_product,
        rows_are_the_dense_rows,
        rows_out_of_range_are_refused,
        every_factor_gets_a_gradient,
        the_big_matrix_is_never_formed,
        parameters_are_those_held,
        state_dicts_carry_it,
        parameters_may_be_given,
        copies_are_independent,
        paths_add_up,
    )
}
"""Checks of a weight by name."""


def _of_new(check: WeightCheck) -> Check:
    return lambda structure, shape: check(structure.new(shape, generator=seeded(0)))


CHECKS: dict[str, Check] = {name: _of_new(check) for name, check in WEIGHT_CHECKS.items()} | {
    check.__name__: check
    for check in (
        cost_is_known_beforehand,
        descriptions_bring_it_back,
        new_is_drawn_from_its_generator,
        new_has_the_promised_spread,
        impossible_shapes_are_refused,
        fit_finds_the_nearest,
        fit_leaves_the_matrix,
    )
}
"""All checks by name: those of a weight, on one that `new` has made, and those of a structure."""


def _parts(structure: Structure) -> list[Structure]:
    return [structure.base, structure.overlay] if isinstance(structure, Doped) else []


def _accepts(act: Callable[[Any], object], argument: object) -> bool:
    try:
        act(argument)
    except InputError:
        return False
    return True


def _distance(weight: StructuredWeight, matrix: Tensor) -> float:
    return float((weight.to_dense().detach() - matrix).norm())


def _is_stationary(weight: StructuredWeight, matrix: Tensor) -> None:
    """No factor of a nearest weight has a direction in which the error falls at first order."""
    rounding = 1e3 * torch.finfo(matrix.dtype).eps * float(matrix.norm()) ** 2
    wide = copy_of(weight, torch.float64)
    torch.autograd.backward(0.5 * (wide.to_dense() - matrix.double()).square().sum())
    for name, parameter in wide.named_parameters():
        if parameter.grad is not None and not float(parameter.grad.norm() * parameter.detach().norm()) <= rounding:
            fail(
                f"fit is not the nearest: the error still has the gradient {float(parameter.grad.norm()):.3g} in {name}"
            )
