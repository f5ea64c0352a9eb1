"""The eight tables of a knowledge graph: their columns, checks and errors.

Everything that reads, stores or converts a graph works on :class:`Tables`; only
``kgclip.graph`` wraps them into a :class:`~kgclip.graph.KnowledgeGraph`. An
entity's or a relation's id is its row number, so no table holds an id column.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import polars as pl

_ADDRESS = re.compile(r"(?!file:)(?:[A-Za-z][A-Za-z0-9+.\-]*://|data:|urn:)")


class GraphError(ValueError):
    """A graph, file or recipe that cannot be used; says where, what and how to fix it."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """A file or package that a graph was read from.

    Attributes:
        name: File name or ``package==version``; never an absolute path.
        sha256: Checksum of the file, 64 hexadecimal digits, or ``""`` where there is no one file.
    """

    name: str
    sha256: str = ""


SCHEMAS: Mapping[str, Mapping[str, pl.DataType]] = {
    # name: IRI or key, unique. type: the first of its types. scene: the image it belongs to.
    "entities": {"name": pl.String(), "type": pl.String(), "scene": pl.String()},
    # Every type of every entity (an rdf:type statement stays a triple as well).
    "types": {"entity": pl.Int64(), "type": pl.String()},
    # label: what a text encoder reads. inverse: name of the inverse relation.
    "relations": {
        "name": pl.String(),
        "label": pl.String(),
        "inverse": pl.String(),
        "symmetric": pl.Boolean(),
    },
    # Duplicates are kept. weight: null = unweighted. graph: RDF named graph.
    # split: "train", "inference" (given, never trained on), "valid", "test"; null = no benchmark.
    "triples": {
        "head": pl.Int64(),
        "relation": pl.Int64(),
        "tail": pl.Int64(),
        "weight": pl.Float64(),
        "source": pl.String(),
        "graph": pl.String(),
        "split": pl.String(),
    },
    "literals": {
        "entity": pl.Int64(),
        "relation": pl.Int64(),
        "value": pl.String(),
        "datatype": pl.String(),
        "language": pl.String(),
    },
    # kind: "label", "alias", "description" or "caption".
    "texts": {
        "entity": pl.Int64(),
        "text": pl.String(),
        "language": pl.String(),
        "kind": pl.String(),
    },
    # path: relative to the graph's folder, or absolute. box: [x, y, width, height] in pixels,
    # null = whole image. split: "train" = used everywhere, "pairs_valid"/"pairs_test" = only in
    # image-text pairs, its facts are asked in validation/test, "valid"/"test" = never trained on.
    "images": {
        "entity": pl.Int64(),
        "path": pl.String(),
        "sha256": pl.String(),
        "box": pl.Array(pl.Float64(), 4),
        "split": pl.String(),
    },
    "links": {"entity": pl.Int64(), "url": pl.String()},
}

_ENTITY_COLUMNS = {
    "types": ("entity",),
    "triples": ("head", "tail"),
    "literals": ("entity",),
    "texts": ("entity",),
    "images": ("entity",),
    "links": ("entity",),
}
_RELATION_COLUMNS = {"triples": "relation", "literals": "relation"}
_REQUIRED = {
    "entities": ("name",),
    "types": ("entity", "type"),
    "relations": ("name",),
    "triples": ("head", "relation", "tail"),
    "literals": ("entity", "relation", "value"),
    "texts": ("entity", "text", "kind"),
    "images": ("entity", "path"),
    "links": ("entity", "url"),
}


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of one graph, each with exactly the columns of ``SCHEMAS``.

    Attributes:
        entities, types, relations, triples, literals, texts, images, links: One frame a table.
        origins: What the graph was read from.
    """

    entities: pl.DataFrame
    types: pl.DataFrame
    relations: pl.DataFrame
    triples: pl.DataFrame
    literals: pl.DataFrame
    texts: pl.DataFrame
    images: pl.DataFrame
    links: pl.DataFrame
    origins: tuple[Origin, ...] = ()

    def frames(self) -> dict[str, pl.DataFrame]:
        """The eight frames by name, in the order of ``SCHEMAS``."""
        return {name: getattr(self, name) for name in SCHEMAS}


def is_address(path: str) -> bool:
    """Whether a picture's path is an address (``https://…``, ``data:…``), which no folder holds."""
    return _ADDRESS.match(path) is not None


def build_tables(
    frames: Mapping[str, pl.DataFrame | Mapping[str, object]], origins: tuple[Origin, ...] = ()
) -> Tables:
    """Complete, cast, order and check partial frames.

    Args:
        frames: Frames (or column dicts) by table name; missing tables are empty, missing
            columns null, columns in any order.
        origins: What the graph was read from.

    Returns:
        Checked tables.

    Raises:
        GraphError: If a table or column is unknown, a value cannot be cast, a required column
            is null, a name is not unique, or an id is out of range.
    """
    for name in frames:
        if name not in SCHEMAS:
            raise GraphError(f"unknown table {name!r}: expected one of {', '.join(SCHEMAS)}")
    conformed = {name: _conform(name, frames.get(name)) for name in SCHEMAS}
    tables = Tables(**conformed, origins=tuple(origins))
    check_tables(tables)
    return tables


def _conform(name: str, given: pl.DataFrame | Mapping[str, object] | None) -> pl.DataFrame:
    schema = SCHEMAS[name]
    if given is None:
        return pl.DataFrame(schema=dict(schema))
    frame = given if isinstance(given, pl.DataFrame) else pl.DataFrame(dict(given))
    if not frame.columns:  # selecting literals from nothing would make a row
        return pl.DataFrame(schema=dict(schema))
    unknown = [column for column in frame.columns if column not in schema]
    if unknown:
        raise GraphError(
            f"table {name!r} has unknown columns {unknown}: expected {', '.join(schema)}"
        )
    columns = [
        pl.col(column).cast(dtype) if column in frame.columns else pl.lit(None, dtype).alias(column)
        for column, dtype in schema.items()
    ]
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise GraphError(f"table {name!r} has values of the wrong type: {error}") from error


def check_tables(tables: Tables) -> None:
    """Check names, required columns and id ranges.

    Args:
        tables: Tables with the columns of ``SCHEMAS``.

    Raises:
        GraphError: Names the table, the column, the first bad row and what was expected.
    """
    for name, frame in tables.frames().items():
        if dict(frame.schema) != dict(SCHEMAS[name]):
            raise GraphError(f"table {name!r} has columns {frame.schema}, not {SCHEMAS[name]}")
        for column in _REQUIRED[name]:
            if frame[column].null_count():
                row = frame[column].is_null().arg_max()
                raise GraphError(f"table {name!r}, row {row}: {column} is null, expected a value")
    for name in ("entities", "relations"):
        names = getattr(tables, name)["name"]
        # Other hashes are other names; that they are fewer may be chance.
        if names.hash().n_unique() != len(names) and names.n_unique() != len(names):
            twice = names.filter(names.is_duplicated())[0]
            raise GraphError(f"table {name!r}: the name {twice!r} occurs twice; merge the rows")
    for name, columns in _ENTITY_COLUMNS.items():
        for column in columns:
            _check_ids(name, column, getattr(tables, name)[column], len(tables.entities))
    for name, column in _RELATION_COLUMNS.items():
        _check_ids(name, column, getattr(tables, name)[column], len(tables.relations))


def _check_ids(table: str, column: str, ids: pl.Series, count: int) -> None:
    bad = (ids < 0) | (ids >= count)
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise GraphError(
            f"table {table!r}, row {row}: {column} is {ids[row]}, expected an id in [0, {count})"
        )
