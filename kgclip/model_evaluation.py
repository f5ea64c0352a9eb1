"""Anybody's model on one's own data: retrieval, zero-shot, facts of a graph, probes.

A model that :func:`kgclip.models.open_model` opened comes in, a flat dictionary of figures goes
out; a plain open_clip name is as good as a run of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.evaluation.probes import evaluate_probes
from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.evaluation.zero_shot import evaluate_zero_shot
from kgclip.graph import KnowledgeGraph
from kgclip.models import OpenedModel
from kgclip.nn.features import track_batches
from kgclip.nn.pictures import Picture, read_picture
from kgclip.nn.tokens import encode_text_trimmed
from kgclip.probes import Question
from kgclip.sources.pairs import PICTURE_SUFFIXES
from kgclip.tables import GraphError

TEMPLATES = ("a photo of a {}.",)


@torch.no_grad()
def encode_pictures(
    opened: OpenedModel, pictures: Sequence[Picture | tuple[str | Path, Any]], batch_size: int = 32
) -> Tensor:
    """Encode pictures, or the parts of them that are meant.

    Args:
        opened: The model.
        pictures: Files and boxes.
        batch_size: Pictures in one forward pass.

    Returns:
        Unit vectors. Float [P, D].

    Raises:
        GraphError: If a picture is missing or cannot be decoded, or a box lies outside; names it.
    """
    device = opened.model.logit_scale.device
    parts = []
    for start in track_batches(range(0, len(pictures), batch_size), len(pictures), batch_size):
        images = [
            opened.preprocess(read_picture(Picture(*picture)))
            for picture in pictures[start : start + batch_size]
        ]
        parts.append(opened.model.encode_image(torch.stack(images).to(device), normalize=True))
    return torch.cat(parts) if parts else torch.zeros(0, 1)


def graph_pictures(graph: KnowledgeGraph, rows: Iterable[int] | None = None) -> list[Picture]:
    """Pictures of a graph, or the parts of them that are meant.

    Args:
        graph: With pictures.
        rows: Of its images; ``None`` = all.

    Raises:
        GraphError: If one is an address, or its path leaves the graph's folder.
    """
    names, images = graph.entities["name"], graph.images
    chosen = range(len(images)) if rows is None else rows
    return [
        Picture(graph.image_path(row), images["box"][row], names[images["entity"][row]])
        for row in chosen
    ]


@torch.no_grad()
def encode_texts(opened: OpenedModel, texts: Sequence[str], batch_size: int = 512) -> Tensor:
    """Encode texts. Unit vectors, float [T, D]."""
    device = opened.model.logit_scale.device
    parts = [
        encode_text_trimmed(
            opened.model.clip,
            opened.tokenizer(list(texts[start : start + batch_size])).to(device),
            normalize=True,
        )
        for start in range(0, len(texts), batch_size)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, 1)


def evaluate_pairs(opened: OpenedModel, graph: KnowledgeGraph) -> dict[str, float]:
    """Retrieval between the pictures and the texts of a graph's entities, both ways.

    An entity's captions are its texts, or its label where it has none; all of them count, and
    its first picture.

    Args:
        opened: The model.
        graph: With pictures, as ``read_graph(file, format="pairs")`` makes it.

    Returns:
        As :func:`kgclip.evaluation.evaluate_retrieval`, and ``num_images``, ``num_texts``.

    Raises:
        GraphError: If the graph has no picture, or one cannot be read.
    """
    if not len(graph.images):
        raise GraphError("the graph has no pictures; retrieval needs pictures and their texts")
    first = graph.images.with_row_index("row").unique("entity", keep="first", maintain_order=True)
    entities = {entity: place for place, entity in enumerate(first["entity"])}
    captions = graph.texts.filter(pl.col("kind") == "caption").select("entity", "text")
    texts = [(entities[e], text) for e, text in captions.iter_rows() if e in entities]
    described, labels = {place for place, _ in texts}, graph.labels()
    texts += [(place, labels[e]) for e, place in entities.items() if place not in described]
    pictures = graph_pictures(graph, first["row"])
    figures = evaluate_retrieval(
        encode_pictures(opened, pictures),
        encode_texts(opened, [text for _, text in texts]),
        torch.tensor([place for place, _ in texts]),
    )
    return {**figures, "num_images": float(len(pictures)), "num_texts": float(len(texts))}


def evaluate_classes(
    opened: OpenedModel, folder: str | Path, templates: Sequence[str] = TEMPLATES
) -> dict[str, float]:
    """Zero-shot classification of a folder with one folder of pictures a class.

    A class is the mean of its name in every template, as CLIP does it.

    Args:
        opened: The model.
        folder: ``folder/<class>/<picture>``; an underscore in a class name is read as a space.
        templates: Wordings, each with ``{}`` for the class.

    Returns:
        As :func:`kgclip.evaluation.evaluate_zero_shot` with top 1 and, from five classes on, 5;
        ``num_images`` and ``num_classes``.

    Raises:
        GraphError: If there is no such folder, a class has no picture, or one cannot be read.
    """
    place = Path(folder)
    if not place.is_dir():
        raise GraphError(f"{place}: no such folder; one folder of pictures a class expected")
    classes = sorted(part for part in place.iterdir() if part.is_dir())
    pictures: list[Picture] = []
    targets: list[int] = []
    for number, part in enumerate(classes):
        files = find_pictures(part)
        pictures += [Picture(file, entity=part.name) for file in files]
        targets += [number] * len(files)
    if not classes:
        raise GraphError(f"{place}: no folder in it; one folder of pictures a class expected")
    features = class_features(opened, [part.name.replace("_", " ") for part in classes], templates)
    figures = evaluate_zero_shot(
        encode_pictures(opened, pictures),
        features,
        torch.tensor(targets),
        ks=(1, 5) if len(classes) >= 5 else (1,),
    )
    return {**figures, "num_images": float(len(pictures)), "num_classes": float(len(classes))}


def find_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder, in the order of their names.

    Raises:
        GraphError: If there is none.
    """
    files = sorted(f for f in folder.glob("*") if f.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise GraphError(f"{folder}: no picture in it; {', '.join(PICTURE_SUFFIXES)} expected")
    return files


def class_features(opened: OpenedModel, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Mean of each class name in every template. Unit vectors, float [C, D].

    Raises:
        GraphError: If a template has no place for the class.
    """
    for template in templates:
        if "{}" not in template:
            raise GraphError(f"template {template!r}: {{}} expected where the class goes")
    texts = [template.format(name) for name in names for template in templates]
    features = encode_texts(opened, texts)
    means = features.view(len(names), len(templates), -1).mean(dim=1)
    return F.normalize(means, dim=-1)


def evaluate_questions(
    opened: OpenedModel, questions: Sequence[Question], images: str | Path
) -> dict[str, float]:
    """Answers to probes; see :func:`kgclip.evaluation.evaluate_probes`.

    Args:
        opened: The model.
        questions: Of a probe file or one's own graph.
        images: Folder that the questions' pictures start from.

    Raises:
        GraphError: If a picture is missing or cannot be read; names it.
    """
    folder = Path(images)
    return evaluate_probes(
        questions,
        lambda parts: encode_pictures(opened, [Picture(folder / file, box) for file, box in parts]),
        lambda texts: encode_texts(opened, texts),
    )
