"""``kgclip analyse DIR -o report.html``: what is this graph, can I trust it, what is missing?

Torch is loaded for ``--model`` alone; vectors that ``kgclip embed`` wrote need none.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer

from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.sources import read_graph
from kgclip.storage import MANIFEST
from kgclip.tables import GraphError

if TYPE_CHECKING:
    import numpy as np


class Modality(StrEnum):
    """What entities may have."""

    text = "text"
    image = "image"


def analyse(
    graph: Annotated[Path, typer.Argument(help="Folder of a saved graph, or a file of triples.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file that is written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    entity: Annotated[str | None, typer.Option(help="Also show what is near this entity.")] = None,
    to: Annotated[str | None, typer.Option(help="And the paths from it to this one.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Vectors to compare, as `kgclip embed --graph` writes them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Compare vectors of this run, export or open_clip model.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
    require: Annotated[
        list[Modality] | None, typer.Option(help="Fail if no entity has a text, or an image.")
    ] = None,
) -> None:
    """Analyse a graph into one self-contained page."""
    if output is None and not as_json:
        raise typer.BadParameter("give -o report.html, --json, or both")
    if to is not None and entity is None:
        raise typer.BadParameter("--to needs --entity, where the paths start")
    if embeddings is not None and model is not None:
        raise typer.BadParameter("give --embeddings or --model, not both")
    loaded = open_graph(graph)
    from kgclip.analysis.findings import analyse_graph, check_enough, to_json
    from kgclip.analysis.modalities import has_modality
    from kgclip.analysis.page import write_page

    check_enough(loaded)
    for modality in require or []:
        if not has_modality(loaded, modality.value).any():
            raise GraphError(f"{graph}: no entity has any {modality.value}; add some, or analyse "
                             f"without --require {modality.value}")  # fmt: skip
    vectors = None
    if embeddings is not None:
        vectors = read_vectors(embeddings, loaded)
    elif model is not None:
        vectors = encode(model, pretrained, loaded)
    findings = analyse_graph(loaded, vectors=vectors, entity=entity, other=to)
    if output is not None:
        write_page(output, findings, graph.resolve().name)
    if as_json:
        typer.echo(json.dumps(to_json(findings), indent=2, ensure_ascii=False))
    else:
        typer.echo(f"{output}: {loaded!r}")


def open_graph(path: Path) -> KnowledgeGraph:
    """Load a saved graph, or read a file or folder of triples.

    Raises:
        GraphError: If it is neither.
    """
    if path.is_dir() and not (path / MANIFEST).is_file():
        try:
            return read_graph(path)
        except GraphError as error:
            raise GraphError(
                f"{path}: no graph: {MANIFEST} is missing (`kgclip build` writes it), nor is it a "
                f"folder of triples ({error})"
            ) from error
    return load_graph(path) if path.is_dir() else read_graph(path)


def read_vectors(file: Path, graph: KnowledgeGraph) -> np.ndarray:
    """Vectors by entity name, zero for an entity without one. Float [N, D].

    Raises:
        GraphError: If the file is no such table, or names no entity of the graph.
    """
    try:
        table = pl.read_parquet(file)
        rows = graph.entities.select("name").join(
            table.select("name", "embedding"), on="name", how="left", maintain_order="left"
        )
        vectors = rows["embedding"]
        width = len(table["embedding"][0])
        filled = vectors.fill_null([0.0] * width) if vectors.null_count() else vectors
        array = filled.cast(pl.Array(pl.Float32, width)).to_numpy()
    except (pl.exceptions.PolarsError, IndexError) as error:
        raise GraphError(
            f"{file}: no table of name and embedding ({error}); write it with `kgclip embed`"
        ) from error
    if len(rows) != graph.num_entities or vectors.null_count() == len(vectors):
        raise GraphError(f"{file}: expected one vector an entity name of the graph")
    return array


def encode(model: str, pretrained: str | None, graph: KnowledgeGraph) -> np.ndarray:
    """Unit vectors of all entities by a model; names stand for missing texts. Float [N, D]."""
    from kgclip.models import open_model  # loads torch
    from kgclip.query import encode_graph

    vectors: np.ndarray = encode_graph(open_model(model, pretrained, "auto"), graph).cpu().numpy()
    return vectors
