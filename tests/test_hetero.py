"""HeteroData keeps every name and fact, also after PyG has worked on it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from kgclip.graph import KnowledgeGraph
from kgclip.hetero import (
    add_similarity,
    edge_index_and_type,
    from_hetero,
    global_edges,
    to_hetero,
    unique_keys,
    weighted_edges,
)
from kgclip.nn.paths import PathEncoder, random_walk_weights
from kgclip.similarity import nearest_edges, text_vectors
from kgclip.tables import GraphError, build_tables
from tests.test_storage import graphs


@pytest.fixture
def graph():
    tables = build_tables(
        {
            "entities": {
                "name": ["a", "b", "c", "alone"],
                "type": ["http://x/City", "http://x/City", "Río", None],
            },
            "relations": {"name": ["r/1", "r 1", "unused"], "label": [None, "r 1", None]},
            "triples": {"head": [0, 0, 1, 2], "relation": [0, 0, 1, 1], "tail": [1, 1, 2, 2]},
            "texts": {"entity": [0], "text": ["A"], "kind": ["label"]},
        }
    )
    return KnowledgeGraph(tables)


@given(graphs())
@settings(max_examples=25, deadline=None)
def test_round_trip(tables):
    graph = KnowledgeGraph(tables)
    for by_type in (True, False):
        for inverse in (True, False):
            data = to_hetero(graph, inverse=inverse, by_type=by_type)
            assert from_hetero(data) == graph
            assert from_hetero(data.to_homogeneous()) == graph
            everything = {kind: torch.arange(data[kind].num_nodes) for kind in data.node_types}
            assert from_hetero(data.subgraph(everything)) == graph
            assert from_hetero(data.subgraph(everything).to_homogeneous()) == graph


@given(graphs(), st.data())
@settings(max_examples=25, deadline=None)
def test_any_part_is_the_part_of_the_graph(tables, data):
    graph = KnowledgeGraph(tables)
    mask = st.lists(st.booleans(), min_size=graph.num_entities, max_size=graph.num_entities)
    keep = np.array(data.draw(mask), dtype=bool)
    hetero = to_hetero(graph, by_type=data.draw(st.booleans()), inverse=data.draw(st.booleans()))
    kept = torch.from_numpy(keep)
    chosen = {kind: kept[hetero[kind].entity_id] for kind in hetero.node_types}
    part = hetero.subgraph(chosen)
    assert from_hetero(part) == graph.restrict(keep)
    assert from_hetero(part.to_homogeneous()) == graph.restrict(keep)


def test_weights_are_edge_weights_too():
    rows = [("a", "r", "b", 0.5), ("b", "s", "a"), ("a", "s", "b", 2.0)]
    data = to_hetero(KnowledgeGraph.from_triples(rows))
    assert data["entity", "s", "entity"].edge_weight.tolist() == [1.0, 2.0]
    assert data["entity", "inverse_of_r", "entity"].edge_weight.tolist() == [0.5]
    assert len(data.to_homogeneous().edge_weight) == 6
    bare = to_hetero(KnowledgeGraph.from_triples([("a", "r", "b")]))
    assert "edge_weight" not in bare["entity", "r", "entity"]


def test_a_relation_called_like_an_inverse():
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "inverse_of_r", "a")])
    data = to_hetero(graph)
    assert len(data.edge_types) == 4
    assert from_hetero(data) == graph
    assert global_edges(data)[0].shape == (2, 4)


def test_stores_say_what_the_graph_says(graph):
    data = to_hetero(graph)
    assert set(data.node_types) == {"http_x_City", "Río", "entity"}
    assert data["http_x_City"].entity_id.tolist() == [0, 1]
    store = data["http_x_City", "r_1", "http_x_City"]
    assert store.edge_index.tolist() == [[0, 0], [1, 1]], "duplicates are kept"
    back = data["Río", "inverse_of_r_1_2", "http_x_City"]
    assert back.edge_index.tolist() == [[0], [1]]
    assert back.edge_type.tolist() == [1 + 3]
    assert (data.entity_names, data.relation_names[2]) == (["a", "b", "c", "alone"], "unused")
    assert data.validate()


def test_subgraph_converts_back_to_the_part(graph):
    data = to_hetero(graph).subgraph({"http_x_City": torch.tensor([1])})
    part = from_hetero(data)
    assert part.entities["name"].to_list() == ["b", "c", "alone"]
    assert part.triples.select("head", "relation", "tail").rows() == [(0, 1, 1), (1, 1, 1)]
    assert part.texts.is_empty()


def test_one_type_has_edge_types_of_relations_alone(graph):
    data = to_hetero(graph, inverse=False, by_type=False)
    assert data.node_types == ["entity"]
    assert data.edge_types == [("entity", "r_1", "entity"), ("entity", "r_1_2", "entity")]


@pytest.mark.parametrize("by_type", [True, False])
def test_global_edges_are_the_homogeneous_view(graph, by_type):
    expected, expected_type, _ = edge_index_and_type(graph)
    wanted = sorted(zip(*expected.tolist(), expected_type.tolist(), strict=True))
    data = to_hetero(graph, by_type=by_type)
    for form in (data, data.to_homogeneous()):
        edges, types = global_edges(form)
        assert sorted(zip(*edges.tolist(), types.tolist(), strict=True)) == wanted


def test_homogeneous_view(graph):
    edge_index, edge_type, triple_id = edge_index_and_type(graph)
    assert edge_index.tolist() == [[0, 0, 1, 2, 1, 1, 2, 2], [1, 1, 2, 2, 0, 0, 1, 2]]
    assert edge_type.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
    assert triple_id.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert edge_index_and_type(graph, inverse=False, splits=["train"])[0].shape == (2, 0)


def test_keys_are_unique_and_plain():
    assert unique_keys(["a b", "a/b", "", "a_b_2"]) == ["a_b", "a_b_2", "x", "a_b_2_2"]


def test_other_data_are_refused(graph):
    with pytest.raises(GraphError, match=r"data\.graph is missing"):
        from_hetero(Data(num_nodes=2))
    data = to_hetero(graph)
    del data["Río"].entity_id
    with pytest.raises(GraphError, match="no entity_id"):
        from_hetero(data)


def with_similarity(graph, by_type=True):
    data = to_hetero(graph, by_type=by_type)
    add_similarity(data, "looks like", np.array([[0, 1, 3], [1, 2, 0]]), np.array([0.9, 0.5, 0.2]))
    add_similarity(data, "r 1", np.array([[2], [0]]), np.array([0.3]))  # named like a relation
    return data


@pytest.mark.parametrize("by_type", [False, True])
def test_similarity_edges_are_edge_types(graph, by_type):
    data = with_similarity(graph, by_type)
    expected = {(0, 1, 6, 0.9), (1, 2, 6, 0.5), (3, 0, 6, 0.2), (2, 0, 7, 0.3)}
    for seen in (data, data.to_homogeneous()):
        edge_index, edge_type, weight = weighted_edges(seen)
        alike = edge_type >= 6
        rows = zip(*edge_index[:, alike].tolist(), edge_type[alike].tolist(), strict=False)
        found = {(*row, round(float(w), 6)) for row, w in zip(rows, weight[alike], strict=True)}
        assert found == expected
        assert (weight[~alike] == 1).all()
        assert from_hetero(seen) == graph, "similarity is no fact"
        plain = to_hetero(graph, by_type=by_type)
        facts, kinds = global_edges(seen)
        assert sorted(zip(*facts.tolist(), kinds.tolist(), strict=True)) == sorted(
            zip(*global_edges(plain)[0].tolist(), global_edges(plain)[1].tolist(), strict=True)
        )
    assert data.similarity_names == ["looks like", "r 1"]
    assert data.validate()


def test_similarity_of_what_was_cut_is_left_out(graph):
    cut = to_hetero(graph).subgraph({"http_x_City": torch.tensor([0])})
    add_similarity(cut, "looks like", np.array([[0, 1], [2, 0]]), np.array([0.9, 0.8]))
    edge_index, edge_type, _ = weighted_edges(cut)
    assert edge_index[:, edge_type == 6].tolist() == [[0], [2]]
    later = with_similarity(graph).subgraph({"http_x_City": torch.tensor([0])})
    edge_index, edge_type, _ = weighted_edges(later)
    assert sorted(edge_index[:, edge_type >= 6].T.tolist()) == [[2, 0], [3, 0]]


def test_similarity_mistakes_are_named(graph):
    data = with_similarity(graph)
    edges, weights = np.array([[0], [1]]), np.array([0.5])
    with pytest.raises(GraphError, match="there already"):
        add_similarity(data, "looks like", edges, weights)
    with pytest.raises(GraphError, match="only what to_hetero made"):
        add_similarity(HeteroData(), "x", edges, weights)
    with pytest.raises(ValueError, match=r"\[2, M\] and \[M\] expected"):
        add_similarity(data, "x", edges, np.ones(2))
    with pytest.raises(ValueError, match=r"\[0, 4\) expected"):
        add_similarity(data, "x", edges + 3, weights)


def test_paths_walk_names_that_are_alike(graph):
    """From names and facts to scores: a new entity without facts is reached by its name."""
    names = ["Kenya", "Uganda", "Kenyan shilling", "Kenyan pound"]
    vectors = text_vectors(names)
    cosines = (vectors @ vectors.T).toarray()
    every = np.arange(4)
    data = to_hetero(graph)
    found = nearest_edges(cosines, every, every, k=2, threshold=0.1)
    add_similarity(data, "named like", *found)
    edge_index, edge_type, weight = weighted_edges(data)
    num_relations = 2 * graph.num_relations + len(data.similarity_names)
    walk = random_walk_weights(edge_index, edge_type, weight, num_relations)
    torch.manual_seed(0)
    model = PathEncoder(graph.num_relations, num_relations, channels=4, num_layers=2).eval()
    start = torch.eye(4)[3:]  # "alone" in the graph: no fact, only its name
    question = torch.tensor([1])
    scores = model(start, question, edge_index, edge_type, walk)
    facts = edge_type < 6
    without = model(start, question, edge_index[:, facts], edge_type[facts], walk[facts])
    assert (scores[0, 2] != without[0, 2]) & (scores[0, 1] != without[0, 1])
    model.zero_grad()
    scores.sum().backward()
    assert all(p.grad is not None for p in model.relations.parameters())
