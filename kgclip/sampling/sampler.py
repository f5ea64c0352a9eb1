"""Multi-hop sampling over typed edges: which nodes and edges a batch is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kgclip.sampling.edges import InEdges

EdgeType = tuple[str, str, str]
SUBGRAPH_TYPES = ("directional", "bidirectional", "induced")
_SPARSE = 16  # nodes of the graph for each one drawn, from which on a scan costs more than a sort
_NONE = np.zeros(0, dtype=np.int64)
# Places, keys of sources, and the targets: rows of a hop, and the first row of that hop.
_Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, int]


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was drawn around the seeds.

    Attributes:
        nodes: Nodes by type: seeds, then what each hop adds, ascending. Int64 [n].
        trees: Tree that each node belongs to, by node type; empty if they share one. Int64 [n].
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
    """Numbers the nodes of one type, which all seeds share. A dense array, kept between batches.

    A node's key here is the node itself.
    """

    def __init__(self, size: int) -> None:
        self._number: np.ndarray = np.full(size, -1, dtype=np.int32 if size < 2**31 else np.int64)
        self.parts: list[np.ndarray] = []

    def keys(self, nodes: np.ndarray, trees: np.ndarray | None) -> np.ndarray:
        """Key of each node in its tree. Int64 [n]."""
        return nodes

    def nodes(self, keys: np.ndarray) -> np.ndarray:
        """Node of each key. Int64 [n]."""
        return keys

    def trees(self, keys: np.ndarray) -> np.ndarray | None:
        """Tree of each key, int64 [n]; ``None``: there is but one."""
        return None

    def add_seeds(self, keys: np.ndarray) -> None:
        """Number the first of equal ones, in their order."""
        _, first = np.unique(keys, return_index=True)
        self._append(keys[np.sort(first)])

    def add(self, keys: np.ndarray) -> None:
        """Number those that are new, in ascending order."""
        self._append(self._new(keys))

    def _new(self, keys: np.ndarray) -> np.ndarray:
        if self._is_sparse(len(keys)):
            keys = np.unique(keys)
            return keys.compress(self.find(keys) < 0).astype(np.int64)
        found = np.zeros(len(self._number), dtype=bool)  # faster than sorting them
        found[keys] = True
        found &= self._number < 0
        return np.flatnonzero(found)

    def _is_sparse(self, count: int) -> bool:
        return len(self._number) > _SPARSE * count

    def _append(self, keys: np.ndarray) -> None:
        count = sum(map(len, self.parts))
        self._number[keys] = np.arange(count, count + len(keys))
        self.parts.append(keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Number of each, -1 = not there. Int [n]."""
        return self._number.take(keys)

    def clear(self) -> None:
        """Forget the batch."""
        if self._is_sparse(sum(map(len, self.parts))):
            for part in self.parts:
                self._number[part] = -1
        else:
            self._number.fill(-1)
        self.parts = []


