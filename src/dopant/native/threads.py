"""How many threads a call may use."""

from __future__ import annotations

from numbers import Integral

from dopant.errors import InputError
from dopant.native.library import library

_count = 1


def set_threads(count: int) -> int:
    """Let so many threads share what is large, in all calls from now on; at first it is one.

    A step or a sequence is shared by sequences, sixteen and more to a thread, the scores of many tokens by tokens, a
    decoder by rows; what is smaller takes one thread whatever is set. After a call the others wait busily for the next
    one, for a tenth of a millisecond. Calls that come at the same time do not share theirs. Without the native library
    it is torch that computes, and `torch.set_num_threads` that counts.

    Args:
        count: 1 or more.

    Returns:
        What was set before.

    Raises:
        InputError: it is not.
    """
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise InputError(f"threads must be a whole number of 1 or more, got {count!r}")
    global _count
    native = library()
    if native is not None:
        native.dopant_set_threads(min(int(count), 1024))
    before, _count = _count, int(count)
    return before
