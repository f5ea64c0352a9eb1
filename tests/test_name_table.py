"""The compiled dictionary numbers strings as Python's does."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.name_table import SPARE, NameTable

NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


class Reference(dict):
    def __missing__(self, name):
        self[name] = code = len(self)
        return code


@given(st.lists(st.lists(NAMES | st.sampled_from(["", "a", "aaaaaaaa", "aaaaaaaab"])), max_size=4))
@settings(max_examples=100, deadline=None)
def test_codes_and_strings_are_those_of_a_dictionary(batches):
    table, reference = NameTable(), Reference()
    for names in batches:
        codes = table.number_all(names)
        assert codes.tolist() == [reference[name] for name in names]
        assert codes.dtype == np.int32
    assert len(table) == len(reference)
    assert table.to_series().to_list() == list(reference)
    assert [name.decode() for name in table.strings(1)] == list(reference)[1:]


def test_parts_of_one_buffer_and_growth():
    rng = np.random.default_rng(0)
    names = [f"/c/en/{number}" for number in rng.integers(0, 30_000, 100_000)]
    encoded = [name.encode() for name in names]
    bounds = np.cumsum([0, *map(len, encoded)])
    data = np.frombuffer(bytearray(b"".join(encoded) + bytes(SPARE)), np.uint8)
    table, reference = NameTable(), Reference()
    for begin in range(0, len(names), 7_001):
        part = bounds[begin : begin + 7_002]
        table.number(data, part[:-1], part[1:])
    assert table.number(data, bounds[:-1], bounds[1:]).tolist() == [reference[n] for n in names]
    assert table.to_series().to_list() == list(reference)


def test_strings_of_one_mark_are_told_apart():
    # Of so many strings about ten pairs share the 32 bits that slots hold.
    names = [f"{number:08d}" for number in range(300_000)]
    table = NameTable()
    assert (table.number_all(names) == np.arange(len(names))).all()
    assert (table.number_all(names[::-1]) == np.arange(len(names))[::-1]).all()


def test_bytes_that_are_no_text_have_codes_too():
    data = np.frombuffer(bytearray(b"\xff\x00\xff\x00" + bytes(SPARE)), np.uint8)
    table = NameTable()
    assert table.number(data, np.array([0, 2, 1]), np.array([2, 4, 2])).tolist() == [0, 0, 1]
    assert table.strings() == [b"\xff\x00", b"\x00"]


def test_nothing():
    table = NameTable()
    assert table.number_all([]).tolist() == []
    assert table.to_series().to_list() == table.strings() == []


def test_what_follows_a_string_does_not_count():
    """Short strings are looked at beyond their end: each length, before two different rests."""
    ends = np.arange(2 * SPARE)
    table = NameTable()
    for rest in (b"\x00", b"\xff"):
        for size in ends.tolist():
            data = np.frombuffer(bytearray(b"a" * size + rest * (2 * SPARE)), np.uint8)
            assert table.number(data, np.zeros(1, np.int64), np.array([size])).tolist() == [size]
    assert table.strings() == [b"a" * size for size in ends.tolist()]
