"""Tables are completed, cast and checked, and say what is wrong with them."""

import pytest

from kgclip.tables import SCHEMAS, GraphError, build_tables


def test_missing_tables_and_columns_are_filled():
    tables = build_tables({"entities": {"type": [None], "name": ["a"]}})
    for name, frame in tables.frames().items():
        assert dict(frame.schema) == dict(SCHEMAS[name])
    assert tables.entities.rows() == [("a", None, None)]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"entitys": {}}, "unknown table 'entitys'"),
        ({"entities": {"nmae": ["a"]}}, r"unknown columns \['nmae'\]"),
        ({"entities": {"name": ["a", "a"]}}, "the name 'a' occurs twice"),
        ({"entities": {"name": ["a", None]}}, "row 1: name is null"),
        ({"texts": {"entity": ["x"], "text": ["t"], "kind": ["label"]}}, "wrong type"),
        (
            {"entities": {"name": ["a"]}, "texts": {"entity": [1], "text": ["t"], "kind": ["l"]}},
            r"entity is 1, expected an id in \[0, 1\)",
        ),
        (
            {
                "entities": {"name": ["a"]},
                "relations": {"name": ["r"]},
                "triples": {"head": [0, 0], "relation": [0, -1], "tail": [0, 0]},
            },
            "row 1: relation is -1",
        ),
    ],
)
def test_mistakes_are_named(frames, message):
    with pytest.raises(GraphError, match=message):
        build_tables(frames)
