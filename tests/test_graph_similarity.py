"""Similarities of the graph against their definitions."""

import pytest
import torch

from kgclip.graph_similarity import PersonalizedPageRank, SharedNeighbors

# 4 is isolated; 0-1 stands twice; 3 has a loop.
EDGES = torch.tensor([[0, 1, 2, 0, 3, 0], [1, 2, 3, 1, 3, 2]])
BOTH = torch.cat([EDGES, EDGES.flip(0)], dim=1)
NEIGHBORS = [{1, 2}, {0, 2}, {0, 1, 3}, {2, 3}, set()]


def test_shared_neighbours_are_counted():
    ids = torch.tensor([0, 2, 3, 4, 0])
    found = SharedNeighbors(BOTH, 5)(ids)
    for row, i in enumerate(ids.tolist()):
        for column, j in enumerate(ids.tolist()):
            sizes = len(NEIGHBORS[i]) * len(NEIGHBORS[j])
            shared = len(NEIGHBORS[i] & NEIGHBORS[j])
            expected = 1.0 if i == j else shared / sizes**0.5 if sizes else 0.0
            assert found[row, column] == pytest.approx(expected, abs=1e-6)


def test_the_walk_is_the_solution_of_its_equation():
    walk = torch.zeros(5, 5, dtype=torch.double)
    for i, near in enumerate(NEIGHBORS):
        for j in near:
            walk[i, j] = 1 / len(near)
    # p = c e + (1 - c) Wᵀ p
    exact = 0.2 * torch.linalg.inv(torch.eye(5, dtype=torch.double) - 0.8 * walk)
    ids = torch.tensor([2, 0, 2, 4])
    found = PersonalizedPageRank(BOTH, 5, restart=0.2, steps=80)(ids)
    torch.testing.assert_close(found, exact[ids][:, ids].float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [SharedNeighbors, PersonalizedPageRank])
def test_no_edges_and_no_entities(kind):
    found = kind(BOTH[:, :0], 3)(torch.tensor([0, 1]))
    assert (found > 0).tolist() == [[True, False], [False, True]]
    assert kind(BOTH, 5)(torch.tensor([], dtype=torch.long)).shape == (0, 0)


def test_restart_is_a_probability():
    with pytest.raises(ValueError, match="restart: 0"):
        PersonalizedPageRank(BOTH, 5, restart=0)
