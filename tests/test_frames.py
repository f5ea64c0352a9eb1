"""Frames, id maps and PyKEEN's factories become graphs and come back."""

import dataclasses

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings

from kgclip.frames import find_roles
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from tests.test_storage import graphs

COLUMNS = {"h": ["a", "a"], "predicate": ["r", "s"], "Object": ["b", "a"], "score": [0.5, None]}


def rows(graph):
    entities, relations = graph.entities["name"], graph.relations["name"]
    columns = graph.triples.select("head", "relation", "tail", "weight").iter_rows()
    return [(entities[h], relations[r], entities[t], w) for h, r, t, w in columns]


@pytest.mark.parametrize("kind", [dict, pl.DataFrame, pl.LazyFrame, pd.DataFrame])
def test_frames_of_any_kind(kind):
    graph = KnowledgeGraph.from_frame(kind(COLUMNS))
    assert rows(graph) == [("a", "r", "b", 0.5), ("a", "s", "a", None)]
    assert graph == KnowledgeGraph.from_triples(rows(graph))


def test_names_may_be_numbers_and_columns_may_be_named():
    frame = pd.DataFrame([[1, 7, 2], [2, 7, 3]])
    graph = KnowledgeGraph.from_frame(frame, columns=["tail", "relation", "head"])
    assert rows(graph) == [("2", "7", "1", None), ("3", "7", "2", None)]
    more = pl.DataFrame({"head": ["a"], "relation": ["r"], "tail": ["b"], "source": ["x"]})
    assert KnowledgeGraph.from_frame(more).triples["source"].to_list() == ["x"]
    more = more.rename({"source": "split"})
    assert KnowledgeGraph.from_frame(more).triples["split"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        ({"head": ["a"], "tail": ["b"]}, None, "no relation"),
        ({**COLUMNS, "colour": ["x", "y"]}, None, r"\['colour'\] have no place"),
        (COLUMNS, ["head", "tail"], "4 columns, 2 names"),
        ({"head": [None], "relation": ["r"], "tail": ["b"]}, None, "row 0: head is empty"),
    ],
)
def test_mistakes_are_named(frame, columns, message):
    with pytest.raises(GraphError, match=message):
        KnowledgeGraph.from_frame(frame, columns)


def test_roles_are_found_once():
    assert find_roles(["source", "edge", "target"]) == {
        "source": "head", "edge": "relation", "target": "tail"
    }  # fmt: skip


@dataclasses.dataclass
class Factory:
    """What PyKEEN's TriplesFactory holds."""

    mapped_triples: np.ndarray
    entity_to_id: dict
    relation_to_id: dict


@given(graphs())
@settings(max_examples=25, deadline=None)
def test_labelled_triples_keep_names_and_ids(tables):
    graph = KnowledgeGraph(tables)
    triples, entity_to_id, relation_to_id = graph.to_labelled()
    assert triples.shape == (graph.num_triples, 3)
    ids = [[entity_to_id[h], relation_to_id[r], entity_to_id[t]] for h, r, t in triples.tolist()]
    factory = Factory(np.array(ids, dtype=np.int64), entity_to_id, relation_to_id)
    back = KnowledgeGraph.from_pykeen(factory)
    assert back.entities["name"].equals(graph.entities["name"])
    assert back.relations["name"].equals(graph.relations["name"])
    columns = ["head", "relation", "tail"]
    assert back.triples.select(columns).equals(graph.triples.select(columns))


def test_id_maps_with_holes_are_refused():
    with pytest.raises(GraphError, match="entity_to_id: ids from 0 to 1"):
        KnowledgeGraph.from_pykeen(Factory(np.zeros((0, 3)), {"a": 0, "b": 2}, {}))
    with pytest.raises(GraphError, match=r"tail is 5"):
        KnowledgeGraph.from_pykeen(Factory(np.array([[0, 0, 5]]), {"a": 0}, {"r": 0}))
