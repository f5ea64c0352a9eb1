"""Where an embedding disagrees with the graph: near there and far here, or the other way round.

Vectors come in as an array, so that this module needs no torch; ``kgclip embed`` writes them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
from scipy.sparse.csgraph import shortest_path
from scipy.stats import spearmanr

from kgclip.analysis.adjacency import undirected_matrix
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How the distance in the graph and the similarity of vectors go together.

    Attributes:
        by_hops: ``hops`` (null = more, or not connected), ``pairs``, ``similarity`` (mean cosine)
            and ``sd``.
        disagreements: ``name``, ``other_name``, ``hops``, ``similarity`` and ``kind``: "apart"
            (neighbours whose vectors are least alike) or "alike" (most alike of those that are
            further apart than ``max_hops``).
        correlation: Spearman's, of hops and similarity, far pairs at ``max_hops`` + 1; negative
            where the embedding agrees with the graph; NaN if all pairs are equally far or equally
            alike.
    """

    by_hops: pl.DataFrame
    disagreements: pl.DataFrame
    correlation: float


def compare_distances(
    graph: KnowledgeGraph,
    vectors: np.ndarray,
    *,
    num_sources: int = 200,
    max_hops: int = 4,
    num_shown: int = 20,
    seed: int = 0,
) -> Agreement:
    """Compare hops in the graph with cosines of the entities' vectors.

    Pairs are those of some drawn entities with every entity; entities with a zero vector are
    left out.

    Args:
        graph: Any graph.
        vectors: One an entity, of any length. Float [N, D].
        num_sources: Entities that distances start from; those with a triple go first.
        max_hops: Longest distance that is told from "far".
        num_shown: Disagreements of each kind.
        seed: Decides which entities are drawn.

    Raises:
        GraphError: If there is not one finite vector an entity, or fewer than two are not zero.
    """
    if vectors.ndim != 2 or len(vectors) != graph.num_entities or not np.isfinite(vectors).all():
        raise GraphError(
            f"vectors of shape {list(vectors.shape)}; expected a finite one for each of the "
            f"{graph.num_entities} entities"
        )
    norms = np.linalg.norm(vectors, axis=1)
    usable = np.flatnonzero(norms > 0)
    if len(usable) < 2:
        raise GraphError(f"{len(usable)} vectors are not zero; expected at least two")
    matrix = undirected_matrix(graph)
    sources = _draw(matrix, usable, num_sources, seed)
    hops = shortest_path(matrix, unweighted=True, indices=sources)[:, usable]
    unit = vectors[usable] / norms[usable, None]
    place = np.searchsorted(usable, sources)
    similarity = unit[place] @ unit.T
    # Each pair once, where both ends were drawn.
    drawn_before = np.full(len(usable), len(sources))
    drawn_before[place] = np.arange(len(sources))
    row, column = np.nonzero(drawn_before[None, :] > np.arange(len(sources))[:, None])
    hops, similarity = hops[row, column], similarity[row, column].astype(np.float64)
    hops = np.where(hops > max_hops, max_hops + 1, hops).astype(np.int64)
    pairs = pl.DataFrame(
        {
            "entity": sources[row],
            "other": usable[column],
            "hops": hops,
            "similarity": similarity,
        }
    ).with_columns(pl.col("hops").replace(max_hops + 1, None))
    correlation = float("nan")
    if hops.min() < hops.max() and similarity.min() < similarity.max():
        correlation = float(spearmanr(hops, similarity).statistic)
    by_hops = (
        pairs.group_by("hops")
        .agg(pairs=pl.len(), similarity_=pl.col("similarity").mean(), sd=pl.col("similarity").std())
        .rename({"similarity_": "similarity"})
        .sort("hops", nulls_last=True)
    )
    return Agreement(by_hops, _disagreements(graph, pairs, num_shown), correlation)


def _draw(matrix: object, usable: np.ndarray, num_sources: int, seed: int) -> np.ndarray:
    connected = np.diff(matrix.indptr)[usable] > 0  # type: ignore[attr-defined]  # a csr_array
    order = np.random.default_rng(seed).permutation(len(usable))
    first = order[np.argsort(~connected[order], kind="stable")][: max(num_sources, 1)]
    return usable[first]


def _disagreements(graph: KnowledgeGraph, pairs: pl.DataFrame, num_shown: int) -> pl.DataFrame:
    apart = pairs.filter(pl.col("hops") == 1).sort("similarity", "entity", "other")
    far = pairs.filter(pl.col("hops").is_null())
    alike = far.sort("similarity", "entity", "other", descending=[True, False, False])
    names = graph.entities["name"]
    chosen = pl.concat(
        [
            part.head(num_shown).with_columns(kind=pl.lit(kind))
            for kind, part in (("apart", apart), ("alike", alike))
        ]
    )
    return chosen.select(
        name=pl.col("entity").map_batches(names.gather, pl.String()),
        other_name=pl.col("other").map_batches(names.gather, pl.String()),
        hops="hops",
        similarity="similarity",
        kind="kind",
    )


def similar_vectors(
    graph: KnowledgeGraph, vectors: np.ndarray, *, threshold: float = 0.95, limit: int = 100_000
) -> pl.DataFrame:
    """Pairs of entities whose vectors are nearly the same: near duplicates by embedding.

    Args:
        graph: Any graph.
        vectors: One an entity; zero where there is none. Float [N, D].
        threshold: Least cosine. In (0, 1].
        limit: Pairs that are kept at most, the most similar ones.

    Returns:
        ``name``, ``other_name`` and ``similarity``, most similar first.
    """
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    unit = (vectors / norms[:, None]).astype(np.float32)
    names = graph.entities["name"]
    kept = pl.DataFrame(schema={"entity": pl.Int64, "other": pl.Int64, "similarity": pl.Float64})
    for start in range(0, len(unit), 512):
        cosines = unit[start : start + 512] @ unit[start:].T
        row, column = np.nonzero(cosines >= threshold)
        later = column > row
        found = {"entity": row[later] + start, "other": column[later] + start}
        similarity = cosines[row[later], column[later]].astype(np.float64)
        kept = pl.concat([kept, pl.DataFrame({**found, "similarity": similarity})])
        kept = kept.sort("similarity", "entity", "other", descending=[True, False, False])
        kept = kept.head(limit)
    return kept.select(
        name=pl.col("entity").map_batches(names.gather, pl.String()),
        other_name=pl.col("other").map_batches(names.gather, pl.String()),
        similarity="similarity",
    )
