from collections import Counter, defaultdict
from itertools import product

import pytest

import kgclip
from kgclip.analysis import rules
from kgclip.analysis.leakage import seen_part
from kgclip.analysis.rules import mine_rules
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from tests.analysis.cases import CASES


def slow_rules(graph: KnowledgeGraph) -> dict[tuple[str, tuple[str, ...]], tuple[float, ...]]:
    """Every rule with support by its definition: sets of pairs."""
    pairs = defaultdict(set)
    for head, tail, relation in graph.to_networkx().edges(data="relation"):
        pairs[relation].add((head, tail))
        pairs[f"{relation}⁻¹"].add((tail, head))
    bodies = {(one,): pairs[one] for one in list(pairs)}
    for one, two in product(list(pairs), repeat=2):
        bodies[one, two] = {(x, y) for x, z in pairs[one] for w, y in pairs[two] if z == w}
    found = {}
    for relation in [name for name in pairs if "⁻¹" not in name]:
        known = {x for x, _ in pairs[relation]}
        for body, holds in bodies.items():
            support = len(holds & pairs[relation])
            if support and body != (relation,):
                pca = sum(x in known for x, _ in holds)
                found[relation, body] = (
                    *(support, support / len(pairs[relation])),
                    *(support / len(holds), support / pca),
                )
    return found


def ours(graph, **limits):
    return {
        (row["head"], tuple(row["body"])): (
            *(row["support"], row["head_coverage"], row["confidence"], row["pca_confidence"]),
        )
        for row in mine_rules(graph, **limits).to_dicts()
    }


@pytest.mark.parametrize("chunk", [5, 1_000_000])
@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_rules_equal_the_sets_of_pairs(graph, chunk, monkeypatch):
    monkeypatch.setattr(rules, "_CHUNK", chunk)
    slow = slow_rules(graph)
    assert ours(graph, min_support=1, min_confidence=0) == {
        rule: pytest.approx(figures) for rule, figures in slow.items()
    }
    some = {rule for rule, figures in slow.items() if figures[0] >= 2 and figures[3] >= 0.3}
    assert ours(graph, min_support=2, min_confidence=0.3).keys() == some


def test_short_rules_only():
    graph = CASES["dense"]
    assert set(mine_rules(graph, max_length=1, min_support=1)["length"]) == {1}
    assert Counter(mine_rules(graph, min_support=1, min_confidence=0)["length"])[2] > 100


@pytest.mark.parametrize("limits", [{"min_support": 0}, {"min_confidence": 1.5}, {"max_length": 3}])
def test_limits_are_checked(limits):
    with pytest.raises(GraphError, match="expected at least 1"):
        mine_rules(CASES["dense"], **limits)


def test_countries_are_located_where_their_region_is(shared_data):
    graph = kgclip.read_graph(shared_data / "countries" / "S1")
    train = seen_part(graph)
    found = {row["rule"]: row for row in mine_rules(train).to_dicts()}
    slow = slow_rules(train)
    through_region = found["locatedin(x, y) ⇐ locatedin(x, z) ∧ locatedin(z, y)"]
    through_neighbour = found["locatedin(x, y) ⇐ neighbor(x, z) ∧ locatedin(z, y)"]
    mirrored = found["neighbor(x, y) ⇐ neighbor(y, x)"]
    for row, body in (
        (through_region, ("locatedin", "locatedin")),
        (through_neighbour, ("neighbor", "locatedin")),
        (mirrored, ("neighbor⁻¹",)),
    ):
        figures = slow[row["head"], body]
        assert (row["support"], row["confidence"], row["pca_confidence"]) == pytest.approx(
            (figures[0], figures[2], figures[3])
        )
    assert (through_region["support"], through_neighbour["support"]) == (203, 271)
    assert round(through_region["confidence"], 3) == 0.809
    assert round(through_neighbour["confidence"], 3) == 0.593
