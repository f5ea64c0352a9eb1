"""What gives a held-out triple away: the triple itself, its mirror, an inverse, a rule, a word.

A triple is *asked* if its split is "valid" or "test"; everything with another split, or none, is
*seen*. Nothing has to be told beforehand: inverse relations and rules are found in what is seen.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata

import polars as pl

from kgclip.analysis.relations import duplicate_relations, inverse_relations
from kgclip.analysis.rules import follow_rules, mine_rules
from kgclip.graph import KnowledgeGraph

ASKED = ("valid", "test")
WHOLE = "all"  # the part that stands for the whole graph
STEM = 4  # letters of a word that count
_ENDS = ("head", "relation", "tail")
_NO_STEMS = {"the", "and", "for", "of"}
_LEAK_SCHEMA = {
    "part": pl.String(), "kind": pl.String(), "triple": pl.Int64(), "evidence": pl.String(),
    "confidence": pl.Float64(),
}  # fmt: skip


def audit_leakage(
    graph: KnowledgeGraph, *, min_confidence: float = 0.8, min_support: int = 10
) -> pl.DataFrame:
    """Count what leaks, by kind and relation.

    Rows of the parts "valid" and "test" count asked triples that something seen gives away; rows
    of the part "all" count triples of the whole graph that a random split could give away.

    Args:
        graph: Any graph; a split is not needed.
        min_confidence: Least PCA confidence of an inverse, a duplicate relation or a rule. In
            (0, 1].
        min_support: Least support of these.

    Returns:
        ``part``, ``kind``, ``relation``, ``evidence`` (the other relation or the most frequent
        rule; null where the kind says it all), ``found``, ``of`` (triples of the relation in the
        part), ``share`` and ``example``, most serious kind first. Kinds: "seen" (the triple is
        seen too), "other part" (a validation triple is tested too), "repeated" (within a part),
        "mirrored" (head and tail swapped), "inverse" (another relation backwards), "same pair"
        (another relation forwards), "rule" (two triples), "word" (head and tail share the first
        letters of a word).
    """
    leaks = find_leaks(graph, min_confidence=min_confidence, min_support=min_support)
    asked = graph.triples.select("relation", part="split").filter(pl.col("part").is_in(ASKED))
    everything = graph.triples.select("relation", part=pl.lit(WHOLE))
    sizes = pl.concat([asked, everything]).group_by("part", "relation").len("of")
    whole = _whole_graph(graph, min_confidence, min_support)
    relation = graph.triples["relation"]
    counted = (
        pl.concat([leaks, whole])
        .with_columns(relation=pl.col("triple").map_batches(relation.gather, pl.Int64()))
        .group_by("part", "kind", "relation", _grouped_evidence())
        .agg(
            found=pl.col("triple").n_unique(),
            top=pl.col("evidence").drop_nulls().mode().sort().first(),
            triple=pl.col("triple").first(),
        )
        .join(sizes, on=["part", "relation"])
    )
    return (
        counted.select(
            "part",
            "kind",
            pl.col("relation").map_batches(graph.relations["name"].gather, pl.String()),
            pl.col("top").alias("evidence"),
            "found",
            "of",
            (pl.col("found") / pl.col("of")).alias("share"),
            pl.col("triple")
            .map_elements(lambda row: say(graph, row), pl.String())
            .alias("example"),
        )
        .with_columns(order=pl.col("kind").replace_strict(_ORDER, return_dtype=pl.Int64()))
        .sort(
            ["part", "order", "found", "relation", "evidence"],
            descending=[True, False, True, False, False],
        )
        .drop("order")
    )


KINDS = ("seen", "other part", "repeated", "mirrored", "inverse", "same pair", "rule", "word")
_ORDER = {kind: place for place, kind in enumerate(KINDS)}


def _grouped_evidence() -> pl.Expr:
    """An inverse or duplicate relation has its own row, the rules of a relation share one."""
    return pl.when(pl.col("kind") != "rule").then("evidence").alias("group")


def say(graph: KnowledgeGraph, row: int) -> str:
    """A triple in names: ``Kenya - capital - Nairobi``."""
    head, relation, tail = graph.triples.select(_ENDS).row(row)
    names = graph.entities["name"]
    return f"{names[head]} - {graph.relations['name'][relation]} - {names[tail]}"


def find_leaks(
    graph: KnowledgeGraph, *, min_confidence: float = 0.8, min_support: int = 10
) -> pl.DataFrame:
    """Each asked triple with each thing that gives it away; the best rule only.

    Args:
        graph: A graph with splits; without, there is nothing asked.
        min_confidence: Least PCA confidence of an inverse, a duplicate relation or a rule.
        min_support: Least support of these.

    Returns:
        ``part``, ``kind`` (see :func:`audit_leakage`), ``triple`` (row of ``graph.triples``),
        ``evidence`` and ``confidence`` (null where nothing is unsure).
    """
    numbered = graph.triples.select(*_ENDS, part="split").with_row_index("triple")
    numbered = numbered.with_columns(pl.col("triple").cast(pl.Int64))
    asked = numbered.filter(pl.col("part").is_in(ASKED))
    if asked.is_empty():
        return pl.DataFrame(schema=_LEAK_SCHEMA)
    seen = seen_part(graph)
    found = [
        _leaks(asked.join(seen.triples, on=_ENDS, how="semi"), "seen"),
        _leaks(_in_other_part(asked), "other part"),
        _leaks(asked.filter(~pl.struct("part", *_ENDS).is_first_distinct()), "repeated"),
        _leaks(_mirrored(asked, seen.triples), "mirrored"),
        _by_rules(asked, seen, min_confidence, min_support),
        _leaks(asked.join(_sharing_words(graph, asked), on="triple", how="semi"), "word"),
    ]
    return pl.concat(found)


def seen_part(graph: KnowledgeGraph) -> KnowledgeGraph:
    """The graph without the triples that are asked in validation and test."""
    seen = graph.triples.filter(pl.col("split").is_null() | ~pl.col("split").is_in(ASKED))
    return KnowledgeGraph(dataclasses.replace(graph.tables, triples=seen), graph.root)


def _leaks(rows: pl.DataFrame, kind: str, evidence: pl.Expr | None = None) -> pl.DataFrame:
    return rows.select(
        "part",
        kind=pl.lit(kind),
        triple="triple",
        evidence=pl.lit(None, pl.String()) if evidence is None else evidence,
        confidence=pl.lit(None, pl.Float64()),
    )


def _in_other_part(asked: pl.DataFrame) -> pl.DataFrame:
    other = asked.select("part", *_ENDS).unique().rename({"part": "other"})
    both = asked.join(other, on=_ENDS).filter(pl.col("part") != pl.col("other"))
    return both.unique("triple", maintain_order=True)


def _mirrored(triples: pl.DataFrame, among: pl.DataFrame) -> pl.DataFrame:
    mirror = among.select(pl.col("tail").alias("head"), "relation", pl.col("head").alias("tail"))
    return triples.filter(pl.col("head") != pl.col("tail")).join(mirror, on=_ENDS, how="semi")


def _by_rules(
    asked: pl.DataFrame, seen: KnowledgeGraph, min_confidence: float, min_support: int
) -> pl.DataFrame:
    """Asked triples that a rule of what is seen implies; mirrors are counted elsewhere."""
    rules = mine_rules(seen, min_support=min_support, min_confidence=min_confidence)
    rules = rules.with_columns(
        kind=pl.when(pl.col("length") == 2)
        .then(pl.lit("rule"))
        .when(pl.col("body").list.first().str.ends_with("⁻¹"))
        .then(pl.lit("inverse"))
        .otherwise(pl.lit("same pair")),
        other=pl.col("body").list.first().str.strip_suffix("⁻¹"),
    ).filter((pl.col("length") == 2) | (pl.col("other") != pl.col("head")))
    implied = follow_rules(seen, rules, asked).join(asked, on="triple")
    first = ["triple", "kind", "evidence"]
    best = implied.sort("pca_confidence", "rule", descending=[True, False]).with_columns(
        evidence=pl.when(pl.col("kind") == "rule").then("rule").otherwise("other"),
        confidence="pca_confidence",
    )
    of_rules = best.filter(pl.col("kind") == "rule").unique(["triple"], maintain_order=True)
    others = best.filter(pl.col("kind") != "rule").unique(first, maintain_order=True)
    columns = ("part", "kind", "triple", "evidence", "confidence")
    return pl.concat([others.select(columns), of_rules.select(columns)])


def _whole_graph(graph: KnowledgeGraph, min_confidence: float, min_support: int) -> pl.DataFrame:
    """What a random split of the whole graph could give away, as leaks of the part "all"."""
    numbered = graph.triples.select(*_ENDS, part=pl.lit(WHOLE)).with_row_index("triple")
    triples = numbered.with_columns(pl.col("triple").cast(pl.Int64))
    distinct = triples.unique(_ENDS, keep="first", maintain_order=True)
    found = [
        _leaks(triples.filter(~pl.struct(_ENDS).is_first_distinct()), "repeated"),
        _leaks(_mirrored(distinct, distinct), "mirrored"),
        _leaks(distinct.join(_sharing_words(graph, distinct), on="triple", how="semi"), "word"),
    ]
    pairs = {"inverse": inverse_relations, "same pair": duplicate_relations}
    for kind, pairs_of in pairs.items():
        overlaps = pairs_of(graph, min_confidence).filter(
            (pl.col("pairs") >= min_support) & (pl.col("relation") != pl.col("other"))
        )
        found += [
            _leaks(_twins(distinct, graph.relation_id(one), graph.relation_id(other), kind), kind,
                   pl.lit(other))
            for a, b, _, share, other_share in overlaps.iter_rows()
            for one, other, implied in ((b, a, share), (a, b, other_share))
            if implied >= min_confidence
        ]  # fmt: skip
    return pl.concat(found)


def _twins(triples: pl.DataFrame, relation: int, other: int, kind: str) -> pl.DataFrame:
    """Triples of a relation whose pair another relation connects too."""
    ends = ("tail", "head") if kind == "inverse" else ("head", "tail")
    twins = triples.filter(pl.col("relation") == other).select(
        pl.col(ends[0]).alias("head"), pl.col(ends[1]).alias("tail")
    )
    mine = triples.filter((pl.col("relation") == relation) & (pl.col("head") != pl.col("tail")))
    return mine.join(twins, on=("head", "tail"), how="semi")


def stems(text: str) -> set[str]:
    """First letters of each word of three letters or more, without accents or case."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return {word[:STEM] for word in re.findall(r"[^\W\d_]{3,}", plain)} - _NO_STEMS


def _sharing_words(graph: KnowledgeGraph, triples: pl.DataFrame) -> pl.DataFrame:
    """Triples whose head and tail share a stem: their ``triple``."""
    ids = pl.concat([triples["head"], triples["tail"]]).unique().sort().to_list()
    labels = graph.labels()
    words = pl.DataFrame(
        [(entity, stem) for entity in ids for stem in sorted(stems(labels[entity]))],
        schema={"entity": pl.Int64(), "stem": pl.String()},
        orient="row",
    )
    different = triples.filter(pl.col("head") != pl.col("tail"))
    heads = different.join(words, left_on="head", right_on="entity")
    return heads.join(words, left_on=["tail", "stem"], right_on=["entity", "stem"]).select(
        pl.col("triple").unique()
    )
