"""A trained model of one's own made small in one's own training loop, as `compress` does it in ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from torch import nn

from dopant.errors import InputError, TrainingError
from dopant.layers import slots
from dopant.plan.apply import apply_plan
from dopant.plan.plan import Plan
from dopant.structures import Doped, Sparse, Structure
from dopant.training.average import Average
from dopant.training.descent import by_rate
from dopant.training.overlay import Annealing, check_overlays, close_overlays, meet_byte_target, open_overlays
from dopant.training.settings import RECOVERY_AVERAGED, RECOVERY_PRUNED, Sparsify, TrainSettings


class Recovery:
    """Fits a plan's structures to a model's weights, prunes overlays while the model trains on, and averages weights.

    The rest W - B ⊗ C that a fitted structure leaves, or the pruned matrix itself, is dense at first and comes down to
    the planned non-zeros along a cubic ramp (Zhu & Gupta, arXiv 1710.01878), so that training chooses which entries
    stay. From `average_from` on the mean of all weights is taken (Polyak & Juditsky 1992); it is what `close` leaves.

        recovery = dopant.Recovery(model, plan, steps=len(data))
        optimizer = torch.optim.SGD(recovery.parameter_groups(lr=1.0))
        for batch in data:
            ...  # forward, backward, optimizer.step(), optimizer.zero_grad()
            recovery.step()
        recovery.close()

    Parameters are new ones after the constructor, and once more after `close`: make the optimiser, and wrap the model
    for several processes, in between. Training measures best with a rate that is held and with half of the dropout that
    the model was trained with (docs/decisions/0015-averaging.md). Batch normalisation wants its statistics taken anew
    after `close`, since they are not those of the mean.

    Args:
        model: trained, of layers that `convert` made; changed in place.
        plan: what `make_plan` has for it.
        steps: of the optimiser, all that training will take.
        begin, end: fractions of them between which overlays become sparse.
        allocation: "each" matrix keeps as many of its largest entries as were planned for it; "global"ly the largest of
            all matrices stay, as many in all. None: globally, unless non-zeros are planned in banks.
        average_from: fraction from which on weights are averaged; 1 keeps the last ones, as where the rate falls.

    Raises:
        InputError: no steps, or fractions that are none; non-zeros in banks and a global allocation; or a structure
            with a sparse part inside, which cannot be annealed. The model is as it was.
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
        allocation: Literal["each", "global"] | None = None,
        average_from: float = RECOVERY_AVERAGED,
    ) -> None:
        if steps < 1:
            raise InputError(f"a recovery takes 1 step or more, got {steps}")
        if not 0.0 <= begin <= end <= 1.0 or not 0.0 <= average_from <= 1.0:
            raise InputError(
                "begin, end and average_from are fractions of all steps, from 0 to 1, and begin comes before end; got "
                f"{begin}, {end} and {average_from}"
            )
        planned = {weight.name: weight.structure for weight in plan.weights if weight.method is not None}
        check_overlays(planned)
        spread = next((name for name, structure in planned.items() if _in_banks(structure)), None)
        if spread is not None and allocation == "global":
            raise InputError(f"{spread} has its non-zeros in banks, as many in each as were planned; allocate to each")
        self._model, self._plan, self._steps = model, plan, steps
        self._done, self._closed = 0, False
        originals = {
            slot.name: slot.weight.to_dense().detach().clone() for slot in slots(model) if slot.name in planned
        }
        apply_plan(model, plan, "fit")
        overlays = open_overlays(model, originals, start="dense", overlay_start=1.0)
        sparsify = Sparsify(begin=begin, end=end, allocation=allocation or ("each" if spread else "global"))
        self._annealing = Annealing(overlays, sparsify, steps)
        self._annealing.before_step(0)
        self._average = Average(model, average_from * steps)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For an optimiser of torch: all parameters that learn, factors at a rate of their own.

        Each entry of a Kronecker factor acts in many places of W: under an overlay it learns at a tenth of the rate,
        factors without one at 0.3 of it.
        """
        groups = by_rate(self._model, TrainSettings())
        return [{"params": parameters, "lr": lr * multiplier} for multiplier, parameters in groups.items()]

    def step(self) -> None:
        """After each step of the optimiser: averages weights and prunes overlays, where that is due.

        Raises:
            TrainingError: the recovery is closed.
        """
        self._check_open()
        self._done += 1
        self._average.after(self._done)
        self._annealing.before_step(self._done)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with the mean for its weights, as soon as there is one, for a while: to validate it."""
        return self._average.in_place()

    def close(self) -> None:
        """Leave the mean of the weights, overlays in their stored form, and how the plan wants them written.

        A target in bytes is met by the non-zeros as they lie; a plan takes them to be evenly random.

        Raises:
            TrainingError: the recovery is closed.
        """
        self._check_open()
        self._closed = True
        if self._done < self._annealing.last_step:
            warnings.warn(
                f"the recovery was to take {self._steps} steps and is closed after {self._done}, when overlays were "
                "not as sparse as planned: they are pruned now, and nothing learns to do without",
                stacklevel=2,
            )
        self._average.put()
        self._annealing.before_step(self._annealing.last_step)
        close_overlays(self._model)
        storages = self._plan.storages()
        for slot in slots(self._model):
            slot.weight.storage = storages[slot.name]
        meet_byte_target(self._model, self._plan)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside those of the model and the optimiser: steps done, and the mean so far."""
        return {"done": self._done, "averaged": self._average.count, "means": dict(self._average.means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another recovery of the same model and plan was; the model and the optimiser have their own.

        Raises:
            InputError: it is of other parameters.
        """
        means = state["means"]
        own = self._average.parameters
        if wrong := [name for name, mean in means.items() if name not in own or own[name].shape != mean.shape]:
            raise InputError(f"the state is that of another recovery: it has a mean of {wrong[0]}, which is not here")
        self._done = state["done"]
        kept = {name: mean.clone() for name, mean in means.items()}
        self._average = Average(self._model, self._average.first, kept, state["averaged"])

    def _check_open(self) -> None:
        if self._closed:
            raise TrainingError("this recovery is closed; to train on as it is, go on without it")


def _in_banks(structure: Structure) -> bool:
    sparse = structure.overlay if isinstance(structure, Doped) else structure
    return isinstance(sparse, Sparse) and sparse.per_bank > 0
