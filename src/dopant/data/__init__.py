"""Text: corpora, tokenizers, and the order in which a language model reads them."""

from dopant.data.batches import batchify
from dopant.data.character import CharacterTokenizer
from dopant.data.corpus import PYTHON_DOCS, Corpus, make_corpus, read_corpus
from dopant.data.huggingface import HuggingFaceTokenizer
from dopant.data.text_files import SPLITS
from dopant.data.tokenizers import Tokenizer, make_tokenizer, tokenizer_from
from dopant.data.word import WordTokenizer

__all__ = [
    "PYTHON_DOCS",
    "SPLITS",
    "CharacterTokenizer",
    "Corpus",
    "HuggingFaceTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "batchify",
    "make_corpus",
    "make_tokenizer",
    "read_corpus",
    "tokenizer_from",
]
