"""Which relations give a label away, where entities are to be classified.

Labels come in by entity name. A relation gives them away if its triples lead straight to the
label, or to neighbours that only entities of the same label share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from kgclip.analysis.paths import ARROWS
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError


def audit_labels(graph: KnowledgeGraph, labels: Mapping[str, str]) -> pl.DataFrame:
    """How well each relation alone tells the labels of entities.

    Args:
        graph: Any graph.
        labels: Label by entity name; the label may be an entity of the graph itself, as the
            research groups of AIFB are.

    Returns:
        ``relation``, ``direction`` ("→": labelled entities are heads, "←": tails), ``entities``
        (labelled ones with such a triple), ``direct`` (those that it leads to their own label),
        ``compared`` (those that share a neighbour with another labelled entity), ``told`` (those
        whose label is the most frequent among the others at their neighbours, ties count by
        share) and ``direct_share`` and ``told_share`` of all labelled entities, worst leak first.

    Raises:
        GraphError: If there is no label, or an entity does not exist (names the nearest).
    """
    if not labels:
        raise GraphError("labels: none given; expected the label of at least one entity by name")
    entities = np.array([graph.entity_id(name) for name in labels])
    classes, class_of = np.unique(list(labels.values()), return_inverse=True)
    place = np.full(graph.num_entities, -1)
    place[entities] = np.arange(len(entities))
    ids = {name: i for i, name in enumerate(graph.entities["name"])}
    label_ids = np.array([ids.get(name, -1) for name in classes])[class_of]
    triples = graph.triples.select("head", "relation", "tail").unique(maintain_order=True)
    rows = []
    for (relation,), part in triples.partition_by("relation", as_dict=True).items():
        ends = part["head"].to_numpy(), part["tail"].to_numpy()
        for arrow, (mine, other) in zip(ARROWS, (ends, ends[::-1]), strict=True):
            labelled = place[mine] >= 0
            if labelled.any():
                row = (place[mine[labelled]], other[labelled])
                shape = (len(entities), graph.num_entities)
                table = csr_array((np.ones(len(row[0])), row), shape=shape)
                rows.append(
                    (
                        *(graph.relations["name"][relation], arrow),
                        int((np.diff(table.indptr) > 0).sum()),
                        len(np.unique(row[0][row[1] == label_ids[row[0]]])),
                        *_told(table, class_of, len(classes)),
                    )
                )
    columns = ("entities", "direct", "compared")
    schema: dict[str, pl.DataType] = {"relation": pl.String(), "direction": pl.String()}
    schema |= dict.fromkeys(columns, pl.Int64()) | {"told": pl.Float64()}
    return (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_columns(
            direct_share=pl.col("direct") / len(entities), told_share=pl.col("told") / len(entities)
        )
        .sort("direct", "told", "relation", descending=[True, True, False])
    )


def _told(table: csr_array, class_of: np.ndarray, num_classes: int) -> tuple[int, float]:
    """How many share a neighbour with another, and how many of them the others name rightly.

    Args:
        table: One where an entity has a neighbour. Float64 [L, N].
        class_of: Class of each labelled entity. Int [L].
        num_classes: C.
    """
    own = np.zeros((len(class_of), num_classes))
    own[np.arange(len(class_of)), class_of] = 1
    votes = table @ (table.T @ own)  # an entity also votes for itself, once a neighbour
    votes -= own * np.diff(table.indptr)[:, None]
    compared = votes.sum(axis=1) > 0
    best = votes == votes.max(axis=1, keepdims=True)
    right = best[np.arange(len(class_of)), class_of] / best.sum(axis=1)
    return int(compared.sum()), float(right[compared].sum())
