"""Bytes in as many bits as their frequency allows: deflate streams (RFC 1951) that use its Huffman codes alone.

Deep Compression (Han, Mao & Dally, arXiv 1510.00149) codes pruned and rounded weights so. The search for repetitions,
the other half of deflate, is left out: numbers of weights do not repeat, and its codes would cost more than they save.
"""

from __future__ import annotations

import zlib

import numpy as np

from dopant.ops.gaps import Codes

_RAW, _MOST_MEMORY = -15, 9  # no header nor checksum around the stream; blocks with tables of their own, the largest
_MOST_A_BYTE = 8  # a Huffman code has one bit at least


def encode_huffman(symbols: Codes) -> Codes:
    """(n,) uint8 -> (bytes,) uint8. No symbols make no bytes."""
    if not symbols.size:
        return np.empty(0, np.uint8)
    coder = zlib.compressobj(9, zlib.DEFLATED, _RAW, _MOST_MEMORY, zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(bytearray(coder.compress(symbols.tobytes()) + coder.flush()), np.uint8)


def decode_huffman(codes: Codes, most: int) -> Codes:
    """The inverse of `encode_huffman`: (bytes,) uint8 -> up to `most` symbols, (n,) uint8.

    Raises:
        ValueError: no such stream, one that ends early or goes on, or more than `most` symbols, or more than 8 a byte.
    """
    if not codes.size:
        return np.empty(0, np.uint8)
    decoder = zlib.decompressobj(_RAW)
    most = min(most, _MOST_A_BYTE * codes.size)  # hostile streams may promise a thousand times as many
    try:
        symbols = decoder.decompress(codes.tobytes(), most + 1)
    except zlib.error as error:
        raise ValueError(f"the Huffman codes are damaged ({error})") from error
    if len(symbols) > most:
        raise ValueError(f"the Huffman codes hold more than {most} symbols")
    if not decoder.eof or decoder.unused_data:
        raise ValueError("the Huffman codes end early or go on after their end")
    return np.frombuffer(bytearray(symbols), np.uint8)
