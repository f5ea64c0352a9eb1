"""``kgclip wiseft RUN``: what lies between the start weights and the trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table


def wiseft(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    alphas: Annotated[
        str, typer.Option(help="Shares of the trained weights, each in [0, 1].")
    ] = "0,0.25,0.5,0.75,1",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate weights between the start and the trained ones; then: kgclip export --alpha A."""
    shares = _parse_alphas(alphas)
    from kgclip import models, training  # loads torch
    from kgclip.tables import GraphError
    from kgclip.weights import interpolate_weights

    opened = models.open_model(run)
    if opened.config is None:
        raise GraphError(f"{run}: a run's folder expected; it alone knows its start weights")
    start, tuned = models.start_state(opened.config), opened.model.state_dict()
    steps = track(shares, "evaluating", console=Console(stderr=True), transient=True)
    results = {
        f"{alpha:g}": training.evaluate(run, interpolate_weights(start, tuned, alpha))
        for alpha in steps
    }
    if as_json:
        typer.echo(json.dumps(results, indent=2))
        return
    table = Table("figure", *results)
    for key in next(iter(results.values())):
        table.add_row(key, *(f"{figures[key]:.4f}" for figures in results.values()))
    Console().print(table)


def _parse_alphas(text: str) -> list[float]:
    try:
        alphas = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--alphas {text!r}: expected numbers, as in 0,0.5,1") from None
    if not all(0 <= alpha <= 1 for alpha in alphas):
        raise typer.BadParameter(f"--alphas {text!r}: each must lie between 0 and 1")
    return alphas
