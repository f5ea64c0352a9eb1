"""Which entities hang together: connected components and k-cores."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from kgclip.analysis.adjacency import entity_frame, rows_of, undirected_matrix
from kgclip.graph import KnowledgeGraph


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
    matrix = rows_of(head, tail, np.ones(len(head)), graph.num_entities)
    if strong:  # scipy's search never ends where an entry is there twice
        matrix.has_canonical_format = False
        matrix.sum_duplicates()
    kind = "strong" if strong else "weak"
    part = connected_components(matrix, directed=strong, connection=kind)[1]
    component, size = by_size(part)
    return entity_frame(graph, component=component, size=size)


def by_size(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number parts anew, the largest first, equal ones by their first member.

    Args:
        part: Number of each member's part, each at least 0. Int [N].

    Returns:
        New number of each member's part and its size. Int64 [N] each.
    """
    counts = np.bincount(part)
    first = np.full(len(counts), len(part), dtype=np.int64)
    first[part[::-1]] = np.arange(len(part))[::-1]  # of several writes the last one stays
    place = np.empty(len(counts), dtype=np.int64)
    place[np.lexsort((first, -counts))] = np.arange(len(counts))
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
    degree = np.diff(matrix.indptr).astype(np.int64)
    core = np.full(graph.num_entities, -1, dtype=np.int64)
    last = np.empty(graph.num_entities, dtype=np.int64)
    left = np.arange(graph.num_entities)
    while len(left):
        level = degree[left].min()
        wave = left[degree[left] <= level]
        while len(wave):
            core[wave] = level
            touched = neighbours_of(matrix, wave)
            touched = touched[core[touched] < 0]
            np.subtract.at(degree, touched, 1)
            wave = touched[degree[touched] <= level]
            last[wave] = np.arange(len(wave))  # each entity once: where it occurs last
            wave = wave[last[wave] == np.arange(len(wave))]
        left = left[core[left] < 0]
    return entity_frame(graph, core=core)


def neighbours_of(matrix: csr_array, entities: np.ndarray) -> np.ndarray:
    """Columns of some rows, one after the other.

    Args:
        matrix: Sparse [N, N].
        entities: Rows. Int64 [K].
    """
    starts = matrix.indptr[entities]
    lengths = matrix.indptr[entities + 1] - starts
    shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return matrix.indices[shift + np.arange(lengths.sum())]  # type: ignore[no-any-return]
