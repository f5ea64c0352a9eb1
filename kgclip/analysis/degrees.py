"""How many triples an entity has, and how entities are spread over these numbers."""

from __future__ import annotations

import numpy as np
import polars as pl

from kgclip.analysis.adjacency import entity_frame
from kgclip.graph import KnowledgeGraph


def degree_table(graph: KnowledgeGraph) -> pl.DataFrame:
    """Number of triples of each entity; duplicates count, a self loop counts twice.

    Returns:
        ``entity``, ``name``, ``out_degree``, ``in_degree`` and their sum ``degree``.
    """
    out, into = (
        np.bincount(graph.triples[column].to_numpy(), minlength=graph.num_entities)
        for column in ("head", "tail")
    )
    return entity_frame(graph, out_degree=out, in_degree=into, degree=out + into)


def degree_distribution(graph: KnowledgeGraph) -> pl.DataFrame:
    """How many entities have each degree.

    Returns:
        ``degree``, ascending, and ``entities``; degrees that no entity has are left out.
    """
    counts = np.bincount(degree_table(graph)["degree"].to_numpy())
    degrees = np.flatnonzero(counts)
    return pl.DataFrame({"degree": degrees, "entities": counts[degrees]})