class _Disjoint(_Shared):
    """Numbers nodes by seed: the same node is another one in another seed's tree."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._ascending, self._numbers, self.parts = _NONE, _NONE, []

    def keys(self, nodes: np.ndarray, trees: np.ndarray | None) -> np.ndarray:
        assert trees is not None
        keys: np.ndarray = trees * self._size + nodes
        return keys

    def nodes(self, keys: np.ndarray) -> np.ndarray:
        return keys % self._size

    def trees(self, keys: np.ndarray) -> np.ndarray:
        return keys // self._size

    def _new(self, keys: np.ndarray) -> np.ndarray:
        keys = np.unique(keys)
        return keys[self.find(keys) < 0]

    def _append(self, keys: np.ndarray) -> None:
        count = len(self._ascending)
        merged = np.concatenate([self._ascending, keys])
        numbers = np.concatenate([self._numbers, np.arange(count, count + len(keys))])
        order = np.argsort(merged, kind="stable")
        self._ascending, self._numbers = merged[order], numbers[order]
        self.parts.append(keys)

    def find(self, keys: np.ndarray) -> np.ndarray:
        if not len(self._ascending):
            return np.full(len(keys), -1)
        place = np.searchsorted(self._ascending, keys).clip(max=len(self._ascending) - 1)
        return np.where(self._ascending[place] == keys, self._numbers[place], -1)

    def clear(self) -> None:
        self._ascending, self._numbers, self.parts = _NONE, _NONE, []


class NeighborSampler:
    """Draws neighbourhoods, hop by hop, from edges sorted once.

    Beside the edges it keeps 8 bytes a node; a batch costs what it draws. One
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
                numbers = self._numbers[kind]
                numbers.add_seeds(numbers.keys(nodes, trees))
            return self._walk(generator, excluded)
        finally:
            for numbers in self._numbers.values():
                numbers.clear()

    def _walk(self, generator: np.random.Generator, excluded: ExcludedPairs | None) -> Sample:
        """Hop by hop: draw edges into the nodes that came in last, add their sources."""
        drawn: dict[EdgeType, list[_Drawn]] = {key: [] for key in self.in_edges}
        met: dict[str, list[int]] = {kind: [] for kind in self._numbers}
        first, done = dict.fromkeys(self._numbers, 0), dict.fromkeys(self._numbers, 0)
        for hop in range(max(map(len, self.num_neighbors.values()), default=0)):
            frontier = {}
            for kind, numbers in self._numbers.items():
                frontier[kind] = join(numbers.parts[done[kind] :])
                first[kind], done[kind] = sum(met[kind]), len(numbers.parts)
                met[kind].append(len(frontier[kind]))
            for key, fanout in self.num_neighbors.items():
                targets = frontier[key[2]]
                nodes = self._numbers[key[2]].nodes(targets)
                k = fanout[hop] if hop < len(fanout) else 0
                places, rows = self._draw(key, nodes, k, generator, excluded)
                sources = self._sources(key, places, targets, rows)
                self._numbers[key[0]].add(sources)
                drawn[key].append((places, sources, rows, first[key[2]]))
        for kind, numbers in self._numbers.items():
            met[kind].append(len(join(numbers.parts[done[kind] :])))
        return self._finish(drawn, met, excluded)

    def _sources(
        self, key: EdgeType, places: np.ndarray, targets: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Keys of the sources of some edges into some targets."""
        trees = self._numbers[key[2]].trees(targets)
        owner = None if trees is None else trees[rows]
        return self._numbers[key[0]].keys(self.in_edges[key].source.take(places), owner)

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
        drawn: dict[EdgeType, list[_Drawn]],
        met: dict[str, list[int]],
        excluded: ExcludedPairs | None,
    ) -> Sample:
        keys = {kind: join(numbers.parts) for kind, numbers in self._numbers.items()}
        if self.subgraph_type == "induced":
            drawn = {key: [self._induce(key, keys[key[2]], excluded)] for key in drawn}
        edges, ends = {}, {}
        for key, parts in drawn.items():
            edge, rows = self._ends(key, parts)
            if self.subgraph_type == "bidirectional":
                edge, rows = _both_ways(edge, rows)
            edges[key], ends[key] = edge, rows
        trees = {kind: self._numbers[kind].trees(found) for kind, found in keys.items()}
        return Sample(
            {kind: self._numbers[kind].nodes(found) for kind, found in keys.items()},
            {kind: tree for kind, tree in trees.items() if tree is not None},
            edges, ends, met,
            {key: [len(part[0]) for part in parts] for key, parts in drawn.items()},
        )  # fmt: skip

    def _ends(self, key: EdgeType, parts: list[_Drawn]) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``edge_index``, and rows of source and target, of all that was drawn."""
        total = sum(len(part[0]) for part in parts)
        edge, ends = np.empty(total, dtype=np.int64), np.empty((2, total), dtype=np.int64)
        begin = 0
        for places, sources, targets, first in parts:
            here = slice(begin, begin + len(places))
            edge[here] = self.in_edges[key].edge.take(places)
            ends[0, here] = self._numbers[key[0]].find(sources)
            np.add(targets, first, out=ends[1, here])
            begin = here.stop
        return edge, ends

    def _induce(self, key: EdgeType, targets: np.ndarray, excluded: ExcludedPairs | None) -> _Drawn:
        in_edges, nodes = self.in_edges[key], self._numbers[key[2]].nodes(targets)
        places, rows = in_edges.draw(nodes, -1, np.random.default_rng(0))
        sources = self._sources(key, places, targets, rows)
        inside = self._numbers[key[0]].find(sources) >= 0
        if excluded is not None:
            inside &= ~excluded.hits(key, in_edges.source[places], nodes[rows])
        return places[inside], sources[inside], rows[inside], 0


class ExcludedPairs:
    """Pairs of nodes between which no edge may be drawn, of whatever type and direction.

    Args:
        sizes: Number of nodes by type.
        ends: Node types of the pairs' two ends.
        pairs: Int64 [2, p].
    """

    def __init__(self, sizes: Mapping[str, int], ends: tuple[str, str], pairs: np.ndarray) -> None:
        # 64 bits each: what is added to them may have 32.
        offsets = np.cumsum([0, *sizes.values()], dtype=np.int64)
        self._offset = dict(zip(sizes, offsets[:-1], strict=True))
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


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put arrays behind each other along their last axis; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=-1) if len(parts) else _NONE


def _both_ways(edge: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each edge also reversed, without what is then there twice."""
    rows = np.concatenate([rows, rows[::-1]], axis=1)
    edge = np.concatenate([edge, edge])
    # An edge with one end given is one way of one edge; a self loop has only one.
    _, first = np.unique(edge * (rows.max(initial=0) + 1) + rows[0], return_index=True)
    first.sort()
    return edge[first], rows[:, first]
