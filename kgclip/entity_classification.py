"""The task ``entity_classification``: from a config to a trained classifier and its test figures.

Labels come in two tables, the official split; every triple leads in both directions.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pydantic
import torch
from torch import Tensor

from kgclip.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from kgclip.classifier_training import ClassifierOptions, train_classifier
from kgclip.datasets import find_data, open_dataset
from kgclip.devices import pick_device
from kgclip.evaluation.entity_classification import evaluate_entity_classification
from kgclip.graph import KnowledgeGraph
from kgclip.nn.classifier import EntityClassifier
from kgclip.settings import Settings, check_settings, nearest, read_settings
from kgclip.tables import GraphError


class LabelSettings(Settings):
    """Where the classes stand.

    Attributes:
        train: Table with a header, separated by tabs: entities to train on.
        test: The same of the entities to test on.
        entity: Column of the entities' names.
        label: Column of their classes.
    """

    train: str
    test: str
    entity: str
    label: str


class ClassifierSettings(Settings):
    """The model: see :class:`~kgclip.nn.classifier.EntityClassifier`.

    Attributes:
        hidden_channels: Width between the layers.
        dropout: Share of hidden values that are dropped in training.
    """

    hidden_channels: int = pydantic.Field(default=16, ge=1)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)


class EntityClassificationConfig(Settings):
    """Everything that decides a run.

    Attributes:
        task: ``"entity_classification"``.
        graph: A saved graph, or a file or folder that ``read_graph`` reads.
        graph_options: Keyword arguments of ``read_graph``.
        without_relations: Names of relations whose triples are left out, as those that tell the
            class.
        labels: The tables of classes.
        output: Folder of the run.
        device: Where it trains and is evaluated: ``"auto"`` = a CUDA GPU where there is one.
        model: The model.
        training: How long and how fast.
        claim: What the run is to show: source, licence, expected figures, by key.
    """

    task: Literal["entity_classification"]
    graph: str
    graph_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    without_relations: list[str] = pydantic.Field(default_factory=list)
    labels: LabelSettings
    output: str
    device: str = "auto"
    model: ClassifierSettings = ClassifierSettings()
    training: ClassifierOptions = ClassifierOptions()
    claim: dict[str, Any] = pydantic.Field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ClassificationData:
    """A graph as tensors, with the classes of some entities.

    Attributes:
        edge_index: Every triple in both directions. Long [2, E].
        edge_type: Relation r, or r + R for its inverse. Long [E].
        num_entities: N.
        num_relations: 2R.
        entities: The labelled ones, those to train on first. Long [Q].
        labels: Their classes. Long [Q].
        num_train: How many of them are to train on.
        class_names: By class.
    """

    edge_index: Tensor
    edge_type: Tensor
    num_entities: int
    num_relations: int
    entities: Tensor
    labels: Tensor
    num_train: int
    class_names: list[str]


def load_data(config: EntityClassificationConfig) -> ClassificationData:
    """Read the graph and the classes.

    Args:
        config: Names them.

    Raises:
        GraphError: If a file, column, relation or entity is missing.
    """
    graph = open_dataset(config.graph, config.graph_options)
    dropped = [graph.relation_id(name) for name in config.without_relations]
    triples = graph.triples.filter(~pl.col("relation").is_in(dropped))
    columns = triples.select("head", "relation", "tail").to_numpy().copy()
    heads, relations, tails = torch.from_numpy(columns).T
    tables = [
        _read_labels(part, config.labels) for part in (config.labels.train, config.labels.test)
    ]
    labels = pl.concat(tables)
    class_names = labels["label"].unique().sort().to_list()
    return ClassificationData(
        edge_index=torch.stack([torch.cat([heads, tails]), torch.cat([tails, heads])]),
        edge_type=torch.cat([relations, relations + graph.num_relations]),
        num_entities=graph.num_entities,
        num_relations=2 * graph.num_relations,
        entities=_entity_ids(labels["entity"], graph),
        labels=torch.tensor([class_names.index(name) for name in labels["label"]]),
        num_train=len(tables[0]),
        class_names=class_names,
    )


def build_classifier(
    data: ClassificationData, settings: ClassifierSettings, asked: Tensor | None = None
) -> EntityClassifier:
    """Build the model of a config with new weights.

    Args:
        data: The graph.
        settings: The model.
        asked: Entities to classify; the default is all labelled ones. Long [Q].
    """
    return EntityClassifier(
        data.edge_index,
        data.edge_type,
        data.entities if asked is None else asked,
        num_entities=data.num_entities,
        num_relations=data.num_relations,
        num_classes=len(data.class_names),
        hidden_channels=settings.hidden_channels,
        dropout=settings.dropout,
    )


def train(
    path: str | Path, overrides: Mapping[str, object] | None = None, resume: str = "never"
) -> Path:
    """Train as a config file says; the test entities' classes are not looked at.

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
        raise GraphError(f"resume {resume!r}: a classifier trains from the start; leave it out")
    config = check_settings(EntityClassificationConfig, read_settings(path, overrides), str(path))
    data = load_data(config)
    torch.manual_seed(config.training.seed)
    device = pick_device(config.device)
    model = build_classifier(data, config.model).to(device)
    rows = torch.arange(data.num_train, device=device)
    labels = data.labels[: data.num_train].to(device)
    began = time.process_time()
    records = train_classifier(model, rows, labels, config.training)
    seconds = time.process_time() - began
    output = Path(config.output)
    save_checkpoint(
        output, model=model, step=len(records), config=config.model_dump(mode="json"),
        extra={"cpu_seconds": seconds},
    )  # fmt: skip
    lines = [json.dumps(record) + "\n" for record in records]
    (output / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    return output


def evaluate(run: str | Path) -> dict[str, float]:
    """Classify the test entities of a run.

    Args:
        run: Folder that :func:`train` wrote.

    Returns:
        The figures of ``evaluate_entity_classification``, and ``cpu_seconds`` of training.

    Raises:
        GraphError: If the folder holds no such run.
    """
    checkpoint = read_checkpoint(run)
    config = check_settings(EntityClassificationConfig, checkpoint.config, str(run))
    data = load_data(config)
    model = build_classifier(data, config.model).to(pick_device(config.device))
    load_checkpoint(run, model)
    with torch.no_grad():
        logits = model.eval()()[data.num_train :]
    trained, held_out = data.labels[: data.num_train], data.labels[data.num_train :]
    figures = evaluate_entity_classification(logits, held_out, trained)
    return {**figures, "cpu_seconds": checkpoint.extra["cpu_seconds"]}


def _read_labels(name: str, settings: LabelSettings) -> pl.DataFrame:
    """A table with the columns entity and label, one row an entity."""
    file = find_data(name)
    try:
        table = pl.read_csv(file, separator="\t", infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise GraphError(f"{file}: no table separated by tabs: {error}") from error
    for column in (settings.entity, settings.label):
        if column not in table.columns:
            raise GraphError(f"{file}: no column {column!r}; {nearest(column, table.columns)}")
    labels = table.select(entity=settings.entity, label=settings.label)
    if not len(labels) or any(column.has_nulls() for column in labels):
        raise GraphError(f"{file}: an entity and a class on each line expected, one is missing")
    return labels


def _entity_ids(names: pl.Series, graph: KnowledgeGraph) -> Tensor:
    numbered = graph.entities.select("name").with_row_index("id")
    found = names.to_frame("name").join(numbered, on="name", how="left", maintain_order="left")
    if found["id"].has_nulls():
        missing = found.filter(pl.col("id").is_null())["name"][0]
        raise GraphError(f"labels: {missing!r} is no entity of the graph; check its spelling")
    if found["id"].n_unique() != len(found):
        twice = found.filter(pl.col("id").is_duplicated())["name"][0]
        raise GraphError(f"labels: {twice!r} is labelled twice; keep one line, in one table")
    return torch.from_numpy(found["id"].cast(pl.Int64).to_numpy().copy())
