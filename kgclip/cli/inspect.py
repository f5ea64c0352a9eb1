"""``kgclip inspect DIR``: what a saved graph holds, as tables or as JSON. Never loads torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kgclip.graph import KnowledgeGraph, load_graph


def inspect(
    graph: Annotated[Path, typer.Argument(help="Folder of a saved graph.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a saved graph holds."""
    summary = summarise(load_graph(graph))
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _print(summary)


def summarise(graph: KnowledgeGraph, num_samples: int = 5) -> dict[str, Any]:
    """Count what a graph holds.

    Args:
        graph: Any graph.
        num_samples: Entities and triples that are shown, spread evenly over the tables; at least 1.

    Returns:
        ``counts`` (rows by table), ``origins``, ``entity_types``, ``relations`` (with their
        numbers of triples, distinct heads and distinct tails), ``modalities`` (entities with a
        text, an image, both, none), ``texts_per_entity`` and ``images_per_entity`` (number of
        entities by number of rows), ``splits``, ``sample_entities``, ``sample_triples``.
        Only strings, numbers, booleans, null, lists and dictionaries.
    """
    return {
        "counts": {name: len(frame) for name, frame in graph.tables.frames().items()},
        "origins": [origin.name for origin in graph.tables.origins],
        "entity_types": _value_counts(graph.types["type"]),
        "relations": _relation_rows(graph),
        "modalities": _modalities(graph),
        "texts_per_entity": _rows_per_entity(graph.texts, graph.num_entities),
        "images_per_entity": _rows_per_entity(graph.images, graph.num_entities),
        "splits": {
            "triples": _value_counts(graph.triples["split"]),
            "images": _value_counts(graph.images["split"]),
        },
        **_samples(graph, num_samples),
    }


def _value_counts(values: pl.Series) -> dict[str, int]:
    """Number of rows by value, most frequent first; a null counts as "none"."""
    counted = (
        values.fill_null("none")
        .rename("value")
        .to_frame()
        .group_by("value")
        .len()
        .sort("len", "value", descending=[True, False])
    )
    return dict(counted.iter_rows())


def _relation_rows(graph: KnowledgeGraph) -> list[dict[str, Any]]:
    counted = graph.triples.group_by("relation").agg(
        triples=pl.len(), heads=pl.col("head").n_unique(), tails=pl.col("tail").n_unique()
    )
    return (
        graph.relations.with_row_index("relation")
        .with_columns(pl.col("relation").cast(pl.Int64))
        .join(counted, on="relation", how="left", maintain_order="left")
        .with_columns(pl.col("triples", "heads", "tails").fill_null(0))
        .drop("relation")
        .to_dicts()
    )


def _modalities(graph: KnowledgeGraph) -> dict[str, int]:
    texts = set(graph.texts["entity"].unique())
    images = set(graph.images["entity"].unique())
    return {
        "text": len(texts),
        "image": len(images),
        "both": len(texts & images),
        "none": graph.num_entities - len(texts | images),
    }


def _rows_per_entity(frame: pl.DataFrame, num_entities: int) -> dict[str, int]:
    """Number of entities by their number of rows, smallest first."""
    rows = frame.group_by("entity").len("rows")
    counted = rows.group_by("rows").len("entities").sort("rows")
    without = num_entities - len(rows)
    return {"0": without} | {str(count): entities for count, entities in counted.iter_rows()}


def _samples(graph: KnowledgeGraph, num_samples: int) -> dict[str, list[dict[str, Any]]]:
    labels = graph.labels()
    relations = graph.relations["label"].fill_null(graph.relations["name"])
    images = dict(graph.images.select("entity", "path").reverse().iter_rows())  # first one wins
    entities = graph.entities.with_row_index("id")
    return {
        "sample_entities": [
            {"name": name, "type": kind, "label": labels[number], "image": images.get(number)}
            for number, name, kind in _spread(entities, num_samples)
            .select("id", "name", "type")
            .iter_rows()
        ],
        "sample_triples": [
            {"head": labels[head], "relation": relations[relation], "tail": labels[tail]}
            for head, relation, tail in _spread(graph.triples, num_samples)
            .select("head", "relation", "tail")
            .iter_rows()
        ],
    }


def _spread(frame: pl.DataFrame, num_rows: int) -> pl.DataFrame:
    """About evenly spaced rows, the first one among them."""
    return frame.gather_every(max(1, -(-len(frame) // num_rows)))


def _print(summary: Mapping[str, Any]) -> None:
    console = Console()
    for table in _tables(summary):
        if table.row_count:
            console.print(table)
    if summary["origins"]:
        console.print("read from " + escape(", ".join(summary["origins"])))


def _tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    yield _table("tables", ("table", "rows"), summary["counts"].items())
    yield _record_table("relations", summary["relations"])
    for title, column in (
        ("entity_types", "type"),
        ("modalities", "entities with"),
        ("texts_per_entity", "texts"),
        ("images_per_entity", "images"),
    ):
        yield _table(title, (column, "entities"), summary[title].items())
    for name, counts in summary["splits"].items():
        yield _table(f"splits_of_{name}", ("split", name), counts.items())
    for title in ("sample_entities", "sample_triples"):
        yield _record_table(title, summary[title])


def _record_table(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(records[0]) if records else []
    return _table(title, columns, [record.values() for record in records])


def _table(title: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> Table:
    table = Table(title=title.replace("_", " "), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
