"""Which entities matter: PageRank, personalised PageRank and sampled betweenness."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from kgclip.analysis.adjacency import entity_frame, networkit_graph, rows_of
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

_CHECK_EVERY = 8  # products between two looks at what is left


def pagerank(
    graph: KnowledgeGraph,
    *,
    seeds: Mapping[str, float] | None = None,
    damping: float = 0.85,
    tolerance: float = 1e-6,
) -> pl.DataFrame:
    """Share of the time that a walker along the triples, head to tail, spends at each entity.

    With probability ``1 - damping``, and wherever no triple leads on, it starts anew. Parallel
    triples make a step more likely.

    Args:
        graph: Any graph.
        seeds: Where the walker starts, by name, with weights (personalised PageRank); ``None`` =
            anywhere.
        damping: Probability to go on. In [0, 1).
        tolerance: Largest sum of the absolute errors.

    Returns:
        ``entity``, ``name`` and ``pagerank``, which sums to 1.

    Raises:
        GraphError: If a seed does not exist (names the nearest), all weights are 0 or one is
            negative, or the damping is outside [0, 1).

    Reference:
        Page et al. 1999. A dead end starts anew like a jump, so the rank is the normalised sum
        of ``(damping P)^k start`` over k, with no term for dead ends.
    """
    if not 0 <= damping < 1:
        raise GraphError(f"damping {damping}: expected a number in [0, 1)")
    count = graph.num_entities
    start = _start(graph, seeds)
    head, tail = (graph.triples[column].to_numpy() for column in ("head", "tail"))
    # Rows of falling length: the processor foresees where a row ends, a product takes a third.
    order = np.argsort(-np.bincount(tail, minlength=count), kind="stable")
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    share = damping / np.maximum(np.bincount(head, minlength=count), 1)
    step = rows_of(place[tail], place[head], share[head], count)
    arrived = start[order]
    rank = arrived.copy()
    while damping and arrived.sum() * damping / (1 - damping) > tolerance:
        for _ in range(_CHECK_EVERY):
            arrived = step @ arrived
            rank += arrived
    return entity_frame(graph, pagerank=(rank / max(rank.sum(), 1e-300))[place])


def _start(graph: KnowledgeGraph, seeds: Mapping[str, float] | None) -> np.ndarray:
    if seeds is None:
        return np.full(graph.num_entities, 1 / max(graph.num_entities, 1))
    weights = np.array(list(seeds.values()), dtype=np.float64)
    if not len(weights) or weights.min() < 0 or not 0 < weights.sum() < np.inf:
        raise GraphError(f"seeds {dict(seeds)}: expected weights of at least 0, one above 0")
    start = np.zeros(graph.num_entities)
    np.add.at(start, [graph.entity_id(name) for name in seeds], weights / weights.sum())
    return start


def betweenness(graph: KnowledgeGraph, *, num_samples: int = 64, seed: int = 0) -> pl.DataFrame:
    """Share of the shortest paths that pass through each entity, estimated.

    Directions and parallel triples do not count. The estimate follows the shortest paths from a
    sample of entities; up to ``num_samples`` entities it is exact.

    Args:
        graph: Any graph.
        num_samples: Entities that paths start from, at least 1.
        seed: Decides which.

    Returns:
        ``entity``, ``name`` and ``betweenness``, exact in [0, 1].

    Raises:
        GraphError: If there is no sample.
        ModuleNotFoundError: If NetworKit is not installed; the extra "analysis" brings it.

    Reference:
        Brandes 2001; Geisberger, Sanders and Schultes 2008 for the sampling.
    """
    if num_samples < 1:
        raise GraphError(f"num_samples {num_samples}: expected at least 1")
    view = networkit_graph(graph)
    if not view.numberOfEdges():  # NetworKit ends the process where there is no entity
        return entity_frame(graph, betweenness=np.zeros(graph.num_entities))
    import networkit

    networkit.setSeed(seed, False)
    if graph.num_entities <= num_samples:
        scores = networkit.centrality.Betweenness(view, normalized=True).run().scores()
    else:
        method = networkit.centrality.EstimateBetweenness(view, num_samples, normalized=True)
        scores = method.run().scores()
    return entity_frame(graph, betweenness=np.nan_to_num(np.array(scores, dtype=np.float64)))
