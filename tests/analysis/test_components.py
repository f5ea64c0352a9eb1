import networkx
import pytest

from kgclip.analysis import components, k_core
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
