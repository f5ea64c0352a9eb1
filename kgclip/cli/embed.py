"""``kgclip embed MODEL -o FILE``: unit vectors of entities, texts or pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import polars as pl
import typer


def embed(
    model: Annotated[
        str, typer.Argument(help="Folder of a run or an export, or a model name of open_clip.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Parquet file that is written.")],
    graph: Annotated[
        Path | None, typer.Option(help="Folder of a saved graph: its entities, fused with it.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="File with a text on each line.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
) -> None:
    """Write the columns name and embedding (unit vectors) of entities, texts or pictures."""
    if sum(source is not None for source in (graph, texts, images)) != 1:
        raise typer.BadParameter("give one of --graph, --texts and --images")
    from kgclip import model_evaluation as encoders  # loads torch
    from kgclip.graph import load_graph
    from kgclip.models import open_model
    from kgclip.query import encode_graph

    opened = open_model(model, pretrained, "auto")
    if graph is not None:
        loaded = load_graph(graph)
        names, vectors = loaded.entities["name"].to_list(), encode_graph(opened, loaded)
    elif texts is not None:
        names = texts.read_text(encoding="utf-8").splitlines()
        vectors = encoders.encode_texts(opened, names)
    else:
        assert images is not None  # one of the three is, says the check above
        files = encoders.find_pictures(images)
        names = [file.name for file in files]
        vectors = encoders.encode_pictures(opened, [(file, None) for file in files])
    values = pl.Series("embedding", vectors.cpu().numpy(), pl.Array(pl.Float32, vectors.shape[1]))
    pl.DataFrame({"name": names}).with_columns(values).write_parquet(output)
    typer.echo(f"{output}: {len(names)} vectors of width {vectors.shape[1]}")
