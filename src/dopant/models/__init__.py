"""The models whose training the library knows."""

from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.models.sizes import SIZES, Size

__all__ = ["SIZES", "LanguageModel", "LanguageModelConfig", "Size"]
