"""What a model is worth on a text."""

from dopant.evaluate.perplexity import perplexity

__all__ = ["perplexity"]
