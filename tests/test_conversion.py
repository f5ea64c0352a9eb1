"""Graphs go to networkx, rdflib and scipy and come back."""

from collections import Counter

import networkx as nx
import numpy as np
import pytest
import rdflib
import rdflib.compare
from hypothesis import given, settings

from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError, build_tables
from tests.test_storage import graphs


def as_multigraph(graph):
    """Nodes and edges with all they carry; the order of edges means nothing."""
    edges = Counter((u, v, repr(sorted(d.items()))) for u, v, d in graph.edges(data=True))
    return dict(graph.nodes(data=True)), edges, graph.graph


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_networkx_round_trip(tables):
    there = KnowledgeGraph(tables).to_networkx()
    back = KnowledgeGraph.from_networkx(there)
    assert as_multigraph(back.to_networkx()) == as_multigraph(there)
    assert back.num_triples == len(tables.triples)


@given(graphs())
@settings(max_examples=25, deadline=None)
def test_stacked_matrices_are_those_of_each_relation(tables):
    graph = KnowledgeGraph(tables)
    stacked, count = graph.to_scipy_stacked(), graph.num_entities
    assert stacked.shape == (graph.num_relations * count, count)
    total = np.zeros((count, count), dtype=np.int64)
    for relation in range(graph.num_relations):
        own = graph.to_scipy(relation).toarray()
        assert (stacked.toarray()[relation * count : (relation + 1) * count] == own).all()
        total += own
    assert (total == graph.to_scipy().toarray()).all()


def test_networkx_of_any_kind_is_read():
    graph = nx.Graph()
    graph.add_edge(1, 2, relation="near", weight=0.5)
    graph.add_node(3, colour="red")
    read = KnowledgeGraph.from_networkx(graph)
    assert read.entities["name"].to_list() == ["1", "2", "3"]
    assert read.triples["weight"].to_list() == [0.5]
    assert read.literals.select("entity", "value").rows() == [(2, "red")]
    keyed = nx.MultiDiGraph()
    keyed.add_edge("a", "b", key="likes")
    keyed.add_edge("a", "b")
    assert KnowledgeGraph.from_networkx(keyed).relations["name"].to_list() == [
        "likes",
        "related to",
    ]


def test_networkx_with_mixed_attributes():
    graph = nx.MultiDiGraph()
    graph.add_node("a", type=3, texts="not a list", age=7)
    graph.add_edge("a", "b", weight="0.5", source=12)
    graph.add_edge("a", "b", relation="near")
    read = KnowledgeGraph.from_networkx(graph)
    assert read.entities["type"].to_list() == ["3", None]
    assert sorted(read.literals["value"]) == ["7", "not a list"]
    assert read.triples.select("weight", "source").rows() == [(0.5, "12"), (None, None)]
    graph.add_edge("b", "a", weight="heavy")
    with pytest.raises(GraphError, match="weight 'heavy' is no number"):
        KnowledgeGraph.from_networkx(graph)


def test_networkx_that_cannot_be_said():
    graph = nx.DiGraph()
    graph.add_edge("a", "b", colour="red")
    with pytest.warns(UserWarning, match="left out: colour"):
        assert KnowledgeGraph.from_networkx(graph, drop=True).num_triples == 1
    with pytest.raises(GraphError, match=r"\['colour'\] have no place"):
        KnowledgeGraph.from_networkx(graph)
    twice = nx.Graph()
    twice.add_nodes_from([1, "1"])
    with pytest.raises(GraphError, match="another node is written '1'"):
        KnowledgeGraph.from_networkx(twice)


def test_names_that_are_no_iris_are_minted_and_kept_as_labels():
    rdf = KnowledgeGraph.from_triples([("new york", "is in", "http://x/usa")]).to_rdflib()
    minted = rdflib.URIRef("urn:kgclip:new%20york")
    assert (minted, rdflib.URIRef("urn:kgclip:is%20in"), rdflib.URIRef("http://x/usa")) in rdf
    assert (minted, rdflib.RDFS.label, rdflib.Literal("new york")) in rdf


def test_what_rdf_cannot_say_is_refused_unless_dropped():
    weighted = KnowledgeGraph.from_triples([("a", "r", "b", 0.5)])
    with pytest.raises(GraphError, match="weights"):
        weighted.to_rdflib()
    assert len(weighted.to_rdflib(drop=True)) == 3  # the triple and two labels
    boxed = build_tables(
        {"entities": {"name": ["urn:a"]},
         "images": {"entity": [0], "path": ["/a"], "box": [[0, 0, 1, 1]]}}
    )  # fmt: skip
    with pytest.raises(GraphError, match="boxes"):
        KnowledgeGraph(boxed).to_rdflib()
