"""Entities that grow are refused before anything is unpacked; prefixes are welcome."""

import tracemalloc

import pytest

from kgclip.sources import read_graph
from kgclip.tables import GraphError

DOCUMENT = """<?xml version="1.0"{encoding}?>
<!DOCTYPE rdf:RDF [{entities}]>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="urn:">{body}</rdf:RDF>"""
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "lol"}">' for i in range(10))
LONG = f'<!ENTITY a "{"x" * 50_000}">'
CHAIN = "".join(f'<!ENTITY a{i} "&a{i - 1};">' for i in range(2999, 0, -1))


def write(tmp_path, entities, value, encoding="utf-8"):
    body = f'<rdf:Description rdf:about="urn:a"><x:p>{value}</x:p></rdf:Description>'
    said = "" if encoding == "utf-8" else f' encoding="{encoding}"'
    text = DOCUMENT.format(entities=entities, body=body, encoding=said)
    (tmp_path / "a.rdf").write_bytes(text.encode(encoding))
    return tmp_path / "a.rdf"


@pytest.mark.parametrize(
    ("entities", "value", "encoding"),
    [
        (LAUGHS, "&a9;", "utf-8"),
        (LAUGHS, "&a9;", "utf-16"),
        (LONG, "&a;" * 20_000, "utf-8"),
        (CHAIN, "&a2999;", "utf-8"),
        ('<!ENTITY a "&b;"><!ENTITY b "&a;">', "&a;", "utf-8"),
    ],
)
def test_bombs_are_refused_in_little_memory(tmp_path, entities, value, encoding):
    file = write(tmp_path, entities, value, encoding)
    tracemalloc.start()
    with pytest.raises(GraphError, match=r"a\.rdf: its XML entities unpack to far more"):
        read_graph(file)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_prefixes_are_read(tmp_path):
    file = write(tmp_path, '<!ENTITY ex "http://x/"><!ENTITY city "&ex;city">', "&city; &amp;")
    assert read_graph(file).literals["value"].to_list() == ["http://x/city &"]


def test_encodings_that_cannot_be_checked_are_refused(tmp_path):
    file = write(tmp_path, LAUGHS, "&a9;", "shift_jis")
    with pytest.raises(GraphError, match="convert the file to UTF-8"):
        read_graph(file)
