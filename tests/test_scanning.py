"""What compiled readers share does what slow, obvious code does."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.scanning import (
    SPAN,
    after_character,
    at_least,
    at_most,
    compiled,
    equal_to,
    lowest,
    text_end,
)

LETTERS = np.array(list(b'n"\\'), np.uint8)


def padded(data):
    return np.frombuffer(bytearray(data + bytes(SPAN)), np.uint8)


@compiled
def _marks(data, place, limit):
    return (
        at_most(data, place, limit), at_least(data, place, limit), equal_to(data, place, limit)
    )  # fmt: skip


@compiled
def _lowest(marks):
    return lowest(marks)


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=SPAN), st.integers(0, SPAN), st.integers(0, 255))
def test_marks_are_of_the_bytes_that_compare(data, place, limit):
    span = padded(data + bytes(SPAN))[place : place + SPAN].tolist()
    marks = _marks(padded(data + bytes(SPAN)), place, limit)
    comparisons = (int.__le__, int.__ge__, int.__eq__)
    for found, holds in zip(marks, comparisons, strict=True):
        places = [i for i, byte in enumerate(span) if holds(byte, limit)]
        assert found == sum(2**i for i in places)
        assert not places or _lowest(np.uint64(found)) == places[0]


@settings(deadline=None)  # the first call compiles
@given(st.characters(codec="utf-8", min_codepoint=0x80), st.binary(max_size=3))
def test_characters_end_where_they_end(character, rest):
    data = character.encode()
    assert after_character(padded(data + rest), 0) == len(data)


@settings(deadline=None)  # the first call compiles
@given(st.binary(min_size=1, max_size=4).map(lambda data: b"\xe0" + data) | st.binary(min_size=2))
def test_what_is_no_character_is_refused(data):
    if data[0] < 0x80:
        return
    end = after_character(padded(data), 0)
    characters = [data[:size] for size in (2, 3, 4) if _is_character(data[:size])]
    assert end == (len(characters[0]) if characters else -1)


def _is_character(data):
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.sampled_from([*'ab\u00e9"\\\\n\x7f\x1f', "abcdefgh"])).map("".join))
def test_texts_end_at_their_quote(text):
    data = text.encode()
    i, escapes = 0, False
    while i < len(data) and data[i] != 0x22 and 0x20 <= data[i] != 0x7F:
        if data[i] == 0x5C:
            if data[i + 1 : i + 2] not in (b"n", b'"', b"\\"):
                break
            i, escapes = i + 1, True
        i += 1
    assert text_end(padded(data), 0, len(data), LETTERS) == (min(i, len(data)), escapes)


def test_functions_without_a_file_are_compiled_each_time():
    names = {}
    code = compile("def more(number):\n    return number + 1\n", "/nowhere/more.py", "exec")
    exec(code, names)
    assert compiled(names["more"])(1) == 2
