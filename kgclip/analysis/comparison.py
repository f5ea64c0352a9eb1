"""What changed between two versions of a graph: entities, relations and facts, by name."""

from __future__ import annotations

import dataclasses

import polars as pl

from kgclip.graph import KnowledgeGraph

_FACT = ("head", "relation", "tail")
_ABOUT = ("types", "literals", "texts", "images", "links")  # tables that describe an entity


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a graph has that another has not.

    Attributes:
        entities: ``name``, ``change`` ("added", "removed" or "changed") and ``where``, the tables
            that say something else about it ("entities" for its type or scene).
        relations: ``name`` and ``change``; changed is one with another label, inverse or symmetry.
        facts: ``head``, ``relation``, ``tail`` (names), ``change`` ("added" or "removed") and
            ``copies``, how many more or fewer of the triple there are.
    """

    entities: pl.DataFrame
    relations: pl.DataFrame
    facts: pl.DataFrame

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(len(self.entities) or len(self.relations) or len(self.facts))


def compare_graphs(old: KnowledgeGraph, new: KnowledgeGraph) -> Difference:
    """Find what was added, removed and changed, whatever the ids and the order of rows.

    Weights, sources, named graphs and splits of triples are not compared.

    Args:
        old: The graph before.
        new: The graph after.
    """
    return Difference(
        entities=_named_changes(
            old.entities, new.entities, {"entities": ("type", "scene")}, _described(old, new)
        ),
        relations=_named_changes(
            old.relations, new.relations, {"relations": ("label", "inverse", "symmetric")}, None
        ).drop("where"),
        facts=_fact_changes(old, new),
    )


def _named_changes(
    old: pl.DataFrame,
    new: pl.DataFrame,
    columns: dict[str, tuple[str, ...]],
    described: pl.DataFrame | None,
) -> pl.DataFrame:
    ((table, compared),) = columns.items()
    added = new.join(old, on="name", how="anti")["name"]
    removed = old.join(new, on="name", how="anti")["name"]
    both = old.join(new, on="name", suffix="_new")
    other = both.filter(
        pl.any_horizontal(~pl.col(c).eq_missing(pl.col(f"{c}_new")) for c in compared)
    )
    changed = other.select("name", where=pl.lit(table))
    if described is not None:
        changed = pl.concat(
            [changed, described.filter(pl.col("name").is_in(both["name"].to_list()))]
        )
    return pl.concat(
        [
            _rows(added, "added"),
            _rows(removed, "removed"),
            changed.group_by("name")
            .agg(pl.col("where").unique().sort().str.join(", "))
            .select("name", pl.lit("changed").alias("change"), "where"),
        ]
    ).sort("change", "name")


def _rows(names: pl.Series, change: str) -> pl.DataFrame:
    where = pl.lit(None, pl.String()).alias("where")
    return pl.DataFrame({"name": names}).select("name", pl.lit(change).alias("change"), where)


def _described(old: KnowledgeGraph, new: KnowledgeGraph) -> pl.DataFrame:
    """Names of entities about which a table says something else: ``name``, ``where``."""
    found = []
    for table in _ABOUT:
        before, after = (_by_name(graph, table) for graph in (old, new))
        columns = before.columns
        counts = [frame.group_by(columns).len("copies") for frame in (before, after)]
        joined = counts[0].join(counts[1], on=columns, how="full", nulls_equal=True, coalesce=True)
        differing = joined.filter(~pl.col("copies").eq_missing(pl.col("copies_right")))
        found.append(differing.select("name", where=pl.lit(table)).unique())
    return pl.concat(found)


def _by_name(graph: KnowledgeGraph, table: str) -> pl.DataFrame:
    frame: pl.DataFrame = getattr(graph, table)
    names = [graph.entities["name"].gather(frame["entity"]).alias("name")]
    if "relation" in frame.columns:
        names.append(graph.relations["name"].gather(frame["relation"]).alias("relation"))
    if "box" in frame.columns:
        names.append(frame["box"].arr.to_list().alias("box"))
    return frame.with_columns(names).drop("entity")


def _fact_changes(old: KnowledgeGraph, new: KnowledgeGraph) -> pl.DataFrame:
    counts = []
    for graph in (old, new):
        names = {"head": "entities", "relation": "relations", "tail": "entities"}
        frame = pl.DataFrame(
            {
                column: getattr(graph, table)["name"].gather(graph.triples[column])
                for column, table in names.items()
            }
        )
        counts.append(frame.group_by(_FACT).len("copies"))
    joined = counts[0].join(counts[1], on=_FACT, how="full", coalesce=True, suffix="_new")
    more = pl.col("copies_new").fill_null(0).cast(pl.Int64) - pl.col("copies").fill_null(0)
    return (
        joined.select(*_FACT, more=more)
        .filter(pl.col("more") != 0)
        .select(
            *_FACT,
            change=pl.when(pl.col("more") > 0).then(pl.lit("added")).otherwise(pl.lit("removed")),
            copies=pl.col("more").abs(),
        )
        .sort("change", *_FACT)
    )
