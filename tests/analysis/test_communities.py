import networkx
import pytest

from kgclip.analysis import bridges, clustering, communities
from kgclip.graph import KnowledgeGraph
from tests.analysis.cases import CASES


def simple_networkx(graph: KnowledgeGraph) -> networkx.Graph:
    simple = networkx.Graph(graph.to_networkx())
    simple.remove_edges_from(list(networkx.selfloop_edges(simple)))
    return simple


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_communities_are_as_good_as_their_modularity_says(graph):
    table, modularity = communities(graph)
    parts = table.group_by("community").agg("name")["name"].to_list()
    simple = simple_networkx(graph)
    assert sorted(name for part in parts for name in part) == sorted(simple)
    if simple.number_of_edges():
        assert modularity == pytest.approx(networkx.community.modularity(simple, parts))
        peer = networkx.community.louvain_communities(simple, seed=0)
        assert modularity >= networkx.community.modularity(simple, peer) - 0.05
    assert communities(graph)[0].equals(table)


def test_two_cliques_are_two_communities():
    cliques = [(f"{k}{i}", "r", f"{k}{j}") for k in "ab" for i in range(6) for j in range(i)]
    table, _ = communities(KnowledgeGraph.from_triples([*cliques, ("a0", "r", "b0")]))
    parts = table.group_by("community").agg("name")["name"].to_list()
    assert {frozenset(n[0] for n in part) for part in parts} == {frozenset("a"), frozenset("b")}


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_clustering_equals_networkx(graph):
    table = clustering(graph)
    slow = networkx.clustering(simple_networkx(graph))
    assert dict(table.select("name", "clustering").iter_rows()) == pytest.approx(slow)


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_bridges_equal_networkx(graph):
    table = bridges(graph)
    slow = {frozenset(edge) for edge in networkx.bridges(simple_networkx(graph))}
    assert {frozenset(edge) for edge in table.select("name", "other_name").iter_rows()} == slow
    assert len(table) == len(slow)
    assert table.equals(table.sort("entity", "other"))
