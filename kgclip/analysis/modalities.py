"""Which entities lack a text or a picture, by type and by relation, and in which languages."""

from __future__ import annotations

import numpy as np
import polars as pl

from kgclip.analysis.degrees import degree_table
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

MODALITIES = ("text", "image")
ALL = "(all)"
NONE = "(none)"


def modality_coverage(graph: KnowledgeGraph, by: str = "type") -> pl.DataFrame:
    """How many entities have a text, a picture, both or neither.

    Args:
        graph: Any graph.
        by: "type": by every type an entity has, "(none)" where it has none, after a row "(all)".
            "relation": by relation and whether the entity is head or tail of it.

    Returns:
        ``type``, or ``relation`` and ``end`` ("head" or "tail"); ``entities``, ``with_text``,
        ``with_image``, ``with_both``, ``with_none``; most entities first. A caption of a picture
        is a text.

    Raises:
        GraphError: If ``by`` is neither.
    """
    if by not in ("type", "relation"):
        raise GraphError(f"by={by!r}: expected 'type' or 'relation'")
    groups = _by_type(graph) if by == "type" else _by_relation(graph)
    text, image = (has_modality(graph, modality) for modality in MODALITIES)
    having = pl.DataFrame(
        {"entity": np.arange(graph.num_entities), "text": text, "image": image},
        schema_overrides={"entity": pl.Int64()},
    )
    keys = [column for column in groups.columns if column != "entity"]
    return (
        groups.join(having, on="entity")
        .group_by(keys, maintain_order=True)
        .agg(
            entities=pl.len(),
            with_text=pl.col("text").sum(),
            with_image=pl.col("image").sum(),
            with_both=(pl.col("text") & pl.col("image")).sum(),
            with_none=(~pl.col("text") & ~pl.col("image")).sum(),
        )
        .sort(
            pl.col(keys[0]) == ALL, "entities", *keys, descending=[True, True] + [False] * len(keys)
        )
    )


def has_modality(graph: KnowledgeGraph, modality: str) -> np.ndarray:
    """Whether each entity has a text, or a picture. Bool [N].

    Args:
        graph: Any graph.
        modality: "text" or "image".

    Raises:
        GraphError: If the modality is neither.
    """
    if modality not in MODALITIES:
        raise GraphError(f"modality {modality!r}: expected one of {', '.join(MODALITIES)}")
    found = np.zeros(graph.num_entities, dtype=bool)
    found[(graph.texts if modality == "text" else graph.images)["entity"].to_numpy()] = True
    return found


def _by_type(graph: KnowledgeGraph) -> pl.DataFrame:
    ids = pl.int_range(graph.num_entities, dtype=pl.Int64, eager=True)
    listed = graph.types.select("type", "entity").unique(maintain_order=True)
    first = pl.DataFrame({"type": graph.entities["type"], "entity": ids}).drop_nulls("type")
    typed = pl.concat([listed, first]).unique(maintain_order=True)
    rest = ids.filter(~ids.is_in(typed["entity"].unique().to_list()))
    return pl.concat(
        [
            pl.DataFrame({"type": [ALL] * len(ids), "entity": ids}, schema=listed.schema),
            typed,
            pl.DataFrame({"type": [NONE] * len(rest), "entity": rest}, schema=listed.schema),
        ]
    )


def _by_relation(graph: KnowledgeGraph) -> pl.DataFrame:
    name = graph.relations["name"].gather(graph.triples["relation"])
    return pl.concat(
        [
            pl.DataFrame({"relation": name, "entity": graph.triples[end]})
            .unique(maintain_order=True)
            .select("relation", pl.lit(end).alias("end"), "entity")
            for end in ("head", "tail")
        ]
    )


def missing_modality(graph: KnowledgeGraph, modality: str) -> pl.DataFrame:
    """Entities without a text or without a picture, those with most triples first.

    Args:
        graph: Any graph.
        modality: "text" or "image".

    Returns:
        ``entity``, ``name``, ``type`` and ``degree``.

    Raises:
        GraphError: If the modality is neither.
    """
    missing = pl.Series(~has_modality(graph, modality))
    return (
        degree_table(graph)
        .select("entity", "name", graph.entities["type"], "degree")
        .filter(missing)
        .sort("degree", "entity", descending=[True, False])
    )


def text_languages(graph: KnowledgeGraph) -> pl.DataFrame:
    """How many texts there are of each kind and language.

    Returns:
        ``language`` (null = not said), ``kind``, ``texts`` and ``entities`` (that have one), most
        texts first.
    """
    return (
        graph.texts.group_by("language", "kind")
        .agg(texts=pl.len(), entities=pl.col("entity").n_unique())
        .sort("texts", "language", "kind", descending=[True, False, False])
    )
