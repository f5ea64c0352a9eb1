"""``kgclip demo``: build, train, evaluate and report in one go."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

_PACKAGES = ("kgclip", "torch", "open_clip_torch", "timm", "numpy")  # whose versions matter

QUICK_NOTE = "A quick run of a few steps: it shows that everything works and measures nothing."


class Demo(StrEnum):
    """The demonstrations that there are."""

    world = "world"


def demo(
    name: Annotated[Demo, typer.Argument(help="world: OpenMoji pictures and facts.")] = Demo.world,
    seeds: Annotated[str, typer.Option(help="Training seeds, as in 0,1,2.")] = "0",
    split_seed: Annotated[int, typer.Option(help="What is held out.")] = 1234,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps: shows that all works, measures nothing.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that is written.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Build the graph, train every run, evaluate and write the report."""
    numbers = _parse_seeds(seeds)
    from kgclip.experiments.world import run_world  # loads torch
    from kgclip.report import OPENMOJI_CREDIT, print_table, write_metrics, write_report

    run = run_world(output, numbers, split_seed, quick)
    metrics = write_metrics(
        output / "metrics.json",
        run["values"],
        split_seed=split_seed,
        seeds=numbers,
        seconds=run["seconds"],
        extra={
            "steps": run["steps"],
            "wall_seconds": run["wall_seconds"],
            "python": platform.python_version(),
            "versions": {package: version(package) for package in _PACKAGES},
        },
    )
    report = output / "report.html"
    write_report(
        report,
        metrics,
        curves=run["curves"],
        galleries=run["galleries"],
        credit=OPENMOJI_CREDIT,
    )
    print_table(metrics)
    if quick:
        typer.echo("--quick: a few steps only; these figures mean nothing")
    typer.echo(f"{OPENMOJI_CREDIT}\nreport: {report}")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--seeds {text!r}: expected whole numbers, as in 0,1,2") from None
    if len(set(seeds)) != len(seeds):
        raise typer.BadParameter(f"--seeds {text!r}: a seed occurs twice; the mean needs each once")
    return seeds
