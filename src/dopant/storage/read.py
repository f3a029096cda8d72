"""Reading a model folder from the outside in: config, header, types, and only then the numbers."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dopant.errors import ChecksumError, FileError, InputError, TensorError, VersionError
from dopant.storage.config import CONFIG, METADATA, TENSORS, FolderConfig, WeightEntry
from dopant.storage.contents import is_under
from dopant.storage.pack import Layout, check_types, layout, unpack
from dopant.storage.replace import existing
from dopant.storage.tensors import Header, read_header, read_tensor
from dopant.structures.base import StructuredWeight

T = TypeVar("T")
_TRIES = 20  # of reading a folder that is replaced meanwhile, each time


@contextmanager
def naming(place: str | Path) -> Iterator[None]:
    """Have every FileError of the block begin with the folder or file that is read."""
    try:
        yield
    except FileError as error:
        if str(error).startswith(tuple(f"{place}{mark}" for mark in (" ", ":", os.sep))):
            raise
        raise type(error)(f"{place}: {error}") from error


@dataclass(frozen=True)
class Headers:
    """All that a folder says without its numbers.

    Args:
        folder: where it lies.
        config: the contents of `config.json`.
        tensors: the header of `model.safetensors`.
    """

    folder: Path
    config: FolderConfig
    tensors: Header

    def weight_layout(self) -> Layout:
        """The tensors that the weights of the config need, under their full names.

        Raises:
            FileError: a structure does not fit its weight.
        """
        types: Layout = {}
        for name, entry in self.config.weights.items():
            try:
                found = layout(entry.structure, entry.shape, entry.storage)
            except InputError as error:
                raise FileError(f"weight {name[:80]!r}: {error}") from error
            types |= {f"{name}.{key}": value for key, value in found.items()}
        return types

    def check_weights(self) -> Layout:
        """The same, and nothing else may lie under the names of weights; what other tensors there are is not asked.

        Raises:
            TensorError: those tensors are not there, or others are.
        """
        expected, found = self.weight_layout(), self.tensors.tensors
        owned = [name for name in found if is_under(name, self.config.weights)]
        check_types(expected, {name: (found[name].dtype, found[name].shape) for name in owned})
        return expected

    def check(self, expected: Layout) -> None:
        """Raise TensorError unless the tensor file holds exactly these."""
        check_types(expected, {name: (e.dtype, e.shape) for name, e in self.tensors.tensors.items()})


def read_whole(folder: str | Path, read: Callable[[Headers], T]) -> T:
    """What `read` makes of a folder, all of it old or all of it new where another process replaces the folder.

    Files are opened one after the other, so that some may be of the old folder and some of the new: what then goes
    wrong is no fault of the folder, and it is read once more.

    Raises:
        FileError: (or a subclass) no model folder, a damaged one, or one that is replaced again and again.
    """
    for _ in range(_TRIES):
        before = _identity(folder)
        try:
            return read(read_headers(folder))
        except FileError:
            if _identity(folder) == before:
                raise
    raise FileError(f"{folder} was replaced again and again while it was read; try again when it no longer is")


def read_headers(folder: str | Path) -> Headers:
    """Read what a folder says without its numbers.

    Raises:
        FileError: (or a subclass) no model folder, or a damaged one.
    """
    try:
        path = existing(Path(folder))
        found = path.is_dir()
    except (OSError, ValueError) as error:
        raise FileError(f"there is no model folder at {str(folder)[:200]!r}: {error!s:.200}") from error
    if not found:
        raise FileError(f"there is no model folder at {folder}")
    with naming(folder):
        config = FolderConfig.from_bytes(_read(path, CONFIG))
        with _open(path, TENSORS) as file, naming(Path(folder) / TENSORS):
            header = read_header(file, os.fstat(file.fileno()).st_size)
        if header.metadata.get("format") != METADATA["format"]:
            raise FileError(f"{TENSORS} was not written as part of a model folder: its metadata lack the format")
        if header.metadata != METADATA:
            raise VersionError(f"{TENSORS} has other metadata than {CONFIG} has: {str(header.metadata)[:80]}")
    return Headers(path, config, header)


def read_numbers(headers: Headers) -> dict[str, Tensor]:
    """All tensors of the file, after its checksum; call `Headers.check` before.

    Raises:
        ChecksumError: the file was altered.
        TensorError: a truth value that is neither 0 nor 1.
    """
    data = _checked(headers, TENSORS)
    if read_header(io.BytesIO(data), len(data)) != headers.tensors:
        raise ChecksumError(f"{TENSORS} changed while it was read; try again")
    return {name: read_tensor(memoryview(data), headers.tensors, name) for name in headers.tensors.tensors}


def read_optional(headers: Headers, name: str) -> bytes | None:
    """The contents of another file of the folder, after its checksum; None if the config lists no such file.

    Raises:
        ChecksumError: the file was altered.
        FileError: it is listed but missing.
    """
    return _checked(headers, name) if name in headers.config.files else None


def unpack_weights(headers: Headers, tensors: dict[str, Tensor]) -> dict[str, StructuredWeight]:
    """The weights of the config by name, in compact form and float32; takes their tensors out of `tensors`.

    Raises:
        TensorError: values, scales or index codes that are impossible.
    """
    return {name: unpack_weight(name, entry, tensors) for name, entry in headers.config.weights.items()}


def unpack_weight(name: str, entry: WeightEntry, tensors: dict[str, Tensor]) -> StructuredWeight:
    """One of them, likewise."""
    keys = layout(entry.structure, entry.shape, entry.storage)
    mine = {key: tensors.pop(f"{name}.{key}") for key in keys}
    try:
        return unpack(entry.structure, entry.shape, mine, entry.storage)
    except TensorError as error:
        raise TensorError(f"{name[:80]!r}: {error}") from error


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise TensorError if a tensor holds NaN or infinity."""
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise TensorError(f"tensor {name[:80]!r} holds values that are not finite")


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """Of the folder that goes by this name now; None if there is none."""
    try:
        found = existing(Path(folder)).stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_ctime_ns  # a number may be given again once its folder is removed


def _checked(headers: Headers, name: str) -> bytes:
    data = _read(headers.folder, name)
    if hashlib.sha256(data).hexdigest() != headers.config.files[name]:
        raise ChecksumError(f"{name} was altered: its contents do not match the checksum in {CONFIG}")
    return data


def _read(folder: Path, name: str) -> bytes:
    with _open(folder, name) as file:
        try:
            return file.read()
        except OSError as error:
            raise FileError(f"{folder / name} cannot be read: {error.strerror or error}") from error


def _open(folder: Path, name: str) -> io.BufferedReader:
    path = folder / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would never end
            raise FileError(f"{path} is not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise FileError(f"{folder} is not a whole model folder: {name} is missing") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
