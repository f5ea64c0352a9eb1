"""Split triples, or whole scenes, into training, validation and test without leakage."""

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
    _check_ratios(ratios)
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


def split_scenes(
    tables: Tables, *, ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> Tables:
    """Fill ``images.split`` and ``triples.split``; what is held out are whole scenes.

    A scene is an entity with a picture that belongs to no other scene: a photograph with the
    objects in it, or an image-text pair. Its pictures and those of its objects go to one part, and
    so does every triple with one of them at an end; triples between entities of no scene train.
    A triple between two scenes goes with the one that is held out more.

    Args:
        tables: Any graph.
        ratios: Shares of train, valid and test, which sum to 1.
        seed: Decides which scenes go where.

    Returns:
        The tables with both columns filled.

    Raises:
        GraphError: If the ratios are not three shares that sum to 1, or there is no scene.
    """
    _check_ratios(ratios)
    names, owners = tables.entities["name"], tables.entities["scene"]
    place = {name: row for row, name in enumerate(names)}
    scene = np.array(
        [place.get(owner, -1) if owner is not None else -1 for owner in owners], dtype=np.int64
    )
    pictured = tables.images["entity"].unique().to_numpy()
    alone = pictured[scene[pictured] < 0]
    scene[alone] = alone
    scenes = np.unique(scene[scene >= 0])
    if not len(scenes):
        raise GraphError("splits.method 'scenes': no entity has a picture; 'triples' splits those")
    scene[scenes] = scenes
    drawn = np.random.default_rng(seed).permutation(scenes)
    num_valid, num_test = (round(share * len(scenes)) for share in ratios[1:])
    part = np.zeros(len(names), dtype=np.int64)  # by scene, then by entity
    part[drawn[:num_test]] = 2
    part[drawn[num_test : num_test + num_valid]] = 1
    part = np.where(scene >= 0, part[scene], 0)
    named = np.array(SPLITS)
    ends = [part[tables.triples[end].to_numpy()] for end in ("head", "tail")]
    held_out = named[np.maximum(*ends)]
    of_images = named[part[tables.images["entity"].to_numpy()]]
    return dataclasses.replace(
        tables,
        triples=tables.triples.with_columns(pl.Series("split", held_out, dtype=pl.String)),
        images=tables.images.with_columns(pl.Series("split", of_images, dtype=pl.String)),
    )


def _check_ratios(ratios: Sequence[float]) -> None:
    if len(ratios) != len(SPLITS) or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-9:
        raise GraphError(f"ratios {list(ratios)}: expected shares of {', '.join(SPLITS)}, sum 1")
