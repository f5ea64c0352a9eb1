"""How entities cluster: communities (Leiden), clustering coefficients and bridges."""

from __future__ import annotations

import numpy as np
import polars as pl

from kgclip.analysis.adjacency import entity_frame, networkit_graph
from kgclip.analysis.components import by_size
from kgclip.graph import KnowledgeGraph


def communities(
    graph: KnowledgeGraph, *, resolution: float = 1.0, seed: int = 0
) -> tuple[pl.DataFrame, float]:
    """Groups of entities with many triples among themselves, by the Leiden algorithm.

    Directions and parallel triples do not count.

    Args:
        graph: Any graph.
        resolution: Above 1 for smaller groups, below for larger ones.
        seed: Decides the order in which entities are looked at. One thread repeats exactly.

    Returns:
        A frame of ``entity``, ``name``, ``community`` (0 is the largest) and ``size``, and the
        modularity of the partition, in [-0.5, 1]; 0 for a graph without edges.

    Raises:
        ModuleNotFoundError: If NetworKit is not installed; the extra "analysis" brings it.

    Reference:
        Traag, Waltman and van Eck, arXiv 1810.08473; NetworKit's ParallelLeiden.
    """
    view = networkit_graph(graph)
    if not view.numberOfEdges():
        part = np.arange(graph.num_entities)
        return entity_frame(graph, community=part, size=np.ones_like(part)), 0.0
    import networkit

    networkit.setSeed(seed, False)
    method = networkit.community.ParallelLeiden(view, gamma=resolution)
    partition = method.run().getPartition()
    modularity = networkit.community.Modularity().getQuality(partition, view)
    community, size = by_size(np.array(partition.getVector(), dtype=np.int64))
    return entity_frame(graph, community=community, size=size), float(modularity)


def clustering(graph: KnowledgeGraph) -> pl.DataFrame:
    """How many pairs of an entity's neighbours are neighbours themselves.

    Returns:
        ``entity``, ``name`` and ``clustering``, in [0, 1]; 0 with fewer than two neighbours.

    Raises:
        ModuleNotFoundError: If NetworKit is not installed; the extra "analysis" brings it.

    Reference:
        Watts and Strogatz 1998, the local clustering coefficient.
    """
    view = networkit_graph(graph)
    if not view.numberOfEdges():
        return entity_frame(graph, clustering=np.zeros(graph.num_entities))
    import networkit

    scores = networkit.centrality.LocalClusteringCoefficient(view).run().scores()
    return entity_frame(graph, clustering=np.nan_to_num(np.array(scores, dtype=np.float64)))


def bridges(graph: KnowledgeGraph) -> pl.DataFrame:
    """Pairs of entities whose connection holds two parts of the graph together.

    Without the triples between them, a component would fall into two.

    Returns:
        ``entity`` and ``other`` (ids, ascending) with ``name`` and ``other_name``.

    Raises:
        ModuleNotFoundError: If NetworKit is not installed; the extra "analysis" brings it.

    Reference:
        Tarjan 1974: a bridge is a biconnected component of two entities.
    """
    view = networkit_graph(graph)
    import networkit

    pairs = np.zeros((0, 2), dtype=np.int64)
    if view.numberOfEdges():
        method = networkit.components.BiconnectedComponents(view).run()
        found = [sorted(part) for part in method.getComponents() if len(part) == 2]
        pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    names = graph.entities["name"]
    return pl.DataFrame(
        {
            "entity": pairs[:, 0],
            "other": pairs[:, 1],
            "name": names.gather(pairs[:, 0]),
            "other_name": names.gather(pairs[:, 1]),
        }
    )
