"""What compiled readers share: eight bytes at a time, marks in them, UTF-8.

``cache=True`` looks at a function's own file alone: after a change here, remove ``__pycache__``.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

WORD = 8  # bytes
ONES, HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_TOP = np.uint64(56)


def compiled(function: Any) -> Any:
    """Compile a function when it is first called, and keep the code for the next process."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(nogil=True)(function)


def _word_at(_: Any, data: Any, place: Any) -> Any:
    """The eight bytes of a uint8 array from a place on, the first one lowest. Uint64."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(start, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.intp), build


word_at: Any = intrinsic(_word_at)


@compiled
def bytes_below(word, limit):  # type: ignore[no-untyped-def]
    """High bits of the bytes below ``limit``, which is at most 128.

    The lowest one is right. Those above it may be wrong: look at the byte.
    """
    return (word - ONES * np.uint64(limit)) & ~word & HIGHS


@compiled
def bytes_equal(word, byte):  # type: ignore[no-untyped-def]
    """High bits of the bytes that are ``byte``; as of :func:`bytes_below`, the lowest is right."""
    return bytes_below(word ^ (ONES * np.uint64(byte)), 1)


@compiled
def lowest(marks):  # type: ignore[no-untyped-def]
    """Which byte the lowest of some high bits is in."""
    below = (marks & (~marks + np.uint64(1))) - np.uint64(1)
    return np.intp((below & ONES) * ONES >> _TOP) - 1


@compiled
def after_character(data, place):  # type: ignore[no-untyped-def]
    """Where a character of several bytes ends, -1 if it is not UTF-8 (RFC 3629, section 4)."""
    first, second = data[place], data[place + 1]
    if 0xC2 <= first <= 0xDF:
        size, low, high = 2, 0x80, 0xBF
    elif 0xE0 <= first <= 0xEF:
        size, low, high = 3, 0xA0 if first == 0xE0 else 0x80, 0x9F if first == 0xED else 0xBF
    elif 0xF0 <= first <= 0xF4:
        size, low, high = 4, 0x90 if first == 0xF0 else 0x80, 0x8F if first == 0xF4 else 0xBF
    else:
        return -1
    if not low <= second <= high:
        return -1
    for i in range(place + 2, place + size):
        if data[i] >> 6 != 2:
            return -1
    return place + size


@compiled
def text_end(data, place, end, letters):  # type: ignore[no-untyped-def]
    """Where a text in double quotes ends.

    Args:
        data: Bytes; eight more follow ``end``.
        place: Where the text begins, after its quote.
        end: Where it must have ended.
        letters: What may follow a backslash.

    Returns:
        Place of the first quote, control character, DEL or backslash of another kind, ``end`` at
        most, and whether there are backslashes before it.
    """
    has_escapes = False
    while place < end:
        word = word_at(data, place)
        marks = bytes_equal(word, 0x22) | bytes_equal(word, 0x5C)
        marks |= bytes_equal(word, 0x7F) | bytes_below(word, 0x20)
        if marks == 0:
            place += WORD
            continue
        place += lowest(marks)
        if place >= end or data[place] != 0x5C:
            break
        is_known = False
        for letter in letters:
            is_known |= data[place + 1] == letter
        if not is_known:
            break
        has_escapes = True
        place += 2
    return min(place, end), has_escapes
