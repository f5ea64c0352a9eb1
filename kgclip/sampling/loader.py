"""Batches of seed nodes with sampled neighbourhoods, as PyG data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from kgclip.sampling.edges import InEdges, group_by_target
from kgclip.sampling.sampler import EdgeType, NeighborSampler, Sample, join

_ONE = "node"  # the node type of homogeneous data
NumNeighbors = Sequence[int] | Mapping[EdgeType, Sequence[int]] | Mapping[int, Sequence[int]]


class SubgraphLoader:
    """What both loaders share: the graph sorted once, batches by number, workers.

    A batch is a pure function of seed, epoch and number, so that it does not depend on how many
    workers there are.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: NumNeighbors,
        num_seeds: int,
        *,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        num_workers: int,
        seed: int,
        transform: Callable[[Any], Any] | None,
        weight_attr: str | None,
        **sampler_options: Any,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} given, 1 or more expected")
        self.data, self.num_seeds = data, num_seeds
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.num_workers, self.seed, self.epoch = num_workers, seed, 0
        self.transform = transform
        self.sizes = node_sizes(data)
        by_relation = isinstance(num_neighbors, Mapping) and not isinstance(data, HeteroData)
        in_edges = (
            _by_relation(data, list(num_neighbors), self.sizes[_ONE], weight_attr)
            if by_relation
            else _by_type(data, self.sizes, weight_attr)
        )
        fanouts = _fanouts(num_neighbors, list(in_edges), by_relation)
        self.sampler = NeighborSampler(self.sizes, in_edges, fanouts, **sampler_options)

    def __len__(self) -> int:
        whole, rest = divmod(self.num_seeds, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.arange(self.num_seeds)
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        numbers = _Batches(self, epoch, order)
        if self.num_workers:
            return iter(
                torch.utils.data.DataLoader(numbers, batch_size=None, num_workers=self.num_workers)
            )
        return (numbers[batch] for batch in range(len(self)))

    def build_batch(self, input_id: np.ndarray, generator: np.random.Generator) -> Any:
        """Make the batch of some seeds. Int64 [b], each in [0, num_seeds)."""
        raise NotImplementedError


class _Batches(torch.utils.data.Dataset[Any]):
    """The batches of one epoch by number."""

    def __init__(self, loader: SubgraphLoader, epoch: int, order: np.ndarray) -> None:
        self.loader, self.epoch, self.order = loader, epoch, order

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, batch: int) -> Any:
        loader = self.loader
        chosen = self.order[batch * loader.batch_size : (batch + 1) * loader.batch_size]
        generator = np.random.default_rng([loader.seed, self.epoch, batch])
        built = loader.build_batch(chosen, generator)
        return built if loader.transform is None else loader.transform(built)


