"""What compiled readers share does what slow, obvious code does."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.scanning import (
    WORD,
    after_character,
    bytes_below,
    bytes_equal,
    compiled,
    lowest,
    text_end,
    word_at,
)

LETTERS = np.array(list(b'n"\\\\'), np.uint8)


def padded(data):
    return np.frombuffer(bytearray(data + bytes(WORD)), np.uint8)


@compiled
def _first(data, limit, equal):
    """The first of eight bytes below a limit, or equal to it, and -1."""
    word = word_at(data, 0)
    marks = bytes_equal(word, limit) if equal else bytes_below(word, limit)
    return lowest(marks) if marks else -1


@settings(deadline=None)  # the first call compiles
@given(st.binary(min_size=8, max_size=8), st.integers(1, 128))
def test_the_first_byte_is_found(data, limit):
    below = next((i for i, byte in enumerate(data) if byte < limit), -1)
    assert _first(padded(data), limit, False) == below
    assert _first(padded(data), data[5], True) == data.index(data[5])


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
