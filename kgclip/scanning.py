"""What compiled readers share: 64 bytes at a time, marks in them, UTF-8.

``cache=True`` looks at a function's own file alone: after a change here, remove ``__pycache__``.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

WORD = 8  # bytes
SPAN = 64  # bytes that are looked at together: a uint64 has a mark for each


def compiled(function: Any) -> Any:
    """Compile a function when it is first called, and keep the code for the next process."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(nogil=True)(function)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, kind: Any) -> Any:
    """Pointer to the place in an array that the first two arguments say."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), kind.as_pointer())


def _word_at(_: Any, data: Any, place: Any) -> Any:
    """The eight bytes of a uint8 array from a place on, the first one lowest. Uint64."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = _pointer(context, builder, signature, arguments, ir.IntType(64))
        return builder.load(start, align=1)

    return types.uint64(data, types.intp), build


word_at: Any = intrinsic(_word_at)


def _put_word(_: Any, data: Any, place: Any, word: Any) -> Any:
    """Write eight bytes into a uint8 array from a place on, the first one lowest."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = _pointer(context, builder, signature, arguments, ir.IntType(64))
        builder.store(arguments[2], start, align=1)

    return types.void(data, types.intp, types.uint64), build


put_word: Any = intrinsic(_put_word)


def _marks(comparison: str) -> Any:
    """Compares each byte of a span with a limit; which ones it holds for, the first one lowest."""

    def marks(_: Any, data: Any, place: Any, limit: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            byte, number = ir.IntType(8), ir.IntType(32)
            span = ir.VectorType(byte, SPAN)
            start = _pointer(context, builder, signature, arguments, span)
            found = builder.load(start, align=1)
            limits = builder.insert_element(
                ir.Constant(span, ir.Undefined), builder.trunc(arguments[2], byte), number(0)
            )
            everywhere = ir.Constant(ir.VectorType(number, SPAN), [number(0)] * SPAN)
            limits = builder.shuffle_vector(limits, limits, everywhere)
            is_marked = builder.icmp_unsigned(comparison, found, limits)
            return builder.bitcast(is_marked, ir.IntType(SPAN))

        return types.uint64(data, types.intp, types.intp), build

    return intrinsic(marks)


at_most, at_least, equal_to = map(_marks, ("<=", ">=", "=="))


def _lowest(_: Any, marks: Any) -> Any:
    """Which byte the lowest of some marks is of."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), build


lowest: Any = intrinsic(_lowest)


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
        data: Bytes; ``SPAN`` more follow ``end``.
        place: Where the text begins, after its quote.
        end: Where it must have ended.
        letters: What may follow a backslash.

    Returns:
        Place of the first quote, control character, DEL or backslash of another kind, ``end`` at
        most, and whether there are backslashes before it.
    """
    has_escapes = False
    while place < end:
        marks = equal_to(data, place, 0x22) | equal_to(data, place, 0x5C)
        marks |= equal_to(data, place, 0x7F) | at_most(data, place, 0x1F)
        if marks == 0:
            place += SPAN
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
