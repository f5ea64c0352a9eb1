"""``kgclip build RECIPE -o DIR``: from a recipe to a saved graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kgclip.cli.overrides import parse_overrides
from kgclip.recipe import build_graph


def build(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or path of a TOML file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that is written.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Changes the recipe.")
    ] = None,
) -> None:
    """Build a graph from a recipe and save it."""
    graph = build_graph(recipe, overrides=parse_overrides(settings or []), output=output)
    typer.echo(f"{output}: {graph!r}")
