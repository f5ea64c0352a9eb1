"""The task ``link_prediction``: from a config to trained embeddings and their held-out figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pydantic
import torch
from torch import Tensor

from kgclip.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from kgclip.datasets import open_dataset
from kgclip.devices import pick_device
from kgclip.embedding_training import EmbeddingOptions, train_embedding
from kgclip.evaluation.link_prediction import evaluate_link_prediction
from kgclip.graph import KnowledgeGraph
from kgclip.nn.embedding import KnowledgeGraphEmbedding
from kgclip.settings import Settings, check_settings, read_settings
from kgclip.tables import GraphError


class EmbeddingSettings(Settings):
    """The model: see :class:`~kgclip.nn.embedding.KnowledgeGraphEmbedding`.

    Attributes:
        channels: Width of the vectors.
        scoring: A word of ``kgclip.nn.scoring.SCORINGS``.
        reciprocal: Whether heads are asked for by relation vectors of their own.
        scale: Standard deviation of new vectors; ``None`` = the scoring's own.
    """

    channels: int = pydantic.Field(default=200, ge=1)
    scoring: str = "complex"
    reciprocal: bool = True
    scale: float | None = pydantic.Field(default=None, gt=0)


class LinkPredictionConfig(Settings):
    """Everything that decides a run.

    Attributes:
        task: ``"link_prediction"``.
        graph: A saved graph, or a file or folder that ``read_graph`` reads; its triples have the
            splits train, test and, to stop early, valid.
        graph_options: Keyword arguments of ``read_graph``.
        output: Folder of the run.
        device: Where it trains and is evaluated: ``"auto"`` = a CUDA GPU where there is one.
        model: The model.
        training: How long and how fast; its seed is that of the weights too.
        claim: What the run is to show: source, licence, expected figures, by key.
    """

    task: Literal["link_prediction"]
    graph: str
    graph_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    output: str
    device: str = "auto"
    model: EmbeddingSettings = EmbeddingSettings()
    training: EmbeddingOptions = EmbeddingOptions()
    claim: dict[str, Any] = pydantic.Field(default_factory=dict)


def train(
    path: str | Path, overrides: Mapping[str, object] | None = None, resume: str = "never"
) -> Path:
    """Train as a config file says. The test triples take rivals from a validation, no more.

    Args:
        path: TOML file.
        overrides: Values by dotted key.
        resume: Only ``"never"``.

    Returns:
        Folder of the run: ``last/`` with weights and config, ``log.jsonl``.

    Raises:
        GraphError: If config or data cannot be used, or a run is to be resumed.
    """
    if resume != "never":
        raise GraphError(f"resume {resume!r}: embeddings train from the start; leave it out")
    config = check_settings(LinkPredictionConfig, read_settings(path, overrides), str(path))
    graph = open_dataset(config.graph, config.graph_options)
    parts = triples_by_split(graph)
    if "train" not in parts:
        raise GraphError(f"{config.graph}: no triple has the split train; use graph.split()")
    device = pick_device(config.device)
    model = _build_model(config, graph).to(device)
    parts = {name: triples.to(device) for name, triples in parts.items()}
    records = train_embedding(
        model, parts["train"], options=config.training,
        valid=parts.get("valid"), known=parts.get("test"),
    )  # fmt: skip
    output = Path(config.output)
    save_checkpoint(
        output, model=model, step=len(records), config=config.model_dump(mode="json"),
        extra={"cpu_seconds": records[-1]["cpu_seconds"]},
    )  # fmt: skip
    lines = [json.dumps(record) + "\n" for record in records]
    (output / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    return output


def evaluate(run: str | Path) -> dict[str, float]:
    """Rank the test triples of a run's graph, filtered by all its triples.

    Args:
        run: Folder that :func:`train` wrote.

    Returns:
        The figures of ``evaluate_link_prediction``, and ``cpu_seconds`` of training.

    Raises:
        GraphError: If the folder holds no such run, or its graph no test triples.
    """
    checkpoint = read_checkpoint(run)
    config = check_settings(LinkPredictionConfig, checkpoint.config, str(run))
    graph = open_dataset(config.graph, config.graph_options)
    parts = triples_by_split(graph)
    if "test" not in parts:
        raise GraphError(f"{config.graph}: no triple has the split test; nothing to evaluate")
    device = pick_device(config.device)
    model = _build_model(config, graph).to(device)
    parts = {name: triples.to(device) for name, triples in parts.items()}
    load_checkpoint(run, model)
    figures = evaluate_link_prediction(
        model.eval(), parts["test"], torch.cat(list(parts.values())), graph.num_entities,
        relation_names=graph.relations["name"].to_list(),
    )  # fmt: skip
    return {**figures, "cpu_seconds": checkpoint.extra["cpu_seconds"]}


def triples_by_split(graph: KnowledgeGraph) -> dict[str, Tensor]:
    """Head, relation and tail ids of each split, Long [T, 3]; triples without a split train."""
    triples = graph.triples.with_columns(pl.col("split").fill_null("train"))
    parts = triples.partition_by("split", as_dict=True)
    return {
        str(name): torch.from_numpy(part.select("head", "relation", "tail").to_numpy().copy())
        for (name,), part in parts.items()
    }


def _build_model(config: LinkPredictionConfig, graph: KnowledgeGraph) -> KnowledgeGraphEmbedding:
    torch.manual_seed(config.training.seed)
    settings = config.model
    return KnowledgeGraphEmbedding(
        graph.num_entities, graph.num_relations, settings.channels, settings.scoring,
        reciprocal=settings.reciprocal, scale=settings.scale,
    )  # fmt: skip
