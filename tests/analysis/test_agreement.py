import networkx
import numpy as np
import pytest

from kgclip.analysis import compare_distances, similar_vectors
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from tests.analysis.cases import isolated, random_graph


def test_means_equal_every_pair_by_hand():
    graph = random_graph(0)
    vectors = np.random.default_rng(0).normal(size=(graph.num_entities, 5))
    vectors[3] = 0
    found = compare_distances(graph, vectors, num_sources=100, max_hops=3)
    simple = networkx.Graph(graph.to_networkx())
    hops = dict(networkx.all_pairs_shortest_path_length(simple))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    groups = {}
    for i in range(len(vectors)):
        for j in range(i):
            if 3 not in (i, j):
                far = hops[f"e{i}"].get(f"e{j}", 99)
                groups.setdefault(far if far <= 3 else None, []).append(unit[i] @ unit[j])
    assert {row[0]: row[1:3] for row in found.by_hops.iter_rows()} == {
        key: (len(values), pytest.approx(np.mean(values))) for key, values in groups.items()
    }
    apart = found.disagreements.filter(found.disagreements["kind"] == "apart")
    assert apart["similarity"][0] == pytest.approx(min(groups[1]))
    alike = found.disagreements.filter(found.disagreements["kind"] == "alike")
    assert alike["similarity"][0] == pytest.approx(max(groups[None]))


def test_an_embedding_of_the_graph_agrees_with_it():
    graph = KnowledgeGraph.from_triples([(f"{i}", "next", f"{i + 1}") for i in range(40)])
    angle = np.linspace(0, np.pi, graph.num_entities)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert compare_distances(graph, along, max_hops=40).correlation < -0.999
    shuffled = np.random.default_rng(0).permutation(along)
    assert abs(compare_distances(graph, shuffled).correlation) < 0.4


def test_equal_vectors_are_found():
    graph = random_graph(0)
    vectors = np.random.default_rng(0).normal(size=(graph.num_entities, 50))
    vectors[7] = 2 * vectors[4]
    assert similar_vectors(graph, vectors).rows() == [("e4", "e7", pytest.approx(1))]


def test_unusable_vectors_are_refused():
    graph = random_graph(0)
    with pytest.raises(GraphError, match="each of the 33 entities"):
        compare_distances(graph, np.ones((4, 2)))
    with pytest.raises(GraphError, match="at least two"):
        compare_distances(graph, np.zeros((33, 2)))
    assert np.isnan(compare_distances(isolated(2), np.ones((2, 2))).correlation)
