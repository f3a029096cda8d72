"""An ONNX graph while it is put together: nodes that name what they compute, constants that are kept once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dopant.errors import InputError
from dopant.exporting.extra import extra

OPSET = 17
IR_VERSION = 8  # the one of opset 17's time; older runtimes refuse newer ones
LARGEST = 2**31 - 2**20  # bytes of constants: a protobuf message can have 2**31 - 1, and nodes take some too

Array = npt.NDArray[Any]
T = TypeVar("T")


class Graph:
    """Nodes in the order in which they were added; a value is known by its name, a `str`.

    Args:
        outer: the graph around this one, if it is the body of a Scan. Constants, and what is computed from constants
            alone, go to the outermost, so that it is computed once.
    """

    def __init__(self, outer: Graph | None = None) -> None:
        self.root: Graph = self if outer is None else outer.root
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.bytes = 0  # of the initializers
        self._kept: dict[object, Any] = {}
        self._names: set[str] = set()

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, whose name is returned."""
        return self.add_many(operator, inputs, 1, **attributes)[0]

    def add_many(self, operator: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs."""
        outputs = [self._new_name(operator.lower()) for _ in range(count)]
        self.nodes.append(extra("onnx.helper").make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def rename(self, value: str, name: str) -> None:
        """Give a value the name that the graph's callers are promised."""
        self.nodes.append(extra("onnx.helper").make_node("Identity", [value], [name]))

    def constant(self, array: Array, name: str) -> str:
        """An array under a name of its own.

        Raises:
            InputError: the constants together are too large for a file.
        """
        self.root.bytes += array.nbytes
        if self.root.bytes > LARGEST:
            raise InputError(
                f"the model takes more than {LARGEST:,} bytes, the most that an ONNX file can hold; "
                "store it in fewer (--values int8), or compress more of it"
            )
        name = self._new_name(name)
        self.root.initializers.append(extra("onnx.numpy_helper").from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, *numbers: int) -> str:
        """A short int64 vector, such as a shape; equal ones are kept once."""
        return self.kept(numbers, lambda: self.constant(np.array(numbers, np.int64), "integers"))

    def integer(self, number: int) -> str:
        """An int64 of no dimensions."""
        return self.kept(("integer", number), lambda: self.constant(np.array(number, np.int64), "integer"))

    def zeros(self, shape: str, dtype: type[Any] = np.float32) -> str:
        """Zeros of a shape that is itself a value."""
        return self.add("ConstantOfShape", shape, value=extra("onnx.numpy_helper").from_array(np.zeros(1, dtype)))

    def kept(self, key: object, make: Callable[[], T]) -> T:
        """What `make` adds to the outermost graph, made once for each key."""
        if key not in self.root._kept:
            self.root._kept[key] = make()
        kept: T = self.root._kept[key]
        return kept

    def reshape(self, value: str, *sizes: int) -> str:
        """The value with other sizes; one of them may be -1."""
        return self.add("Reshape", value, self.integers(*sizes))

    def transposed(self, constant: str, rank: int = 2) -> str:
        """A constant with its last two axes changed over, once at load."""
        perm = [*range(rank - 2), rank - 1, rank - 2]
        return self.kept((constant, "transposed"), lambda: self.root.add("Transpose", constant, perm=perm))

    def to(self, value: str, dtype: type[Any]) -> str:
        """The value in another type."""
        return self.add("Cast", value, to=extra("onnx.helper").np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _new_name(self, wish: str) -> str:
        names, name, number = self.root._names, wish, 1
        while name in names:
            number += 1
            name = f"{wish}_{number}"
        names.add(name)
        return name
