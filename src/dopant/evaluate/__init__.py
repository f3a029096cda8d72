"""What a model is worth on a text, and what it says."""

from dopant.evaluate.generation import generate
from dopant.evaluate.perplexity import perplexity

__all__ = ["generate", "perplexity"]
