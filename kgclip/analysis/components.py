"""Which entities hang together: connected components and k-cores."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.sparse.csgraph import connected_components

from kgclip.analysis.adjacency import entity_frame, rows_of, undirected_matrix
from kgclip.graph import KnowledgeGraph

_GONE = 2**62  # a degree that no number of neighbours brings down to a level


def components(graph: KnowledgeGraph, strong: bool = False) -> pl.DataFrame:
    """The connected component of each entity.

    Args:
        graph: Any graph.
        strong: Follow triples from head to tail only: entities of one component reach each other.

    Returns:
        ``entity``, ``name``, ``component`` (0 is the largest; equal ones in the order of their
        first entity) and ``size``, the number of its entities.
    """
    head, tail = (graph.triples[column].to_numpy() for column in ("head", "tail"))
    find = _strong_parts if strong else _weak_parts
    component, size = by_size(find(head, tail, graph.num_entities))
    return entity_frame(graph, component=component, size=size)


def _strong_parts(head: np.ndarray, tail: np.ndarray, count: int) -> np.ndarray:
    """A number for each entity that those of its strong component share. Int [N]."""
    matrix = rows_of(head, tail, np.ones(len(head)), count)
    matrix.has_canonical_format = False  # scipy's search never ends where an entry is there twice
    matrix.sum_duplicates()
    return connected_components(matrix, connection="strong")[1]  # type: ignore[no-any-return]


def _weak_parts(head: np.ndarray, tail: np.ndarray, count: int) -> np.ndarray:
    """A number for each entity that those of its weak component share. Int [N].

    Every root hangs itself below its smallest neighbour, all below one root become one, and the
    triples between different roots go through the same again (Shiloach and Vishkin, J. Algorithms
    3, 1982): whole arrays at a time, where a search goes from entity to entity. Two rounds at
    least halve the roots that have neighbours: one that stays has swallowed a neighbour.
    """
    root = np.arange(count)
    while len(head):
        np.minimum.at(root, np.maximum(head, tail), np.minimum(head, tail))
        while not np.array_equal(above := root[root], root):
            root = above
        head, tail = root[head], root[tail]
        apart = head != tail
        head, tail = _pick(head, apart), _pick(tail, apart)
    return root


def by_size(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number parts anew, the largest first, equal ones by their first member.

    Args:
        part: Number of each member's part, each at least 0; gaps are fine. Int [N].

    Returns:
        New number of each member's part and its size. Int64 [N] each.
    """
    counts = np.bincount(part)
    first = np.full(len(counts), len(part), dtype=np.int64)
    first[part[::-1]] = np.arange(len(part))[::-1]  # of several writes the last one stays
    used = np.flatnonzero(counts)
    place = np.empty(len(counts), dtype=np.int64)
    place[used[np.lexsort((first[used], -counts[used]))]] = np.arange(len(used))
    return place[part], counts[part]


def k_core(graph: KnowledgeGraph) -> pl.DataFrame:
    """Core number of each entity: the largest k such that it is in the k-core.

    The k-core is what stays when entities with fewer than k different neighbours are taken away
    again and again. Direction, parallel triples and self loops do not count.

    Returns:
        ``entity``, ``name`` and ``core``.

    Reference:
        Batagelj and Zaversnik, arXiv cs/0310049; here a whole wave of entities goes at a time.
    """
    matrix = undirected_matrix(graph)
    starts, neighbours = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    degree = np.diff(starts)
    core = np.empty(graph.num_entities, dtype=np.int64)
    last = np.empty(graph.num_entities, dtype=np.int64)
    left = np.arange(graph.num_entities)
    while len(left):
        level = degree.take(left).min()
        wave = _pick(left, degree.take(left) <= level)
        while len(wave):
            core[wave] = level
            degree[wave] = _GONE
            touched = _rows(starts, neighbours, wave)
            np.subtract.at(degree, touched, 1)
            wave = _pick(touched, degree.take(touched) <= level)
            order = np.arange(len(wave))
            last[wave] = order
            wave = _pick(wave, last.take(wave) == order)  # each entity once: where it occurs last
        left = _pick(left, degree.take(left) < _GONE // 2)
    return entity_frame(graph, core=core)


def _pick(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``values[mask]``, which takes numpy several times as long where the mask is mixed."""
    return values.take(np.flatnonzero(mask))


def _rows(starts: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values of some rows of a compressed matrix, one row after the other.

    Args:
        starts: Where each row's values start, and the last one's end. Int64 [N + 1].
        values: Of all rows. [M].
        rows: Int64 [K].
    """
    first = starts.take(rows)
    lengths = starts.take(rows + 1) - first
    place = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    return values.take(place + np.arange(len(place)))
