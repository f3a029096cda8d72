"""Running a compressed model: packed weights, native kernels, generation."""

from dopant.runtime.layers import accelerate
from dopant.runtime.load import load
from dopant.runtime.runtime import Runtime

__all__ = ["Runtime", "accelerate", "load"]
