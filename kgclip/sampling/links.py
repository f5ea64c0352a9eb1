"""Batches of seed edges with the neighbourhoods of their ends, without leakage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from kgclip.sampling.loader import NumNeighbors, SubgraphLoader, cut, edge_stores, node_sizes
from kgclip.sampling.sampler import EdgeType, ExcludedPairs

_TRIES = 20


class LinkNeighborLoader(SubgraphLoader):
    """Batches of seed edges with sampled neighbourhoods; PyG's loader on a plain install.

    No seed edge of the batch is among the messages, nor its inverse, nor any other edge between
    the same two nodes, whatever its type: they would tell the answer. Negatives do not count: an
    edge between their ends would be no negative.

    Args:
        data: ``Data`` or ``HeteroData``.
        num_neighbors: As for :class:`kgclip.sampling.NeighborLoader`.
        edge_label_index: Seed edges: long [2, n], for ``HeteroData`` with the edge type in front;
            ``None`` (or the type alone) = all edges (of the type).
        edge_label: Label of each seed edge. [n].
        batch_size: Seed edges a batch, negatives not counted.
        shuffle: Draw the seed edges in a new order each epoch.
        neg_sampling_ratio: Negatives a seed edge; labels are then 0 for negatives and 1 for seed
            edges (given labels go up by 1, as PyG's).
        replace: Draw neighbours with replacement.
        subgraph_type: As for ``NeighborLoader``.
        disjoint: Give each seed edge a graph of its own; ``batch`` then says which.
        weight_attr: Name of the edge attribute that says how likely an edge is drawn.
        transform: Applied to each batch.
        drop_last: Leave out a last batch that is smaller.
        num_workers: Processes that sample ahead; 0 = this one.
        seed: Decides order and draws.

    Yields:
        As ``NeighborLoader``, and on the seeds' store (of ``Data``: on the batch)
        ``edge_label_index``, rows of the batch's nodes, ``edge_label`` where there is one, and
        ``input_id``.

    Raises:
        ValueError: If an argument names an unknown type, is out of range or of the wrong kind, or
            a node pair has no edge-less replacement.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: NumNeighbors,
        edge_label_index: Any = None,
        edge_label: Tensor | None = None,
        batch_size: int = 1,
        shuffle: bool = False,
        neg_sampling_ratio: float = 0.0,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        weight_attr: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.input_type, self.edge_label_index = _seed_edges(data, edge_label_index)
        if edge_label is not None and len(edge_label) != self.edge_label_index.shape[1]:
            raise ValueError(
                f"edge_label: {len(edge_label)} labels given, one for each of the "
                f"{self.edge_label_index.shape[1]} seed edges expected"
            )
        if neg_sampling_ratio < 0:
            raise ValueError(f"neg_sampling_ratio: {neg_sampling_ratio} given, 0 or more expected")
        self.edge_label, self.neg_sampling_ratio = edge_label, neg_sampling_ratio
        super().__init__(
            data, num_neighbors, self.edge_label_index.shape[1], batch_size=batch_size,
            shuffle=shuffle, drop_last=drop_last, num_workers=num_workers, seed=seed,
            transform=transform, weight_attr=weight_attr, replace=replace,
            subgraph_type=subgraph_type, disjoint=disjoint,
        )  # fmt: skip
        self._true = self._true_pairs()

    def build_batch(
        self, input_id: np.ndarray, generator: np.random.Generator
    ) -> Data | HeteroData:
        """Make the batch of some seed edges. Int64 [b], each in [0, num_seeds)."""
        kinds = self.input_type[0], self.input_type[2]
        positive = self.edge_label_index[:, input_id]
        negative = self._negatives(positive, generator)
        ends = np.concatenate([positive, negative], axis=1)
        trees = np.arange(ends.shape[1])
        seeds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for kind in dict.fromkeys(kinds):
            parts = [row for row, end in zip(ends, kinds, strict=True) if end == kind]
            seeds[kind] = np.concatenate(parts), np.tile(trees, len(parts))
        excluded = ExcludedPairs(self.sizes, kinds, positive)
        sample = self.sampler.sample(seeds, generator, excluded)
        batch = cut(self.data, sample)
        store = batch[self.input_type] if isinstance(batch, HeteroData) else batch
        rows = [
            _rows(sample.nodes[kind], sample.trees.get(kind), part, trees)
            for kind, part in zip(kinds, ends, strict=True)
        ]
        store.edge_label_index = torch.from_numpy(np.stack(rows))
        store.input_id = torch.from_numpy(input_id)
        label = self._labels(input_id, negative.shape[1])
        if label is not None:
            store.edge_label = label
        return batch

    def _labels(self, input_id: np.ndarray, num_negatives: int) -> Tensor | None:
        given = None if self.edge_label is None else self.edge_label[torch.from_numpy(input_id)]
        if not self.neg_sampling_ratio:
            return given
        positive = torch.ones(len(input_id)) if given is None else given + 1
        return torch.cat([positive, positive.new_zeros(num_negatives, *positive.shape[1:])])

    def _true_pairs(self) -> np.ndarray:
        """Keys of all that is no negative: seed edges and the graph's edges of their type."""
        edges = edge_stores(self.data)[self.input_type].edge_index.cpu().numpy()
        true = np.concatenate([self.edge_label_index, edges], axis=1)
        keys: np.ndarray = np.unique(true[0] * self.sizes[self.input_type[2]] + true[1])
        return keys

    def _negatives(self, positive: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Replace an end of the seed edges until the graph does not have the pair."""
        number = round(positive.shape[1] * self.neg_sampling_ratio)
        given = positive[:, np.arange(number) % max(1, positive.shape[1])]
        negatives, rows = given.copy(), np.arange(number)
        kinds = self.input_type[0], self.input_type[2]
        for _ in range(_TRIES):
            end = generator.integers(2, size=len(rows))
            for side, kind in enumerate(kinds):
                chosen = rows[end == side]
                negatives[1 - side, chosen] = given[1 - side, chosen]
                negatives[side, chosen] = generator.integers(self.sizes[kind], size=len(chosen))
            keys = negatives[0, rows] * self.sizes[kinds[1]] + negatives[1, rows]
            rows = rows[np.isin(keys, self._true)]
            if not len(rows):
                return negatives
        raise ValueError(
            f"{len(rows)} of {number} negatives not found in {_TRIES} draws, the first for the "
            f"edge {given[:, rows[0]].tolist()}: the graph is too dense for neg_sampling_ratio"
        )


def _rows(
    nodes: np.ndarray, trees: np.ndarray | None, asked: np.ndarray, tree: np.ndarray
) -> np.ndarray:
    """Place of each asked node among the nodes. Int64 [n]."""
    if trees is not None:
        size = max(nodes.max(initial=0), asked.max(initial=0)) + 1
        nodes, asked = trees * size + nodes, tree * size + asked
    order = np.argsort(nodes, kind="stable")
    rows: np.ndarray = order[np.searchsorted(nodes[order], asked)]
    return rows


def _seed_edges(data: Data | HeteroData, given: Any) -> tuple[EdgeType, np.ndarray]:
    stores, sizes = edge_stores(data), node_sizes(data)
    key: Any = next(iter(stores), None)
    edges = given
    if isinstance(data, HeteroData):
        key, edges = (given, None) if _is_type(given) else (given or (None, None))
    if key not in stores:
        raise ValueError(f"edge_label_index: edge type {key} given, one of {list(stores)} expected")
    if edges is None:
        edges = stores[key].edge_index
    edges = torch.as_tensor(edges).cpu()
    if edges.ndim != 2 or len(edges) != 2 or edges.dtype != torch.long:
        raise ValueError(
            f"edge_label_index: {edges.dtype} {list(edges.shape)} given, long [2, n] expected"
        )
    for ids, kind in zip(edges, (key[0], key[2]), strict=True):
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < sizes[kind]:
            raise ValueError(
                f"edge_label_index: ids {int(ids.min())} to {int(ids.max())} given, "
                f"[0, {sizes[kind]}) expected for {kind!r}"
            )
    return key, edges.numpy()


def _is_type(given: Any) -> bool:
    return isinstance(given, Sequence) and len(given) == 3 and isinstance(given[0], str)
