"""``kgclip evaluate MODEL``: the figures of a run, or of any open_clip model on one's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kgclip.models import OpenedModel


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
    facts: Annotated[
        Path | None,
        typer.Option(help="A saved graph: its facts, by text, picture, both or neither."),
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Facts: the names of entities without texts are texts.")
    ] = False,
    linking: Annotated[
        Path | None, typer.Option(help="A saved graph: which entity does a text or picture mean?")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures that pairs or probes name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a run on what its graph holds out, or any model on the data that you name."""
    if all(given is None for given in (pairs, classes, probes, facts, linking)):
        from kgclip import tasks  # loads torch

        metrics = tasks.evaluate(model)
    else:
        from kgclip.models import open_model  # loads torch

        opened = open_model(model, pretrained, "auto")
        found = _evaluate_data(opened, pairs, classes, template, probes, images)
        found |= _evaluate_graphs(opened, facts, names, linking)
        metrics = {f"{name}/{key}": v for name, part in found.items() for key, v in part.items()}
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
        return
    width = max(map(len, metrics), default=0)
    for key, value in metrics.items():
        typer.echo(f"{key:{width}}  {value:.4f}")


def _evaluate_data(
    opened: OpenedModel,
    pairs: Path | None,
    classes: Path | None,
    template: list[str] | None,
    probes: Path | None,
    images: Path | None,
) -> dict[str, dict[str, float]]:
    from kgclip import model_evaluation as figures_of  # loads torch
    from kgclip.graph import load_graph
    from kgclip.probes import build_probes, read_probes
    from kgclip.sources import read_graph

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
    return found


def _evaluate_graphs(
    opened: OpenedModel, facts: Path | None, names: bool, linking: Path | None
) -> dict[str, dict[str, float]]:
    from kgclip import fact_evaluation as figures_of  # loads torch
    from kgclip.graph import load_graph

    found: dict[str, dict[str, float]] = {}
    if facts is not None:
        found["facts"] = figures_of.evaluate_facts(opened, load_graph(facts), names)
    if linking is not None:
        found["linking"] = figures_of.evaluate_linking(opened, load_graph(linking))
    return found
