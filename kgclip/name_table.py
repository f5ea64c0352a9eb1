"""Numbers byte strings in the order in which they are met; compiled by numba.

Open addressing with linear probing. Names wait in one array, a newline after each; a slot holds
half a hash, which also says where the slot is, a name's code, and where the name is. Finding a
string means three jumps through memory that no cache holds: to the string, to the slot, and to the
name. So a block of strings jumps at once, before they are looked up one by one: then they do not
wait for one another.
"""

from __future__ import annotations

import io
import itertools
import secrets
from collections.abc import Iterable

import numpy as np
import polars as pl

from kgclip.scanning import WORD, compiled, put_word, word_at

SPARE = 4 * WORD  # bytes that may be looked at after a string
_FEW = 3 * WORD  # bytes of a string that are looked at whether they are there or not
_BLOCK = 64  # strings that jump at once
_FIRST_SLOTS, _FIRST_BYTES = 2**10, 2**14
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_NEWLINE = ord("\n")
_HALF, _MIX = np.uint64(32), np.uint64(29)
_ALL = np.uint64(2**64 - 1)
_LOW = np.uint64(2**32 - 1)
# The second word of a slot: where the name is, and its size, or the most that fits there.
_SIZE_BITS, _MOST = np.uint64(24), np.uint64(2**24 - 1)


@compiled
def _part(data, begin, size, i):  # type: ignore[no-untyped-def]
    """The bytes from ``i`` on, eight at most, of a string that begins at ``begin``; 0 beyond it."""
    count = min(max(size - i, 0), WORD)
    mask = _ALL >> np.uint64(8 * (WORD - count)) if count else np.uint64(0)
    return word_at(data, begin + i) & mask


@compiled
def _hash(data, begin, end, seed):  # type: ignore[no-untyped-def]
    size = end - begin
    found = seed ^ np.uint64(size)
    place = begin
    while size > _FEW:
        found = (found ^ word_at(data, place)) * _ODD
        found ^= found >> _HALF
        place += WORD
        size -= WORD
    # A jump that nobody could foresee takes longer than parts that may be empty.
    found ^= _part(data, place, size, 0)
    found *= _ODD
    found ^= found >> _HALF
    found ^= _part(data, place, size, WORD)
    found *= _ODD
    found ^= found >> _HALF
    found ^= _part(data, place, size, 2 * WORD)
    found *= _ODD
    return found ^ (found >> _MIX)


@compiled
def _is_same(data, begin, other, place, size):  # type: ignore[no-untyped-def]
    while size > _FEW:
        if word_at(data, begin) != word_at(other, place):
            return False
        begin, place, size = begin + WORD, place + WORD, size - WORD
    differs = np.uint64(0)
    for i in range(0, _FEW, WORD):
        differs |= _part(data, begin, size, i) ^ _part(other, place, size, i)
    return differs == 0


@compiled
def _number(data, begins, ends, seed, slots, starts, names, count, codes):  # type: ignore[no-untyped-def]
    last_slot = len(slots) - 1
    marks = np.empty(_BLOCK, np.int64)
    near = np.uint64(0)
    for block in range(0, len(begins), _BLOCK):
        size = min(_BLOCK, len(begins) - block)
        for i in range(size):
            begin, end = begins[block + i], ends[block + i]
            near ^= word_at(data, begin) ^ word_at(data, (begin + end) >> 1) ^ word_at(data, end)
        for i in range(size):
            marks[i] = _hash(data, begins[block + i], ends[block + i], seed) >> _HALF
        for i in range(size):
            near ^= slots[marks[i] & last_slot, 0]
        for i in range(size):
            place = slots[marks[i] & last_slot, 1]
            start = np.intp(place >> _SIZE_BITS)
            near ^= word_at(names, start) ^ word_at(names, start + np.intp(place & _MOST))
        for i in range(size):
            begin = begins[block + i]
            length = ends[block + i] - begin
            short = min(np.uint64(length), _MOST)
            place = marks[i] & last_slot
            mark = np.uint64(marks[i])
            code = np.intp(0)
            while slots[place, 0] != 0:
                if slots[place, 0] >> _HALF == mark and slots[place, 1] & _MOST == short:
                    code = np.intp(slots[place, 0] & _LOW)
                    start = np.intp(slots[place, 1] >> _SIZE_BITS)
                    is_short = short < _MOST or starts[code + 1] - start == length + 1
                    if is_short and _is_same(data, begin, names, start, length):
                        break
                    code = np.intp(0)
                place = (place + 1) & last_slot
            if code == 0:
                count += 1
                code = count
                start = starts[code]
                for j in range(0, length, WORD):
                    put_word(names, start + j, word_at(data, begin + j))
                names[start + length] = _NEWLINE
                starts[code + 1] = start + length + 1
                slots[place, 0] = (mark << _HALF) | np.uint64(code)
                slots[place, 1] = (np.uint64(start) << _SIZE_BITS) | short
            codes[block + i] = code - 1
    return count, near  # so that the compiler leaves the jumps in


