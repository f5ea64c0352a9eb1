import pytest
import torch

from kgclip.evaluation.triple_index import (
    TripleIndex,
    check_triples,
    expand_ranges,
    relation_cardinalities,
)


def test_finds_answers_of_far_relations():
    triples = torch.tensor([[5, 10**9, 7], [5, 10**9, 9], [5, 0, 1], [5, 10**9, 7]])
    index = TripleIndex(triples, 1_000, "tail")
    found = index.answers(torch.tensor([5, 5, 6]), torch.tensor([10**9, 1, 10**9]))
    assert [part.tolist() for part in found] == [[0, 0], [7, 9]]
    index = TripleIndex(triples, 1_000, "head")
    found = index.answers(torch.tensor([7, 1]), torch.tensor([10**9, 0]))
    assert [part.tolist() for part in found] == [[0, 1], [5, 5]]


def test_nothing_known_answers_nothing():
    index = TripleIndex(torch.zeros(0, 3, dtype=torch.long), 4, "tail")
    found = index.answers(torch.tensor([0, 3]), torch.tensor([0, 1]))
    assert [part.tolist() for part in found] == [[], []]


def test_expand_ranges():
    rows, places = expand_ranges(torch.tensor([3, 5, 0]), torch.tensor([5, 5, 1]))
    assert rows.tolist() == [0, 0, 2]
    assert places.tolist() == [3, 4, 0]


def test_classes_of_relations():
    triples = torch.tensor(
        [
            *([0, 0, 1], [2, 0, 3]),  # one to one
            *([0, 1, 1], [0, 1, 2], [3, 1, 4]),  # 3 pairs, 2 heads: 1.5 tails a head
            *([1, 2, 0], [2, 2, 0], [4, 2, 3]),
            *([0, 5, 0], [0, 5, 1], [1, 5, 0], [1, 5, 1]),
            *([0, 7, 1], [0, 7, 1], [0, 7, 1]),  # duplicates count once
        ]
    )
    classes = {0: "1-1", 1: "1-N", 2: "N-1", 5: "N-N", 7: "1-1"}
    assert relation_cardinalities(triples) == classes
    assert relation_cardinalities(triples[:0]) == {}


def test_checks_say_what_was_given():
    check_triples("t", torch.zeros(0, 3, dtype=torch.long), 0)
    check_triples("t", torch.tensor([[1, 9, 0]]), 2)
    with pytest.raises(ValueError, match="t: relation 9 given, below 9 expected"):
        check_triples("t", torch.tensor([[1, 9, 0]]), 2, 9)
    with pytest.raises(ValueError, match="t: entity 2 given, below 2 expected"):
        check_triples("t", torch.tensor([[1, 9, 2]]), 2)
