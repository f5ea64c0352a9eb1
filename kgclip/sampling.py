"""Neighbour sampling on a plain pip install, without pyg-lib.

Graphs come in as PyG data, batches of small graphs go out, with PyG's attributes. Sampling is
vectorised: a batch costs one pass of numpy a hop and edge type, and a dense array that renumbers
nodes is kept between batches, because a hash map is what makes such samplers slow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

_ONE = "node"  # the node type of homogeneous data
EdgeType = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class InEdges:
    """Edges of one type by the node that they enter.

    Attributes:
        start: Where each target's edges begin. Int64 [N + 1].
        source: Source of each edge, by target. Int64 [M].
        edge: Place of each edge in ``edge_index``. Int64 [M].
    """

    start: np.ndarray
    source: np.ndarray
    edge: np.ndarray


def group_by_target(edge_index: Tensor, num_targets: int) -> InEdges:
    """Sort edges by the node that they enter; done once a graph.

    Args:
        edge_index: Long [2, M].
        num_targets: Number N of nodes.
    """
    source, target = edge_index.cpu().numpy()
    edge = np.argsort(target, kind="stable")
    start = np.zeros(num_targets + 1, dtype=np.int64)
    np.cumsum(np.bincount(target, minlength=num_targets), out=start[1:])
    return InEdges(start, source[edge], edge)


def choose_edges(
    start: np.ndarray,
    nodes: np.ndarray,
    k: int,
    generator: np.random.Generator,
    replace: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to k of the edges that enter each node, each subset equally likely.

    Args:
        start: Where each node's edges begin. Int64 [N + 1].
        nodes: Int64 [n].
        k: Edges a node; -1 = all of them.
        generator: Source of randomness.
        replace: Draw with replacement: k edges for every node that has one.

    Returns:
        Places of the edges and, for each, the row of its node in ``nodes``. Int64 [m] both.

    Reference:
        Floyd's algorithm, in Bentley, "Programming pearls", CACM 30 (1987).
    """
    first, degree = start[nodes], start[nodes + 1] - start[nodes]
    if replace and k >= 0:
        rows = np.repeat(np.flatnonzero(degree), k)
        drawn = (generator.random(len(rows)) * degree[rows]).astype(np.int64)
        return first[rows] + drawn, rows
    few = np.flatnonzero(degree <= k) if k >= 0 else np.arange(len(nodes))
    rows = np.repeat(few, degree[few])
    ends = np.cumsum(degree[few])
    offset = np.arange(len(rows)) - np.repeat(ends - degree[few], degree[few])
    places = first[rows] + offset
    if k <= 0 or len(few) == len(nodes):
        return places, rows
    many = np.flatnonzero(degree > k)
    chosen = np.empty((len(many), k), dtype=np.int64)
    for column in range(k):
        last = degree[many] - k + column
        drawn = (generator.random(len(many)) * (last + 1)).astype(np.int64)
        taken = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, last, drawn)
    more = (first[many, None] + chosen).ravel()
    return np.concatenate([places, more]), np.concatenate([rows, np.repeat(many, k)])