@compiled
def _move(slots, new):  # type: ignore[no-untyped-def]
    last_slot = len(new) - 1
    for i in range(len(slots)):
        if slots[i, 0] != 0:
            place = np.intp(slots[i, 0] >> _HALF) & last_slot
            while new[place, 0] != 0:
                place = (place + 1) & last_slot
            new[place, 0] = slots[i, 0]
            new[place, 1] = slots[i, 1]


class NameTable:
    """A growing set of byte strings, each with its number from 0.

    Memory: the strings, and 40 to 80 bytes for each. The seed of the hash is new each time; the
    numbers do not depend on it.
    """

    def __init__(self) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        self._count = 0
        self._slots = _zeros(2 * _FIRST_SLOTS, np.uint64).reshape(-1, 2)
        # Of the name of each code from the second entry on; slots hold codes from 1, 0 = nothing.
        self._starts = np.zeros(_FIRST_SLOTS // 2 + 2, np.intp)
        self._names = np.zeros(_FIRST_BYTES, np.uint8)

    def __len__(self) -> int:
        return self._count

    def number(self, data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Code of each string; new ones get the next.

        Args:
            data: Bytes, of which the strings are parts; ``SPARE`` more must follow the last string.
                Uint8, contiguous and writable.
            begins: Where each string begins. Int64 [n].
            ends: Where it ends. Int64 [n].

        Returns:
            Int32 [n].
        """
        begins, ends = np.ascontiguousarray(begins), np.ascontiguousarray(ends)
        codes = np.empty(len(begins), np.int32)
        self._make_room(len(begins), int((ends - begins).sum()) + len(begins))
        self._count, _ = _number(
            data, begins, ends, self._seed,
            self._slots, self._starts, self._names, self._count, codes,
        )  # fmt: skip
        return codes

    def number_all(self, strings: Iterable[str]) -> np.ndarray:
        """Code of each string; new ones get the next. Int32 [n]."""
        encoded = [string.encode() for string in strings]
        bounds = np.cumsum([0, *map(len, encoded)])
        data = np.frombuffer(bytearray(b"".join(encoded) + bytes(SPARE)), np.uint8)
        return self.number(data, bounds[:-1], bounds[1:])

    def _make_room(self, count: int, size: int) -> None:
        count += self._count
        size += int(self._starts[self._count + 1]) + SPARE
        if size > len(self._names):
            self._names = _longer(self._names, max(size, 2 * len(self._names)))
        if 2 * count > len(self._slots):
            slots = _zeros(2 << (2 * count - 1).bit_length(), np.uint64).reshape(-1, 2)
            _move(self._slots, slots)
            self._slots = slots
            self._starts = _longer(self._starts, len(slots) // 2 + 2)

    def strings(self, first: int = 0) -> list[bytes]:
        """The strings from a code on, one by one."""
        bounds = self._starts[first + 1 : self._count + 2].tolist()
        if not len(bounds):
            return []
        text = self._names[bounds[0] : bounds[-1]].tobytes()
        return [
            text[start - bounds[0] : end - bounds[0] - 1]
            for start, end in itertools.pairwise(bounds)
        ]

    def to_series(self, first: int = 0) -> pl.Series:
        """The strings, which must be UTF-8, from a code on, in the order of their codes."""
        lines = self._names[self._starts[first + 1] : self._starts[self._count + 1]]
        names = pl.read_lines(io.BytesIO(lines.data)).to_series()
        size = int(names.str.len_bytes().sum()) + len(names)
        if (size, len(names)) == (len(lines), self._count - first):
            return names
        # A string has several lines, or ends in a carriage return, which was cut off.
        return pl.Series([name.decode() for name in self.strings(first)], dtype=pl.String())


def _longer(array: np.ndarray, size: int) -> np.ndarray:
    longer = _zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer


def _zeros(size: int, dtype: np.typing.DTypeLike) -> np.ndarray:
    # numpy asks for huge pages, which is slower for memory that is filled bit by bit.
    return np.frombuffer(bytearray(size * np.dtype(dtype).itemsize), dtype)
