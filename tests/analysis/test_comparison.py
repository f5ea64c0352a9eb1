import numpy as np
import pytest

from kgclip.analysis import compare_graphs
from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables
from tests.analysis.cases import CASES


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_a_graph_equals_itself_and_differs_from_the_empty_one(graph):
    assert not compare_graphs(graph, graph)
    empty = CASES["empty"]
    added = compare_graphs(empty, graph)
    assert len(added.entities) == graph.num_entities
    assert added.facts["copies"].sum() == graph.num_triples
    removed = compare_graphs(graph, empty)
    assert set(removed.facts["change"]) <= {"removed"}
    assert removed.facts.drop("change").equals(added.facts.drop("change"))


def test_order_of_rows_means_nothing():
    rows = [("a", "r", "b"), ("b", "s", "c"), ("a", "r", "b")]
    assert not compare_graphs(
        KnowledgeGraph.from_triples(rows), KnowledgeGraph.from_triples(rows[::-1])
    )


def test_every_change_is_told():
    old = KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": ["a", "b", "c"], "type": ["x", None, None]},
                "relations": {"name": ["r", "s"], "label": ["is", None]},
                "triples": {"head": [0, 0, 1], "relation": [0, 0, 1], "tail": [1, 1, 2]},
                "texts": {"entity": [1, 2], "text": ["B", "C"], "kind": ["label", "label"]},
                "images": {"entity": [2], "path": ["c.png"]},
            }
        )
    )
    new = KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": ["d", "c", "b", "a"], "type": [None, None, None, "y"]},
                "relations": {"name": ["t", "r"], "label": [None, "was"]},
                "triples": {"head": [3, 0], "relation": [1, 0], "tail": [2, 1]},
                "texts": {"entity": [2, 1], "text": ["B", "Cc"], "kind": ["label", "label"]},
                "images": {"entity": [1, 0], "path": ["c.png", "d.png"]},
            }
        )
    )
    found = compare_graphs(old, new)
    assert found.entities.rows() == [
        ("d", "added", None),
        ("a", "changed", "entities"),
        ("c", "changed", "texts"),
    ]
    assert found.relations.rows() == [("t", "added"), ("r", "changed"), ("s", "removed")]
    assert found.facts.rows() == [
        ("d", "t", "c", "added", 1),
        ("a", "r", "b", "removed", 1),
        ("b", "s", "c", "removed", 1),
    ]


def test_boxes_are_compared():
    def graph(box):
        images = {"entity": [0], "path": ["a.png"], "box": np.array([box], dtype=float)}
        return KnowledgeGraph(build_tables({"entities": {"name": ["a"]}, "images": images}))

    assert not compare_graphs(graph([0, 0, 1, 1]), graph([0, 0, 1, 1]))
    assert compare_graphs(graph([0, 0, 1, 1]), graph([0, 0, 1, 2])).entities.row(0)[2] == "images"
