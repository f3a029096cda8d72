"""What a model is worth on a text, and what it says."""

from dopant.evaluation.generation import generate
from dopant.evaluation.perplexity import perplexity

__all__ = ["generate", "perplexity"]
