"""Losses over negatives against their formulas written out, row by row."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from kgclip.nn.negative_losses import (
    GraphAlignmentLoss,
    GraphNegativesLoss,
    MarginLoss,
    NegCLIPLoss,
    TextNegativesLoss,
)
from tests.nn.test_losses import build_case, collapse


def test_graph_alignment_is_the_mean_of_two_clip_losses():
    output, targets = build_case()
    targets.pair_ids = None
    clip = ClipLoss()
    pairs = (output.image_features, output.text_features)
    expected = sum(clip(x, output.pair_graph_features, output.logit_scale) for x in pairs) / 2
    torch.testing.assert_close(GraphAlignmentLoss()(output, targets), expected)


def slow_softplus(queries, positives, negatives, mask, scale):
    means = []
    for query, positive, rows, counts in zip(queries, positives, negatives, mask, strict=True):
        gaps = [float(query @ row - query @ positive) for row in rows[counts]]
        if gaps:
            means.append(sum(math.log1p(math.exp(scale * gap)) for gap in gaps) / len(gaps))
    return sum(means) / len(means)


def test_pairwise_softplus_against_the_loop():
    output, targets = build_case()
    text = TextNegativesLoss(scale=5.0)(output, targets).item()
    expected = slow_softplus(
        output.image_features,
        output.text_features,
        output.negative_text_features,
        targets.negative_text_mask,
        5.0,
    )
    assert text == pytest.approx(expected, rel=1e-5)
    graph = GraphNegativesLoss(scale=5.0)(output, targets).item()
    slow = [
        slow_softplus(
            queries,
            output.pair_graph_features,
            output.negative_graph_features,
            targets.negative_graph_mask,
            5.0,
        )
        for queries in (output.image_features, output.text_features)
    ]
    assert graph == pytest.approx(sum(slow) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", [GraphAlignmentLoss, GraphNegativesLoss])
def test_one_side_alone_reads_nothing_of_the_other(kind):
    output, targets = build_case()
    sides = {side: kind(sides=[side])(output, targets) for side in ("image", "text")}
    torch.testing.assert_close(sum(sides.values()) / 2, kind()(output, targets))
    output.text_features = None
    assert torch.equal(kind(sides=["image"])(output, targets), sides["image"])
    with pytest.raises(ValueError, match="text_features"):
        kind()(output, targets)
    for wrong in ([], "image", ["graph"]):
        with pytest.raises(ValueError, match="sides"):
            kind(sides=wrong)


@pytest.mark.parametrize("loss", [GraphNegativesLoss(), TextNegativesLoss(), NegCLIPLoss()])
def test_a_masked_negative_changes_nothing(loss):
    output, targets = build_case()
    expected = loss(output, targets)
    for kind in ("graph", "text"):
        mask = getattr(targets, f"negative_{kind}_mask")
        features = getattr(output, f"negative_{kind}_features").detach().clone()
        features[~mask] = F.normalize(torch.randn_like(features), dim=-1)[~mask]
        setattr(output, f"negative_{kind}_features", features)
    torch.testing.assert_close(loss(output, targets), expected)


def test_negclip_without_negatives_is_clip_loss():
    output, targets = build_case()
    targets.pair_ids = None
    targets.negative_text_mask = torch.zeros_like(targets.negative_text_mask)
    expected = ClipLoss()(output.image_features, output.text_features, output.logit_scale)
    torch.testing.assert_close(NegCLIPLoss()(output, targets), expected)


def test_negclip_columns_of_a_collapsed_encoder():
    output, targets = build_case()
    targets.pair_ids = None
    columns = 6 + int(targets.negative_text_mask.sum())
    expected = (math.log(columns) + math.log(6)) / 2
    assert NegCLIPLoss()(collapse(output), targets).item() == pytest.approx(expected, abs=1e-6)


def test_margin_is_the_sum_of_the_hinges():
    output, targets = build_case()
    targets.pair_ids = None
    cosines = output.image_features @ output.text_features.T
    hinges = []
    for i in range(6):
        row = max(cosines[i, j] for j in range(6) if j != i)
        column = max(cosines[j, i] for j in range(6) if j != i)
        hinges.append(sum(max(0.0, float(other + 0.2 - cosines[i, i])) for other in (row, column)))
    hard = []
    for i in range(6):
        rows = output.negative_text_features[i][targets.negative_text_mask[i]]
        gaps = [float(cosines[i, i] - output.image_features[i] @ row) for row in rows]
        if gaps:
            hard.append(sum(max(0.0, 0.1 - gap) for gap in gaps) / len(gaps))
    expected = sum(hinges) / 6 + 5.0 * sum(hard) / len(hard)
    assert MarginLoss()(output, targets).item() == pytest.approx(expected, rel=1e-5)
    collapsed = MarginLoss()(collapse(output), targets).item()
    assert collapsed == pytest.approx(2 * 0.2 + 5 * 0.1, abs=1e-5)


def test_bad_settings_and_shapes_are_refused():
    with pytest.raises(ValueError, match="scale: 0"):
        GraphNegativesLoss(scale=0)
    with pytest.raises(ValueError, match="negative_margin -1"):
        MarginLoss(negative_margin=-1)
    output, targets = build_case()
    targets.negative_text_mask = targets.negative_text_mask[:, :2]
    with pytest.raises(ValueError, match=r"negatives \[6, 3, 8\].*Bool \[6, K\] expected"):
        TextNegativesLoss()(output, targets)
