import networkx
import numpy as np
import pytest

from kgclip.analysis import betweenness, pagerank
from kgclip.tables import GraphError
from tests.analysis.cases import CASES, random_graph


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_pagerank_equals_networkx(graph):
    table = pagerank(graph, tolerance=1e-12)
    slow = networkx.pagerank(graph.to_networkx(), tol=1e-14, max_iter=1000)
    assert dict(table.select("name", "pagerank").iter_rows()) == pytest.approx(slow, abs=1e-11)


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.95])
def test_personalised_pagerank_equals_networkx(damping):
    graph = random_graph(3)
    seeds = {"e1": 2.0, "e31": 1.0, "e4": 0.0}
    ours = pagerank(graph, seeds=seeds, damping=damping, tolerance=1e-12)
    slow = networkx.pagerank(
        graph.to_networkx(), alpha=damping, personalization=seeds, tol=1e-14, max_iter=2000
    )
    assert dict(ours.select("name", "pagerank").iter_rows()) == pytest.approx(slow, abs=1e-10)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_pagerank_keeps_its_tolerance(tolerance):
    graph = random_graph(1)
    rough = pagerank(graph, tolerance=tolerance)["pagerank"]
    exact = pagerank(graph, tolerance=1e-13)["pagerank"]
    assert (rough - exact).abs().sum() <= tolerance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": 1.0}, r"expected a number in \[0, 1\)"),
        ({"seeds": {"e1": -1.0}}, "weights of at least 0"),
        ({"seeds": {}}, "weights of at least 0"),
        ({"seeds": {"e99": 1.0}}, "e9"),
    ],
)
def test_pagerank_refuses_nonsense(arguments, message):
    with pytest.raises(GraphError, match=message):
        pagerank(random_graph(0), **arguments)


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_betweenness_with_every_entity_is_exact(graph):
    simple = networkx.Graph(graph.to_networkx())
    simple.remove_edges_from(list(networkx.selfloop_edges(simple)))
    table = betweenness(graph, num_samples=50)
    slow = networkx.betweenness_centrality(simple)
    assert dict(table.select("name", "betweenness").iter_rows()) == pytest.approx(slow)


def test_sampled_betweenness_is_near_the_exact_one_and_repeats():
    graph = random_graph(2, num_entities=300, num_triples=600)
    exact = betweenness(graph, num_samples=400)["betweenness"].to_numpy()
    sampled = betweenness(graph, num_samples=200, seed=1)["betweenness"].to_numpy()
    assert np.corrcoef(exact, sampled)[0, 1] > 0.95
    assert sampled.sum() == pytest.approx(exact.sum(), rel=0.2)
    assert (sampled == betweenness(graph, num_samples=200, seed=1)["betweenness"].to_numpy()).all()
    with pytest.raises(GraphError, match="at least 1"):
        betweenness(graph, num_samples=0)
