"""The processes that share a run: this one alone, or those of an `accelerate.Accelerator`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dopant.errors import InputError


class Processes:
    """What the loop asks of them. Each process has an equal part of the streams of text.

    Args:
        accelerator: an `accelerate.Accelerator`; None for one process.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self.accelerator = accelerator
        self.count = 1 if accelerator is None else int(accelerator.num_processes)
        self.rank = 0 if accelerator is None else int(accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def streams(self, batch: int) -> slice:
        """This process's part of `batch` streams.

        Raises:
            InputError: they cannot be shared equally.
        """
        if batch % self.count:
            raise InputError(
                f"a batch of {batch} cannot be shared among {self.count} processes; "
                "choose a batch that their number divides"
            )
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over the processes; it shares the weights."""
        prepared: nn.Module = model if self.accelerator is None else self.accelerator.prepare_model(model)
        return prepared

    def backward(self, loss: Tensor) -> None:
        """Back-propagate."""
        if self.accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.accelerator.backward(loss)

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over the processes."""
        return float(value if self.accelerator is None else self.accelerator.reduce(value, "mean"))

    def gathered(self, part: Tensor) -> Tensor:
        """The processes' parts (layers, streams, size) as one."""
        if self.accelerator is None:
            return part
        whole: Tensor = self.accelerator.gather(part.transpose(0, 1).contiguous())
        return whole.transpose(0, 1)

    def wait(self) -> None:
        """Until all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def make_accelerator(device: str) -> Any:
    """The accelerator of a process that `torchrun` or `accelerate launch` has started, or of one alone.

    Raises:
        InputError: the accelerate package is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise InputError("several processes need the accelerate package: pip install 'dopant[accelerate]'") from None
    return Accelerator(cpu=device == "cpu")
