"""``kgclip demo``: build, train, evaluate and report in one go."""

from __future__ import annotations

import platform
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

_PACKAGES = ("kgclip", "torch", "open_clip_torch", "timm", "numpy")  # whose versions matter

QUICK_NOTE = "A quick run of a few steps: it shows that everything works and measures nothing."


class Demo(StrEnum):
    """The demonstrations that there are."""

    world = "world"
    scenes = "scenes"


def demo(
    name: Annotated[
        Demo,
        typer.Argument(
            help="world: OpenMoji pictures and facts. scenes: OpenMoji scenes and their graphs."
        ),
    ] = Demo.world,
    seeds: Annotated[str, typer.Option(help="Training seeds, as in 0,1,2.")] = "0",
    split_seed: Annotated[int, typer.Option(help="What is held out.")] = 1234,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="world: a few steps, which show that all works and measure nothing. "
            "scenes: half of the steps, and only clip and graph.",
        ),
    ] = False,
    runs: Annotated[
        str, typer.Option(help="Only these runs, as in clip,knowledge; default: all.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the runs that the folder holds.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder that is written: runs/demo or runs/scenes."),
    ] = None,
) -> None:
    """Build the graph, train every run, evaluate and write the report."""
    numbers = _parse_seeds(seeds)
    folder = output or Path("runs/demo" if name == Demo.world else "runs/scenes")
    from kgclip.metrics import write_metrics
    from kgclip.report import print_table, write_report
    from kgclip.report_text import OPENMOJI_CREDIT, SCENES, WORLD

    text = WORLD if name == Demo.world else SCENES
    chosen = [part.strip() for part in runs.split(",")] if runs else None
    if name == Demo.world:
        run = _run_world(folder, numbers, split_seed, quick, runs=chosen, resume=resume)
    else:
        run = _run_scenes(folder, numbers, split_seed, quick, runs=chosen, resume=resume)
    metrics = write_metrics(
        folder / "metrics.json",
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
    report = folder / "report.html"
    write_report(
        report,
        metrics,
        curves=run["curves"],
        galleries=run["galleries"],
        credit=OPENMOJI_CREDIT,
        text=text,
    )
    print_table(metrics, text=text)
    if quick and name == Demo.world:
        typer.echo("--quick: a few steps only; these figures mean nothing")
    typer.echo(f"{OPENMOJI_CREDIT}\nreport: {report}")


def _run_world(
    folder: Path,
    seeds: list[int],
    split_seed: int,
    quick: bool,
    *,
    runs: list[str] | None,
    resume: bool,
) -> dict[str, Any]:
    from kgclip.experiments.world import RUNS, run_world  # loads torch

    return run_world(folder, seeds, split_seed, quick, runs=runs or tuple(RUNS), resume=resume)


def _run_scenes(
    folder: Path,
    seeds: list[int],
    split_seed: int,
    quick: bool,
    *,
    runs: list[str] | None,
    resume: bool,
) -> dict[str, Any]:
    from kgclip.experiments import scenes  # loads torch

    chosen, steps = scenes.RUNS, scenes.STEPS
    if quick:
        chosen, steps = scenes.QUICK_RUNS, scenes.QUICK_STEPS
    if runs is not None:
        chosen = scenes.choose_runs(runs)
    return scenes.run_scenes(folder, seeds, split_seed, runs=chosen, steps=steps, resume=resume)


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--seeds {text!r}: expected whole numbers, as in 0,1,2") from None
    if len(set(seeds)) != len(seeds):
        raise typer.BadParameter(f"--seeds {text!r}: a seed occurs twice; the mean needs each once")
    return seeds
