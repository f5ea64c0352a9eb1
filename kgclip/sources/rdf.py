"""RDF in any syntax that pyoxigraph parses: N-Triples, N-Quads, Turtle, TriG, RDF/XML, JSON-LD.

Statements between nodes become triples, literals stay whole in ``literals``, and a map of
properties fills ``texts`` and ``images`` from them. Blank nodes are entities named ``_:id``,
triple terms (RDF 1.2) entities named ``<<( … )>>``.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyoxigraph as ox

from kgclip.loading import collector_at_rest
from kgclip.progress import track, waiting
from kgclip.rdf.assembly import assemble
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.rdf.terms import IMAGE_PROPERTIES, RDF_TYPE, TEXT_PROPERTIES
from kgclip.sources.compression import data_suffix, open_binary, origin_of, text_size
from kgclip.sources.jsonld import ADVICE, with_contexts
from kgclip.sources.ntriples import CERTAIN, MAX_LITERAL_BYTES, LineReader, explain, too_long
from kgclip.sources.xml_entities import check_entities
from kgclip.tables import GraphError, Tables

__all__ = ["FORMATS", "IMAGE_PROPERTIES", "RDF_TYPE", "TEXT_PROPERTIES", "read_rdf"]

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
_WITHOUT_LINES = (ox.RdfFormat.RDF_XML, ox.RdfFormat.JSON_LD)
_BATCH = 30_000  # statements from pyoxigraph at a time
COMPILED_FROM = 2**25  # bytes of text: what polars reads while the compiled code is loaded


def read_rdf(
    path: str | Path | Sequence[str | Path],
    *,
    syntax: str | None = None,
    literals: str = "table",
    base_iri: str | None = None,
    on_error: str = "raise",
    text_properties: Mapping[str, str] | None = None,
    image_properties: Iterable[str] | None = None,
    languages: Sequence[str] | None = None,
    graphs: Sequence[str] | None = None,
    same_as: str = "link",
    image_root: str | Path | None = None,
    max_literal_bytes: int = MAX_LITERAL_BYTES,
    contexts: Mapping[str, str | Path] | None = None,
) -> Tables:
    """Read RDF.

    Ids follow the order in which the statements name entities, a subject before its object. In
    N-Triples and N-Quads blank nodes keep their names, elsewhere they are numbered ``_:b0``,
    ``_:b1``, …; those of several files are never one.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst), several, or a folder, of which
            every file with a known suffix is read in the order of their names.
        syntax: Suffix of the syntax, as ``"ttl"``; ``None`` = each file's own.
        literals: ``"table"`` keeps literals in their table; ``"nodes"`` makes each distinct
            literal an entity, as R-GCN's data sets count them.
        base_iri: What relative IRIs start from.
        on_error: ``"raise"``, or ``"skip"`` for N-Triples and N-Quads: leaves bad lines out and
            warns how many, which and why.
        text_properties: Property IRI to kind of text; the default is ``TEXT_PROPERTIES``.
        image_properties: Property IRIs; the default is ``IMAGE_PROPERTIES``.
        languages: Languages of texts in order of preference: for each entity and kind of text
            only the texts of the first language that it has are kept; ``""`` = no language,
            ``"en"`` = also en-gb. ``None`` = all texts. ``literals`` keeps them all.
        graphs: Names of the named graphs to read, ``""`` = the default graph; ``None`` = all.
        same_as: ``"link"`` fills ``links`` with what owl:sameAs says; ``"merge"`` makes the
            entities one, named by the first IRI, and the other names its links.
        image_root: Folder that paths of picture files start from and must not leave; ``None`` =
            the folder of ``path``.
        max_literal_bytes: Longer literals are refused.
        contexts: Addresses of JSON-LD contexts and the files that hold them; nothing is fetched.

    Returns:
        The tables; ``rdf:type`` stays a triple and fills ``types``.

    Raises:
        GraphError: If a file is missing, damaged or malformed; says file and line, or the
            statement after which the parser stopped.
    """
    files = _files(path)
    for name, value, known in (
        ("literals", literals, ("table", "nodes")),
        ("on_error", on_error, ("raise", "skip")),
        ("same_as", same_as, ("link", "merge")),
    ):
        if value not in known:
            raise GraphError(f"{name}={value!r}: expected {known[0]!r} or {known[1]!r}")
    folder = Path(path) if isinstance(path, str | Path) else files[0]
    options = StatementOptions(
        literals_as_nodes=literals == "nodes",
        text_properties=TEXT_PROPERTIES if text_properties is None else text_properties,
        image_properties=IMAGE_PROPERTIES if image_properties is None else tuple(image_properties),
        languages=languages,
        graphs=graphs,
        merge_same=same_as == "merge",
        image_root=Path(image_root or (folder if folder.is_dir() else folder.parent)),
        image_prefix=str(Path(image_root).resolve()) if image_root else "",
    )
    formats = [_format(file, syntax, on_error) for file in files]
    quads = any(rdf_format.supports_datasets for rdf_format in formats)
    collector: Any
    if sum(map(text_size, files)) >= COMPILED_FROM:
        with collector_at_rest(), waiting("compiling the reader, once"):
            from kgclip.rdf.statement_kernels import CompiledCollector

            collector = CompiledCollector(options, quads=quads)
    else:
        collector = StatementCollector(options, quads=quads)
    for number, (file, rdf_format) in enumerate(zip(files, formats, strict=True)):
        # Two files may use one name for two blank nodes.
        label = f"f{number}_" if len(files) > 1 and rdf_format in CERTAIN else ""
        counts = _collect(
            collector, label, file, rdf_format, on_error == "skip", base_iri, max_literal_bytes,
            contexts,
        )  # fmt: skip
        for _ in track(counts, f"reading {file.name}", int):
            pass
    return assemble(
        collector.numbered(),
        options,
        tuple(origin_of(file) for file in files),
        rename_blank=any(rdf_format not in CERTAIN for rdf_format in formats),
    )


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        files = [Path(file) for file in path]
        if not files:
            raise GraphError("an empty list of files; expected at least one")
        return files
    if not Path(path).is_dir():
        return [Path(path)]
    files = sorted(file for file in Path(path).rglob("*") if data_suffix(file) in FORMATS)
    if not files:
        raise GraphError(f"{path}: no RDF file in it; expected one of {', '.join(FORMATS)}")
    return files


def _format(file: Path, syntax: str | None, on_error: str) -> ox.RdfFormat:
    suffix = f".{syntax.lstrip('.')}" if syntax else data_suffix(file)
    if suffix not in FORMATS:
        raise GraphError(
            f"{file}: unknown RDF syntax {suffix!r}; give syntax=, one of "
            f"{', '.join(name[1:] for name in FORMATS)}"
        )
    if on_error == "skip" and FORMATS[suffix] not in CERTAIN:
        raise GraphError(
            f"{file}: on_error='skip' needs a syntax of one statement a line (nt, nq); "
            "elsewhere what follows an error cannot be told"
        )
    return FORMATS[suffix]


def _collect(
    collector: Any,
    label: str,
    file: Path,
    rdf_format: ox.RdfFormat,
    skip: bool,
    base_iri: str | None,
    max_literal_bytes: int,
    contexts: Mapping[str, str | Path] | None,
) -> Iterator[int]:
    """Give a collector the statements of a file; yields the number of lines of each block."""
    is_compiled = not isinstance(collector, StatementCollector)
    if rdf_format == ox.RdfFormat.RDF_XML:
        with open_binary(file) as stream:
            check_entities(stream, file)
    with open_binary(file) as stream:
        if rdf_format in CERTAIN:
            reader = LineReader(file, rdf_format, skip=skip, max_literal_bytes=max_literal_bytes)
            if is_compiled:
                yield from reader.read_into(stream, collector, blank_label=label)
                return
            for lines in reader.read(stream):
                collector.add(lines, blank_label=label)
                yield len(lines)
            return
        source: IO[bytes] = stream
        if contexts and rdf_format == ox.RdfFormat.JSON_LD:
            source = io.BytesIO(with_contexts(stream.read(), contexts, file))
        blocks = parse_blocks(
            file, source, rdf_format, base_iri=base_iri, max_literal_bytes=max_literal_bytes
        )
        for block in blocks:
            collector.add(block if is_compiled else pl.read_lines(block).to_series())
            yield block.count(b"\n")


def parse_blocks(
    file: Path | str,
    stream: IO[bytes],
    rdf_format: ox.RdfFormat,
    *,
    base_iri: str | None = None,
    max_literal_bytes: int = MAX_LITERAL_BYTES,
) -> Iterator[bytes]:
    """Lines of statements in canonical form by pyoxigraph alone, which reads every syntax.

    Raises:
        GraphError: If the data is malformed.
    """
    met = itertools.count(1)
    try:
        quads: Iterator[ox.Quad] = ox.parse(stream, format=rdf_format, base_iri=base_iri)
        if rdf_format in _WITHOUT_LINES:  # what can be said is which statement failed
            quads = (quad for quad, _ in zip(quads, met, strict=False))
        while data := ox.serialize(itertools.islice(quads, _BATCH), format=ox.RdfFormat.N_QUADS):
            if len(data) > max_literal_bytes < max(map(len, data.split(b"\n"))):
                raise GraphError(too_long(str(file), max_literal_bytes))
            yield data
    except SyntaxError as error:
        message, column = explain(error)
        if "LoadDocumentCallback" in message:
            raise GraphError(f"{file}: {ADVICE}") from error
        place = f":{error.lineno}" if error.lineno else f", statement {next(met)}"
        at = f" (column {column})" if error.lineno else ""
        raise GraphError(
            f"{file}{place}: {message}{at}; expected {rdf_format.name}; mend the file"
        ) from error
