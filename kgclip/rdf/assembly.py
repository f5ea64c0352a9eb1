"""From numbered statements to the eight tables.

Ids are given in the order in which terms were met, the subject of a statement before its object,
so that neither the size of the blocks nor the reader can be told from the result.
"""

from __future__ import annotations

import difflib
import os
import urllib.parse
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kgclip.names import readable
from kgclip.rdf.restoring import Facts, restore
from kgclip.rdf.statements import NONE, StatementOptions, Statements
from kgclip.rdf.terms import (
    INVERSE_OF,
    RDF_TYPE,
    SAME_AS,
    SYMMETRIC,
    XSD_STRING,
    plain_names,
)
from kgclip.rdf.terms import rename_blank as rename
from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables, is_address

_LANGUAGE = r"^@(.*)$"
_DATATYPE = r"^\^\^<(.*)>$"


def assemble(
    statements: Statements,
    options: StatementOptions,
    origins: tuple[Origin, ...] = (),
    *,
    rename_blank: bool = False,
) -> Tables:
    """Fill the tables.

    Args:
        statements: All statements of a graph.
        options: How they fill tables.
        origins: What they were read from.
        rename_blank: Name blank nodes ``_:b0``, ``_:b1``, … as they are met, for parsers that
            invent names.

    Returns:
        The tables.

    Raises:
        GraphError: If a graph that was asked for does not occur, or a picture leaves its root.
    """
    _check_graphs(options.graphs, statements.graph_names)
    tail_met = 2 * np.flatnonzero(statements.tails != NONE)
    entities, entity_ids = _number(
        len(statements.terms),
        (statements.heads, 2 * np.arange(len(statements.heads))),
        (statements.tails[statements.tails != NONE], tail_met + 1),
    )
    relations, relation_ids = _number(
        len(statements.predicates), (statements.relations, np.arange(len(statements.relations)))
    )
    terms = statements.terms.gather(entities)
    graph_names = statements.graph_names
    if rename_blank:
        numbers: dict[str, str] = {}
        terms, graph_names = (
            rename(column, lambda name: numbers.setdefault(name, f"_:b{len(numbers)}"))
            for column in (terms, graph_names)
        )
    facts = Facts(
        names=plain_names(terms),
        is_iri=terms.str.starts_with("<") & ~terms.str.starts_with("<<("),
        relations=statements.predicates.gather(relations),
        triples=_triples(statements, entity_ids, relation_ids, graph_names),
        literals=_literals(statements, entity_ids, relation_ids),
    )
    frames = _Frames(restore(facts), options)
    if options.merge_same:
        frames.merge_same()
    return build_tables(frames.all(), origins)


def _check_graphs(wanted: Collection[str] | None, names: pl.Series) -> None:
    known = list(filter(None, names))
    for name in wanted or ():
        if name and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            hint = f"; the nearest is {near[0]!r}" if near else "; no graph has a name"
            raise GraphError(f"graphs: no named graph {name!r}{hint}")


