"""Sampled neighbourhoods are what PyG's loader would give: exact when full, fair when cut."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import k_hop_subgraph

from kgclip.graph import KnowledgeGraph
from kgclip.hetero import from_hetero, to_hetero
from kgclip.sampling import (
    NeighborLoader,
    choose_edges,
    group_by_target,
    sample_subgraph,
)


def random_data(nodes=30, edges=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    x = torch.arange(nodes).float()[:, None]
    return Data(x=x, edge_index=edge_index, weight=torch.arange(edges), num_nodes=nodes)


def random_hetero(seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = HeteroData()
    for kind, size in (("a", 12), ("b", 9), ("lonely", 3)):
        data[kind].num_nodes = size
        data[kind].x = torch.arange(size)
    for key, edges in ((("a", "r", "b"), 30), (("b", "s", "a"), 25), (("a", "t", "a"), 20),
                       (("b", "none", "b"), 0)):  # fmt: skip
        sizes = torch.tensor([[data[key[0]].num_nodes], [data[key[2]].num_nodes]])
        ends = (torch.rand(2, edges, generator=generator) * sizes).long()
        data[key].edge_index, data[key].weight = ends, torch.arange(edges)
    data.label = "kept"
    return data


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_full_neighbourhoods_equal_pygs_k_hop_subgraph(hops):
    data = random_data()
    for batch in NeighborLoader(data, [-1] * hops, batch_size=4):
        seeds = batch.n_id[: batch.batch_size]
        nodes, _, _, _ = k_hop_subgraph(seeds, hops, data.edge_index)
        assert set(batch.n_id.tolist()) == set(nodes.tolist())
        # Edges into all nodes but those of the last hop.
        inner, _, _, _ = k_hop_subgraph(seeds, hops - 1, data.edge_index)
        expected = torch.isin(data.edge_index[1], inner).nonzero().squeeze(1)
        assert sorted(batch.e_id.tolist()) == expected.tolist()


def test_batches_are_sliced_consistently():
    data = random_data()
    for batch in NeighborLoader(data, [3, 2], batch_size=5, shuffle=True, seed=1):
        assert torch.equal(batch.x, data.x[batch.n_id])
        assert torch.equal(batch.weight, data.weight[batch.e_id])
        assert torch.equal(batch.n_id[batch.edge_index], data.edge_index[:, batch.e_id])
        assert batch.num_nodes == len(batch.n_id) == len(set(batch.n_id.tolist()))
        assert torch.equal(batch.n_id[: batch.batch_size], batch.input_id)


def slow_hetero(data, kind, seeds, hops):
    """All edges within some hops, one by one."""
    found = {(kind, node) for node in seeds}
    frontier, edges = set(found), set()
    for _ in range(hops):
        new = set()
        for key in data.edge_types:
            for place, (source, target) in enumerate(data[key].edge_index.T.tolist()):
                if (key[2], target) in frontier:
                    edges.add((key, place))
                    new.add((key[0], source))
        frontier = new - found
        found |= new
    return found, edges


def test_hetero_equals_the_loop():
    data = random_hetero()
    for batch in NeighborLoader(data, [-1, -1], ("b", torch.arange(9)), batch_size=2):
        seeds = batch["b"].n_id[: batch["b"].batch_size].tolist()
        nodes, edges = slow_hetero(data, "b", seeds, 2)
        assert {(k, n) for k in batch.node_types for n in batch[k].n_id.tolist()} == nodes
        assert {(k, e) for k in batch.edge_types for e in batch[k].e_id.tolist()} == edges
        for key in batch.edge_types:
            row, column = batch[key].edge_index
            original = data[key].edge_index[:, batch[key].e_id]
            assert torch.equal(batch[key[0]].n_id[row], original[0])
            assert torch.equal(batch[key[2]].n_id[column], original[1])
            assert torch.equal(batch[key].weight, batch[key].e_id)
        assert batch.label == "kept"
        assert set(batch.node_types) == set(data.node_types), "no node type vanishes"


def test_no_node_has_more_than_its_share():
    data = random_hetero()
    for batch in NeighborLoader(data, [2, 1], ("a", None), batch_size=3, seed=5):
        for key in batch.edge_types:
            targets, counts = torch.unique(batch[key].edge_index[1], return_counts=True)
            assert (counts <= 2).all(), targets
            assert len(set(batch[key].e_id.tolist())) == len(batch[key].e_id)


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_subgraph_equals_pygs_k_hop_subgraph(hops):
    data = random_data()
    in_edges = group_by_target(data.edge_index, 30)
    for seed in range(0, 30, 5):
        nodes, edges = sample_subgraph(
            in_edges, np.array([seed, seed]), [-1] * hops, np.random.default_rng(0)
        )
        expected, _, _, _ = k_hop_subgraph(seed, hops, data.edge_index)
        assert nodes.tolist() == expected.tolist()
        inner = k_hop_subgraph(seed, hops - 1, data.edge_index)[0] if hops else expected[:0]
        into = torch.isin(data.edge_index[1], inner).nonzero().squeeze(1)
        assert edges.tolist() == into.tolist()


def test_fan_out_by_edge_type():
    data = random_hetero()
    loader = NeighborLoader(data, {("a", "r", "b"): [-1]}, ("b", None), batch_size=9)
    [batch] = loader
    assert len(batch["a", "r", "b"].e_id) == 30
    assert len(batch["b", "s", "a"].e_id) == 0


def test_every_subset_is_equally_likely():
    start = np.array([0, 5])
    generator = np.random.default_rng(0)
    counts = {}
    for _ in range(6000):
        places, rows = choose_edges(start, np.array([0]), 2, generator)
        assert rows.tolist() == [0, 0]
        key = tuple(sorted(places.tolist()))
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 10, "all pairs of 5 edges, none twice the same edge"
    expected = 600
    chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_square < 27.9  # 0.1 % quantile for 9 degrees of freedom


def test_with_replacement_draws_k_for_all_that_have_one():
    start = np.array([0, 1, 1, 4])
    places, rows = choose_edges(start, np.arange(3), 6, np.random.default_rng(0), replace=True)
    assert np.bincount(rows, minlength=3).tolist() == [6, 0, 6]
    assert set(places[rows == 0]) == {0}
    assert set(places[rows == 2]) <= {1, 2, 3}


def test_induced_keeps_all_edges_between_drawn_nodes():
    data = random_data()
    for batch in NeighborLoader(data, [2], batch_size=6, subgraph_type="induced"):
        inside = torch.isin(data.edge_index, batch.n_id).all(dim=0).nonzero().squeeze(1)
        assert sorted(batch.e_id.tolist()) == inside.tolist()


def test_seed_decides():
    data = random_data()

    def draw(seed):
        loader = NeighborLoader(data, [2, 2], batch_size=4, shuffle=True, seed=seed)
        return [batch.e_id.tolist() for batch in loader]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    loader = NeighborLoader(data, [2], batch_size=4, shuffle=True)
    assert [b.input_id.tolist() for b in loader] != [b.input_id.tolist() for b in loader]


def test_seeds_and_lengths():
    data = random_data()
    mask = torch.zeros(30, dtype=torch.bool)
    mask[[3, 7, 9]] = True
    loader = NeighborLoader(data, [1], mask, batch_size=2)
    assert [b.n_id[: b.batch_size].tolist() for b in loader] == [[3, 7], [9]]
    assert len(loader) == 2
    assert len(NeighborLoader(data, [1], mask, batch_size=2, drop_last=True)) == 1


@pytest.mark.parametrize("ends", [[[], []], [[0, 0], [0, 0]]])
def test_edge_cases(ends):
    data = Data(num_nodes=2, edge_index=torch.tensor(ends, dtype=torch.long))
    for batch in NeighborLoader(data, [-1, -1], batch_size=1):
        assert batch.num_nodes == 1


def test_graph_comes_back_from_a_batch():
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "r", "c"), ("c", "s", "d")])
    data = to_hetero(graph)
    [batch] = NeighborLoader(data, [-1], ("entity", torch.tensor([1])), batch_size=1)
    part = from_hetero(batch)
    assert set(part.entities["name"]) == {"a", "b", "c"}
    assert part.num_triples == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_neighbors": [-2]}, "-1 or more"),
        ({"num_neighbors": [1], "input_nodes": torch.tensor([99])}, r"ids in \[0, 30\)"),
        ({"num_neighbors": [1], "input_nodes": torch.tensor([0.5])}, "long"),
        ({"num_neighbors": [1], "input_nodes": torch.tensor([3, 3])}, "occurs twice"),
        ({"num_neighbors": [1], "batch_size": 0}, "1 or more"),
        ({"num_neighbors": [1], "subgraph_type": "x"}, "'induced' expected"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        NeighborLoader(random_data(), **options)


def test_unknown_types():
    with pytest.raises(ValueError, match="node type 'x'"):
        NeighborLoader(random_hetero(), [1], ("x", None))
    with pytest.raises(ValueError, match="no edge type"):
        NeighborLoader(random_hetero(), {("a", "x", "b"): [1]}, ("a", None))