class NeighborLoader(SubgraphLoader):
    """Batches of seed nodes with sampled neighbourhoods; PyG's loader on a plain install.

    The graph is sorted once (8 bytes an edge and 16 a node stay); a batch costs what it draws.

    Args:
        data: ``Data`` or ``HeteroData``.
        num_neighbors: Edges to draw for each node, by hop; -1 = all. A list, of so many for each
            edge type; a list by edge type; for ``Data`` with ``edge_type`` also a list by
            relation. Types and relations that a mapping leaves out are not drawn.
        input_nodes: Seeds: ids (long [n]) or a mask (bool [N]), for ``HeteroData`` with the node
            type in front; ``None`` (or the type alone) = all nodes (of the type).
        batch_size: Seeds a batch.
        shuffle: Draw the seeds in a new order each epoch.
        replace: Draw neighbours with replacement.
        subgraph_type: ``"directional"``: the drawn edges; ``"bidirectional"``: each also the
            other way round, with the same ``e_id``; ``"induced"``: all edges between the drawn
            nodes.
        disjoint: Give each seed a graph of its own; ``batch`` then says which.
        weight_attr: Name of the edge attribute that says how likely an edge is drawn.
        transform: Applied to each batch.
        drop_last: Leave out a last batch that is smaller.
        num_workers: Processes that sample ahead; 0 = this one.
        seed: Decides order and draws; the same seed gives the same batches, with any number of
            workers.

    Yields:
        Data of the same kind, seeds first. Node stores have ``n_id`` and ``num_sampled_nodes``,
        edge stores ``e_id`` and ``num_sampled_edges``; the seeds' store has ``input_id`` and
        ``batch_size``. What PyG calls node and edge attributes is sliced, all else kept.

    Raises:
        ValueError: If an argument names an unknown type, is out of range or of the wrong kind.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: NumNeighbors,
        input_nodes: Any = None,
        batch_size: int = 1,
        shuffle: bool = False,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        weight_attr: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.input_type, self.input_nodes = _seeds(data, node_sizes(data), input_nodes)
        super().__init__(
            data, num_neighbors, len(self.input_nodes), batch_size=batch_size, shuffle=shuffle,
            drop_last=drop_last, num_workers=num_workers, seed=seed, transform=transform,
            weight_attr=weight_attr, replace=replace, subgraph_type=subgraph_type,
            disjoint=disjoint,
        )  # fmt: skip

    def build_batch(
        self, input_id: np.ndarray, generator: np.random.Generator
    ) -> Data | HeteroData:
        """Make the batch of some seeds. Int64 [b], each in [0, num_seeds)."""
        seeds = self.input_nodes[input_id], np.arange(len(input_id))
        sample = self.sampler.sample({self.input_type: seeds}, generator)
        batch = cut(self.data, sample)
        store = batch[self.input_type] if isinstance(batch, HeteroData) else batch
        store.input_id = torch.from_numpy(input_id)
        store.batch_size = len(input_id)
        return batch


def ego_graphs(
    data: Data | HeteroData, nodes: Any, num_hops: int, subgraph_type: str = "induced"
) -> Data | HeteroData:
    """The k-hop neighbourhood of each of some nodes, complete, in one batch.

    Memory grows with the sum of the neighbourhoods. For many nodes take a
    :class:`NeighborLoader` with ``disjoint=True`` and ``[-1] * num_hops``, as this does.

    Args:
        data: ``Data`` or ``HeteroData``.
        nodes: As ``input_nodes`` of :class:`NeighborLoader`.
        num_hops: Hops, against the direction of the edges.
        subgraph_type: As for :class:`NeighborLoader`.

    Returns:
        Data of the same kind in which ``batch`` is the row in ``nodes`` that each node is around.

    Raises:
        ValueError: As :class:`NeighborLoader`.
    """
    loader = NeighborLoader(
        data, [-1] * num_hops, nodes, subgraph_type=subgraph_type, disjoint=True
    )
    every = np.arange(loader.num_seeds)
    return loader.build_batch(every, np.random.default_rng(0))


def cut(data: Data | HeteroData, sample: Sample) -> Data | HeteroData:
    """Cut a sample out of its graph.

    Args:
        data: The graph.
        sample: What to keep. Where there are trees, nodes say in ``batch`` which is theirs.
    """
    batch = data.__class__()
    is_hetero = isinstance(data, HeteroData)
    for name, value in (data._global_store if is_hetero else {}).items():
        batch[name] = value
    for kind, numbers in sample.nodes.items():
        index = torch.from_numpy(numbers)
        source, target = (data[kind], batch[kind]) if is_hetero else (data._store, batch._store)
        _slice(source, target, index, source.is_node_attr)
        target["n_id"] = index
        target["num_sampled_nodes"] = sample.num_sampled_nodes[kind]
        if kind in sample.trees:
            target["batch"] = torch.from_numpy(sample.trees[kind])
        if is_hetero or "num_nodes" in source:
            target["num_nodes"] = len(numbers)
    stores = edge_stores(data)
    for key, store in stores.items():
        # Homogeneous edges may have been drawn relation by relation.
        keys = [key] if is_hetero else list(sample.edges)
        index = torch.from_numpy(join([sample.edges[part] for part in keys]))
        ends = join([sample.ends[part] for part in keys])
        target = batch[key] if is_hetero else batch._store
        _slice(store, target, index, store.is_edge_attr)
        target["edge_index"] = torch.from_numpy(ends)
        target["e_id"] = index
        hops = (sample.num_sampled_edges[part] for part in keys)
        target["num_sampled_edges"] = [sum(hop) for hop in zip(*hops, strict=True)]
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


def node_sizes(data: Data | HeteroData) -> dict[str, int]:
    """Number of nodes by type."""
    if isinstance(data, HeteroData):
        return {kind: int(data[kind].num_nodes or 0) for kind in data.node_types}
    return {_ONE: int(data.num_nodes or 0)}


def edge_stores(data: Data | HeteroData) -> dict[EdgeType, Any]:
    """Edge stores by type; of homogeneous data one, if it has edges."""
    if isinstance(data, HeteroData):
        return {key: data[key] for key in data.edge_types}
    return {(_ONE, "to", _ONE): data._store} if data.edge_index is not None else {}


def _weight(store: Any, name: str | None) -> Tensor | None:
    if name is None:
        return None
    if name not in store:
        raise ValueError(f"weight_attr: no edge attribute {name!r}, one of {list(store)} expected")
    weight: Tensor = store[name]
    return weight


def _by_type(
    data: Data | HeteroData, sizes: Mapping[str, int], weight_attr: str | None
) -> dict[EdgeType, InEdges]:
    return {
        key: group_by_target(store.edge_index, sizes[key[2]], _weight(store, weight_attr))
        for key, store in edge_stores(data).items()
    }


def _by_relation(
    data: Data, relations: list[Any], size: int, weight_attr: str | None
) -> dict[EdgeType, InEdges]:
    if "edge_type" not in data:
        raise ValueError("num_neighbors: given by relation, but the data has no edge_type")
    kinds = data.edge_type.cpu().numpy()
    weight = _weight(data._store, weight_attr)
    return {
        (_ONE, str(relation), _ONE): group_by_target(
            data.edge_index, size, weight, np.flatnonzero(kinds == relation)
        )
        for relation in relations
    }


def _fanouts(
    given: NumNeighbors, keys: list[EdgeType], by_relation: bool
) -> dict[EdgeType, list[int]]:
    by_key: Any = given if isinstance(given, Mapping) else dict.fromkeys(keys, given)
    if by_relation:
        by_key = {(_ONE, str(relation), _ONE): fanout for relation, fanout in by_key.items()}
    unknown = [key for key in by_key if key not in keys]
    if unknown:
        raise ValueError(f"num_neighbors: no edge type {unknown[0]}, one of {keys} expected")
    for key, fanout in by_key.items():
        if any(k < -1 for k in fanout):
            raise ValueError(f"num_neighbors: {list(fanout)} given for {key}, -1 or more expected")
    # All as long as the longest: a hop that a type does not take draws nothing.
    hops = max(map(len, by_key.values()), default=0)
    return {key: [*by_key[key], *[0] * (hops - len(by_key[key]))] for key in keys if key in by_key}


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