def _number(count: int, *met: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Codes in the order in which they were met, and the id of each code.

    Args:
        count: Number of codes.
        *met: Codes, and the place of each, in ascending order.
    """
    last = max([int(places[-1]) for _, places in met if len(places)], default=0)
    # Narrow numbers, because these arrays are read and written all over the place.
    never = np.uint32(2**32 - 1) if last < 2**32 - 1 else np.uint64(2**64 - 1)
    first = np.full(count, never)
    for codes, places in met:
        earliest = np.full(count, never)
        earliest[codes[::-1]] = places[::-1]  # of several places the last written one stays
        np.minimum(first, earliest, out=first)
    used = np.flatnonzero(first != never)
    order = used[np.argsort(first[used])]
    ids = np.full(count, -1)
    ids[order] = np.arange(len(order))
    return order, ids


def _triples(
    statements: Statements, entity_ids: np.ndarray, relation_ids: np.ndarray, graphs: pl.Series
) -> pl.DataFrame:
    chosen = statements.tails != NONE
    everything = bool(chosen.all())
    columns = {
        "head": entity_ids[statements.heads if everything else statements.heads[chosen]],
        "relation": relation_ids[
            statements.relations if everything else statements.relations[chosen]
        ],
        "tail": entity_ids[statements.tails if everything else statements.tails[chosen]],
    }
    frame = pl.DataFrame(columns)
    if statements.graphs is None:
        return frame
    codes = pl.Series(statements.graphs[chosen])
    named = plain_names(graphs).gather(codes.set(codes == int(NONE), None))
    return frame.with_columns(graph=named)


def _literals(
    statements: Statements, entity_ids: np.ndarray, relation_ids: np.ndarray
) -> pl.DataFrame:
    found = statements.literals
    suffixes = pl.DataFrame({"suffix": statements.suffixes}).select(
        language=pl.col("suffix").str.extract(_LANGUAGE),
        datatype=pl.when(pl.col("suffix") == "")
        .then(pl.lit(XSD_STRING))
        .otherwise(pl.col("suffix").str.extract(_DATATYPE)),
    )
    return pl.DataFrame(
        {
            "entity": entity_ids[found["entity"].to_numpy()],
            "relation": relation_ids[found["relation"].to_numpy()],
            "value": found["value"],
            "datatype": suffixes["datatype"].gather(found["suffix"]),
            "language": suffixes["language"].gather(found["suffix"]),
        }
    )


class _Frames:
    """The frames of a graph while they are filled."""

    def __init__(self, facts: Facts, options: StatementOptions) -> None:
        self.facts, self.options = facts, options
        self.names, self.is_iri, self.relations = facts.names, facts.is_iri, facts.relations
        self.triples, self.literals = facts.triples, facts.literals
        same = self._pairs([SAME_AS], "url").filter(~pl.col("url").str.starts_with('"'))
        said = self.literals.filter(pl.col("relation").is_in(self._ids([SAME_AS])))
        self.links = pl.concat([same, said.select("entity", pl.col("value").alias("url"))])

    def all(self) -> dict[str, pl.DataFrame]:
        """The eight frames."""
        types = self._pairs([RDF_TYPE], "type")
        first = types.unique("entity", keep="first", maintain_order=True)
        entities = pl.DataFrame({"name": self.names, "entity": np.arange(len(self.names))})
        for column in (first, self.facts.scenes):
            entities = entities.join(column, on="entity", how="left", maintain_order="left")
        texts = pl.concat([self._texts(), self.facts.texts])
        return {
            "entities": entities.drop("entity"),
            "types": types,
            "relations": self._relations(texts, types),
            "triples": self.triples,
            "literals": self.literals.clear() if self.options.literals_as_nodes else self.literals,
            "texts": texts,
            "images": self._images(),
            "links": self.links,
        }

    def merge_same(self) -> None:
        """Make entities that owl:sameAs connects one, their other names links of it."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        [same] = self._ids([SAME_AS]) or [-1]
        ties = self.triples.filter(pl.col("relation") == same)
        ends = (ties["head"].to_numpy(), ties["tail"].to_numpy())
        count = len(self.names)
        matrix = coo_array((np.ones(len(ties)), ends), shape=(count, count))
        part = connected_components(matrix, directed=False)[1]
        # The first IRI of a part stands for it, else its first blank node.
        rank = np.arange(count) + np.where(self.is_iri.to_numpy(), 0, count)
        best = np.full(count, 2 * count)
        np.minimum.at(best, part, rank)
        stands = best[part] % count if count else part
        gone = stands != np.arange(count)
        ids = np.cumsum(~gone) - 1
        self.links = pl.DataFrame(
            {
                "entity": ids[stands[gone]],
                "url": self.names.filter(pl.Series(gone)),
            }
        )
        number = pl.Series(ids[stands])
        self.triples = self.triples.filter(pl.col("relation") != same).with_columns(
            number.gather(self.triples.filter(pl.col("relation") != same)[column]).alias(column)
            for column in ("head", "tail")
        )
        self.literals = self.literals.with_columns(
            number.gather(self.literals["entity"]).alias("entity")
        )
        keep = pl.Series(~gone)
        self.names, self.is_iri = self.names.filter(keep), self.is_iri.filter(keep)

    def _ids(self, properties: Collection[str]) -> list[int]:
        return self.relations.is_in(list(properties)).arg_true().to_list()

    def _pairs(self, properties: Collection[str], column: str) -> pl.DataFrame:
        """Heads, and the names of their tails, of some properties."""
        found = self.triples.filter(pl.col("relation").is_in(self._ids(properties)))
        return pl.DataFrame({"entity": found["head"], column: self.names.gather(found["tail"])})

    def _texts(self) -> pl.DataFrame:
        kinds = pl.Series(map(self.options.text_properties.get, self.relations), dtype=pl.String())
        found = (
            self.literals.with_columns(kind=kinds.gather(self.literals["relation"]))
            .filter(pl.col("kind").is_not_null(), pl.col("value") != "")
            .select("entity", pl.col("value").alias("text"), "language", "kind")
        )
        return found if self.options.languages is None else self._of_languages(found)

    def _of_languages(self, texts: pl.DataFrame) -> pl.DataFrame:
        rank = pl.lit(None, pl.Int64())
        language = pl.col("language").fill_null("")
        for i, name in enumerate(self.options.languages or ()):
            wanted = name.lower()
            same = language == wanted
            if wanted:  # "en" also asks for en-gb
                same |= language.str.starts_with(f"{wanted}-")
            rank = pl.coalesce(rank, pl.when(same).then(pl.lit(i)))
        ranked = texts.with_columns(rank=rank).filter(pl.col("rank").is_not_null())
        best = pl.col("rank").min().over("entity", "kind")
        return ranked.filter(pl.col("rank") == best).drop("rank")

    def _images(self) -> pl.DataFrame:
        properties = self._ids(self.options.image_properties)
        found = self.triples.filter(pl.col("relation").is_in(properties))
        found = found.filter(self.is_iri.gather(found["tail"]))
        written = self.literals.filter(pl.col("relation").is_in(properties))
        nodes = pl.DataFrame({"entity": found["head"], "path": self.names.gather(found["tail"])})
        both = pl.concat([nodes, written.select("entity", pl.col("value").alias("path"))])
        root, prefix = self.options.image_root, self.options.image_prefix
        paths = [
            path if is_address(path) else os.path.join(prefix, image_path(path, root))
            for path in both["path"]
        ]
        plain = both.with_columns(pl.Series("path", paths, dtype=pl.String()))
        if self.facts.images.is_empty():
            return plain
        fuller = self.facts.images
        plain = plain.join(fuller, on=["entity", "path"], how="anti", maintain_order="left")
        return pl.concat([plain, fuller], how="diagonal")

    def _relations(self, texts: pl.DataFrame, types: pl.DataFrame) -> pl.DataFrame:
        """Label, inverse and symmetry of each property, where the statements say them."""
        place = pl.DataFrame({"name": self.names, "entity": np.arange(len(self.names))})
        known = pl.DataFrame({"name": self.relations}).join(place, on="name")
        entities = known["entity"].to_list()
        labels = _first(texts.filter(pl.col("kind") == "label"), "text", entities)
        inverses = _first(self._pairs([INVERSE_OF], "inverse"), "inverse", entities)
        symmetric = _first(types.filter(pl.col("type") == SYMMETRIC), "type", entities)
        by_name = dict(known.iter_rows())
        rows = []
        for name in self.relations:
            entity = by_name.get(name, -1)
            words = self.facts.relation_words.get(name, {})
            is_symmetric = words.get("symmetric", "true" if entity in symmetric else None)
            rows.append(
                (
                    name,
                    words.get("label") or labels.get(entity) or readable(name),
                    words.get("inverse", inverses.get(entity)),
                    None if is_symmetric is None else is_symmetric == "true",
                )
            )
        return pl.DataFrame(rows, schema=dict(SCHEMAS["relations"]), orient="row")


def _first(frame: pl.DataFrame, column: str, entities: list[int]) -> dict[int, Any]:
    """The first value of each of some entities."""
    found = frame.filter(pl.col("entity").is_in(entities))
    return dict(reversed(found.select("entity", column).rows()))


def image_path(value: str, root: Path | None) -> str:
    """Where a picture is: an address as it is, a file relative to its root.

    Args:
        value: ``http:`` or ``file:`` IRI, or a path.
        root: Folder that the path starts from and must not leave; ``None`` = anywhere.

    Raises:
        GraphError: If the path leaves the root.
    """
    if is_address(value):
        return value
    is_iri = value.startswith("file:")
    path = urllib.parse.unquote(urllib.parse.urlsplit(value).path) if is_iri else value
    if root is None:
        return path
    place = root.resolve()
    inside = os.path.relpath(place / path, place)
    # The path as it is written must stay inside, and what it links to.
    for target in (place / inside, (place / inside).resolve()):
        if not Path(os.path.normpath(target)).is_relative_to(place):
            raise GraphError(f"image {value!r}: leaves the folder {root}; give image_root=")
    return inside
