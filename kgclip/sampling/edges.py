"""Edges by the node that they enter, and how some of them are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class InEdges:
    """Edges of one type by the node that they enter (compressed sparse columns).

    Attributes:
        start: Where each target's edges begin. Int64 [N + 1].
        source: Source of each edge, by target. Int32 [M], int64 if one does not fit.
        edge: Place of each edge in ``edge_index``. Int32 [M], int64 if one does not fit.
        weight: How likely each edge is drawn, relative to the others at its target. Double [M];
            ``None`` = all alike.
    """

    start: np.ndarray
    source: np.ndarray
    edge: np.ndarray
    weight: np.ndarray | None = None

    def draw(
        self, nodes: np.ndarray, k: int, generator: np.random.Generator, replace: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw up to k of the edges that enter each node.

        Args:
            nodes: Int64 [n].
            k: Edges a node; -1 = all of them.
            generator: Source of randomness.
            replace: Draw with replacement: k edges for every node that has one.

        Returns:
            Places of the edges among ours and, for each, the row of its node in ``nodes``. Int64
            [m] both.
        """
        if self.weight is None or k < 0:
            return choose_edges(self.start, nodes, k, generator, replace)
        return choose_weighted_edges(self.start, self.weight, nodes, k, generator, replace)


def group_by_target(
    edge_index: Tensor,
    num_targets: int,
    weight: Tensor | None = None,
    edges: np.ndarray | None = None,
) -> InEdges:
    """Sort edges by the node that they enter; done once a graph. 8 bytes an edge stay.

    Args:
        edge_index: Long [2, M].
        num_targets: Number N of nodes.
        weight: Of each edge, 0 = never drawn. Float [M].
        edges: Places of the edges to take. Int64 [m]; ``None`` = all.

    Raises:
        ValueError: If a weight is negative, infinite or NaN, or their number is wrong.
    """
    source, target = edge_index.cpu().numpy()
    if edges is not None:
        source, target = source[edges], target[edges]
    order = np.argsort(target, kind="stable")
    start = np.zeros(num_targets + 1, dtype=np.int64)
    np.cumsum(np.bincount(target, minlength=num_targets), out=start[1:])
    edge = order if edges is None else edges[order]
    places, sources = _narrowed(edge), _narrowed(source[order])
    if weight is None:
        return InEdges(start, sources, places)
    if weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"weight: {list(weight.shape)} given, [{edge_index.shape[1]}] expected, one an edge"
        )
    numbers = weight.double().cpu().numpy()
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError(
            f"weight: {numbers.min()} to {numbers.max()} given, finite numbers of 0 or more "
            "expected"
        )
    return InEdges(start, sources, places, numbers[edge])


def _narrowed(ids: np.ndarray) -> np.ndarray:
    """In half the bytes where that is possible: more of them fit the cache."""
    return ids.astype(np.int32) if ids.max(initial=0) < 2**31 else ids


def _all_edges(
    first: np.ndarray, degree: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places of so many edges from each first one on, and the number that each run has."""
    end = np.cumsum(degree)
    total = int(end[-1]) if len(end) else 0
    return np.arange(total) + np.repeat(first - end + degree, degree), np.repeat(numbers, degree)


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
    first = start.take(nodes)
    degree = start.take(nodes + 1) - first
    if k < 0:
        return _all_edges(first, degree, np.arange(len(nodes)))
    if replace:
        rows = np.repeat(np.flatnonzero(degree), k)
        drawn = (generator.random(len(rows)) * degree[rows]).astype(np.int64)
        return first[rows] + drawn, rows
    few = np.flatnonzero(degree <= k)
    places, rows = _all_edges(first.take(few), degree.take(few), few)
    if k == 0 or len(few) == len(nodes):
        return places, rows
    many = np.flatnonzero(degree > k)
    last = (degree.take(many) - k).astype(np.float64)
    drawn = generator.random((k, len(many)))
    for step, row in enumerate(drawn):
        row *= last + (step + 1)
    chosen = drawn.astype(start.dtype)
    for step in range(1, k):
        taken = np.flatnonzero((chosen[:step] == chosen[step]).any(axis=0))
        chosen[step, taken] = last[taken] + step
    chosen += first.take(many)
    more = chosen.T.ravel()
    return np.concatenate([places, more]), np.concatenate([rows, np.repeat(many, k)])


def choose_weighted_edges(
    start: np.ndarray,
    weight: np.ndarray,
    nodes: np.ndarray,
    k: int,
    generator: np.random.Generator,
    replace: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to k of the edges that enter each node, one after the other by their weights.

    Looks at every edge of these nodes, so that memory grows with their degrees.

    Args:
        start: Where each node's edges begin. Int64 [N + 1].
        weight: Of each edge, 0 = never drawn. Double [M].
        nodes: Int64 [n].
        k: Edges a node, 0 or more.
        generator: Source of randomness.
        replace: Draw with replacement: k edges for every node that has one of weight above 0.

    Returns:
        As :func:`choose_edges`.

    Reference:
        Efraimidis and Spirakis, "Weighted random sampling with a reservoir", IPL 97 (2006).
    """
    places, rows = choose_edges(start, nodes, -1, generator)
    places, rows = places[weight[places] > 0], rows[weight[places] > 0]
    number = np.bincount(rows, minlength=len(nodes))
    begin = np.cumsum(number) - number
    if replace:
        total = np.concatenate([[0.0], np.cumsum(weight[places])])
        asked = np.repeat(np.flatnonzero(number), k)
        low, high = total[begin[asked]], total[begin[asked] + number[asked]]
        drawn = np.searchsorted(total, low + generator.random(len(asked)) * (high - low), "right")
        # Rounding must not lead to a neighbour's edges.
        drawn = np.clip(drawn - 1, begin[asked], begin[asked] + number[asked] - 1)
        return places[drawn], asked
    waiting = generator.standard_exponential(len(places)) / weight[places]
    order = np.lexsort((waiting, rows))
    chosen = order[np.arange(len(rows)) - begin[rows] < k]
    return places[chosen], rows[chosen]


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
        drawn, _ = in_edges.draw(frontier, k, generator)
        edges.append(in_edges.edge[drawn])
        frontier = np.setdiff1d(in_edges.source[drawn], nodes)
        nodes = np.union1d(nodes, frontier)
    return nodes, np.unique(np.concatenate(edges))
