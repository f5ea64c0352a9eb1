"""Split triples into training, validation and test without leakage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from kgclip.tables import GraphError, Tables

SPLITS = ("train", "valid", "test")


def split_triples(
    tables: Tables, *, ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Tables:
    """Fill ``triples.split``; a test triple's inverse or duplicate is never in training.

    All triples between the same two entities, whatever direction and relation, go to one part.
    Pairs that are a relation's or an entity's first stay in training, so that nothing is asked
    of what was never seen; the shares are met as far as that allows.

    Args:
        tables: Any graph.
        ratios: Shares of train, valid and test, which sum to 1.
        seed: Decides which pairs of entities go where.

    Returns:
        The tables with ``triples.split`` filled.

    Raises:
        GraphError: If the ratios are not three shares that sum to 1.
    """
    if len(ratios) != len(SPLITS) or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-9:
        raise GraphError(f"ratios {list(ratios)}: expected shares of {', '.join(SPLITS)}, sum 1")
    head, relation, tail = (tables.triples[c].to_numpy() for c in ("head", "relation", "tail"))
    pairs = np.stack([np.minimum(head, tail), np.maximum(head, tail)], axis=1)
    _, group = np.unique(pairs, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = int(group.max()) + 1 if len(group) else 0
    order = np.random.default_rng(seed).permutation(count)
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    # First in the drawn order: each entity's and each relation's first pair trains.
    pinned = np.zeros(count, dtype=bool)
    for values in (head, tail, relation):
        by_rank = np.lexsort((rank[group], values))
        _, first = np.unique(values[by_rank], return_index=True)
        pinned[group[by_rank[first]]] = True
    free = order[~pinned[order]]
    num_valid, num_test = (min(round(r * count), len(free)) for r in ratios[1:])
    part = np.zeros(count, dtype=np.int64)
    part[free[:num_test]] = 2
    part[free[num_test : num_test + num_valid]] = 1
    names = pl.Series("split", np.array(SPLITS)[part[group]] if count else [], dtype=pl.String)
    return dataclasses.replace(tables, triples=tables.triples.with_columns(names))
