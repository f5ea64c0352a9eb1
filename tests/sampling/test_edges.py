"""Draws of edges are fair, with and without weights; a subgraph is what PyG's k hops are."""

import itertools

import numpy as np
import pytest
import torch
from torch_geometric.utils import k_hop_subgraph

from kgclip.sampling import choose_edges, group_by_target, sample_subgraph
from kgclip.sampling.edges import choose_weighted_edges
from tests.sampling.test_loader import random_data


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


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_subset_is_equally_likely(k):
    """Beside nodes without, with few and with just as many edges."""
    start = np.cumsum([0, 0, 5, 1, k, 5])
    nodes, generator = np.array([4, 0, 1, 2, 3]), np.random.default_rng(0)
    counts = {row: dict.fromkeys(itertools.combinations(range(5), k), 0) for row in (0, 2)}
    rounds = 600 * len(counts[0])
    for _ in range(rounds):
        places, rows = choose_edges(start, nodes, k, generator)
        assert np.bincount(rows, minlength=5).tolist() == [k, 0, k, min(k, 1), k]
        assert sorted(places[rows == 4]) == list(range(start[3], start[4]))
        for row, found in counts.items():
            found[tuple(sorted(places[rows == row] - start[nodes[row]]))] += 1
    for found in counts.values():  # a key of its own would have raised: none is drawn twice
        chi_square = sum((n - 600) ** 2 / 600 for n in found.values())
        # 0.1 % quantiles for 4 and 9 degrees of freedom
        assert chi_square < (18.5 if len(found) == 5 else 27.9)


def test_with_replacement_draws_k_for_all_that_have_one():
    start = np.array([0, 1, 1, 4])
    places, rows = choose_edges(start, np.arange(3), 6, np.random.default_rng(0), replace=True)
    assert np.bincount(rows, minlength=3).tolist() == [6, 0, 6]
    assert set(places[rows == 0]) == {0}
    assert set(places[rows == 2]) <= {1, 2, 3}


def test_weighted_subsets_are_as_likely_as_drawn_one_by_one():
    start, weight = np.array([0, 4]), np.array([1.0, 0.0, 2.0, 5.0])
    total = weight.sum()
    expected = {}
    for a, b in itertools.permutations((0, 2, 3), 2):
        pair = tuple(sorted((a, b)))
        chance = weight[a] / total * weight[b] / (total - weight[a])
        expected[pair] = expected.get(pair, 0) + 6000 * chance
    counts = dict.fromkeys(expected, 0)
    generator = np.random.default_rng(0)
    for _ in range(6000):
        places, rows = choose_weighted_edges(start, weight, np.array([0]), 2, generator)
        assert rows.tolist() == [0, 0]
        counts[tuple(sorted(places.tolist()))] += 1
    chi_square = sum((counts[pair] - n) ** 2 / n for pair, n in expected.items())
    assert chi_square < 13.8  # 0.1 % quantile for 2 degrees of freedom


def test_weighted_draws_with_replacement():
    start = np.array([0, 2, 2, 5, 6])
    weight = np.array([1.0, 3.0, 1.0, 0.0, 1.0, 0.0])
    places, rows = choose_weighted_edges(
        start, weight, np.array([2, 0, 1, 3]), 4000, np.random.default_rng(0), replace=True
    )
    assert np.bincount(rows, minlength=4).tolist() == [4000, 4000, 0, 0]
    assert set(places[rows == 0]) == {2, 4}
    assert abs((places[rows == 1] == 1).mean() - 0.75) < 0.03


def test_few_weighted_edges_are_all_taken():
    start, weight = np.array([0, 3, 4]), np.array([1.0, 0.0, 2.0, 0.0])
    places, rows = choose_weighted_edges(
        start, weight, np.array([1, 0]), 5, np.random.default_rng(0)
    )
    assert (sorted(places), rows.tolist()) == ([0, 2], [1, 1])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_weights(bad):
    edges = torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="finite numbers of 0 or more"):
        group_by_target(edges, 1, torch.tensor([1.0, bad]))
