"""What is asked is nowhere in training, and nothing is asked of what was never seen."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

TRIPLES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(0, 8)), max_size=40)


@given(TRIPLES, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_no_pair_is_in_two_parts(rows, seed):
    graph = KnowledgeGraph.from_triples(rows).split(seed=seed)
    parts = {}
    for head, tail, split in graph.triples.select("head", "tail", "split").iter_rows():
        parts.setdefault(frozenset((head, tail)), set()).add(split)
    assert all(len(found) == 1 for found in parts.values())
    train = graph.triples.filter(pl.col("split") == "train")
    assert set(train["relation"]) == set(range(graph.num_relations))
    assert set(train["head"]) | set(train["tail"]) == set(range(graph.num_entities))


def test_shares_are_met():
    rows = [(f"a{i}", "r", f"a{j}") for i in range(50) for j in range(i)]
    graph = KnowledgeGraph.from_triples(rows)
    split = graph.split((0.7, 0.2, 0.1), seed=1)
    counts = dict(split.triples["split"].value_counts().iter_rows())
    assert counts["valid"] == pytest.approx(0.2 * len(rows), rel=0.05)
    assert counts["test"] == pytest.approx(0.1 * len(rows), rel=0.05)
    assert split == graph.split((0.7, 0.2, 0.1), seed=1)
    assert split != graph.split((0.7, 0.2, 0.1), seed=2)


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_bad_ratios(ratios):
    with pytest.raises(GraphError, match="sum 1"):
        KnowledgeGraph.from_triples([("a", "r", "b")]).split(ratios)
