"""Safetensors files: the header checked before anything is allocated, and bytes that depend on the contents alone.

The format is https://huggingface.co/docs/safetensors: eight bytes with the header's length (little-endian), the
header in JSON, the tensors without gaps. Written here, because the library orders metadata as its hash map happens
to, and read here, so that every fault of a header has a text of its own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dopant.errors import FileError, InputError, TensorError
from dopant.storage.strict_json import parse

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
_MAX_DIMENSIONS = 8

# name in the file: (torch, numpy with the same bytes)
_TYPES: dict[str, tuple[torch.dtype, str]] = {
    "F64": (torch.float64, "<f8"),
    "F32": (torch.float32, "<f4"),
    "F16": (torch.float16, "<f2"),
    "BF16": (torch.bfloat16, "<i2"),
    "I64": (torch.int64, "<i8"),
    "I32": (torch.int32, "<i4"),
    "I16": (torch.int16, "<i2"),
    "I8": (torch.int8, "|i1"),
    "U8": (torch.uint8, "|u1"),
    "BOOL": (torch.bool, "|u1"),
}
_NAMES = {dtype: name for name, (dtype, _) in _TYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor as a header tells of it.

    Args:
        dtype: type of its numbers.
        shape: sizes.
        start, end: where its bytes lie, counted from the end of the header.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """The checked header of a safetensors file.

    Args:
        tensors: by name, in the order of their bytes.
        metadata: free text by name.
        size: bytes of length and header, after which the tensors begin.
    """

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    size: int


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors on the CPU as safetensors: wide types first, then by name, so that all are aligned.

    Raises:
        InputError: a type that files do not have (complex, quantised, torch's own sparse layouts, …).
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided:
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise InputError(f"tensor {name!r} is {kind}, which a model file cannot hold")
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % LENGTH_BYTES)
    file.write(len(header).to_bytes(LENGTH_BYTES, "little") + header)
    for name in order:
        tensor = tensors[name].detach().contiguous()
        raw = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        array = raw.numpy().reshape(-1)
        file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def read_header(file: BinaryIO, size: int) -> Header:
    """Read and check the header of a safetensors file of `size` bytes; the tensors are not touched.

    Raises:
        FileError: not a safetensors file, truncated, or longer than its header says.
        TensorError: an entry with an unknown type, or sizes that contradict its bytes, or bytes that overlap or
            leave a gap.
    """
    if size < LENGTH_BYTES:
        raise FileError(f"the tensor file has {size} bytes, too few for a safetensors file; it is truncated")
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > min(size - LENGTH_BYTES, MAX_HEADER):
        raise FileError(
            f"the tensor file says that its header takes {length} bytes, but it has {size} in all; "
            "it is truncated or not a safetensors file"
        )
    data = parse(file.read(length), "the header of the tensor file")
    if not isinstance(data, dict):
        raise FileError("the header of the tensor file is not a JSON object")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileError("the metadata of the tensor file must be text by name")
    entries = sorted(
        ((name, _entry(name, value)) for name, value in data.items()),
        key=lambda pair: (pair[1].start, pair[1].end),
    )
    _check_order(entries, size - LENGTH_BYTES - length)
    return Header(dict(entries), metadata, LENGTH_BYTES + length)


def read_tensor(data: memoryview, header: Header, name: str) -> Tensor:
    """A copy of one tensor out of the whole file's bytes.

    Raises:
        TensorError: a truth value that is neither 0 nor 1.
    """
    entry = header.tensors[name]
    kind = next(numpy for dtype, numpy in _TYPES.values() if dtype == entry.dtype)
    raw = np.frombuffer(data[header.size + entry.start : header.size + entry.end], dtype=kind)
    array = raw.astype(raw.dtype.newbyteorder("="))
    if entry.dtype == torch.bool and array.size and int(array.max()) > 1:
        raise TensorError(f"tensor {name!r} holds truth values other than 0 and 1")
    return torch.from_numpy(array).view(entry.dtype).reshape(entry.shape)


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise TensorError(f"tensor {name[:80]!r} must have a dtype, a shape and data_offsets, and nothing else")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise TensorError(f"tensor {name[:80]!r} is of type {str(kind)[:40]!r}; known are {', '.join(_TYPES)}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise TensorError(f"the {what} of tensor {name[:80]!r} must be whole numbers from 0 to below 2^63")
    if len(shape) > _MAX_DIMENSIONS or len(offsets) != 2:
        raise TensorError(f"tensor {name[:80]!r} has {len(shape)} dimensions and {len(offsets)} offsets")
    dtype = _TYPES[kind][0]
    needed = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != needed:
        raise TensorError(
            f"tensor {name[:80]!r} of shape {str(shape)[:80]} in {kind} takes {needed} bytes, but its "
            f"offsets leave {offsets[1] - offsets[0]}"
        )
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _check_order(entries: list[tuple[str, Entry]], available: int) -> None:
    position = 0
    for name, entry in entries:
        if entry.start != position:
            fault = "overlaps the one before" if entry.start < position else "leaves a gap before it"
            raise TensorError(f"tensor {name[:80]!r} {fault}: it starts at {entry.start}, not at {position}")
        position = entry.end
    if position != available:
        raise FileError(
            f"the tensor file holds {available} bytes of tensors where its header tells of {position}; "
            + ("it is truncated" if available < position else "something was added")
        )
