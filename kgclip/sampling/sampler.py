"""Multi-hop sampling over typed edges: which nodes and edges a batch is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kgclip.sampling.edges import InEdges

EdgeType = tuple[str, str, str]
SUBGRAPH_TYPES = ("directional", "bidirectional", "induced")
_NONE = np.zeros(0, dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was drawn around the seeds.

    Attributes:
        nodes: Nodes by type, seeds first, in the order in which they were met. Int64 [n].
        trees: Row of the seed that each node belongs to, by node type. Int64 [n].
        edges: Places of the edges in ``edge_index``, by edge type. Int64 [m].
        ends: Rows of source and target in ``nodes``, by edge type. Int64 [2, m].
        num_sampled_nodes: Nodes met at each hop, seeds first, by type.
        num_sampled_edges: Edges drawn at each hop, by type.
    """

    nodes: dict[str, np.ndarray]
    trees: dict[str, np.ndarray]
    edges: dict[EdgeType, np.ndarray]
    ends: dict[EdgeType, np.ndarray]
    num_sampled_nodes: dict[str, list[int]]
    num_sampled_edges: dict[EdgeType, list[int]]


class _Shared:
    """Numbers the nodes of one type; all seeds share them. A dense array, kept between batches."""

    def __init__(self, size: int) -> None:
        self._number = np.full(size, -1)
        self.nodes: list[np.ndarray] = []
        self.trees: list[np.ndarray] = []

    def add(self, nodes: np.ndarray, trees: np.ndarray) -> None:
        """Number those that are new."""
        number = self._number
        new = number[nodes] < 0
        nodes, trees = nodes[new], trees[new]
        # Of several equal ones the last stays written: no sorting.
        number[nodes] = np.arange(len(nodes))
        first = number[nodes] == np.arange(len(nodes))
        nodes, trees = nodes[first], trees[first]
        count = sum(map(len, self.nodes))
        number[nodes] = np.arange(count, count + len(nodes))
        self.nodes.append(nodes)
        self.trees.append(trees)

    def find(self, nodes: np.ndarray, trees: np.ndarray) -> np.ndarray:
        """Number of each, -1 = not there. Int64 [n]."""
        numbers: np.ndarray = self._number[nodes]
        return numbers

    def clear(self) -> None:
        for part in self.nodes:
            self._number[part] = -1
        self.nodes, self.trees = [], []


