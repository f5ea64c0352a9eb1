"""What relations are like: how often, how many to how many, symmetric, inverse, between what."""

from __future__ import annotations

import polars as pl

from kgclip.graph import KnowledgeGraph

MANY = 1.5  # more than that on average is "many" (Bordes et al. 2013)
_ENDS = ("head", "relation", "tail")


def relation_table(graph: KnowledgeGraph) -> pl.DataFrame:
    """Size and kind of each relation, most frequent first.

    Duplicate triples count in ``triples`` alone.

    Returns:
        ``relation`` (id), ``name``, ``triples``, ``distinct``, ``heads`` and ``tails`` (different
        ones), ``tails_per_head``, ``heads_per_tail``, ``cardinality`` ("1-1", "1-N", "N-1" or
        "N-N", head to tail; many is more than 1.5 on average; null without triples), ``loops``
        (head = tail), ``mirrored`` (triples whose mirror image is there too, loops apart) and
        ``symmetry``, their share of the triples that are no loops, null if there are none.

    Reference:
        Bordes et al., NIPS 2013, for the cardinalities.
    """
    triples = graph.triples.select(_ENDS).unique(maintain_order=True)
    mirror = triples.select(pl.col("tail").alias("head"), "relation", pl.col("head").alias("tail"))
    mirrored = triples.filter(pl.col("head") != pl.col("tail")).join(mirror, on=_ENDS, how="semi")
    counted = triples.group_by("relation").agg(
        distinct=pl.len(),
        heads=pl.col("head").n_unique(),
        tails=pl.col("tail").n_unique(),
        loops=(pl.col("head") == pl.col("tail")).sum(),
    )
    numbers = ("triples", "distinct", "heads", "tails", "loops", "mirrored")
    many = pl.when(pl.col("tails_per_head").is_not_null())
    side = {c: pl.when(pl.col(c) > MANY).then(pl.lit("N")).otherwise(pl.lit("1")) for c in _RATIOS}
    return (
        _names(graph)
        .join(graph.triples.group_by("relation").len("triples"), on="relation", how="left")
        .join(counted, on="relation", how="left")
        .join(mirrored.group_by("relation").len("mirrored"), on="relation", how="left")
        .with_columns(pl.col(numbers).cast(pl.Int64).fill_null(0))
        .with_columns(
            tails_per_head=_ratio(pl.col("distinct"), pl.col("heads")),
            heads_per_tail=_ratio(pl.col("distinct"), pl.col("tails")),
            symmetry=_ratio(pl.col("mirrored"), pl.col("distinct") - pl.col("loops")),
        )
        .with_columns(
            cardinality=many.then(
                pl.concat_str(side["heads_per_tail"], pl.lit("-"), side["tails_per_head"])
            )
        )
        .select("relation", "name", *numbers[:4], *_RATIOS, "cardinality", *numbers[4:], "symmetry")
        .sort("triples", "relation", descending=[True, False])
    )


_RATIOS = ("tails_per_head", "heads_per_tail")


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """A share, null where there is nothing to share."""
    return pl.when(whole > 0).then(part / whole)


def _names(graph: KnowledgeGraph) -> pl.DataFrame:
    ids = pl.int_range(pl.len(), dtype=pl.Int64).alias("relation")
    return graph.relations.select(ids, "name")


def inverse_relations(graph: KnowledgeGraph, min_share: float = 0.5) -> pl.DataFrame:
    """Pairs of relations of which one often says what the other says, read backwards.

    Args:
        graph: Any graph.
        min_share: Pairs of which neither side is covered to this share are left out. In [0, 1].

    Returns:
        ``relation`` and ``other`` (names; the same one for a symmetric relation), ``pairs``
        (entity pairs that both hold, one way and the other), ``share`` (of the relation's pairs)
        and ``other_share``; loops are left out. Each pair of relations once, most pairs first.
    """
    return _overlaps(graph, min_share, backwards=True)


def duplicate_relations(graph: KnowledgeGraph, min_share: float = 0.5) -> pl.DataFrame:
    """Pairs of different relations of which one often says what the other says.

    Args:
        graph: Any graph.
        min_share: Pairs of which neither side is covered to this share are left out. In [0, 1].

    Returns:
        As :func:`inverse_relations` does.
    """
    return _overlaps(graph, min_share, backwards=False)


def _overlaps(graph: KnowledgeGraph, min_share: float, *, backwards: bool) -> pl.DataFrame:
    triples = graph.triples.select(_ENDS).unique(maintain_order=True)
    triples = triples.filter(pl.col("head") != pl.col("tail"))
    sizes = triples.group_by("relation").len("size")
    ends = ("tail", "head") if backwards else ("head", "tail")
    other = triples.select(
        pl.col(ends[0]).alias("head"), pl.col(ends[1]).alias("tail"), other="relation"
    )
    first_id = pl.col("relation") <= pl.col("other")
    if not backwards:
        first_id = pl.col("relation") < pl.col("other")
    names = graph.relations["name"]
    return (
        triples.join(other, on=("head", "tail"))
        .filter(first_id)
        .group_by("relation", "other")
        .len("pairs")
        .join(sizes, on="relation")
        .join(sizes.rename({"relation": "other", "size": "other_size"}), on="other")
        .with_columns(
            share=pl.col("pairs") / pl.col("size"),
            other_share=pl.col("pairs") / pl.col("other_size"),
        )
        .filter(pl.max_horizontal("share", "other_share") >= min_share)
        .sort("pairs", "relation", "other", descending=[True, False, False])
        .with_columns(
            pl.col(column).map_batches(names.gather, return_dtype=pl.String())
            for column in ("relation", "other")
        )
        .select("relation", "other", "pairs", "share", "other_share")
    )


def type_schema(graph: KnowledgeGraph) -> pl.DataFrame:
    """Which relation leads from which type of entity to which.

    An entity counts with its first type, "(none)" where it has none.

    Returns:
        ``relation`` (name), ``head_type``, ``tail_type``, ``triples`` and ``share`` (of the
        relation's triples), most triples first.
    """
    types = graph.entities["type"].fill_null("(none)")
    triples = graph.triples
    return (
        pl.DataFrame(
            {
                "relation": graph.relations["name"].gather(triples["relation"]),
                "head_type": types.gather(triples["head"]),
                "tail_type": types.gather(triples["tail"]),
            }
        )
        .group_by("relation", "head_type", "tail_type")
        .len("triples")
        .with_columns(share=pl.col("triples") / pl.col("triples").sum().over("relation"))
        .sort("triples", "relation", "head_type", "tail_type", descending=[True] + [False] * 3)
    )
