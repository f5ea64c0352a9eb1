from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kgclip.evaluation import evaluate_retrieval, evaluate_zero_shot


def slow_recall(scores, right, k):
    """Share of rows with a right column among the first k wrong-or-better ones; ties lose."""
    hits = []
    for row in range(len(scores)):
        best = max(scores[row, c].item() for c in range(scores.shape[1]) if right[row, c])
        ahead = sum(
            scores[row, c].item() >= best for c in range(scores.shape[1]) if not right[row, c]
        )
        hits.append(ahead < k)
    return sum(hits) / len(hits)


@pytest.mark.parametrize("seed", [0, 1])
def test_recall_equals_the_slow_one_with_several_captions(seed, monkeypatch):
    monkeypatch.setattr("kgclip.evaluation.retrieval._CHUNK", 4)
    generator = torch.Generator().manual_seed(seed)
    text_to_image = torch.tensor([2, 0, 0, 5, 2, 2, 1, 4, 4, 3, 0, 1])  # picture 6 has none
    images = torch.randn(7, 4, generator=generator)
    texts = F.normalize(images, dim=1)[text_to_image] + 0.7 * torch.randn(
        12, 4, generator=generator
    )
    results = evaluate_retrieval(images * 3, texts, text_to_image, ks=(1, 2))
    scores = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    right = torch.arange(7)[:, None] == text_to_image
    for k in (1, 2):
        forth, back = slow_recall(scores[:6], right[:6], k), slow_recall(scores.T, right.T, k)
        assert results[f"image_to_text/recall@{k}"] == forth
        assert results[f"text_to_image/recall@{k}"] == back
        assert results[f"mean/recall@{k}"] == (forth + back) / 2
    assert results["tie_rate"] == 0.0


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("count", [2, 37, 130])
def test_a_collapsed_encoder_scores_nothing(noise, count):
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, 48, generator=generator)
    images = one + noise * torch.randn(count, 48, generator=generator)
    texts = one.expand(count, -1)
    results = evaluate_retrieval(images, texts)
    assert results.pop("tie_rate") == 1.0
    assert all(value == 0.0 for key, value in results.items() if key.endswith("@1"))
    zero_shot = evaluate_zero_shot(images, texts, torch.arange(count))
    assert zero_shot["top1"] == 0.0
    assert zero_shot["tie_rate"] == 1.0


def test_vectors_of_zeros_score_nothing():
    results = evaluate_retrieval(torch.zeros(3, 2), torch.zeros(3, 2))
    assert results["mean/recall@1"] == 0.0


def test_the_tie_rate_tells_how_many_were_lost():
    features = torch.eye(4)
    features[1] = features[0]
    results = evaluate_retrieval(features, features, ks=(1, 2))
    assert results["mean/recall@1"] == 0.5
    assert results["mean/recall@2"] == 1.0
    assert results["tie_rate"] == 0.5


@pytest.mark.parametrize(
    ("images", "texts", "index", "message"),
    [
        (torch.eye(2), torch.ones(3, 2), None, "2 pictures and 3 texts"),
        (torch.eye(2), torch.ones(3, 2), torch.tensor([0, 1]), "text_to_image: shape"),
        (torch.eye(2), torch.ones(2, 2), torch.tensor([0, 2]), r"0 to 2 given, each in \[0, 2\)"),
        (torch.eye(2), torch.ones(2, 2), torch.tensor([-1, 0]), "-1 to 0 given"),
        (torch.eye(2), torch.ones(2, 3), None, r"\[Q, D\] and \[C, D\]"),
        (torch.eye(2), torch.full((2, 2), torch.nan), None, "NaN"),
        (torch.zeros(0, 2), torch.zeros(0, 2), None, "none given"),
    ],
)
def test_retrieval_refuses_bad_input(images, texts, index, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(images, texts, index)
