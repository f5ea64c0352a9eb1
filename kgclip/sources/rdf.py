"""RDF in any syntax that pyoxigraph parses: N-Triples, N-Quads, Turtle, TriG, RDF/XML, JSON-LD.

Statements between nodes become triples, literals stay whole in ``literals``, and a map of
properties fills ``texts`` and ``images`` from them. Blank nodes are entities named ``_:id``.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyoxigraph as ox

from kgclip.sources.compression import data_suffix, open_binary, origin_of
from kgclip.tables import GraphError, Tables, build_tables

RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
RDFS_LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
_OWL = "http://www.w3.org/2002/07/owl#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_XSD_STRING = "http://www.w3.org/2001/XMLSchema#string"
TEXT_PROPERTIES: Mapping[str, str] = {  # property: kind of text
    RDFS_LABEL: "label",
    f"{_SKOS}prefLabel": "label",
    "http://schema.org/name": "label",
    "https://schema.org/name": "label",
    "http://xmlns.com/foaf/0.1/name": "label",
    "http://purl.org/dc/terms/title": "label",
    f"{_SKOS}altLabel": "alias",
    "http://www.w3.org/2000/01/rdf-schema#comment": "description",
    f"{_SKOS}definition": "description",
    "http://schema.org/description": "description",
    "https://schema.org/description": "description",
    "http://purl.org/dc/terms/description": "description",
}
IMAGE_PROPERTIES = (
    "http://xmlns.com/foaf/0.1/depiction",
    "http://schema.org/image",
    "https://schema.org/image",
    "http://www.wikidata.org/prop/direct/P18",
)
FORMATS = {
    ".nt": ox.RdfFormat.N_TRIPLES,
    ".nq": ox.RdfFormat.N_QUADS,
    ".ttl": ox.RdfFormat.TURTLE,
    ".trig": ox.RdfFormat.TRIG,
    ".rdf": ox.RdfFormat.RDF_XML,
    ".xml": ox.RdfFormat.RDF_XML,
    ".owl": ox.RdfFormat.RDF_XML,
    ".jsonld": ox.RdfFormat.JSON_LD,
}
_BY_LINE = (ox.RdfFormat.N_TRIPLES, ox.RdfFormat.N_QUADS)


def read_rdf(
    path: str | Path,
    *,
    syntax: str | None = None,
    literals: str = "table",
    base_iri: str | None = None,
    on_error: str = "raise",
    text_properties: Mapping[str, str] | None = None,
    image_properties: Iterable[str] | None = None,
) -> Tables:
    """Read an RDF file.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst).
        syntax: Suffix of the syntax, as ``"ttl"``; ``None`` = the file's own.
        literals: ``"table"`` keeps literals in their table; ``"nodes"`` makes each distinct
            literal an entity, as R-GCN's data sets count them.
        base_iri: What relative IRIs start from.
        on_error: ``"raise"``, or ``"skip"`` for N-Triples and N-Quads: leaves bad lines out and
            warns how many and which.
        text_properties: Property IRI to kind of text; the default is ``TEXT_PROPERTIES``.
        image_properties: Property IRIs; the default is ``IMAGE_PROPERTIES``.

    Returns:
        The tables; ``rdf:type`` stays a triple and fills ``types``.

    Raises:
        GraphError: If the file is missing, damaged or malformed; says file and line.
    """
    file = Path(path)
    if literals not in ("table", "nodes"):
        raise GraphError(f"literals={literals!r}: expected 'table' or 'nodes'")
    rdf_format = _format(file, syntax)
    collector = _Collector(
        literals == "nodes",
        TEXT_PROPERTIES if text_properties is None else text_properties,
        set(IMAGE_PROPERTIES if image_properties is None else image_properties),
    )
    for quad in _parse(file, rdf_format, base_iri, on_error):
        collector.add(quad)
    return collector.tables(file)


def _format(file: Path, syntax: str | None) -> ox.RdfFormat:
    suffix = f".{syntax.lstrip('.')}" if syntax else data_suffix(file)
    if suffix not in FORMATS:
        raise GraphError(
            f"{file}: unknown RDF syntax {suffix!r}; give syntax=, one of "
            f"{', '.join(name[1:] for name in FORMATS)}"
        )
    return FORMATS[suffix]


def _parse(
    file: Path, rdf_format: ox.RdfFormat, base_iri: str | None, on_error: str
) -> Iterator[ox.Quad]:
    if on_error not in ("raise", "skip"):
        raise GraphError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    if on_error == "skip" and rdf_format not in _BY_LINE:
        raise GraphError(
            f"{file}: on_error='skip' needs a syntax of one statement a line (nt, nq); "
            "elsewhere what follows an error cannot be told"
        )
    try:
        with open_binary(file) as stream:
            if on_error == "skip":
                yield from _parse_lines(file, stream, rdf_format)
            else:
                yield from ox.parse(stream, format=rdf_format, base_iri=base_iri)
    except SyntaxError as error:
        raise GraphError(
            f"{file}:{error.lineno or '?'}: {error.msg}; expected {rdf_format.name}"
        ) from error


def _parse_lines(file: Path, stream: IO[bytes], rdf_format: ox.RdfFormat) -> Iterator[ox.Quad]:
    skipped = []
    for number, line in enumerate(stream, start=1):
        try:
            # Blank nodes keep their names, so that a line read alone means the same.
            yield from ox.parse(io.BytesIO(line), format=rdf_format, rename_blank_nodes=False)
        except SyntaxError:
            skipped.append(number)
    if skipped:
        first = ", ".join(map(str, skipped[:5]))
        warnings.warn(
            f"{file}: {len(skipped)} malformed lines skipped, the first: {first}", stacklevel=2
        )


class _Collector:
    """Numbers terms in the order in which they are met and fills the columns."""

    def __init__(self, literals_as_nodes: bool, texts: Mapping[str, str], images: set[str]) -> None:
        self.literals_as_nodes = literals_as_nodes
        self.text_kinds, self.image_properties = texts, images
        self.entities: dict[str, int] = {}
        self.relations: dict[str, int] = {}
        self.triples: list[tuple[int, int, int, str | None]] = []
        self.literals: list[tuple[int, int, str, str | None, str | None]] = []
        self.types: list[tuple[int, str]] = []
        self.texts: list[tuple[int, str, str | None, str]] = []
        self.images: list[tuple[int, str]] = []
        self.links: list[tuple[int, str]] = []

    def add(self, quad: ox.Quad) -> None:
        head = self._entity(quad.subject)
        predicate: str = quad.predicate.value
        relation = self.relations.setdefault(predicate, len(self.relations))
        if isinstance(quad.object, ox.Literal):
            self._add_literal(head, relation, predicate, quad.object)
            if not self.literals_as_nodes:
                return
        tail = self._entity(quad.object)
        name = quad.graph_name
        graph = None if isinstance(name, ox.DefaultGraph) else _name(name)
        self.triples.append((head, relation, tail, graph))
        if predicate == RDF_TYPE:
            self.types.append((head, _name(quad.object)))
        elif predicate == f"{_OWL}sameAs":
            self.links.append((head, _name(quad.object)))
        elif predicate in self.image_properties and isinstance(quad.object, ox.NamedNode):
            self.images.append((head, quad.object.value))

    def _add_literal(self, head: int, relation: int, predicate: str, literal: ox.Literal) -> None:
        if not self.literals_as_nodes:
            datatype = None if literal.language else literal.datatype.value
            self.literals.append((head, relation, literal.value, datatype, literal.language))
        kind = self.text_kinds.get(predicate)
        if kind is not None and literal.value:
            self.texts.append((head, literal.value, literal.language, kind))

    def _entity(self, term: Any) -> int:
        return self.entities.setdefault(_name(term), len(self.entities))

    def tables(self, file: Path) -> Tables:
        first_type: dict[int, str] = {}
        for entity, kind in self.types:
            first_type.setdefault(entity, kind)
        entities = list(self.entities)
        columns: dict[str, tuple[list[Any], tuple[str, ...]]] = {
            "types": (self.types, ("entity", "type")),
            "triples": (self.triples, ("head", "relation", "tail", "graph")),
            "literals": (
                self.literals,
                ("entity", "relation", "value", "datatype", "language"),
            ),
            "texts": (self.texts, ("entity", "text", "language", "kind")),
            "images": (self.images, ("entity", "path")),
            "links": (self.links, ("entity", "url")),
        }
        frames: dict[str, Any] = {
            name: {key: [row[i] for row in rows] for i, key in enumerate(keys)}
            for name, (rows, keys) in columns.items()
            if rows
        }
        frames["entities"] = {
            "name": entities,
            "type": [first_type.get(number) for number in range(len(entities))],
        }
        frames["relations"] = self._relations()
        return build_tables(frames, (origin_of(file),))

    def _relations(self) -> dict[str, Any]:
        """Label, inverse and symmetry of each property, where the file itself says them."""
        by_entity = {number: name for name, number in self.entities.items()}
        labels = {
            by_entity[entity]: text
            for entity, text, _, kind in reversed(self.texts)
            if kind == "label"
        }
        inverse_of = self.relations.get(f"{_OWL}inverseOf")
        inverses = {
            by_entity[head]: by_entity[tail]
            for head, relation, tail, _ in self.triples
            if relation == inverse_of
        }
        symmetric = {by_entity[e] for e, kind in self.types if kind == f"{_OWL}SymmetricProperty"}
        names = list(self.relations)
        return {
            "name": names,
            "label": pl.Series([labels.get(name) for name in names], dtype=pl.String()),
            "inverse": pl.Series([inverses.get(name) for name in names], dtype=pl.String()),
            "symmetric": pl.Series(
                [True if name in symmetric else None for name in names], dtype=pl.Boolean()
            ),
        }


def _name(term: Any) -> str:
    """IRIs as they are, all other terms as N-Triples writes them."""
    return term.value if isinstance(term, ox.NamedNode) else str(term)
