"""Foreign files to graphs: one module a format, named in ``SOURCES``.

A source's reader is imported when it is asked for, so that reading a table loads no rasteriser.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kgclip.graph import KnowledgeGraph
from kgclip.sources.compression import data_suffix, open_binary
from kgclip.tables import GraphError, Tables

SOURCES = {
    "rdf": "kgclip.sources.rdf:read_rdf",
    "sparql": "kgclip.sources.sparql:read_sparql",
    "delimited": "kgclip.sources.delimited:read_delimited",
    "coco": "kgclip.sources.coco:read_coco",
    "pairs": "kgclip.sources.pairs:read_pairs",
    "conceptnet": "kgclip.sources.conceptnet:read_conceptnet",
    "visual_genome": "kgclip.sources.visual_genome:read_visual_genome",
    "gqa": "kgclip.sources.gqa:read_gqa",
    "vrd": "kgclip.sources.vrd:read_vrd",
    "wordnet": "kgclip.sources.wordnet:read_wordnet",
    "multimodal": "kgclip.sources.multimodal:read_multimodal",
    "entity_images": "kgclip.sources.entity_lists:read_entity_images",
    "entity_texts": "kgclip.sources.entity_lists:read_entity_texts",
    "openmoji": "kgclip.sources.openmoji:read_openmoji",
    "openmoji_scenes": "kgclip.sources.openmoji_scenes:read_openmoji_scenes",
}
ADDRESSED = ("sparql",)  # formats whose path is an address
SEVERAL = ("rdf",)  # formats that read many files as one
SUFFIXES = {
    **dict.fromkeys((".nt", ".nq", ".ttl", ".trig", ".rdf", ".xml", ".owl", ".jsonld"), "rdf"),
    **dict.fromkeys((".tsv", ".csv", ".txt", ".jsonl", ".ndjson", ".parquet"), "delimited"),
}
# What only a folder of that format has in it.
FOLDERS = {
    "data.noun": "wordnet",
    "relationships.json*": "visual_genome",
    "*sceneGraphs.json*": "gqa",
    "annotations_t*.json": "vrd",
    "nodes*.json": "multimodal",
    "nodes.tsv": "multimodal",
}


def read_graph(
    path: str | Path | Sequence[str | Path], format: str | None = None, **options: Any
) -> KnowledgeGraph:
    """Read a file or folder of any format in ``SOURCES``.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst), folder, or where the format takes
            them, several files or an address.
        format: A key of ``SOURCES``; ``None`` = by the file's suffix or the folder's files.
        **options: Keyword arguments of the format's reader.

    Returns:
        The graph; picture paths start from the file's folder.

    Raises:
        GraphError: If the file is missing or malformed, or the format or an option is unknown;
            says file and line, or the nearest known name.
    """
    if format in ADDRESSED:
        return KnowledgeGraph(find_reader(format, options)(str(path), **options))
    files = [Path(path)] if isinstance(path, str | Path) else [Path(file) for file in path]
    for file in files:
        if not file.exists():
            raise GraphError(f"{file}: no such file or folder")
    if not files:
        raise GraphError("an empty list of files; expected at least one")
    name = format or guess_format(files[0])
    if len(files) > 1 and name not in SEVERAL:
        raise GraphError(f"format {name!r} reads one file, {len(files)} given; merge() the graphs")
    place = files if name in SEVERAL and len(files) > 1 else files[0]
    tables = find_reader(name, options)(place, **options)
    return KnowledgeGraph(tables, files[0] if files[0].is_dir() else files[0].parent)


def guess_format(file: Path) -> str:
    """The format of a file by its suffix, of a folder by the files in it.

    A folder of no known kind with RDF in it is RDF, else delimited tables; a .csv file that begins
    as ConceptNet's assertions do is one.

    Raises:
        GraphError: If the suffix is unknown.
    """
    if file.is_dir():
        for pattern, name in FOLDERS.items():
            if any(file.glob(pattern)):
                return name
        inside = {SUFFIXES.get(data_suffix(child)) for child in file.rglob("*")}
        return "rdf" if "rdf" in inside and "delimited" not in inside else "delimited"
    found = SUFFIXES.get(data_suffix(file))
    if found is None:
        raise GraphError(
            f"{file}: unknown suffix; expected one of {', '.join(SUFFIXES)}, or give format="
        )
    if data_suffix(file) == ".csv":
        with open_binary(file) as stream:
            return "conceptnet" if stream.read(7) == b"/a/[/r/" else found
    return found


def find_reader(name: str, options: Any = ()) -> Callable[..., Tables]:
    """The reader of a format, its options checked.

    Raises:
        GraphError: If the format or an option is unknown; names the nearest.
    """
    if name not in SOURCES:
        raise GraphError(f"unknown format {name!r}; {_nearest(name, SOURCES)}")
    module, _, function = SOURCES[name].partition(":")
    reader: Callable[..., Tables] = getattr(importlib.import_module(module), function)
    known = list(inspect.signature(reader).parameters)[1:]
    for option in options:
        if option not in known:
            raise GraphError(f"format {name!r} has no option {option!r}; {_nearest(option, known)}")
    return reader


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"
