"""Model folders: weights packed into tensors, written at once, read without trust. See docs/file_format.md."""

from dopant.storage.folder import LoadedModel, from_pretrained, load_model, save, save_pretrained
from dopant.storage.inspect import Inspection, StoredTensor, StoredWeight, inspect
from dopant.storage.pack import layout, pack, unpack
from dopant.storage.storing import Rewritten, store

__all__ = [
    "Inspection",
    "LoadedModel",
    "Rewritten",
    "StoredTensor",
    "StoredWeight",
    "from_pretrained",
    "inspect",
    "layout",
    "load_model",
    "pack",
    "save",
    "save_pretrained",
    "store",
    "unpack",
]