class _Disjoint(_Shared):
    """Numbers nodes by seed: the same node is another one in another seed's graph."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._keys, self._numbers = _NONE, _NONE
        self.nodes, self.trees = [], []

    def add(self, nodes: np.ndarray, trees: np.ndarray) -> None:
        keys = trees * self._size + nodes
        _, first = np.unique(keys, return_index=True)
        first = np.sort(first)
        first = first[self.find(nodes[first], trees[first]) < 0]
        keys = np.concatenate([self._keys, keys[first]])
        numbers = np.concatenate([self._numbers, len(self._keys) + np.arange(len(first))])
        order = np.argsort(keys, kind="stable")
        self._keys, self._numbers = keys[order], numbers[order]
        self.nodes.append(nodes[first])
        self.trees.append(trees[first])

    def find(self, nodes: np.ndarray, trees: np.ndarray) -> np.ndarray:
        keys = trees * self._size + nodes
        place = np.searchsorted(self._keys, keys)
        place[place == len(self._keys)] = 0
        if not len(self._keys):
            return np.full(len(keys), -1)
        return np.where(self._keys[place] == keys, self._numbers[place], -1)

    def clear(self) -> None:
        self._keys, self._numbers = _NONE, _NONE
        self.nodes, self.trees = [], []


class NeighborSampler:
    """Draws neighbourhoods, hop by hop, from edges sorted once.

    Beside the edges it keeps 8 bytes a node of the graph; a batch costs what it draws. One
    sampler draws one batch at a time.

    Args:
        sizes: Number of nodes by type.
        in_edges: Edges by type.
        num_neighbors: Edges to draw for each node, by hop, by edge type; -1 = all.
        replace: Draw with replacement.
        subgraph_type: ``"directional"``: the drawn edges; ``"bidirectional"``: each also the
            other way round, under the same place in ``edge_index``; ``"induced"``: all edges
            between the drawn nodes.
        disjoint: Give each seed a graph of its own.

    Raises:
        ValueError: If ``subgraph_type`` is another word, or ``"bidirectional"`` and an edge type
            joins two node types.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        in_edges: Mapping[EdgeType, InEdges],
        num_neighbors: Mapping[EdgeType, Sequence[int]],
        *,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
    ) -> None:
        if subgraph_type not in SUBGRAPH_TYPES:
            raise ValueError(
                f"subgraph_type: {subgraph_type!r} given, one of {SUBGRAPH_TYPES} expected"
            )
        for key in in_edges:
            if subgraph_type == "bidirectional" and key[0] != key[2]:
                raise ValueError(
                    f"subgraph_type: 'bidirectional' given, but {key} joins two node types; "
                    "add inverse edge types and use 'directional' or 'induced'"
                )
        self.sizes, self.in_edges, self.num_neighbors = sizes, in_edges, num_neighbors
        self.replace, self.subgraph_type, self.disjoint = replace, subgraph_type, disjoint
        numbering = _Disjoint if disjoint else _Shared
        self._numbers = {kind: numbering(size) for kind, size in sizes.items()}

    def sample(
        self,
        seeds: Mapping[str, tuple[np.ndarray, np.ndarray]],
        generator: np.random.Generator,
        excluded: ExcludedPairs | None = None,
    ) -> Sample:
        """Draw the neighbourhood of some nodes.

        Args:
            seeds: Nodes, int64 [s], and the tree of each, int64 [s], by node type.
            generator: Source of randomness.
            excluded: Pairs of nodes between which no edge is drawn.
        """
        try:
            for kind, (nodes, trees) in seeds.items():
                self._numbers[kind].add(nodes, trees)
            return self._walk(generator, excluded)
        finally:
            for numbers in self._numbers.values():
                numbers.clear()

    def _walk(self, generator: np.random.Generator, excluded: ExcludedPairs | None) -> Sample:
        """Hop by hop: draw edges into the nodes that came in last, add their sources."""
        drawn: dict[EdgeType, list[tuple[np.ndarray, ...]]] = {key: [] for key in self.in_edges}
        frontier = {kind: (_joined(n.nodes), _joined(n.trees)) for kind, n in self._numbers.items()}
        met = {kind: [len(nodes)] for kind, (nodes, _) in frontier.items()}
        for hop in range(max(map(len, self.num_neighbors.values()), default=0)):
            before = {kind: len(numbers.nodes) for kind, numbers in self._numbers.items()}
            for key, fanout in self.num_neighbors.items():
                nodes, trees = frontier[key[2]]
                k = fanout[hop] if hop < len(fanout) else 0
                places, rows = self._draw(key, nodes, k, generator, excluded)
                sources = self.in_edges[key].source[places]
                self._numbers[key[0]].add(sources, trees[rows])
                drawn[key].append((places, sources, nodes[rows], trees[rows]))
            for kind, numbers in self._numbers.items():
                fresh = slice(before[kind], None)
                frontier[kind] = _joined(numbers.nodes[fresh]), _joined(numbers.trees[fresh])
                met[kind].append(len(frontier[kind][0]))
        return self._finish(drawn, met, excluded)

    def _draw(
        self,
        key: EdgeType,
        nodes: np.ndarray,
        k: int,
        generator: np.random.Generator,
        excluded: ExcludedPairs | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw from the edges that are not excluded."""
        in_edges = self.in_edges[key]
        if not len(nodes) or k == 0:
            return _NONE, _NONE
        touched = _NONE if excluded is None else excluded.touched(key[2], nodes)
        if excluded is None or not len(touched):
            return in_edges.draw(nodes, k, generator, self.replace)
        free = np.setdiff1d(np.arange(len(nodes)), touched)
        places, rows = in_edges.draw(nodes[free], k, generator, self.replace)
        # Those beside an excluded pair draw from what is left of their edges.
        entering, owner = in_edges.draw(nodes[touched], -1, generator)
        keep = ~excluded.hits(key, in_edges.source[entering], nodes[touched][owner])
        entering, owner = entering[keep], owner[keep]
        start = np.zeros(len(touched) + 1, dtype=np.int64)
        np.cumsum(np.bincount(owner, minlength=len(touched)), out=start[1:])
        weight = None if in_edges.weight is None else in_edges.weight[entering]
        left = InEdges(start, in_edges.source[entering], entering, weight)
        more, which = left.draw(np.arange(len(touched)), k, generator, self.replace)
        return np.concatenate([places, entering[more]]), np.concatenate(
            [free[rows], touched[which]]
        )

    def _finish(
        self,
        drawn: dict[EdgeType, list[tuple[np.ndarray, ...]]],
        met: dict[str, list[int]],
        excluded: ExcludedPairs | None,
    ) -> Sample:
        if self.subgraph_type == "induced":
            drawn = {key: [self._induce(key, excluded)] for key in drawn}
        edges, ends = {}, {}
        for key, parts in drawn.items():
            places, source, target, tree = (
                _joined(column) for column in (zip(*parts, strict=True) if parts else [[]] * 4)
            )
            rows = np.stack(
                [self._numbers[key[0]].find(source, tree), self._numbers[key[2]].find(target, tree)]
            )
            edge = self.in_edges[key].edge[places]
            if self.subgraph_type == "bidirectional":
                edge, rows = _both_ways(edge, rows)
            edges[key], ends[key] = edge, rows
        return Sample(
            {kind: _joined(numbers.nodes) for kind, numbers in self._numbers.items()},
            {kind: _joined(numbers.trees) for kind, numbers in self._numbers.items()},
            edges, ends, met,
            {key: [len(part[0]) for part in parts] for key, parts in drawn.items()},
        )  # fmt: skip

    def _induce(self, key: EdgeType, excluded: ExcludedPairs | None) -> tuple[np.ndarray, ...]:
        in_edges, numbers = self.in_edges[key], self._numbers[key[2]]
        nodes, trees = _joined(numbers.nodes), _joined(numbers.trees)
        places, rows = in_edges.draw(nodes, -1, np.random.default_rng(0))
        source, target, tree = in_edges.source[places], nodes[rows], trees[rows]
        inside = self._numbers[key[0]].find(source, tree) >= 0
        if excluded is not None:
            inside &= ~excluded.hits(key, source, target)
        return places[inside], source[inside], target[inside], tree[inside]


class ExcludedPairs:
    """Pairs of nodes between which no edge may be drawn, of whatever type and direction.

    Args:
        sizes: Number of nodes by type.
        ends: Node types of the pairs' two ends.
        pairs: Int64 [2, p].
    """

    def __init__(self, sizes: Mapping[str, int], ends: tuple[str, str], pairs: np.ndarray) -> None:
        offsets = np.cumsum([0, *sizes.values()])
        self._offset = dict(zip(sizes, offsets[:-1].tolist(), strict=True))
        self._total = int(offsets[-1])
        first, second = (self._offset[kind] + ids for kind, ids in zip(ends, pairs, strict=True))
        self._pairs = np.unique(self._keys(first, second))
        self._nodes = np.unique(np.concatenate([first, second]))

    def _keys(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        keys: np.ndarray = np.minimum(first, second) * self._total + np.maximum(first, second)
        return keys

    def touched(self, kind: str, nodes: np.ndarray) -> np.ndarray:
        """Rows of the nodes that are part of a pair. Int64."""
        return np.flatnonzero(_among(self._offset[kind] + nodes, self._nodes))

    def hits(self, key: EdgeType, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Whether each edge joins a pair. Bool [m]."""
        keys = self._keys(self._offset[key[0]] + source, self._offset[key[2]] + target)
        return _among(keys, self._pairs)


def _among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    place = np.searchsorted(ascending, values).clip(max=len(ascending) - 1)
    found: np.ndarray = ascending[place] == values
    return found


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) else _NONE


def _both_ways(edge: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each edge also reversed, without what is then there twice."""
    rows = np.concatenate([rows, rows[::-1]], axis=1)
    edge = np.concatenate([edge, edge])
    # An edge with one end given is one way of one edge; a self loop has only one.
    _, first = np.unique(edge * (rows.max(initial=0) + 1) + rows[0], return_index=True)
    first.sort()
    return edge[first], rows[:, first]
