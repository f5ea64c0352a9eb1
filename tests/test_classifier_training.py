"""Classes that the graph tells are learned, folds are fair."""

import math

import pytest
import torch
from torch import nn

from kgclip.classifier_training import (
    ClassifierOptions,
    cross_validate,
    stratified_folds,
    train_classifier,
)
from kgclip.nn.classifier import EntityClassifier


def members():
    """Entities 0 to 39 point at 40 or at 41, which is their class; noise besides."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (40,), generator=generator)
    noise = torch.randint(0, 40, (2, 60), generator=generator)
    ends = torch.cat([torch.stack([torch.arange(40), 40 + labels]), noise], dim=1)
    edge_index = torch.cat([ends, ends.flip(0)], dim=1)
    edge_type = torch.tensor([0] * 40 + [1] * 60 + [2] * 40 + [3] * 60)
    return edge_index, edge_type, labels


def build():
    edge_index, edge_type, _ = members()
    return EntityClassifier(
        edge_index, edge_type, torch.arange(40), num_entities=42, num_relations=4, num_classes=2
    )


def test_the_graph_tells_the_class_and_seeds_repeat():
    labels, models = members()[2], []
    rows = torch.arange(30)
    for _ in range(2):
        torch.manual_seed(0)
        models.append(build())
        records = train_classifier(models[-1], rows, labels[rows], ClassifierOptions(epochs=40))
    assert records[-1]["loss"] < records[0]["loss"]
    assert len(records) == 40
    assert not models[0].training
    assert torch.equal(models[0](), models[1]())
    assert (models[0]().argmax(dim=1) == labels)[30:].float().mean() >= 0.9


def test_cross_validation_sees_what_is_learned_and_what_is_not():
    labels = members()[2]
    options = ClassifierOptions(epochs=30)
    assert cross_validate(build, labels, options=options) >= 0.9
    shuffled = labels[torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    assert cross_validate(build, shuffled, options=options) <= 0.75
    assert cross_validate(build, labels, options=options) == cross_validate(
        build, labels, options=options
    )


def test_folds_have_every_class_alike():
    labels = torch.tensor([0] * 23 + [1] * 10 + [2] * 4)
    folds = stratified_folds(labels, 5, seed=3)
    sizes = torch.bincount(folds)
    assert int(sizes.max() - sizes.min()) <= 1
    for one in range(3):
        counts = torch.bincount(folds[labels == one], minlength=5)
        assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(folds, stratified_folds(labels, 5, seed=3))
    assert not torch.equal(folds, stratified_folds(labels, 5, seed=4))
    for bad in (1, 38):
        with pytest.raises(ValueError, match=f"num_folds: {bad} given"):
            stratified_folds(labels, bad)


@pytest.mark.parametrize(
    "option",
    [{"epochs": 0}, {"lr": -1.0}, {"weight_decay": math.nan}, {"label_smoothing": 1.0}],
)
def test_bad_options_are_refused(option):
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: .* given"):
        ClassifierOptions(**option)


def test_nothing_to_train_on():
    none = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="at least one"):
        train_classifier(build(), none, none)
    with pytest.raises(ValueError, match="as many expected"):
        train_classifier(build(), torch.tensor([0, 1]), torch.tensor([0]))


def test_divergence_is_said():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.full((1, 2), math.inf))

        def forward(self):
            return self.value

    with pytest.raises(FloatingPointError, match="not finite"):
        train_classifier(Broken(), torch.tensor([0]), torch.tensor([0]))
