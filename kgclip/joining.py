"""Entities of several sources made one: prefixes, rules by pattern, texts for bare names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from kgclip.frames import numbers
from kgclip.names import readable
from kgclip.tables import GraphError, Tables, build_tables

TEXT_FIELDS = ("name", "key", "type")
_OWNERS = ("entity", "head", "tail")


class Rule(NamedTuple):
    r"""A rule that gives entities the name of another one.

    Attributes:
        match: Regular expression that the whole name must match, such as ``class:(.+)``.
        into: The new name, with ``\1`` for the first group, such as ``/c/en/\1``.
        spaces: What spaces in the new name become.
        existing: Only where an entity of the new name is there; else the old name stays.
    """

    match: str
    into: str
    spaces: str = " "
    existing: bool = True


def add_prefixes(tables: Tables, entities: str = "", relations: str = "") -> Tables:
    """Put a prefix before the names of a source, so that they meet no other source's by chance."""
    frames = tables.frames()
    frames["entities"] = frames["entities"].with_columns(name=pl.lit(entities) + pl.col("name"))
    prefixed = ((pl.lit(relations) + pl.col(name)).alias(name) for name in ("name", "inverse"))
    # A relation that went by its name is still read by it.
    label = pl.col("label").fill_null(pl.col("name")) if relations else pl.col("label")
    frames["relations"] = frames["relations"].with_columns(*prefixed, label=label)
    return build_tables(frames, tables.origins)


def apply_rules(tables: Tables, rules: Iterable[Rule]) -> Tables:
    """Make entities one by rules; the first rule that fits counts.

    What is said of either is said of the joined entity: types, texts, pictures and links are kept
    once; its type and scene are those of its first row; its other names become links.

    Args:
        tables: Of all sources together.
        rules: In order.

    Raises:
        GraphError: If an expression cannot be read, or names a group that it does not have.
    """
    rules = list(rules)
    names = tables.entities["name"]
    known = set(names)
    patterns = [_compile(rule) for rule in rules]
    wanted = []
    for name in names:
        new = name
        for rule, pattern in zip(rules, patterns, strict=True):
            found = pattern.fullmatch(name)
            if found is None:
                continue
            candidate = _expand(rule, found)
            if candidate in known or not rule.existing:
                new = candidate
                break
        wanted.append(new)
    return rename_entities(tables, wanted)


def _compile(rule: Rule) -> re.Pattern[str]:
    try:
        return re.compile(rule.match)
    except re.error as error:
        raise GraphError(f"merge.match {rule.match!r}: {error}; mend the expression") from error


def _expand(rule: Rule, found: re.Match[str]) -> str:
    try:
        return found.expand(rule.into).replace(" ", rule.spaces)
    except (re.error, IndexError) as error:
        raise GraphError(f"merge.into {rule.into!r}: {error}; groups are \\1, \\2 …") from error


def rename_entities(tables: Tables, names: Sequence[str]) -> Tables:
    """Give every entity a new name; those of one name become one.

    Args:
        tables: Any graph.
        names: The new name of each entity. [N].
    """
    old = tables.entities["name"]
    new = pl.Series("name", names, dtype=pl.String())
    if new.equals(old):
        return tables
    renamed = tables.entities.with_columns(name=new)
    # An entity that had the name before speaks first.
    first = renamed.with_columns(is_new=new != old).sort("is_new", maintain_order=True)
    rest = [pl.col(column).drop_nulls().first() for column in ("type", "scene")]
    joined = first.group_by("name", maintain_order=True).agg(rest)
    order = new.unique(maintain_order=True).to_frame()
    entities = order.join(joined, on="name", how="left", maintain_order="left")
    place = numbers(new, entities["name"])
    frames = {"entities": entities, "relations": tables.relations}
    for table, frame in tables.frames().items():
        owners = [column for column in _OWNERS if column in frame.columns]
        if not owners:
            continue
        moved = frame.with_columns(place.gather(frame[column]).alias(column) for column in owners)
        said_once = table not in ("triples", "literals")
        frames[table] = moved.unique(maintain_order=True) if said_once else moved
    changed = pl.DataFrame({"entity": place, "url": old}).filter(new != old)
    frames["links"] = pl.concat([frames["links"], changed]).unique(maintain_order=True)
    return build_tables(frames, tables.origins)


def keep_near(tables: Tables, first: int, last: int, hops: int) -> Tables:
    """Of one source's triples keep those near the entities of the others.

    Args:
        tables: Of all sources together.
        first: The source's first row of triples.
        last: The row behind its last.
        hops: Triples further than this from every entity of another source's triples go, and so do
            entities of which nothing is left.
    """
    head, tail = (tables.triples[end].to_numpy() for end in ("head", "tail"))
    mine = np.zeros(len(head), dtype=bool)
    mine[first:last] = True
    reached = np.zeros(len(tables.entities), dtype=bool)
    reached[np.concatenate([head[~mine], tail[~mine]])] = True
    near = np.zeros(len(head), dtype=bool)
    for _ in range(hops):
        near = mine & (reached[head] | reached[tail])
        reached[head[near]] = reached[tail[near]] = True
    triples = tables.triples.filter(pl.Series(near | ~mine))
    frames = {**tables.frames(), "triples": triples}
    said = np.zeros(len(tables.entities), dtype=bool)
    for frame in (triples, *(frames[table] for table in ("texts", "images", "literals"))):
        for column in _OWNERS:
            if column in frame.columns:
                said[frame[column].to_numpy()] = True
    said[np.setdiff1d(np.arange(len(said)), np.concatenate([head[mine], tail[mine]]))] = True
    number = pl.Series(np.cumsum(said) - 1)
    for table, frame in frames.items():
        owners = [column for column in _OWNERS if column in frame.columns]
        if owners:
            kept = frame.filter(
                pl.all_horizontal(pl.col(c).is_in(np.flatnonzero(said)) for c in owners)
            )
            frames[table] = kept.with_columns(number.gather(kept[c]).alias(c) for c in owners)
    frames["entities"] = tables.entities.filter(pl.Series(said))
    return build_tables(frames, tables.origins)


def fill_texts(tables: Tables, template: str) -> Tables:
    """Give a label to every entity that has no text.

    Args:
        tables: Any graph.
        template: With ``{name}`` (the name made readable), ``{key}`` (as it is) or ``{type}``.

    Raises:
        GraphError: If the template has another field.
    """
    try:
        fields = [
            field for _, field, _, _ in string.Formatter().parse(template) if field is not None
        ]
    except ValueError as error:
        raise GraphError(f"texts.template {template!r}: {error}") from error
    unknown = [field for field in fields if field not in TEXT_FIELDS]
    if unknown:
        raise GraphError(
            f"texts.template {template!r}: no field {unknown[0]!r}; known: {', '.join(TEXT_FIELDS)}"
        )
    has_text = set(tables.texts["entity"])
    rows = [
        (number, template.format(name=readable(key), key=key, type=kind or "thing"))
        for number, (key, kind) in enumerate(tables.entities.select("name", "type").iter_rows())
        if number not in has_text
    ]
    schema = {"entity": pl.Int64(), "text": pl.String()}
    labels = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        language=pl.lit(None, pl.String()), kind=pl.lit("label")
    )
    frames = tables.frames()
    return build_tables({**frames, "texts": pl.concat([frames["texts"], labels])}, tables.origins)
