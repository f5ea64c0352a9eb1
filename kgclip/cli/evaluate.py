"""``kgclip evaluate MODEL``: the figures of a run, or of any open_clip model on one's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[
        str, typer.Argument(help="Folder of a run or an export, or a model name of open_clip.")
    ],
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Retrieval: COCO captions, a CSV with filepath and title, or a graph."),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Zero-shot: one folder of pictures a class.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Zero-shot: wording of a class, with {}; repeatable.")
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option(
            help="A file of SugarCrepe, ARO, Winoground, VSR or VL-CheckList; or a graph."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures that pairs or probes name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a run on what its graph holds out, or any model on the data that you name."""
    if pairs is None and classes is None and probes is None:
        from kgclip import tasks  # loads torch

        metrics = tasks.evaluate(model)
    else:
        metrics = _evaluate_data(model, pretrained, pairs, classes, template, probes, images)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
        return
    width = max(map(len, metrics), default=0)
    for key, value in metrics.items():
        typer.echo(f"{key:{width}}  {value:.4f}")


def _evaluate_data(
    model: str,
    pretrained: str | None,
    pairs: Path | None,
    classes: Path | None,
    template: list[str] | None,
    probes: Path | None,
    images: Path | None,
) -> dict[str, float]:
    from kgclip import model_evaluation as figures_of  # loads torch
    from kgclip.graph import load_graph
    from kgclip.models import open_model
    from kgclip.probes import build_probes, read_probes
    from kgclip.sources import read_graph

    opened = open_model(model, pretrained)
    found: dict[str, dict[str, float]] = {}
    if pairs is not None:
        options = {} if images is None else {"images": images}
        is_graph = (pairs / "manifest.json").is_file()
        graph = load_graph(pairs) if is_graph else read_graph(pairs, format="pairs", **options)
        found["retrieval"] = figures_of.evaluate_pairs(opened, graph)
    if classes is not None:
        templates = template or figures_of.TEMPLATES
        found["zero_shot"] = figures_of.evaluate_classes(opened, classes, templates)
    if probes is not None:
        questions = build_probes(load_graph(probes)) if probes.is_dir() else read_probes(probes)
        folder = images or (Path("/") if probes.is_dir() else probes.parent)
        found["probes"] = figures_of.evaluate_questions(opened, questions, folder)
    return {f"{name}/{key}": value for name, part in found.items() for key, value in part.items()}
