"""Composed answers follow the rules of logic where everything is certain."""

import pytest
import torch

from kgclip.reasoning import all_of, any_of, hop, known_facts_win


def test_certain_facts_give_boolean_logic():
    torch.manual_seed(0)
    a, b = torch.rand(2, 40) > 0.5
    assert torch.equal(all_of(a.float(), b.float()).bool(), a & b)
    assert torch.equal(any_of(a.float(), b.float()).bool(), a | b)
    relation = torch.rand(40, 30) > 0.8
    reached = (a[:, None] & relation).any(dim=0)
    assert torch.equal(hop(a.float(), relation.float()).bool(), reached)


def test_hop_equals_the_loop():
    torch.manual_seed(0)
    start, relation = torch.rand(2, 3, 5), torch.rand(5, 4)
    out = hop(start, relation)
    for i in range(2):
        for j in range(3):
            for n in range(4):
                best = max(float(start[i, j, m] * relation[m, n]) for m in range(5))
                assert float(out[i, j, n]) == pytest.approx(best)


def test_hop_over_nothing():
    assert hop(torch.zeros(2, 0), torch.zeros(0, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert hop(torch.zeros(0, 4), torch.zeros(4, 3)).shape == (0, 3)


def test_a_two_hop_question():
    """Which currency has a neighbour of Kenya that speaks Swahili?"""
    borders = torch.tensor([1.0, 1.0, 0.0])  # Tanzania, Ethiopia, Spain
    speaks = torch.tensor([0.9, 0.1, 0.0])
    currency = torch.tensor([[0.8, 0.1], [0.1, 0.8], [0.0, 0.0]])  # shilling, birr
    answer = hop(all_of(borders, speaks), currency)
    torch.testing.assert_close(answer, torch.tensor([0.72, 0.09]))


def test_known_facts_win():
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    known = torch.tensor([[False, True], [False, False]])
    torch.testing.assert_close(
        known_facts_win(probability, known), torch.tensor([[0.0009, 1.0], [0.9, 0.1]])
    )


def test_mistakes_are_named():
    for call, message in (
        (lambda: all_of(), "at least one"),
        (lambda: all_of(torch.tensor([1.5])), r"0, 1\] expected"),
        (lambda: any_of(torch.tensor([-0.5])), r"0, 1\] expected"),
        (lambda: hop(torch.zeros(3), torch.zeros(2, 2)), "start has 3 entities, relation 2"),
        (lambda: known_facts_win(torch.zeros(2), torch.zeros(2)), "torch.bool"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
