import networkx
import numpy as np
import pytest

from kgclip.analysis import components, k_core
from kgclip.analysis.components import _weak_parts
from kgclip.graph import KnowledgeGraph
from tests.analysis.cases import CASES


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
@pytest.mark.parametrize("strong", [False, True])
def test_components_equal_networkx(graph, strong):
    method = (
        networkx.strongly_connected_components if strong else networkx.weakly_connected_components
    )
    table = components(graph, strong=strong)
    ours = {frozenset(part) for part in table.group_by("component").agg("name")["name"].to_list()}
    assert ours == {frozenset(part) for part in method(graph.to_networkx())}
    sizes = table.group_by("component").len().sort("component")["len"].to_list()
    assert sizes == sorted(sizes, reverse=True)
    assert (table["size"] == table["component"].map_elements(sizes.__getitem__, int)).all()


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_cores_equal_networkx(graph):
    simple = networkx.Graph(graph.to_networkx())
    simple.remove_edges_from(list(networkx.selfloop_edges(simple)))
    table = k_core(graph)
    assert dict(table.select("name", "core").iter_rows()) == networkx.core_number(simple)


def test_equal_components_are_numbered_by_their_first_entity():
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("c", "r", "d"), ("d", "r", "e")])
    assert components(graph)["component"].to_list() == [1, 1, 0, 0, 0]
    pairs = KnowledgeGraph.from_triples([("a", "r", "b"), ("c", "r", "d")])
    assert components(pairs)["component"].to_list() == [0, 0, 1, 1]


def test_components_of_a_star_whose_centre_is_the_largest_and_of_a_long_path():
    star = _weak_parts(np.full(30, 30), np.arange(30), 32)
    assert star.tolist() == [0] * 31 + [31]
    order = np.random.default_rng(0).permutation(1000)
    assert set(_weak_parts(order[1:], order[:-1], 1000)) == {0}