def sample_subgraph(
    in_edges: InEdges,
    seeds: np.ndarray,
    num_neighbors: Sequence[int],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the neighbourhood of some nodes in a homogeneous graph.

    Args:
        in_edges: The graph, by :func:`group_by_target`.
        seeds: Int64 [s].
        num_neighbors: Edges to draw for each node, by hop; -1 = all.
        generator: Source of randomness.

    Returns:
        Nodes, ascending, int64 [n], and places of the drawn edges in ``edge_index``, none twice,
        ascending, int64 [m].
    """
    nodes = frontier = np.unique(seeds)
    edges = [np.zeros(0, dtype=np.int64)]
    for k in num_neighbors:
        drawn, _ = choose_edges(in_edges.start, frontier, k, generator)
        edges.append(in_edges.edge[drawn])
        frontier = np.setdiff1d(in_edges.source[drawn], nodes)
        nodes = np.union1d(nodes, frontier)
    return nodes, np.unique(np.concatenate(edges))


class NeighborLoader:
    """Batches of seed nodes with sampled neighbourhoods; PyG's loader on a plain install.

    Args:
        data: ``Data`` or ``HeteroData``.
        num_neighbors: Edges to draw for each node and edge type, by hop; -1 = all. A list, or a
            list by edge type.
        input_nodes: Seeds: ids (long [n]) or a mask (bool [N]), for ``HeteroData`` with the node
            type in front; ``None`` (or the type alone) = all nodes (of the type).
        batch_size: Seeds a batch.
        shuffle: Draw the seeds in a new order each epoch.
        replace: Draw neighbours with replacement.
        subgraph_type: ``"directional"`` keeps the drawn edges; ``"induced"`` all edges between
            the drawn nodes.
        drop_last: Leave out a last batch that is smaller.
        seed: Decides order and draws; the same seed gives the same batches.

    Yields:
        Data of the same kind, seeds first. Node stores have ``n_id``, edge stores ``e_id``; the
        seeds' store has ``input_id`` and ``batch_size``. What PyG calls node and edge attributes
        is sliced, all else kept.

    Raises:
        ValueError: If an argument names an unknown type, is out of range or of the wrong kind.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        input_nodes: Any = None,
        batch_size: int = 1,
        shuffle: bool = False,
        replace: bool = False,
        subgraph_type: str = "directional",
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} given, 1 or more expected")
        if subgraph_type not in ("directional", "induced"):
            raise ValueError(
                f"subgraph_type: {subgraph_type!r} given, 'directional' or 'induced' expected"
            )
        self.data, self.batch_size, self.shuffle = data, batch_size, shuffle
        self.replace, self.induced = replace, subgraph_type == "induced"
        self.drop_last, self.seed, self.epoch = drop_last, seed, 0
        self._sizes = _node_sizes(data)
        self._in_edges = {
            key: group_by_target(store.edge_index, self._sizes[key[2]])
            for key, store in _edge_stores(data).items()
        }
        self._fanouts = _fanouts(num_neighbors, list(self._in_edges))
        self.input_type, self.input_nodes = _seeds(data, self._sizes, input_nodes)
        # Renumbering, kept between batches: -1 = not in the batch.
        self._number = {kind: np.full(size, -1) for kind, size in self._sizes.items()}

    def __len__(self) -> int:
        whole, rest = divmod(len(self.input_nodes), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Data | HeteroData]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.arange(len(self.input_nodes))
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        for batch in range(len(self)):
            input_id = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            generator = np.random.default_rng([self.seed, epoch, batch])
            yield self._sample(input_id, generator)

    def _sample(self, input_id: np.ndarray, generator: np.random.Generator) -> Data | HeteroData:
        seeds = self.input_nodes[input_id]
        nodes = {kind: [np.zeros(0, dtype=np.int64)] for kind in self._sizes}
        edges: dict[EdgeType, list[np.ndarray]] = {key: [] for key in self._in_edges}
        try:
            self._add(nodes, self.input_type, seeds)
            self._walk(nodes, edges, generator)
            ids = {kind: np.concatenate(parts) for kind, parts in nodes.items()}
            if self.induced:
                edges = {key: [self._induce(key, ids[key[2]])] for key in edges}
            batch = self._cut(ids, edges)
        finally:
            for kind, parts in nodes.items():
                for part in parts:
                    self._number[kind][part] = -1
        store = batch[self.input_type] if isinstance(batch, HeteroData) else batch
        store.input_id = torch.from_numpy(input_id)
        store.batch_size = len(input_id)
        return batch

    def _walk(
        self,
        nodes: dict[str, list[np.ndarray]],
        edges: dict[EdgeType, list[np.ndarray]],
        generator: np.random.Generator,
    ) -> None:
        """Hop by hop: draw edges into the nodes that came in last, add their sources."""
        frontier = {kind: np.concatenate(parts) for kind, parts in nodes.items()}
        for hop in range(max(map(len, self._fanouts.values()), default=0)):
            before = {kind: len(parts) for kind, parts in nodes.items()}
            for key, fanout in self._fanouts.items():
                if hop < len(fanout) and len(frontier[key[2]]):
                    place = self._in_edges[key]
                    drawn, _ = choose_edges(
                        place.start, frontier[key[2]], fanout[hop], generator, self.replace
                    )
                    edges[key].append(drawn)
                    self._add(nodes, key[0], place.source[drawn])
            frontier = {
                kind: np.concatenate([*parts[before[kind] :], np.zeros(0, dtype=np.int64)])
                for kind, parts in nodes.items()
            }

    def _add(self, nodes: dict[str, list[np.ndarray]], kind: str, found: np.ndarray) -> None:
        """Number the nodes that are new, in the order in which they are met."""
        number = self._number[kind]
        fresh = found[number[found] < 0]
        _, first = np.unique(fresh, return_index=True)
        fresh = fresh[np.sort(first)]
        count = sum(map(len, nodes[kind]))
        number[fresh] = np.arange(count, count + len(fresh))
        nodes[kind].append(fresh)

    def _induce(self, key: EdgeType, targets: np.ndarray) -> np.ndarray:
        place = self._in_edges[key]
        entering, _ = choose_edges(place.start, targets, -1, np.random.default_rng(0))
        chosen: np.ndarray = entering[self._number[key[0]][place.source[entering]] >= 0]
        return chosen

    def _cut(
        self, ids: Mapping[str, np.ndarray], edges: Mapping[EdgeType, list[np.ndarray]]
    ) -> Data | HeteroData:
        batch = self.data.__class__()
        own = self.data._global_store if isinstance(self.data, HeteroData) else {}
        for name, value in own.items():
            batch[name] = value
        for kind, numbers in ids.items():
            index = torch.from_numpy(numbers)
            source, target = (
                (self.data[kind], batch[kind])
                if isinstance(batch, HeteroData)
                else (self.data._store, batch._store)
            )
            _slice(source, target, index, source.is_node_attr)
            target["n_id"] = index
            if isinstance(batch, HeteroData) or "num_nodes" in source:
                target["num_nodes"] = len(numbers)
        for key, store in _edge_stores(self.data).items():
            drawn = np.concatenate([*edges[key], np.zeros(0, dtype=np.int64)])
            chosen = self._in_edges[key].edge[drawn]
            index = torch.from_numpy(chosen)
            target = batch[key] if isinstance(batch, HeteroData) else batch._store
            _slice(store, target, index, store.is_edge_attr)
            ends = store.edge_index[:, index].cpu().numpy()
            numbered = np.stack([self._number[key[0]][ends[0]], self._number[key[2]][ends[1]]])
            target["edge_index"] = torch.from_numpy(numbered)
            target["e_id"] = index
        return batch


