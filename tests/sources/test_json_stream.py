"""Members of a JSON file come one by one, equal to json.loads, wherever the chunks end."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kgclip.sources import json_stream
from kgclip.sources.json_stream import check_shape, load_json, stream_json
from kgclip.tables import GraphError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=5,
)


@given(
    st.lists(VALUES) | st.dictionaries(st.text(max_size=3), VALUES),
    st.sampled_from([None, 1]),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_members_are_those_of_json(tmp_path_factory, value, indent, chunk, is_ascii):
    file = tmp_path_factory.mktemp("json") / "a.json"
    file.write_text(json.dumps(value, indent=indent, ensure_ascii=is_ascii), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK_BYTES", chunk)
        members = list(stream_json(file))
    assert members == list(value.items() if isinstance(value, dict) else enumerate(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.json:1: cut off \(an array or an object expected"),
        ("7", "an array or an object expected"),
        ('[{"a": 1},\n {"b": 2', r"a\.json:2: cut off"),
        ('[{"a": 1},\n', r"a\.json:2: cut off"),
        ("[1 2]", r"a\.json:1: no JSON \(',' expected"),
        ("[1,\n\nx]", r"a\.json:3: no JSON"),
        ("[1] []", "something after the end"),
        ('{"a" 1}', "':' expected"),
        (r'["\ud83d\ude00",' "\n" r'{"a": "\ude00"}]', r"a\.json:2: no JSON \(half of a surrogate"),
        (r'{"\uDe00": 1}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_mistakes_are_named(tmp_path, monkeypatch, text, message, chunk):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(GraphError, match=message):
        list(stream_json(tmp_path / "a.json"))


def test_packed_files_and_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf[1, 2]"))
    assert list(stream_json(tmp_path / "a.json.gz")) == [(0, 1), (1, 2)]
    (tmp_path / "b.json").write_bytes(b'["\xff"]')
    with pytest.raises(GraphError, match="not UTF-8"):
        list(stream_json(tmp_path / "b.json"))


def test_a_file_is_loaded_whole(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf["\\ud83d\\ude00"]'))
    assert load_json(tmp_path / "a.json.gz") == ["\U0001f600"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[1,\n", r"a\.json:2: not JSON \(Expecting value\); fetch"),
        (b"[\xff]", r"a\.json: not UTF-8 at byte 1; convert"),
        (b'["\\ud83d"]', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_mistakes_in_whole_files_are_named(tmp_path, data, message):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(GraphError, match=message):
        load_json(tmp_path / "a.json")


def test_another_shape_is_told_with_its_place(tmp_path):
    shape = TypeAdapter(list[dict[str, int]])
    check_shape(tmp_path, "entry 7", [{"a": 1}, {}], shape)
    with pytest.raises(GraphError, match=r"entry 7: 1\.b: Input .* valid integer, not '2'; mend"):
        check_shape(tmp_path, "entry 7", [{}, {"b": "2"}], shape)
