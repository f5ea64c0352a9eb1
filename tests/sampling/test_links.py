"""Seed edges: nothing between their ends is a message; negatives are no edges."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from kgclip.sampling import LinkNeighborLoader, NeighborLoader
from tests.sampling.test_loader import random_data, random_hetero


def pairs(data, key, e_id):
    """Unordered ends of some edges, with their node types."""
    ends = (data[key] if isinstance(key, tuple) else data).edge_index[:, e_id]
    kinds = (key[0], key[2]) if isinstance(key, tuple) else ("node", "node")
    return [frozenset(zip(kinds, pair, strict=True)) for pair in ends.T.tolist()]


@pytest.mark.parametrize("options", [{}, {"disjoint": True}, {"subgraph_type": "induced"}])
@pytest.mark.parametrize("k", [-1, 2])
def test_nothing_between_the_seeds_is_a_message(options, k):
    data = random_data(nodes=12, edges=150)
    seen = 0
    for batch in LinkNeighborLoader(data, [k, k], batch_size=4, shuffle=True, **options):
        assert torch.equal(batch.n_id[batch.edge_label_index], data.edge_index[:, batch.input_id])
        assert torch.equal(batch.n_id[batch.edge_index], data.edge_index[:, batch.e_id])
        seeds = set(pairs(data, None, batch.input_id))
        assert not seeds & set(pairs(data, None, batch.e_id))
        seen += len(batch.input_id)
    assert seen == 150


def test_what_is_not_between_the_seeds_stays():
    """The full neighbourhood without the pairs = that of a graph without these edges."""
    data = random_data(nodes=12, edges=150)
    for batch in LinkNeighborLoader(data, [-1, -1], batch_size=5):
        seeds = set(pairs(data, None, batch.input_id))
        left = [e for e in range(150) if not {pairs(data, None, [e])[0]} & seeds]
        rest = Data(edge_index=data.edge_index[:, left], num_nodes=12)
        [expected] = NeighborLoader(
            rest, [-1, -1], torch.unique(data.edge_index[:, batch.input_id]), batch_size=12
        )
        assert set(batch.n_id.tolist()) == set(expected.n_id.tolist())
        assert sorted(batch.e_id.tolist()) == sorted(np.array(left)[expected.e_id].tolist())


def test_fan_out_counts_what_is_left():
    """Two edges of ten are left out; the draw is from the other eight, each as likely."""
    ends = torch.tensor([[1, 1, *range(2, 10)], [0] * 10])
    data = Data(edge_index=ends, num_nodes=10)
    loader = LinkNeighborLoader(data, [4], torch.tensor([[1], [0]]))
    counts = np.zeros(10)
    for _ in range(1500):
        [batch] = loader
        assert len(batch.e_id) == 4
        counts[batch.e_id] += 1
    assert not counts[:2].any()
    assert ((counts[2:] - 750) ** 2 / 375).sum() < 26  # 0.1 % quantile for 8 degrees of freedom


@pytest.mark.parametrize("key", [("a", "r", "b"), ("a", "t", "a")])
def test_hetero(key):
    data = random_hetero()
    for batch in LinkNeighborLoader(data, [-1, -1], key, batch_size=3, neg_sampling_ratio=1.0):
        store = batch[key]
        number = len(store.input_id)
        rows, columns = store.edge_label_index
        found = torch.stack([batch[key[0]].n_id[rows], batch[key[2]].n_id[columns]])
        assert torch.equal(found[:, :number], data[key].edge_index[:, store.input_id])
        assert store.edge_label.tolist() == [1] * number + [0] * number
        true = set(map(tuple, data[key].edge_index.T.tolist()))
        assert not true & set(map(tuple, found[:, number:].T.tolist()))
        seeds = set(pairs(data, key, store.input_id))
        for kind in batch.edge_types:
            assert not seeds & set(pairs(data, kind, batch[kind].e_id))


def test_labels_go_up_by_one_beside_negatives():
    data, label = random_data(), torch.arange(120) % 3
    [batch] = LinkNeighborLoader(data, [1], edge_label=label, batch_size=120)
    assert torch.equal(batch.edge_label, label)
    [batch] = LinkNeighborLoader(
        data, [1], edge_label=label, batch_size=120, neg_sampling_ratio=0.5
    )
    assert batch.edge_label.tolist() == (label + 1).tolist() + [0] * 60


def test_workers_and_seed():
    data = random_data()

    def draw(workers, seed):
        loader = LinkNeighborLoader(
            data, [2], batch_size=50, shuffle=True, num_workers=workers, seed=seed,
            neg_sampling_ratio=1.0,
        )  # fmt: skip
        return [(b.e_id.tolist(), b.edge_label_index.tolist()) for b in loader]

    assert draw(0, 1) == draw(2, 1)
    assert draw(0, 1) != draw(0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge_label_index": torch.zeros(2, 2)}, r"torch.float32 \[2, 2\] given, long"),
        ({"edge_label_index": torch.tensor([[0], [30]])}, r"ids 30 to 30 given, \[0, 30\)"),
        ({"edge_label": torch.zeros(3)}, "3 labels given, one for each of the 120"),
        ({"neg_sampling_ratio": -1.0}, "0 or more"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LinkNeighborLoader(random_data(), [1], **options)


def test_unknown_type_and_full_graph():
    with pytest.raises(ValueError, match=r"edge type .*'x'.* given, one of"):
        LinkNeighborLoader(random_hetero(), [1], ("a", "x", "b"))
    ends = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    loader = LinkNeighborLoader(Data(edge_index=ends, num_nodes=2), [1], neg_sampling_ratio=1.0)
    with pytest.raises(ValueError, match="too dense"):
        next(iter(loader))
