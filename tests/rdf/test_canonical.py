"""Blank nodes get the same names however they were named, and different ones stay different."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph
from kgclip.rdf.canonical import blank_labels


def renamed(facts, names):
    return {tuple(names.get(token, token) for token in fact) for fact in facts}


def cycle(length, start=0):
    return [(f"_:n{start + i}", "r", f"_:n{start + (i + 1) % length}") for i in range(length)]


tokens = st.sampled_from(["_:a", "_:b", "_:c", "_:d", "x", "y"])


@given(st.lists(st.tuples(tokens, st.sampled_from("rs"), tokens), max_size=9), st.randoms())
@settings(max_examples=100, deadline=None)
def test_names_do_not_matter(facts, random):
    blank = ["_:a", "_:b", "_:c", "_:d"]
    others = ["_:p", "_:a", "_:q", "_:d"]
    random.shuffle(others)
    other = list(renamed(facts, dict(zip(blank, others, strict=True))))
    random.shuffle(other)
    assert renamed(facts, blank_labels(facts)) == renamed(other, blank_labels(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (cycle(6), [*cycle(3), *cycle(3, start=3)]),  # every node looks alike in both
        ([("_:a", "r", "_:a")], [("_:a", "r", "_:b")]),
        ([("_:a", "r", "_:b"), ("_:a", "s", "_:b")], [("_:a", "r", "_:b"), ("_:b", "s", "_:a")]),
    ],
)
def test_different_graphs_stay_different(one, other):
    assert renamed(one, blank_labels(one)) != renamed(other, blank_labels(other))


def test_many_like_nodes_are_named_quickly():
    facts = [("x", "r", f"_:n{i}") for i in range(1000)]
    facts += [(f"_:n{i}", "s", "y") for i in range(1000)]
    shuffled = random.Random(0).sample(facts, len(facts))
    assert renamed(facts, blank_labels(facts)) == renamed(shuffled, blank_labels(shuffled))


def test_what_rdf_does_not_count_makes_no_difference():
    rows = [("urn:b", "urn:r", "_:u"), ("urn:a", "urn:r", "_:v"), ("_:u", "r", "_:v")]
    again = [("_:k", "r", "_:j"), ("urn:b", "urn:r", "_:k"), ("urn:a", "urn:r", "_:j")] * 2
    one, other = (KnowledgeGraph.from_triples(r).canonical() for r in (rows, again))
    assert one == other
    assert one.num_triples == 3
    different = KnowledgeGraph.from_triples([*rows[:2], ("_:v", "r", "_:u")]).canonical()
    assert one != different
    assert KnowledgeGraph.from_triples([]).canonical() == KnowledgeGraph.from_triples([])
