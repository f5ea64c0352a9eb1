"""Named triples in frames and arrays, to tables and back: polars, pandas, PyKEEN's factories.

Columns are found by their names, in any order: head, relation, tail and what a triple may say
besides, under the names that others give them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables

ROLES: Mapping[str, tuple[str, ...]] = {  # column: what it is called elsewhere
    "head": ("head", "h", "subject", "s", "source", "from", "head_id"),
    "relation": ("relation", "r", "predicate", "p", "property", "edge", "relation_id"),
    "tail": ("tail", "t", "object", "o", "target", "to", "tail_id"),
    "weight": ("weight", "w", "score", "confidence"),
    "source": ("provenance", "source"),  # where "source" is no head
    "graph": ("graph",),
    "split": ("split",),
}
REQUIRED = ("head", "relation", "tail")


class LabelledTriples(NamedTuple):
    """Triples by name with id maps; the keywords of ``TriplesFactory.from_labeled_triples``.

    Attributes:
        triples: Names of head, relation and tail. Str [T, 3].
        entity_to_id: Id by name, isolated entities included.
        relation_to_id: Id by name, relations without triples included.
    """

    triples: np.ndarray
    entity_to_id: dict[str, int]
    relation_to_id: dict[str, int]


def find_roles(columns: Sequence[str]) -> dict[str, str]:
    """Which column plays which role: role by column, head, relation and tail among them.

    Raises:
        GraphError: If one of these is missing, or a column has no role.
    """
    free = {column: column.strip().casefold() for column in columns}
    found: dict[str, str] = {}
    for role, aliases in ROLES.items():
        for alias in aliases:
            column = next((name for name, plain in free.items() if plain == alias), None)
            if column is not None:
                found[column] = role
                del free[column]
                break
    missing = [role for role in REQUIRED if role not in found.values()]
    if missing:
        raise GraphError(
            f"columns {list(columns)}: no {', '.join(missing)}; name them head, relation, tail"
        )
    if free:
        raise GraphError(
            f"columns {list(free)} have no place in a triple; expected {', '.join(ROLES)}; drop or "
            "rename them"
        )
    return found


def tables_from_frame(frame: Any, columns: Sequence[str] | None = None) -> Tables:
    """Number the names in a frame of triples.

    Args:
        frame: polars or pandas data frame, or a mapping of columns. Ids that are numbers become
            names; a weight may be null or NaN.
        columns: What the columns are, in their order; ``None`` = by their names.

    Raises:
        GraphError: If a column is missing or has no role, or a name is null.
    """
    data = _as_polars(frame)
    if columns is not None:
        if len(columns) != data.width:
            raise GraphError(f"{data.width} columns, {len(columns)} names given: {list(columns)}")
        data.columns = list(columns)
    return tables_from_names(data.rename(find_roles(data.columns)))


def _as_polars(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.clone()
    columns = list(frame.columns) if hasattr(frame, "columns") else list(frame)
    # Column by column: pandas' own way into polars needs pyarrow for texts.
    found = {
        str(name): [None if value != value else value for value in frame[name]] for name in columns
    }
    return pl.DataFrame(found, strict=False)


def tables_from_names(
    triples: pl.DataFrame,
    entities: pl.Series | None = None,
    relations: pl.Series | None = None,
    origins: tuple[Origin, ...] = (),
) -> Tables:
    """Number the names of triples.

    Args:
        triples: Head, relation and tail by name, and any further column of the table.
        entities: Names that come first, in this order, whether a triple has them or not.
        relations: The same of relations.
        origins: What the triples were read from.

    Raises:
        GraphError: If a name is null, or a weight no number.
    """
    for column in REQUIRED:
        if triples[column].null_count():
            row = triples[column].is_null().arg_max()
            raise GraphError(f"row {row}: {column} is empty; a name expected")
    head, relation, tail = (triples[column].cast(pl.String()) for column in REQUIRED)
    first = [] if entities is None else [entities.cast(pl.String())]
    names = pl.concat([*first, head, tail]).unique(maintain_order=True)
    first = [] if relations is None else [relations.cast(pl.String())]
    kinds = pl.concat([*first, relation]).unique(maintain_order=True)
    rest = {column: triples[column] for column in triples.columns if column not in REQUIRED}
    return build_tables(
        {
            "entities": {"name": names},
            "relations": {"name": kinds},
            "triples": {
                "head": numbers(head, names),
                "relation": numbers(relation, kinds),
                "tail": numbers(tail, names),
                **rest,
            },
        },
        origins,
    )


def numbers(values: pl.Series, names: pl.Series) -> pl.Series:
    """Row of each value among distinct names; null where it is none of them."""
    place = names.rename("name").to_frame().with_row_index("id")
    wanted = values.rename("name").to_frame()
    found = wanted.join(place, on="name", how="left", maintain_order="left")
    return found["id"].cast(pl.Int64())


def tables_to_labelled(tables: Tables) -> LabelledTriples:
    """Triples by name and id maps, as PyKEEN wants them; weights and the rest stay behind."""
    names, kinds = tables.entities["name"], tables.relations["name"]
    columns = [
        kinds.gather(tables.triples[column]) if column == "relation" else names.gather(
            tables.triples[column]
        )
        for column in REQUIRED
    ]  # fmt: skip
    rows = np.array([column.to_list() for column in columns], dtype=str).reshape(3, -1).T
    return LabelledTriples(
        rows,
        {name: number for number, name in enumerate(names)},
        {name: number for number, name in enumerate(kinds)},
    )


def tables_from_labelled(
    triples: Any, entity_to_id: Mapping[str, int], relation_to_id: Mapping[str, int]
) -> Tables:
    """Read triples of ids with their id maps, as a PyKEEN ``TriplesFactory`` holds them.

    Args:
        triples: Ids of head, relation and tail (``mapped_triples``), a tensor or array. Int [T, 3].
        entity_to_id: Id by name; the ids are 0 to N - 1 and stay what they are.
        relation_to_id: The same of relations.

    Raises:
        GraphError: If the ids of a map are not 0 to its length, or a triple has other ones.
    """
    ids = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
    head, relation, tail = (pl.Series(column, dtype=pl.Int64()) for column in ids.T.copy())
    return build_tables(
        {
            "entities": {"name": _in_order("entity_to_id", entity_to_id)},
            "relations": {"name": _in_order("relation_to_id", relation_to_id)},
            "triples": {"head": head, "relation": relation, "tail": tail},
        }
    )


def _in_order(what: str, ids: Mapping[str, int]) -> pl.Series:
    names = sorted(ids, key=lambda name: ids[name])
    if [ids[name] for name in names] != list(range(len(names))):
        raise GraphError(f"{what}: ids from 0 to {len(names) - 1} expected, each once")
    return pl.Series(names, dtype=SCHEMAS["entities"]["name"])
