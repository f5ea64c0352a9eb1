"""Training of entity classifiers on the whole graph, and choices by cross-validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.evaluation.entity_classification import evaluate_entity_classification
from kgclip.progress import build_progress


@dataclasses.dataclass(frozen=True)
class ClassifierOptions:
    """How a classifier trains: Adam on all labelled entities at once.

    Attributes:
        epochs: Steps, at least 1.
        lr: Of Adam.
        weight_decay: Of Adam (L2).
        label_smoothing: Share of the target that goes to all classes.
        seed: Of weights and dropout.

    Raises:
        ValueError: If a value is out of range.
    """

    epochs: int = 50
    lr: float = 0.01
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"epochs": 1, "lr": 0, "weight_decay": 0, "label_smoothing": 0}
        for name, least in lowest.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: {getattr(self, name)} given, at least {least} expected")
        if self.label_smoothing >= 1:
            raise ValueError(f"label_smoothing: {self.label_smoothing} given, below 1 expected")


def train_classifier(
    model: nn.Module, rows: Tensor, labels: Tensor, options: ClassifierOptions | None = None
) -> list[dict[str, Any]]:
    """Train a model in place; it is left in evaluation mode.

    Args:
        model: ``model()`` gives logits, Float [Q, C].
        rows: Rows of the logits that are trained on. Long [T].
        labels: Their classes. Long [T].
        options: How long, how fast.

    Returns:
        A record an epoch: ``epoch`` and ``loss``.

    Raises:
        ValueError: If there is nothing to train on or the lengths differ.
        FloatingPointError: If the loss is not finite.
    """
    options = options or ClassifierOptions()
    if not len(rows) or rows.shape != labels.shape:
        raise ValueError(
            f"rows: {list(rows.shape)} given with labels {list(labels.shape)}, "
            "as many expected, at least one"
        )
    optimizer = torch.optim.Adam(
        model.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True
    )
    losses = []
    model.train()
    with build_progress() as progress:
        bar = progress.add_task("training", total=options.epochs, loss="")
        for _ in range(options.epochs):
            smoothing = options.label_smoothing
            loss = F.cross_entropy(model()[rows], labels, label_smoothing=smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()
            losses.append(loss.detach())
            progress.update(bar, advance=1)
    model.eval()
    records = [
        {"epoch": epoch, "loss": loss}
        for epoch, loss in enumerate(torch.stack(losses).tolist(), start=1)
    ]
    if not bool(torch.stack(losses).isfinite().all()):
        raise FloatingPointError("the loss is not finite; lower lr")
    return records


def stratified_folds(labels: Tensor, num_folds: int, seed: int = 0) -> Tensor:
    """Deal labelled entities into folds so that each class is in all of them alike.

    Args:
        labels: Long [T].
        num_folds: At least 2.
        seed: Of the deal.

    Returns:
        Fold of each, in [0, num_folds). Long [T]; sizes differ by one at most.

    Raises:
        ValueError: If there are fewer than 2 folds or fewer entities than folds.
    """
    if not 2 <= num_folds <= len(labels):
        raise ValueError(f"num_folds: {num_folds} given, 2 to {len(labels)} expected")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    folds = torch.empty_like(labels)
    folds[by_class] = torch.arange(len(labels)) % num_folds
    return folds


def cross_validate(
    build: Callable[[], nn.Module],
    labels: Tensor,
    *,
    num_folds: int = 5,
    seed: int = 0,
    options: ClassifierOptions | None = None,
) -> float:
    """Share of labelled entities that are classified right by models that did not see them.

    Args:
        build: Makes a new model whose rows are the labelled entities.
        labels: Long [T].
        num_folds: At least 2.
        seed: Of the folds and, with the fold, of weights and dropout.
        options: How each model trains; its seed does not count.
    """
    options = options or ClassifierOptions()
    right = 0.0
    for fold, (train_rows, held_out) in enumerate(_splits(labels, num_folds, seed)):
        torch.manual_seed(seed * num_folds + fold)
        model = build()
        train_classifier(model, train_rows, labels[train_rows], options)
        with torch.no_grad():
            logits = model()[held_out]
        figures = evaluate_entity_classification(logits, labels[held_out])
        right += figures["accuracy"] * len(held_out)
    return right / len(labels)


def _splits(labels: Tensor, num_folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    folds = stratified_folds(labels, num_folds, seed)
    for fold in range(num_folds):
        yield (folds != fold).nonzero().squeeze(1), (folds == fold).nonzero().squeeze(1)
