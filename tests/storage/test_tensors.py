from __future__ import annotations

import io
import json
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from dopant.errors import FileError, InputError, TensorError
from dopant.storage.tensors import read_header, read_tensor, write_tensors

TENSORS = {
    "b.half": torch.arange(6, dtype=torch.float16).view(2, 3),
    "a.bytes": torch.arange(5, dtype=torch.uint8),
    "c.empty": torch.zeros(0, 4),
    "d.scalar": torch.tensor(1.5, dtype=torch.float64),
    "e.brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "f.truth": torch.tensor([True, False]),
    "g.whole": torch.tensor([2**40, -1]),
    "h.float": torch.randn(3, 2).t(),
}


def written(tensors: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    write_tensors(file, tensors, {"version": "1", "format": "dopant"})
    return file.getvalue()


def test_the_library_reads_what_is_written() -> None:
    read = safetensors.torch.load(written(TENSORS))
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_what_the_library_writes_is_read() -> None:
    raw = safetensors.torch.save({name: t.contiguous() for name, t in TENSORS.items()}, {"format": "pt"})
    header = read_header(io.BytesIO(raw), len(raw))
    assert header.metadata == {"format": "pt"}
    for name, tensor in TENSORS.items():
        read = read_tensor(memoryview(raw), header, name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor)


def test_the_bytes_do_not_depend_on_the_order_of_names() -> None:
    file = io.BytesIO()
    write_tensors(file, dict(reversed(TENSORS.items())), {"format": "dopant", "version": "1"})
    assert written(TENSORS) == file.getvalue()


def test_every_tensor_is_aligned() -> None:
    raw = written(TENSORS)
    header = read_header(io.BytesIO(raw), len(raw))
    assert header.size % 8 == 0
    assert all(entry.start % entry.dtype.itemsize == 0 for entry in header.tensors.values())


@pytest.mark.parametrize("tensor", [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()])
def test_types_that_files_do_not_have(tensor: Tensor) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        written({"x": tensor})


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "error", "text"),
    [
        (b"", FileError, "JSON"),
        (b"\xff{}", FileError, "UTF-8"),
        (b"[]", FileError, "object"),
        (b"[" * 5000, FileError, "JSON|deep"),
        (b'{"x":' * 1000 + b"1" + b"}" * 1000, FileError, "deep|must have"),
        (b'{"__metadata__": {"a": 1}}', FileError, "metadata"),
        (b'{"x": 1, "x": 1}', FileError, "twice"),
        (b'{"x": NaN}', FileError, "NaN"),
        ({"x": 3}, TensorError, "must have"),
        ({"x": {}}, TensorError, "must have"),
        (entry(surplus=1), TensorError, "nothing else"),
        (entry(dtype="C64"), TensorError, "type 'C64'"),
        (entry(dtype=["F32"]), TensorError, "type"),
        (entry(shape=[-2]), TensorError, "whole numbers"),
        (entry(shape=[2.0]), TensorError, "whole numbers"),
        (entry(shape=[True, 2]), TensorError, "whole numbers"),
        (entry(shape="2"), TensorError, "whole numbers"),
        (entry(shape=[2**63]), TensorError, "whole numbers"),
        (entry(shape=[2**62, 2**62]), TensorError, "takes"),
        (entry(shape=[1] * 9 + [2]), TensorError, "dimensions"),
        (entry(shape=[3]), TensorError, "takes 12 bytes"),
        (entry(data_offsets=[0]), TensorError, "offsets"),
        (entry(data_offsets=[8, 0]), TensorError, "takes"),
        (entry(data_offsets=[4, 12]), TensorError, "gap"),
        (entry(shape=[10**15], data_offsets=[0, 4 * 10**15]), FileError, "truncated"),
        (entry() | {"y": {"dtype": "I8", "shape": [4], "data_offsets": [4, 8]}}, TensorError, "overlaps"),
        (entry(shape=[1], data_offsets=[0, 4]), FileError, "added"),
    ],
)
def test_hostile_headers(header: bytes | dict[str, Any], error: type[FileError], text: str) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw = len(head).to_bytes(8, "little") + head + bytes(8)
    with pytest.raises(error, match=text) as caught:
        read_header(io.BytesIO(raw), len(raw))
    assert type(caught.value) is error
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("raw", [b"", b"1234567", (2**63).to_bytes(8, "little"), (9).to_bytes(8, "little") + b"{}"])
def test_lengths_beyond_the_file(raw: bytes) -> None:
    with pytest.raises(FileError, match="truncated"):
        read_header(io.BytesIO(raw), len(raw))


def test_truth_values_are_0_or_1() -> None:
    raw = written({"x": torch.tensor([True])})[:-1] + b"\x02"
    with pytest.raises(TensorError, match="truth"):
        read_tensor(memoryview(raw), read_header(io.BytesIO(raw), len(raw)), "x")
