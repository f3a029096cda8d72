"""Layers that hold a structured weight and do not care which."""

from dopant.layers.convert import convert, revert
from dopant.layers.embedding import Embedding
from dopant.layers.linear import Linear
from dopant.layers.lstm import LSTM
from dopant.layers.slots import Slot, slots

__all__ = ["LSTM", "Embedding", "Linear", "Slot", "convert", "revert", "slots"]
