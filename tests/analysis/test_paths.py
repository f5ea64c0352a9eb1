from collections import Counter

import networkx
import pytest

from kgclip.analysis import path_patterns, shortest_path
from kgclip.tables import GraphError
from tests.analysis.cases import CASES, random_graph

GRAPH = random_graph(0)


def test_shortest_paths_are_as_short_as_networkx_says():
    slow = networkx.Graph(GRAPH.to_networkx())
    triples = {(a, r, b) for a, b, r in GRAPH.to_networkx().edges(data="relation")}
    for target in slow:
        path = shortest_path(GRAPH, "e0", target)
        if not networkx.has_path(slow, "e0", target) or target == "e0":
            assert path.is_empty()
            continue
        assert len(path) == networkx.shortest_path_length(slow, "e0", target)
        at = "e0"
        for one, relation, arrow, other in path.iter_rows():
            assert one == at
            triple = (one, relation, other) if arrow == "→" else (other, relation, one)
            assert triple in triples
            at = other
        assert at == target


def slow_patterns(graph, source: str, target: str, max_length: int) -> Counter[str]:
    steps = {
        step
        for a, b, r in graph.to_networkx().edges(data="relation")
        for step in ((a, f"→ {r}", b), (b, f"← {r}", a))
    }
    found = Counter()

    def walk(visited: list[str], pattern: list[str]) -> None:
        if visited[-1] == target:
            found[" ".join(pattern)] += 1
        elif len(pattern) < max_length:
            for a, step, b in steps:
                if a == visited[-1] and b not in visited:
                    walk([*visited, b], [*pattern, step])

    walk([source], [])
    return found


@pytest.mark.parametrize("target", ["e3", "e9", "e17", "e31"])
def test_patterns_equal_the_walk(target):
    table = path_patterns(GRAPH, "e0", target)
    assert Counter(dict(table.select("pattern", "paths").iter_rows())) == slow_patterns(
        GRAPH, "e0", target, 3
    )
    for pattern, length, example in table.select("pattern", "length", "example").iter_rows():
        assert len(pattern.split()) == 2 * length
        assert example.split(" - ")[0] == "e0"
        assert example.split(" - ")[-1] == target
        assert len(example.split(" - ")) == length + 1


def test_a_duplicate_triple_makes_no_second_path():
    table = path_patterns(CASES["duplicate"], "a", "b")
    assert table.row(0) == ("→ r", 1, 1, "a - b")


def test_unknown_names_and_equal_ends_are_refused():
    with pytest.raises(GraphError, match="e1"):
        shortest_path(GRAPH, "e0", "e111")
    with pytest.raises(GraphError, match="different"):
        path_patterns(GRAPH, "e0", "e0")
    with pytest.raises(GraphError, match="at least one step"):
        path_patterns(GRAPH, "e0", "e1", max_length=0)
