import pytest
import torch
import torch.nn.functional as F

from kgclip.nn.missing import fill_from_neighbors


def slow(features, present, edge_index):
    """Hop by hop, entity by entity."""
    rows = {e: features[e] for e in range(len(features)) if present[e]}
    hops = [0 if present[e] else -1 for e in range(len(features))]
    for hop in range(1, len(features)):
        new = {}
        for entity in range(len(features)):
            around = [int(s) for s, t in edge_index.T if t == entity and int(s) in rows]
            if entity not in rows and around:
                new[entity] = F.normalize(sum(rows[s] for s in around), dim=0)
                hops[entity] = hop
        rows |= new
    zero = torch.zeros(features.shape[1])
    return torch.stack([rows.get(e, zero) for e in range(len(features))]), torch.tensor(hops)


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_equal_the_slow_way(seed):
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(12, 5, generator=generator), dim=-1)
    present = torch.rand(12, generator=generator) < 0.3
    edge_index = torch.randint(12, (2, 14), generator=generator)  # self loops, duplicates, islands
    filled, hops = fill_from_neighbors(features, present, edge_index)
    wanted, wanted_hops = slow(features, present, edge_index)
    torch.testing.assert_close(filled, wanted)
    assert torch.equal(hops, wanted_hops)


def test_a_chain_is_filled_to_its_end_and_an_island_is_not():
    features, present = torch.tensor([[0.0, 1.0]] * 4), torch.tensor([True, False, False, False])
    filled, hops = fill_from_neighbors(features, present, torch.tensor([[0, 1], [1, 2]]))
    assert hops.tolist() == [0, 1, 2, -1]
    assert filled.tolist() == [[0, 1], [0, 1], [0, 1], [0, 0]]


def test_nobody_to_fill_from_and_nobody_at_all():
    edges = torch.tensor([[0], [1]])
    filled, hops = fill_from_neighbors(torch.ones(2, 3), torch.zeros(2, dtype=torch.bool), edges)
    assert not filled.any()
    assert hops.tolist() == [-1, -1]
    empty = torch.zeros(2, 0, dtype=torch.long)
    none = torch.zeros(0, dtype=torch.bool)
    assert fill_from_neighbors(torch.zeros(0, 3), none, empty)[0].shape == (0, 3)


def test_gradients_reach_the_neighbours():
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], requires_grad=True)
    present = torch.tensor([True, True, False])
    filled, _ = fill_from_neighbors(features, present, torch.tensor([[0, 1], [2, 2]]))
    filled[2, 0].backward()
    assert features.grad[:2].abs().sum() > 0
    assert not features.grad[2].any()
