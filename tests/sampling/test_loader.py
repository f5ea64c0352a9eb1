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
    ego_graphs,
)
from tests.reference import sample_neighbors


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


def test_fan_out_by_edge_type():
    data = random_hetero()
    loader = NeighborLoader(data, {("a", "r", "b"): [-1]}, ("b", None), batch_size=9)
    [batch] = loader
    assert len(batch["a", "r", "b"].e_id) == 30
    assert len(batch["b", "s", "a"].e_id) == 0


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


def test_full_neighbourhoods_equal_the_plain_sampler():
    data = random_data()
    for batch in NeighborLoader(data, [-1, -1], batch_size=3):
        nodes, edges = sample_neighbors(
            data.edge_index.numpy(), batch.input_id.numpy(), [-1, -1], np.random.default_rng(0)
        )
        assert set(batch.n_id.tolist()) == set(nodes.tolist())
        assert sorted(batch.e_id.tolist()) == sorted(edges.tolist())


def test_neighbourhoods_are_full_in_a_graph_far_larger_than_a_batch():
    data = random_data(nodes=2000, edges=3000)
    sizes = []
    for batch in NeighborLoader(data, [-1, -1], torch.arange(0, 2000, 7), batch_size=3):
        nodes, edges = sample_neighbors(
            data.edge_index.numpy(), batch.n_id[:3].numpy(), [-1, -1], np.random.default_rng(0)
        )
        sizes.append(len(batch.n_id))
        assert sorted(batch.n_id.tolist()) == sorted(nodes.tolist())
        assert sorted(batch.e_id.tolist()) == sorted(edges.tolist())
    assert max(sizes) * 16 < 2000


def test_partial_neighbourhoods_are_drawn_as_the_plain_sampler_draws():
    """How often each node and edge is met, over many batches, is the same."""
    data = random_data(nodes=8, edges=40)
    counts = np.zeros((2, 48))
    plain = np.random.default_rng(0)
    loader = NeighborLoader(data, [2, 2], torch.tensor([0, 1]), batch_size=2)
    rounds = 3000
    for _ in range(rounds):
        [batch] = loader
        counts[0, batch.n_id] += 1
        counts[0, 8 + batch.e_id] += 1
        nodes, edges = sample_neighbors(data.edge_index.numpy(), np.arange(2), [2, 2], plain)
        counts[1, nodes] += 1
        counts[1, 8 + edges] += 1
    mean = counts.mean(axis=0)
    sd = np.sqrt(2 * mean * (1 - mean / rounds)).clip(min=1)
    assert np.abs((counts[0] - counts[1]) / sd).max() < 4.5


def test_disjoint_graphs_are_those_of_single_seeds():
    data = random_data()
    seeds = torch.tensor([4, 9, 11, 5])
    [batch] = NeighborLoader(data, [-1, -1], seeds, batch_size=4, disjoint=True)
    assert batch.n_id[:4].tolist() == seeds.tolist()
    assert batch.batch[:4].tolist() == [0, 1, 2, 3]
    sources, targets = batch.edge_index
    assert torch.equal(batch.batch[sources], batch.batch[targets]), "no edge between trees"
    assert torch.equal(batch.n_id[batch.edge_index], data.edge_index[:, batch.e_id])
    for tree, alone in enumerate(NeighborLoader(data, [-1, -1], seeds)):
        assert set(batch.n_id[batch.batch == tree].tolist()) == set(alone.n_id.tolist())
        mine = batch.e_id[batch.batch[targets] == tree]
        assert sorted(mine.tolist()) == sorted(alone.e_id.tolist())


@pytest.mark.parametrize("num_hops", [0, 1, 2])
def test_ego_graphs_equal_pygs_k_hop_subgraph(num_hops):
    data = random_data()
    batch = ego_graphs(data, torch.tensor([3, 8]), num_hops)
    for tree, seed in enumerate((3, 8)):
        nodes, _, _, mask = k_hop_subgraph(seed, num_hops, data.edge_index)
        assert set(batch.n_id[batch.batch == tree].tolist()) == set(nodes.tolist())
        mine = batch.e_id[batch.batch[batch.edge_index[1]] == tree]
        assert sorted(mine.tolist()) == mask.nonzero().squeeze(1).tolist()


def test_bidirectional_turns_each_edge_round():
    data = random_data()
    for batch in NeighborLoader(data, [2, 2], batch_size=6, subgraph_type="bidirectional"):
        edges = [tuple(row) for row in torch.cat([batch.edge_index, batch.e_id[None]]).T.tolist()]
        assert len(edges) == len(set(edges))
        assert {(b, a, e) for a, b, e in edges} == set(edges)
        ends = torch.sort(data.edge_index[:, batch.e_id], dim=0).values
        assert torch.equal(torch.sort(batch.n_id[batch.edge_index], dim=0).values, ends)
    with pytest.raises(ValueError, match="joins two node types"):
        NeighborLoader(random_hetero(), [1], "a", subgraph_type="bidirectional")


def test_fan_out_by_relation():
    data = random_data()
    data.edge_type = torch.arange(120) % 4
    [batch] = NeighborLoader(data, {0: [-1], 2: [1, 1]}, batch_size=30)
    into = torch.bincount(data.edge_index[1, batch.e_id[batch.edge_type == 2]], minlength=30)
    assert set(batch.edge_type.tolist()) == {0, 2}
    assert (batch.edge_type == 0).sum() == 30
    assert into.max() == 1


def test_hops_are_counted():
    data = random_data()
    batch = next(iter(NeighborLoader(data, [2, 2], batch_size=4)))
    assert batch.num_sampled_nodes[0] == 4
    assert sum(batch.num_sampled_nodes) == batch.num_nodes
    assert sum(batch.num_sampled_edges) == batch.num_edges
    assert len(batch.num_sampled_edges) == 2


def test_weights_decide_who_is_drawn():
    data = random_data()
    data.weight = (torch.arange(120) % 2).float()
    for replace in (False, True):
        loader = NeighborLoader(data, [3, 3], batch_size=5, weight_attr="weight", replace=replace)
        assert all((batch.weight == 1).all() for batch in loader)


def test_workers_change_nothing():
    data = random_hetero()

    def draw(workers):
        loader = NeighborLoader(
            data, [2, 2], "a", batch_size=5, shuffle=True, num_workers=workers,
            transform=lambda batch: batch.to_homogeneous(add_edge_type=False),
        )  # fmt: skip
        return [(b.n_id.tolist(), b.edge_index.tolist()) for b in loader]

    assert draw(0) == draw(2)


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
        ({"num_neighbors": {0: [1]}}, "no edge_type"),
        ({"num_neighbors": [1], "weight_attr": "w"}, "no edge attribute 'w'"),
        ({"num_neighbors": [1], "weight_attr": "x"}, r"\[30, 1\] given, \[120\] expected"),
        ({"num_neighbors": [1], "subgraph_type": "x"}, "'induced'\\) expected"),
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
