from __future__ import annotations

import pytest
import torch

from kgclip.evaluation import evaluate_probe, evaluate_zero_shot


def test_top_k_by_hand():
    classes = torch.eye(3)
    images = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, 1, 0]])
    results = evaluate_zero_shot(images, classes, torch.tensor([0, 1, 2, 1]), ks=(1, 2, 5))
    # The last picture ties its class with class 0: second place.
    assert results == {"top1": 0.25, "top2": 0.75, "top5": 1.0, "tie_rate": 0.25}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0]), "targets: shape"),
        (torch.tensor([0, 3]), r"0 to 3 given, each in \[0, 3\)"),
        (torch.tensor([-1, 0]), "-1 to 0 given"),
    ],
)
def test_bad_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        evaluate_zero_shot(torch.ones(2, 3), torch.eye(3), targets)


def test_no_picture_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        evaluate_zero_shot(torch.ones(0, 3), torch.eye(3), torch.zeros(0, dtype=torch.long))


def test_probe_counts_ties_as_wrong():
    right = torch.tensor([1.0, 1.0, 1.0, 0.0])
    wrong = torch.tensor([0.0, 1.0, 0.9, 1.0])
    assert evaluate_probe(right, wrong) == {"accuracy": 0.5, "tie_rate": 0.25}
    assert evaluate_probe(right, wrong, tolerance=0.2) == {"accuracy": 0.25, "tie_rate": 0.5}


def test_probe_must_beat_every_wrong_answer():
    wrong = torch.tensor([[0.0, 2.0], [0.0, 0.5], [1.0, 0.0]])
    results = evaluate_probe(torch.ones(3), wrong)
    assert results == {"accuracy": pytest.approx(1 / 3), "tie_rate": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (torch.ones(2), torch.ones(3), "shapes"),
        (torch.ones(2, 2), torch.ones(2, 2), "shapes"),
        (torch.ones(0), torch.ones(0), "none given"),
        (torch.ones(2), torch.ones(2, 0), "none given"),
        (torch.tensor([torch.nan]), torch.ones(1), "positive_scores: NaN"),
        (torch.ones(1), torch.tensor([torch.nan]), "negative_scores: NaN"),
    ],
)
def test_bad_probe_is_refused(right, wrong, message):
    with pytest.raises(ValueError, match=message):
        evaluate_probe(right, wrong)
