"""``kgclip search MODEL QUERY --graph DIR``: entities that are like a text or a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def search(
    model: Annotated[
        str, typer.Argument(help="Folder of a run or an export, or a model name of open_clip.")
    ],
    query: Annotated[str, typer.Argument(help="A text, or with --image a picture file.")],
    graph: Annotated[Path, typer.Option(help="Folder of a saved graph.")],
    image: Annotated[bool, typer.Option("--image", help="The query is a picture file.")] = False,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Entities to print.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search a graph's entities by text or by picture."""
    from kgclip import query as ask  # loads torch
    from kgclip.graph import load_graph
    from kgclip.models import open_model

    loaded = load_graph(graph)
    wanted = {"image": query} if image else {"text": query}
    found = ask.search_entities(open_model(model, pretrained, "auto"), loaded, k=k, **wanted)
    if as_json:
        typer.echo(json.dumps(found.to_dicts(), indent=2, ensure_ascii=False))
        return
    for row in found.iter_rows(named=True):
        typer.echo(f"{row['score']:.3f}  {row['label']}  {'; '.join(row['facts'])}")
