"""``kgclip evaluate RUN_OR_MODEL``: the held-out figures of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a run or of a model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a trained model."""
    from kgclip import training  # loads torch

    metrics = training.evaluate(model)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
        return
    width = max(map(len, metrics), default=0)
    for key, value in metrics.items():
        typer.echo(f"{key:{width}}  {value:.4f}")
