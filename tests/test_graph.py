"""What a KnowledgeGraph can do, and that it never changes."""

import copy

import numpy as np
import polars as pl
import pytest

from kgclip.graph import KnowledgeGraph, readable
from kgclip.tables import GraphError, build_tables

ROWS = [("a", "r", "b"), ("b", "r", "c"), ("c", "s", "a"), ("d", "s", "e"), ("a", "r", "b")]


@pytest.fixture
def graph():
    return KnowledgeGraph.from_triples(ROWS)


def names(graph):
    entities, relations = graph.entities["name"], graph.relations["name"]
    rows = graph.triples.select("head", "relation", "tail").iter_rows()
    return [(entities[head], relations[relation], entities[tail]) for head, relation, tail in rows]


def test_counts_and_repr(graph):
    assert (graph.num_entities, graph.num_relations, graph.num_triples) == (5, 2, 5)
    assert repr(graph) == "KnowledgeGraph(5 entities, 2 relations, 5 triples)"
    assert names(graph) == ROWS
    assert names(graph.distinct()) == ROWS[:4]


def test_it_does_not_change(graph):
    with pytest.raises(AttributeError, match="does not change"):
        graph.root = "x"
    graph.triples.with_columns(head=pl.lit(0))
    assert names(graph) == ROWS


def test_it_can_be_copied(graph):
    assert copy.deepcopy(graph) == graph


def test_equality_is_of_the_tables(graph):
    assert graph == KnowledgeGraph.from_triples(ROWS)
    assert graph != graph.distinct()
    assert graph != "graph"


def test_weights_and_bad_rows():
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("a", "r", "c", 0.5)])
    assert graph.triples["weight"].to_list() == [None, 0.5]
    with pytest.raises(GraphError, match="row 1"):
        KnowledgeGraph.from_triples([("a", "r", "b"), ("a", "b")])
    assert KnowledgeGraph.from_triples([]).num_entities == 0


def test_select_relations_keeps_entities(graph):
    part = graph.select(relations=["s"])
    assert names(part) == [ROWS[2], ROWS[3]]
    assert part.num_entities == 5
    with pytest.raises(GraphError, match="no relation 'S'; the nearest is"):
        graph.select(relations=["S"])


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"seeds": ["d"]}, "de"),
        ({"seeds": ["b"], "hops": 0}, "b"),
        ({"seeds": ["b"], "hops": 1}, "abc"),
        ({"largest_component": True}, "abc"),
        ({"min_degree": 2}, "abc"),
        ({"min_degree": 9}, ""),
    ],
)
def test_select_entities(graph, options, left):
    part = graph.select(**options)
    assert part.entities["name"].to_list() == list(left)
    assert names(part) == [row for row in ROWS if {row[0], row[2]} <= set(left)]


def test_select_takes_all_tables_along():
    tables = build_tables(
        {
            "entities": {"name": ["a", "b"]},
            "relations": {"name": ["r"]},
            "types": {"entity": [0, 1], "type": ["x", "y"]},
            "texts": {"entity": [0, 1], "text": ["A", "B"], "kind": ["label", "label"]},
            "literals": {"entity": [0, 1], "relation": [0, 0], "value": ["1", "2"]},
            "images": {"entity": [1], "path": ["/b.png"]},
        }
    )
    part = KnowledgeGraph(tables).restrict(np.array([False, True]))
    assert part.labels() == ["B"]
    assert (part.types["type"][0], part.literals["value"][0]) == ("y", "2")
    assert part.images["entity"].to_list() == [0]


def test_merge_is_by_name():
    one = KnowledgeGraph.from_triples([("a", "r", "b")])
    texts = {"entity": [0], "text": ["Bee"], "kind": ["label"]}
    two = KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": ["b", "c"], "type": ["insect", None]},
                "relations": {"name": ["s", "r"], "label": ["stings", None]},
                "triples": {"head": [0], "relation": [1], "tail": [1]},
                "texts": texts,
            }
        )
    )
    merged = one.merge(two, two)
    assert merged.entities["name"].to_list() == ["a", "b", "c"]
    assert merged.entities["type"].to_list() == [None, "insect", None]
    assert merged.relations["label"].to_list() == [None, "stings"]
    assert names(merged) == [("a", "r", "b"), ("b", "r", "c"), ("b", "r", "c")]
    assert merged.texts.rows() == [(1, "Bee", None, "label")], "equal texts are kept once"


def test_ids_by_name(graph):
    assert graph.entity_id("c") == 2
    assert graph.relation_id("s") == 1
    with pytest.raises(GraphError, match="no entity 'aa'; the nearest is 'a'"):
        graph.entity_id("aa")


def test_to_scipy_counts(graph):
    adjacency = graph.to_scipy()
    assert adjacency.toarray()[0].tolist() == [0, 2, 0, 0, 0]
    assert graph.to_scipy("s").sum() == 2
    assert graph.to_scipy(0).sum() == 3


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("http://x.org/hasCapital", "has capital"),
        ("http://x.org/ns#New_York", "New York"),
        ("http://x.org/S%C3%A3o_Tom%C3%A9/", "São Tomé"),
        ("plain name", "plain name"),
        ("_:b0", "_:b0"),
    ],
)
def test_names_become_readable(name, label):
    assert readable(name) == label


def test_labels_prefer_texts():
    tables = build_tables(
        {
            "entities": {"name": ["http://x/a", "http://x/b"]},
            "texts": {
                "entity": [0, 0, 0],
                "text": ["long", "A", "B"],
                "kind": ["description", "label", "label"],
            },
        }
    )
    assert KnowledgeGraph(tables).labels() == ["A", "b"]


def test_pictures_do_not_leave_the_root(tmp_path):
    images = {"entity": [0, 0], "path": ["../secret.png", "in/../a.png"]}
    tables = build_tables({"entities": {"name": ["a"]}, "images": images})
    graph = KnowledgeGraph(tables, tmp_path)
    with pytest.raises(GraphError, match="leaves the graph's folder"):
        graph.image_path(0)
    assert graph.image_path(1).name == "a.png"
    with pytest.raises(GraphError, match="no root"):
        KnowledgeGraph(tables).image_path(1)


def test_validate_finds_what_is_wrong(graph, tmp_path):
    (tmp_path / "here.png").write_bytes(b"1")
    images = {"entity": [0, 0], "path": ["gone.png", "here.png"], "sha256": [None, "0" * 64]}
    broken = KnowledgeGraph(build_tables({**graph.tables.frames(), "images": images}), tmp_path)
    findings = "\n".join(broken.validate())
    for text in (
        "gone.png is missing",
        "here.png has changed",
        "without a label: r, s",
        "1 triples",
    ):
        assert text in findings
    clean = KnowledgeGraph(build_tables({"entities": {"name": ["a"]}}))
    assert clean.validate() == []
