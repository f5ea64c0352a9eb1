from collections import Counter

import pytest

import kgclip
from kgclip.analysis import duplicate_relations, inverse_relations, relation_table, type_schema
from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables
from tests.analysis.cases import CASES, random_graph


def pairs_by_relation(graph) -> dict[str, set[tuple[str, str]]]:
    pairs = {name: set() for name in graph.relations["name"]}
    for head, tail, relation in graph.to_networkx().edges(data="relation"):
        pairs[relation].add((head, tail))
    return pairs


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_relation_table_equals_sets_of_pairs(graph):
    table = relation_table(graph)
    counts = Counter(graph.relations["name"].gather(graph.triples["relation"]))
    assert len(table) == graph.num_relations
    for row in table.to_dicts():
        pairs = pairs_by_relation(graph)[row["name"]]
        heads, tails = {h for h, _ in pairs}, {t for _, t in pairs}
        plain = {(h, t) for h, t in pairs if h != t}
        assert row["triples"] == counts[row["name"]]
        assert (row["distinct"], row["heads"], row["tails"]) == (len(pairs), len(heads), len(tails))
        assert row["loops"] == len(pairs) - len(plain)
        assert row["mirrored"] == sum((t, h) in plain for h, t in plain)
        if pairs:
            many = [len(pairs) / len(tails) > 1.5, len(pairs) / len(heads) > 1.5]
            assert row["cardinality"] == "-".join("1N"[number] for number in many)
        else:
            assert row["cardinality"] is None
        expected = row["mirrored"] / len(plain) if plain else None
        assert row["symmetry"] == pytest.approx(expected)


@pytest.mark.parametrize("function", [inverse_relations, duplicate_relations])
@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_overlaps_equal_sets_of_pairs(graph, function):
    backwards = function is inverse_relations
    pairs = {n: {p for p in s if p[0] != p[1]} for n, s in pairs_by_relation(graph).items()}
    expected = {}
    for i, one in enumerate(pairs):
        for other in list(pairs)[i + (not backwards) :]:
            theirs = {(t, h) for h, t in pairs[other]} if backwards else pairs[other]
            both = len(pairs[one] & theirs)
            if both and both / min(len(pairs[one]), len(theirs)) >= 0.1:
                shares = (both / len(pairs[one]), both / len(theirs))
                expected[one, other] = (both, *map(pytest.approx, shares))
    ours = {(r[0], r[1]): r[2:] for r in function(graph, 0.1).iter_rows()}
    assert ours == expected


def test_schema_counts_types():
    graph = KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": ["a", "b", "c"], "type": ["city", "country", None]},
                "relations": {"name": ["in"]},
                "triples": {"head": [0, 0, 2], "relation": [0] * 3, "tail": [1, 1, 1]},
            }
        )
    )
    assert type_schema(graph).rows() == [
        ("in", "city", "country", 2, pytest.approx(2 / 3)),
        ("in", "(none)", "country", 1, pytest.approx(1 / 3)),
    ]
    assert type_schema(CASES["empty"]).is_empty()
    assert type_schema(random_graph(0))["triples"].sum() == 60


def test_cardinalities_of_wn18rr(shared_data):
    table = relation_table(kgclip.read_graph(shared_data / "wn18rr"))
    kinds = dict(table.select("name", "cardinality").iter_rows())
    assert kinds["_hypernym"] == "N-1"
    assert kinds["_member_meronym"] == "1-N"
    assert kinds["_derivationally_related_form"] == "N-N"
