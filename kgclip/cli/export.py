"""``kgclip export RUN -o DIR``: a trained model as a folder that open_clip loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that is written.")],
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="WiSE-FT: 1 = the trained weights, 0 = the start's.")
    ] = 1.0,
    measure: Annotated[
        bool, typer.Option(help="Evaluate the run and put the figures into the model card.")
    ] = True,
) -> None:
    """Write a trained model for open_clip and the Hugging Face hub, its graph part beside it."""
    from kgclip import models, training  # loads torch
    from kgclip.weights import interpolate_weights

    opened = models.open_model(run)
    state = opened.model.state_dict()
    if alpha != 1.0 and opened.config is not None:
        state = interpolate_weights(models.start_state(opened.config), state, alpha)
    figures = training.evaluate(run, state) if measure and opened.config is not None else {}
    folder = models.export_model(run, output, figures, state)
    typer.echo(f'{folder}: written; open_clip.create_model("local-dir:{folder}") loads it')
