import pytest

from kgclip.analysis import degree_distribution, degree_table
from tests.analysis.cases import CASES


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_degrees_equal_networkx(graph):
    table = degree_table(graph)
    slow = graph.to_networkx()
    assert dict(table.select("name", "in_degree").iter_rows()) == dict(slow.in_degree())
    assert dict(table.select("name", "out_degree").iter_rows()) == dict(slow.out_degree())
    assert (table["degree"] == table["in_degree"] + table["out_degree"]).all()
    assert table["entity"].to_list() == list(range(graph.num_entities))


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_distribution_counts_every_entity_once(graph):
    table = degree_distribution(graph)
    assert table["entities"].sum() == graph.num_entities
    assert (table["degree"] * table["entities"]).sum() == 2 * graph.num_triples
    assert table["degree"].to_list() == sorted(set(degree_table(graph)["degree"]))
