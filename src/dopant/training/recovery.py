"""A trained model of one's own made small in one's own training loop, as `compress` does it in ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

from torch import Tensor, nn

from dopant.errors import InputError, ResumeError, TrainingError
from dopant.layers import slots
from dopant.plan.apply import apply_plan
from dopant.plan.plan import Plan
from dopant.structures import Doped, MaskedWeight, Sparse, Structure
from dopant.structures.base import check_whole
from dopant.training.average import Average
from dopant.training.descent import by_rate
from dopant.training.overlay import Annealing, check_overlays, close_overlays, meet_byte_target, open_overlays
from dopant.training.settings import RECOVERY_AVERAGED, RECOVERY_PRUNED, Sparsify, TrainSettings

Allocation = Literal["each", "global"]
_MOST_BETWEEN, _PRUNINGS = 20, 10  # steps between two prunings, and how many there are at least, if steps allow


class Recovery:
    """Fits a plan's structures to a model's weights, prunes overlays while the model trains on, and averages weights.

    The rest W - B ⊗ C that a fitted structure leaves, or the pruned matrix itself, is dense at first and comes down to
    the planned non-zeros along a cubic ramp (Zhu & Gupta, arXiv 1710.01878), so that training chooses which entries
    stay. From `average_from` on the mean of all weights is taken, after every fifth step (Polyak & Juditsky 1992); it
    is what `close` leaves.

        recovery = dopant.Recovery(model, plan, steps=len(data))
        optimizer = torch.optim.SGD(recovery.parameter_groups(lr=1.0))
        for batch in data:
            ...  # forward, backward, optimizer.step(), optimizer.zero_grad()
            recovery.step()
        recovery.close()

    Parameters are new ones after the constructor, and once more after `close`: make the optimiser, and wrap the model
    for several processes, in between, and leave their dtype as it is. Training measures best with a rate that is held
    and with half of the dropout that the model was trained with (docs/decisions/0015-averaging.md). Batch normalisation
    wants its statistics taken anew after `close`, since they are not those of the mean.

    Args:
        model: trained, of layers that `convert` made; changed in place.
        plan: what `make_plan` has for it.
        steps: of the optimiser, all that training will take.
        begin, end: fractions of them between which overlays become sparse.
        allocation: "each" matrix keeps as many of its largest entries as were planned for it; "global"ly the largest of
            all matrices stay, as many in all. None: globally, unless non-zeros are planned in banks.
        average_from: fraction from which on weights are averaged; 1 keeps the last ones, as where the rate falls.

    Raises:
        InputError: no steps, or fractions that are none; a model that was not converted, or is in a recovery already;
            non-zeros in banks and a global allocation; or a structure with a sparse part inside, which cannot be
            annealed. The model is as it was.
        PlanError: the plan was made for another model.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        steps: int,
        *,
        begin: float = 0.1,
        end: float = RECOVERY_PRUNED,
        allocation: Allocation | None = None,
        average_from: float = RECOVERY_AVERAGED,
    ) -> None:
        _check(model, plan)
        check_whole("the steps of a recovery", steps, 1)
        if not all(map(_is_fraction, (begin, end, average_from))) or begin > end:
            raise InputError(
                "begin, end and average_from are fractions of all steps, from 0 to 1, and begin comes before end; got "
                f"{begin!r}, {end!r} and {average_from!r}"
            )
        planned = {weight.name: weight.structure for weight in plan.weights if weight.method is not None}
        spread = next((name for name, structure in planned.items() if _in_banks(structure)), None)
        if allocation is None:
            allocation = "global" if spread is None else "each"
        if allocation not in get_args(Allocation):
            raise InputError(f"allocation is one of {', '.join(get_args(Allocation))}, got {allocation!r}")
        if spread is not None and allocation == "global":
            raise InputError(f"{spread} has its non-zeros in banks, as many in each as were planned; allocate to each")
        check_overlays(planned)
        originals = {
            slot.name: slot.weight.to_dense().detach().clone() for slot in slots(model) if slot.name in planned
        }
        apply_plan(model, plan, "fit")
        overlays = open_overlays(model, originals, start="dense", overlay_start=1.0)

        self._model, self._plan = model, plan
        self._how: dict[str, Any] = {
            "steps": steps,
            "begin": begin,
            "end": end,
            "allocation": allocation,
            "average_from": average_from,
        }
        every = min(_MOST_BETWEEN, max(1, int((end - begin) * steps) // _PRUNINGS))
        settings = Sparsify(begin=begin, end=end, every=every, allocation=allocation)
        self._annealing = Annealing(overlays, settings, steps)
        self._annealing.before_step(0)
        self._average = Average(model, average_from * steps)
        self._done, self._closed, self._averaged = 0, False, False

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For an optimiser of torch: all parameters that learn, factors at a rate of their own.

        Each entry of a Kronecker factor acts in many places of W: under an overlay it learns at a tenth of the rate,
        factors without one at 0.3 of it. Measured with SGD; one that scales its steps itself, such as Adam, does as
        well with `model.parameters()`.

        Raises:
            InputError: the rate is no positive number.
        """
        if not _is_number(lr) or not 0.0 < lr < math.inf:
            raise InputError(f"a learning rate is a positive number, got {lr!r}")
        groups = by_rate(self._model, TrainSettings())
        return [{"params": parameters, "lr": lr * multiplier} for multiplier, parameters in groups.items()]

    def step(self) -> None:
        """After each step of the optimiser: averages weights and prunes overlays, where that is due.

        Raises:
            TrainingError: the recovery is closed, or `averaged` has put the mean in the place of the weights.
        """
        self._check_open()
        self._done += 1
        if self._done == self._how["steps"] + 1:
            warnings.warn(
                f"{self._told()}, and this is one more: it has pruned and averaged as for these; give it all steps of "
                "the optimiser",
                stacklevel=2,
            )
        self._average.after(self._done)
        self._annealing.before_step(self._done)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the mean for its weights, as soon as there is one, for a while: to validate it.

        Raises:
            TrainingError: the recovery is closed, or this is within another such call.
        """
        self._check_open()
        self._averaged = True
        try:
            with self._average.in_place():
                yield
        finally:
            self._averaged = False

    def close(self) -> None:
        """Leave the mean of the weights, overlays in their stored form, and how the plan wants them written.

        A target in bytes is met by the non-zeros as they lie; a plan takes them to be evenly random.

        Raises:
            TrainingError: the recovery is closed, or `averaged` has put the mean in the place of the weights.
        """
        self._check_open()
        overlays = self._annealing.overlays
        told = f"{self._told()} and is closed after {self._done}"
        if sum(int(o.weight.mask.sum()) for o in overlays) > sum(o.nonzeros for o in overlays):
            warnings.warn(
                f"{told}, when overlays are not as sparse as planned: they are pruned now, and nothing learns to do "
                "without",
                stacklevel=2,
            )
        elif self._how["average_from"] < 1.0 and not self._average.count:
            warnings.warn(f"{told}, when there is no mean of weights yet: the last ones are kept", stacklevel=2)
        self._average.put()
        self._annealing.before_step(self._annealing.last_step)
        close_overlays(self._model)
        storages = self._plan.storages()
        for slot in slots(self._model):
            slot.weight.storage = storages[slot.name]
        meet_byte_target(self._model, self._plan)
        self._closed = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside those of the model and the optimiser; as theirs no copy of the tensors."""
        means = dict(self._average.means)
        return {"how": dict(self._how), "done": self._done, "averaged": self._average.count, "means": means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another recovery of the same model, plan and settings was.

        The model and the optimiser load their own: make the plan, this and the optimiser anew, then load all three.

        Raises:
            ResumeError: the state is that of another recovery, or of something else.
            TrainingError: the recovery is closed, or `averaged` has put the mean in the place of the weights.
        """
        self._check_open()
        if not isinstance(state, Mapping) or set(state) != set(self.state_dict()):
            raise ResumeError("this is no state of a recovery; load what its state_dict() returned")
        if state["how"] != self._how:
            raise ResumeError(f"the state is of a recovery of {state['how']}, this one is of {self._how}")
        own, means = self._average.parameters, state["means"]
        if state["averaged"] and (wrong := _differing(means, own)):
            raise ResumeError(
                f"the state is of a recovery of other parameters: {wrong} is not in both of one shape; freeze the same "
                "and plan the same"
            )
        self._done = state["done"]
        self._average = Average(
            self._model, self._average.first, {name: mean.clone() for name, mean in means.items()}, state["averaged"]
        )

    def _told(self) -> str:
        steps = self._how["steps"]
        return f"the recovery was to take {steps} step{'s' * (steps != 1)}"

    def _check_open(self) -> None:
        if self._closed:
            raise TrainingError("this recovery is closed; to train on as it is, go on without it")
        if self._averaged:
            raise TrainingError("the model has the mean for its weights; leave `with recovery.averaged()` first")


def _check(model: object, plan: object) -> None:
    for what, value, kind in (("model", model, nn.Module), ("plan", plan, Plan)):
        if not isinstance(value, kind):
            needed = "a torch module" if kind is nn.Module else "what make_plan returns"
            raise InputError(f"the {what} of a recovery is {needed}, got {type(value).__name__}")
    places = slots(model)  # type: ignore[arg-type]
    if not places:
        raise InputError("the model has no structured weights; make them with dopant.convert(model), then plan")
    for slot in places:
        if any(isinstance(part, MaskedWeight) for part in slot.weight.modules()):
            raise InputError(f"{slot.name} is in a recovery already; close that first")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0.0 <= value <= 1.0


def _in_banks(structure: Structure) -> bool:
    sparse = structure.overlay if isinstance(structure, Doped) else structure
    return isinstance(sparse, Sparse) and sparse.per_bank > 0


def _differing(means: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """A name that only one of the two has, or both with other shapes."""
    names = sorted({*means, *own})
    return next((n for n in names if n not in means or n not in own or means[n].shape != own[n].shape), None)
