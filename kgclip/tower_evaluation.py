"""What the towers know before and after training: figures side by side, so that forgetting shows.

An opened model and a corpus come in, flat figures go out; two sets of them become
``metrics.json`` and ``report.html`` of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.config import TrainConfig
from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.evaluation.zero_shot import evaluate_zero_shot
from kgclip.graph import load_graph
from kgclip.metrics import write_metrics
from kgclip.model_evaluation import class_features, evaluate_classes, evaluate_pairs
from kgclip.models import OpenedModel
from kgclip.nn.clip import evaluating
from kgclip.nn.model import KnowledgeCLIP
from kgclip.report import write_report
from kgclip.report_text import TRAINING
from kgclip.sources import read_graph


def evaluate_towers(opened: OpenedModel, corpus: Corpus, config: TrainConfig) -> dict[str, float]:
    """Retrieval and zero-shot of what a graph holds out, and of the data that the config names.

    Pictures whose split is ``"test"`` are taken, all of them where there is none. Those whose
    entity has captions but no label are retrieved by their captions and back; where there is no
    such picture, all are by their names. Those with a label are classified among all labels that
    the corpus has pictures of.

    Args:
        opened: The model, on any device.
        corpus: Its pictures, or what this model's frozen trunk made of them.
        config: Says what else is measured, and the wordings of a class.

    Returns:
        ``retrieval/…``, ``zero_shot/…``, ``pairs/…`` and ``classes/…``, whatever there is data for.

    Raises:
        GraphError: If data that the config names cannot be read.
    """
    rows = held_out_pictures(corpus)
    found: dict[str, Mapping[str, float]] = {}
    with evaluating(opened.model):
        if len(rows):
            images = encode_rows(opened.model, corpus, rows)
            entities = corpus.image_entity[rows]
            found["retrieval"] = _retrieve(opened, corpus, images, entities)
            found["zero_shot"] = _classify(
                opened, corpus, images, entities, config.evaluation.templates
            )
        found |= _evaluate_named_data(opened, config)
    return {f"{name}/{key}": value for name, part in found.items() for key, value in part.items()}


def held_out_pictures(corpus: Corpus) -> Tensor:
    """Rows of the test pictures, of all pictures where there is none. Long [P]."""
    held_out = corpus.image_split == "test"
    return torch.from_numpy(np.flatnonzero(held_out if held_out.any() else held_out | True))


@torch.no_grad()
def encode_rows(
    model: KnowledgeCLIP, corpus: Corpus, rows: Tensor, batch_size: int = 256
) -> Tensor:
    """Encode pictures of a corpus.

    Args:
        model: In evaluation mode, on any device.
        corpus: Its pictures, or what a frozen trunk made of them.
        rows: Long [P].
        batch_size: Rows at once.

    Returns:
        Unit vectors. Float [P, D].
    """
    device = model.logit_scale.device
    parts = [
        model.project_image(corpus.image_features[some].to(device))
        for some in torch.split(rows, batch_size)
    ]
    return F.normalize(torch.cat(parts), dim=-1)


def _retrieve(
    opened: OpenedModel, corpus: Corpus, images: Tensor, entities: Tensor
) -> dict[str, float]:
    clip = opened.model.clip
    places = torch.nonzero(corpus.described[entities]).flatten()
    if not len(places):
        return evaluate_retrieval(images, corpus.text_features(clip, corpus.text[entities]))
    first: dict[int, int] = {}  # place of each described entity's first picture
    for place, entity in enumerate(entities[places].tolist()):
        first.setdefault(entity, place)
    owners = corpus.caption_entity.tolist()
    texts = [row for row, owner in enumerate(owners) if owner in first]
    return evaluate_retrieval(
        images[places],
        corpus.text_features(clip, corpus.caption_text[texts]),
        torch.tensor([first[owners[row]] for row in texts]),
    )


def _classify(
    opened: OpenedModel,
    corpus: Corpus,
    images: Tensor,
    entities: Tensor,
    templates: Sequence[str],
) -> dict[str, float]:
    pictured = corpus.image_entity[~corpus.described[corpus.image_entity]]
    names = sorted({corpus.labels[entity] for entity in pictured.tolist()})
    place = {name: number for number, name in enumerate(names)}
    asked = torch.nonzero(~corpus.described[entities]).flatten()
    if not len(asked) or len(names) < 2:
        return {}
    targets = [place[corpus.labels[entity]] for entity in entities[asked].tolist()]
    return evaluate_zero_shot(
        images[asked],
        class_features(opened, names, templates),
        torch.tensor(targets),
        ks=(1, 5) if len(names) >= 5 else (1,),
    )


def _evaluate_named_data(
    opened: OpenedModel, config: TrainConfig
) -> dict[str, Mapping[str, float]]:
    data = config.evaluation
    found: dict[str, Mapping[str, float]] = {}
    if data.pairs is not None:
        options = {} if data.images is None else {"images": data.images}
        is_graph = (Path(data.pairs) / "manifest.json").is_file()
        graph = (
            load_graph(data.pairs)
            if is_graph
            else read_graph(data.pairs, format="pairs", **options)
        )
        found["pairs"] = evaluate_pairs(opened, graph)
    if data.classes is not None:
        found["classes"] = evaluate_classes(opened, data.classes, data.templates)
    return found


def write_comparison(
    folder: Path,
    start: Mapping[str, float],
    result: Mapping[str, float],
    *,
    seconds: float,
    seed: int,
    log: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write ``metrics.json`` and ``report.html`` of a run.

    Args:
        folder: Of the run.
        start: Figures of the model that training started from.
        result: Those of the trained one.
        seconds: Process CPU seconds of training.
        seed: Of the training.
        log: Of the training, for the curves.
        extra: More entries of the file.
    """
    values = {
        run: {f"{_SPLITS.get(key.partition('/')[0], 'graph')}/{key}": [value]
              for key, value in figures.items()}
        for run, figures in (("start", start), ("result", result))
    }  # fmt: skip
    metrics = write_metrics(
        folder / "metrics.json",
        values,
        split_seed=None,
        seeds=[seed],
        seconds={"result": seconds},
        extra=extra,
    )
    write_report(folder / "report.html", metrics, curves={"result": log}, text=TRAINING)


_SPLITS = {"pairs": "named_data", "classes": "named_data"}
