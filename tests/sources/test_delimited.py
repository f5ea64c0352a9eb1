"""Tables of triples, with and without header, weight and parts."""

import gzip

import pytest

from kgclip.sources import read_graph
from kgclip.tables import GraphError


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def rows(graph):
    entities, relations = graph.entities["name"], graph.relations["name"]
    columns = graph.triples.select("head", "relation", "tail", "weight").iter_rows()
    return [(entities[h], relations[r], entities[t], w) for h, r, t, w in columns]


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        ("a.tsv", "x\tr\ty\n", {}, [("x", "r", "y", None)]),
        ("a.tsv.gz", "head\trelation\ttail\nx\tr\ty z\n", {}, [("x", "r", "y z", None)]),
        ("a.csv", 'x,r,"a, ""b""\nc",2\n', {}, [("x", "r", 'a, "b"\nc', 2.0)]),
        ("a.txt", "x\tr\ty\t0.5\n\nx\tr\ty\t1\n", {}, [("x", "r", "y", 0.5), ("x", "r", "y", 1.0)]),
        ("a.txt", "x r y\n", {"separator": " "}, [("x", "r", "y", None)]),
        ("a.tsv", "h\tr\tt\n", {"header": False}, [("h", "r", "t", None)]),
        ("a.tsv", "\ufeffx\tr\ty\r\n", {}, [("x", "r", "y", None)]),
        (
            "a.tsv",
            "r\tx\ty\n",
            {"columns": ["relation", "head", "tail"]},
            [("x", "r", "y", None)],
        ),
    ],
)
def test_layouts(tmp_path, name, text, options, expected):
    assert rows(read_graph(write(tmp_path, name, text), **options)) == expected


def test_folder_keeps_its_parts(tmp_path):
    for part, text in (("train", "a\tr\tb\n"), ("valid", "b\tr\tc\n"), ("test", "c\tr\ta\n")):
        write(tmp_path, f"kg/{part}.txt", text)
    graph = read_graph(tmp_path / "kg")
    assert graph.triples["split"].to_list() == ["train", "valid", "test"]
    assert graph.num_entities == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "x\tr\ty\nx\tr\n", r"a\.tsv:2: 2 fields, expected 3"),
        ("a.tsv", "x\tr\ty\tmuch\n", r"a\.tsv:1: weight 'much' is no number"),
        ("a.tsv", "x\n", "expected head, relation, tail"),
        ("a.csv", 'x,r,"y\n', r"a\.csv:\d+: .*mend the quotes"),
        ("a.tsv", "", "empty"),
    ],
)
def test_mistakes_are_named(tmp_path, name, text, message):
    with pytest.raises(GraphError, match=message):
        read_graph(write(tmp_path, name, text))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"x\tr\ty\nx\tr\t\xff\n")
    with pytest.raises(GraphError, match=r"a\.tsv:2: not UTF-8"):
        read_graph(tmp_path / "a.tsv")
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"x\tr\ty\n" * 99)[:-8])
    with pytest.raises(GraphError, match="damaged or cut off"):
        read_graph(tmp_path / "b.tsv.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphError, match=r"no train\.txt"):
        read_graph(tmp_path / "empty")


def test_codex_counts_are_the_published_ones(shared_data):
    graph = read_graph(shared_data / "codex" / "codex-s")
    assert (graph.num_entities, graph.num_relations) == (2034, 42)
    assert (graph.triples["split"] == "train").sum() == 32888
