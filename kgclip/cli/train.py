"""``kgclip train CONFIG.toml``: from a config to a trained model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kgclip.cli.overrides import parse_overrides


class Resume(StrEnum):
    """Where training starts: at step 0, or at the newest checkpoint of the run, if any."""

    never = "never"
    auto = "auto"


def train(
    config: Annotated[Path, typer.Argument(help="TOML file.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Changes the config.")
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="auto: go on from the newest checkpoint, if there is one.")
    ] = Resume.never,
) -> None:
    """Train a model."""
    from kgclip import tasks  # loads torch
    from kgclip.metrics import load_metrics
    from kgclip.report import print_table
    from kgclip.report_text import TRAINING

    run = tasks.train(config, overrides=parse_overrides(settings or []), resume=resume.value)
    if (run / "metrics.json").is_file():
        print_table(load_metrics(run / "metrics.json"), text=TRAINING)
    typer.echo(f"{run}: trained; next: kgclip evaluate {run}")
