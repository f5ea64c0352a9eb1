import math

import pytest
import torch

from kgclip.evaluation import evaluate_entity_classification, summarise_seeds


def slow_figures(logits, labels, train_labels):
    right, tied, by_class = [], [], {}
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        best = max(row)
        tied.append(row.count(best) > 1)
        right.append(row.index(best) == label and not tied[-1])
        by_class.setdefault(label, []).append(right[-1])
    means = [sum(values) / len(values) for values in by_class.values()]
    most = max(range(logits.shape[1]), key=lambda one: train_labels.tolist().count(one))
    return {
        "accuracy": sum(right) / len(right),
        "macro_accuracy": sum(means) / len(means),
        "tie_rate": sum(tied) / len(tied),
        "count": len(right),
        "baseline/accuracy": labels.tolist().count(most) / len(right),
    }


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_version(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 4, (30, 5), generator=generator).float()  # many ties
    labels = torch.randint(0, 4, (30,), generator=generator)  # a class without an entity
    trained = torch.randint(0, 5, (17,), generator=generator)
    figures = evaluate_entity_classification(logits, labels, trained)
    assert figures == pytest.approx(slow_figures(logits, labels, trained))
    assert "baseline/accuracy" not in evaluate_entity_classification(logits, labels)


def test_a_constant_model_is_never_right():
    figures = evaluate_entity_classification(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    assert (figures["accuracy"], figures["tie_rate"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2)}, r"logits: torch.float32 \[2\]"),
        ({"logits": torch.zeros(2, 3, dtype=torch.long)}, "logits: torch.int64"),
        ({"logits": torch.full((2, 3), math.nan)}, "logits: NaN"),
        ({"labels": torch.tensor([0, 3])}, "labels: classes 0 to 3"),
        ({"labels": torch.tensor([0, -1])}, "labels: classes -1 to 0"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels: torch.float32"),
        ({"labels": torch.tensor([0])}, "labels: 1 given, 2 expected"),
        ({"labels": torch.zeros(0, dtype=torch.long)}, r"labels: torch.int64 \[0\]"),
        ({"train_labels": torch.tensor([4])}, "train_labels: classes 4 to 4"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"logits": torch.rand(2, 3), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        evaluate_entity_classification(**arguments | change)


def test_seeds_are_summed_up():
    found = summarise_seeds([{"accuracy": 0.5}, {"accuracy": 0.7}, {"accuracy": 0.9}])
    assert found == {
        "accuracy": {
            "mean": pytest.approx(0.7), "sd": pytest.approx(0.2), "lowest": 0.5, "highest": 0.9
        }
    }  # fmt: skip
    assert summarise_seeds([{"accuracy": 0.5}])["accuracy"]["sd"] == 0.0
    with pytest.raises(ValueError, match="none given"):
        summarise_seeds([])
    with pytest.raises(ValueError, match=r"seed 1 differs .* \['a', 'b'\]"):
        summarise_seeds([{"a": 1.0}, {"b": 1.0}])
