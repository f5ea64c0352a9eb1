"""The slow, obvious way from RDF to tables: pyoxigraph's statements one by one, and dicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyoxigraph as ox

from kgclip.names import readable
from kgclip.rdf.terms import IMAGE_PROPERTIES, RDF_TYPE, SAME_AS, TEXT_PROPERTIES
from kgclip.tables import SCHEMAS, Tables, build_tables

OWL = "http://www.w3.org/2002/07/owl#"
COLUMNS = {
    "types": ("entity", "type"),
    "triples": ("head", "relation", "tail", "graph"),
    "literals": ("entity", "relation", "value", "datatype", "language"),
    "texts": ("entity", "text", "language", "kind"),
    "images": ("entity", "path"),
    "links": ("entity", "url"),
}


def reference_tables(
    data: bytes | IO[bytes] | Path,
    rdf_format: ox.RdfFormat,
    *,
    literals_as_nodes: bool = False,
    base_iri: str | None = None,
    rename_blank: bool = False,
) -> Tables:
    """What ``read_rdf`` gives, by a loop over statements."""
    source = {"path": data} if isinstance(data, Path) else {"input": data}
    quads = ox.parse(**source, format=rdf_format, base_iri=base_iri)
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
    pictures: list[tuple[int, str]] = []  # written as literals
    addresses: list[tuple[int, str]] = []  # links, too
    for quad in quads:
        predicate = quad.predicate.value
        head = entities.setdefault(name_of(quad.subject), len(entities))
        relation = relations.setdefault(predicate, len(relations))
        tail_term = quad.object
        if isinstance(tail_term, ox.Literal):
            value, language = tail_term.value, language_of(tail_term)
            if not literals_as_nodes:
                datatype = None if language else tail_term.datatype.value
                rows["literals"].append((head, relation, value, datatype, language))
            if predicate in TEXT_PROPERTIES and value:
                rows["texts"].append((head, value, language, TEXT_PROPERTIES[predicate]))
            if predicate in IMAGE_PROPERTIES:
                pictures.append((head, value))
            if predicate == SAME_AS:
                addresses.append((head, value))
            if not literals_as_nodes:
                continue
        name = name_of(tail_term)
        graph = quad.graph_name
        named = None if isinstance(graph, ox.DefaultGraph) else name_of(graph)
        tail = entities.setdefault(name, len(entities))
        rows["triples"].append((head, relation, tail, named))
        if predicate == RDF_TYPE:
            rows["types"].append((head, name))
        elif predicate == SAME_AS and not name.startswith('"'):
            rows["links"].append((head, name))
        elif predicate in IMAGE_PROPERTIES and isinstance(tail_term, ox.NamedNode):
            rows["images"].append((head, name))
    rows["images"] += pictures
    rows["links"] += addresses
    names = list(entities)
    if rename_blank:
        names, rows = renamed(names, rows)
    return build_tables(frames(names, list(relations), rows))


def name_of(term: Any) -> str:
    if isinstance(term, ox.Triple):
        return f"<<( {term} )>>"
    return term.value if isinstance(term, ox.NamedNode) else str(term)


def language_of(literal: ox.Literal) -> str | None:
    direction = f"--{literal.direction.value}" if literal.direction else ""
    return literal.language and f"{literal.language}{direction}"


def renamed(names: list[str], rows: dict[str, list[Any]]) -> tuple[list[str], dict[str, list[Any]]]:
    """Blank nodes numbered as they are met; enough for files without triple terms."""
    numbers = {}

    def rename(name: Any) -> Any:
        if not isinstance(name, str) or not re.fullmatch(r"_:\S+", name):
            return name
        return numbers.setdefault(name, f"_:b{len(numbers)}")

    names = [rename(name) for name in names]
    fixed = {t: [tuple(map(rename, row)) for row in rows[t]] for t in ("types", "triples", "links")}
    return names, {**rows, **fixed}


def frames(names: list[str], relations: list[str], rows: dict[str, list[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: dict(zip(COLUMNS[name], zip(*table, strict=True), strict=True))
        for name, table in rows.items()
        if table
    }
    found = {
        name: pl.DataFrame(columns, schema={key: SCHEMAS[name][key] for key in columns})
        for name, columns in found.items()
    }
    first_type = dict(reversed(rows["types"]))
    found["entities"] = {
        "name": pl.Series(names, dtype=pl.String()),
        "type": pl.Series(map(first_type.get, range(len(names))), dtype=pl.String()),
    }
    labels = {
        names[entity]: text for entity, text, _, kind in reversed(rows["texts"]) if kind == "label"
    }
    inverse_of = relations.index(f"{OWL}inverseOf") if f"{OWL}inverseOf" in relations else -1
    inverses = {
        names[head]: names[tail]
        for head, relation, tail, _ in reversed(rows["triples"])
        if relation == inverse_of
    }
    symmetric = {names[e] for e, kind in rows["types"] if kind == f"{OWL}SymmetricProperty"}
    found["relations"] = {
        "name": pl.Series(relations, dtype=pl.String()),
        "label": pl.Series([labels.get(r) or readable(r) for r in relations], dtype=pl.String()),
        "inverse": pl.Series([inverses.get(r) for r in relations], dtype=pl.String()),
        "symmetric": pl.Series([r in symmetric or None for r in relations], dtype=pl.Boolean()),
    }
    return found
