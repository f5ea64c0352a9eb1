"""Views of a graph for algorithms: who stands beside whom, direction and relation left out.

Everything in this package counts over one of two views: the triples as they are, or the simple
undirected graph of :func:`undirected_matrix`, without self loops and parallel edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array, csr_array

from kgclip.graph import KnowledgeGraph

if TYPE_CHECKING:
    import networkit


def undirected_matrix(graph: KnowledgeGraph) -> csr_array:
    """The simple undirected graph as a symmetric matrix of ones. Float64 [N, N]."""
    low, high = undirected_pairs(graph)
    # Pairs ascend: first the smaller neighbours, then the larger ones, and every row is in order.
    ends = np.concatenate([high, low]), np.concatenate([low, high])
    return rows_of(*ends, np.ones(2 * len(low)), graph.num_entities)


def undirected_pairs(graph: KnowledgeGraph) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of different entities that some triple connects, once.

    Returns:
        The smaller and the larger id of each pair, pairs in ascending order. Int64 [M] each.
    """
    head, tail = (graph.triples[column].to_numpy() for column in ("head", "tail"))
    other = np.flatnonzero(head != tail)
    head, tail = head.take(other), tail.take(other)
    count = max(graph.num_entities, 1)  # count² stays below 2⁶³ up to three billion entities
    pairs = np.sort(np.minimum(head, tail) * count + np.maximum(head, tail))
    pairs = pairs.take(np.flatnonzero(np.diff(pairs, prepend=-1)))
    low = pairs // count
    return low, pairs - low * count


def rows_of(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int) -> csr_array:
    """A square sparse matrix whose entries of one place stay apart; they add up in products.

    Args:
        rows: Int [M].
        columns: Int [M].
        values: Numbers of any kind [M].
        count: Rows and columns of the matrix.
    """
    narrow = np.int32 if count < 2**31 else np.int64
    ends = (rows.astype(narrow, copy=False), columns.astype(narrow, copy=False))
    matrix = coo_array((values, ends), shape=(count, count))
    matrix.has_canonical_format = True  # adding them up would take longer than it saves
    return matrix.tocsr()


def networkit_graph(graph: KnowledgeGraph) -> networkit.Graph:
    """The simple undirected graph for NetworKit; ids stay.

    Raises:
        ModuleNotFoundError: If NetworKit is not installed; the extra "analysis" brings it.
    """
    import networkit

    pairs: Any = undirected_pairs(graph)
    return networkit.GraphFromCoo(pairs, n=graph.num_entities, weighted=False, directed=False)


def entity_frame(graph: KnowledgeGraph, **columns: Any) -> pl.DataFrame:
    """One row an entity: its id, its name, and what was found about it."""
    ids = np.arange(graph.num_entities)
    return pl.DataFrame({"entity": ids, "name": graph.entities["name"], **columns})