def _slice(source: Any, target: Any, index: Tensor, belongs: Any) -> None:
    """Copy a store: what belongs to each row is cut, what belongs to neither is kept."""
    for name, value in source.items():
        if name in ("edge_index", "num_nodes"):
            continue
        if isinstance(value, Tensor) and belongs(name):
            target[name] = value[index.to(value.device)]
        elif not (source.is_node_attr(name) or source.is_edge_attr(name)):
            target[name] = value


def _node_sizes(data: Data | HeteroData) -> dict[str, int]:
    if isinstance(data, HeteroData):
        return {kind: int(data[kind].num_nodes or 0) for kind in data.node_types}
    return {_ONE: int(data.num_nodes or 0)}


def _edge_stores(data: Data | HeteroData) -> dict[EdgeType, Any]:
    if isinstance(data, HeteroData):
        return {key: data[key] for key in data.edge_types}
    return {(_ONE, "to", _ONE): data._store} if data.edge_index is not None else {}


def _fanouts(
    given: Sequence[int] | Mapping[EdgeType, Sequence[int]], keys: list[EdgeType]
) -> dict[EdgeType, list[int]]:
    by_key = given if isinstance(given, Mapping) else dict.fromkeys(keys, given)
    unknown = [key for key in by_key if key not in keys]
    if unknown:
        raise ValueError(f"num_neighbors: no edge type {unknown[0]}, one of {keys} expected")
    for key, fanout in by_key.items():
        if any(k < -1 for k in fanout):
            raise ValueError(f"num_neighbors: {list(fanout)} given for {key}, -1 or more expected")
    return {key: list(by_key[key]) for key in keys if key in by_key}


def _seeds(data: Data | HeteroData, sizes: Mapping[str, int], given: Any) -> tuple[str, np.ndarray]:
    kind: Any = _ONE
    ids = given
    if isinstance(data, HeteroData):
        kind, ids = (given, None) if isinstance(given, str) else (given or (None, None))
        if kind not in sizes:
            raise ValueError(
                f"input_nodes: node type {kind!r} given, one of {list(sizes)} expected"
            )
    if ids is None:
        return kind, np.arange(sizes[kind])
    nodes = torch.as_tensor(ids).cpu()
    if nodes.dtype == torch.bool:
        nodes = nodes.nonzero().squeeze(1)
    if nodes.ndim != 1 or nodes.is_floating_point():
        raise ValueError(f"input_nodes: {nodes.dtype} {list(nodes.shape)} given, long [n] expected")
    if len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < sizes[kind]:
        raise ValueError(f"input_nodes: ids in [0, {sizes[kind]}) expected, {nodes} given")
    if len(torch.unique(nodes)) < len(nodes):
        raise ValueError("input_nodes: an id occurs twice; a batch has each node once")
    return kind, nodes.numpy().astype(np.int64)
