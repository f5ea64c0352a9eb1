"""RDF files from tables: N-Triples, N-Quads and whatever pyoxigraph writes, and rdflib's graphs."""

from __future__ import annotations

import dataclasses
import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import polars as pl
import pyoxigraph as ox

from kgclip.rdf.assembly import assemble
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.rdf.stating import RdfOptions, rdf_statements
from kgclip.rdf.terms import ESCAPES, XSD_STRING
from kgclip.tables import GraphError, Tables

if TYPE_CHECKING:
    import rdflib

FORMATS = {
    ".nt": ox.RdfFormat.N_TRIPLES,
    ".nq": ox.RdfFormat.N_QUADS,
    ".ttl": ox.RdfFormat.TURTLE,
    ".trig": ox.RdfFormat.TRIG,
    ".rdf": ox.RdfFormat.RDF_XML,
    ".jsonld": ox.RdfFormat.JSON_LD,
}
_BY_LINE = (ox.RdfFormat.N_TRIPLES, ox.RdfFormat.N_QUADS)
_SLICE = 100_000  # lines written at a time


def write_rdf(tables: Tables, path: str | Path, options: RdfOptions) -> Path:
    """Write a file; its syntax is its suffix, .gz behind it packs it.

    Args:
        tables: Any graph.
        path: File; one that is there is replaced, at the end, at once.
        options: How tables become RDF.

    Returns:
        The file.

    Raises:
        GraphError: If the suffix is unknown, or the graph holds what RDF cannot say.
    """
    file = Path(path)
    suffix = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if suffix not in FORMATS:
        raise GraphError(f"{file}: unknown suffix; expected one of {', '.join(FORMATS)}[.gz]")
    rdf_format = FORMATS[suffix]
    options = dataclasses.replace(options, named_graphs=rdf_format.supports_datasets)
    lines = statement_lines(rdf_statements(tables, options))
    handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as raw:
            if file.suffix == ".gz":
                with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                    _write(lines, packed, rdf_format)  # type: ignore[arg-type]
            else:
                _write(lines, raw, rdf_format)
        os.chmod(partial, 0o644)
        os.replace(partial, file)
    finally:
        Path(partial).unlink(missing_ok=True)
    return file


def _write(lines: Iterator[pl.Series], stream: IO[bytes], rdf_format: ox.RdfFormat) -> None:
    blocks = (("\n".join(block) + "\n").encode() for block in lines)
    if rdf_format in _BY_LINE:
        stream.writelines(blocks)
        return
    quads = (q for block in blocks for q in ox.parse(block, format=ox.RdfFormat.N_QUADS))
    ox.serialize(quads, stream, format=rdf_format)


def statement_lines(statements: pl.DataFrame) -> Iterator[pl.Series]:
    """Lines of N-Quads, block by block."""
    suffix = (
        pl.when(pl.col("language").is_not_null())
        .then("@" + pl.col("language"))
        .when(pl.col("datatype").is_null() | (pl.col("datatype") == XSD_STRING))
        .then(pl.lit(""))
        .otherwise("^^<" + pl.col("datatype") + ">")
    )
    text = pl.col("value").str.replace_many(list(ESCAPES), list(ESCAPES.values()))
    tail = pl.coalesce("object", pl.concat_str(pl.lit('"'), text, pl.lit('"'), suffix))
    graph = pl.coalesce(" " + pl.col("graph"), pl.lit(""))
    line = pl.concat_str(
        "subject", pl.lit(" "), "predicate", pl.lit(" "), tail, graph, pl.lit(" .")
    )
    for block in statements.iter_slices(_SLICE):
        yield block.select(line.alias("line")).to_series()


def to_rdflib(tables: Tables, options: RdfOptions) -> rdflib.Graph:
    """The statements as an rdflib graph, which knows no duplicates and no triple terms."""
    import rdflib

    def node(term: str) -> Any:
        if term.startswith("<<("):
            raise GraphError(f"{term}: rdflib knows no triple terms; write_rdf() does")
        return rdflib.BNode(term[2:]) if term.startswith("_:") else rdflib.URIRef(term[1:-1])

    graph = rdflib.Graph()
    known: dict[str, Any] = {}
    for row in rdf_statements(tables, options).drop("graph").iter_rows():
        terms = [
            term and (known.get(term) or known.setdefault(term, node(term))) for term in row[:3]
        ]
        if terms[2] is None:
            value, datatype, language = row[3:]
            if language and "--" in language:
                raise GraphError(f"language {language!r}: rdflib knows none; write_rdf() does")
            typed = None if language or datatype == XSD_STRING else datatype
            terms[2] = rdflib.Literal(value, lang=language, datatype=typed, normalize=False)
        graph.add((terms[0], terms[1], terms[2]))
    return graph


def tables_from_rdflib(graph: rdflib.Graph) -> Tables:
    """Read an rdflib graph, its statements sorted.

    Raises:
        GraphError: If an IRI could not be written.
    """
    import rdflib

    escapes = str.maketrans(dict(ESCAPES))

    def term(node: Any) -> str:
        if isinstance(node, rdflib.BNode):
            return f"_:{node}"
        if isinstance(node, rdflib.Literal):
            suffix = f"^^<{node.datatype}>" if node.datatype else ""
            suffix = f"@{node.language.lower()}" if node.language else suffix
            return f'"{str(node).translate(escapes)}"{suffix}'.removesuffix(f"^^<{XSD_STRING}>")
        if any(letter in node for letter in '<>" \n\r\t'):
            raise GraphError(f"{str(node)!r}: no IRI; mend it")
        return f"<{node}>"

    lines = sorted(" ".join(map(term, row)) + " ." for row in graph)
    options = StatementOptions()
    collector = StatementCollector(options, quads=False)
    collector.add(pl.Series(lines, dtype=pl.String()))
    return assemble(collector.numbered(), options)
