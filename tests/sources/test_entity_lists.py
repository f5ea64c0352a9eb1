"""Lists of pictures and texts."""

import pytest

from kgclip.sources import read_graph
from kgclip.sources.entity_lists import read_entity_texts
from kgclip.tables import GraphError


def test_pictures_and_texts_by_entity(tmp_path):
    (tmp_path / "i.csv").write_text('entity,path\na,x/a.png\n"b, c",http://x.org/b.png\na,a2.png\n')
    graph = read_graph(tmp_path / "i.csv", format="entity_images")
    assert graph.entities["name"].to_list() == ["a", "b, c"]
    assert graph.images.select("entity", "path").rows() == [
        (0, "x/a.png"), (1, "http://x.org/b.png"), (0, "a2.png")
    ]  # fmt: skip
    (tmp_path / "t.tsv").write_text("a\tAy\r\n")
    tables = read_entity_texts(tmp_path / "t.tsv", kind="alias", language="en")
    assert tables.texts.rows() == [(0, "Ay", "en", "alias")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b.png\n\na\n", r"i\.csv:3: 1 fields, two expected"),
        (b"a,../b.png\n", r"i\.csv:1: image \.\./b\.png: leaves"),
        (b"a,/etc/b.png\n", r"i\.csv:1: image /etc/b\.png: leaves"),
        (b"a,\xff.png\n", r"i\.csv:1: not UTF-8"),
        (b"a,b\rc.png\n", r"i\.csv:1: not CSV"),
        (b" \n", "empty"),
    ],
)
def test_mistakes_are_named(tmp_path, data, message):
    (tmp_path / "i.csv").write_bytes(data)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path / "i.csv", format="entity_images")


def test_skipping(tmp_path):
    (tmp_path / "i.csv").write_bytes(b"a,a.png\nb\nc,../c.png\nd,\xff\n")
    with pytest.warns(UserWarning, match="3 lines skipped"):
        graph = read_graph(tmp_path / "i.csv", format="entity_images", on_error="skip")
    assert graph.entities["name"].to_list() == ["a"]
