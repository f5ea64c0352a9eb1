"""Zero-shot classification, and probes: is the right one of two scored higher?

Ties count as wrong, as in :mod:`kgclip.evaluation.retrieval`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kgclip.evaluation.ranking import check_no_nan
from kgclip.evaluation.retrieval import TOLERANCE, rank_answers, recalls


@torch.no_grad()
def evaluate_zero_shot(
    image_features: Tensor,
    class_features: Tensor,
    targets: Tensor,
    ks: Sequence[int] = (1, 5),
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Share of pictures whose class is among the k whose text is nearest.

    Args:
        image_features: Of any length: they are normalised here. Float [Q, D], Q > 0.
        class_features: One a class, likewise. Float [C, D].
        targets: Class of each picture. Long [Q], each in [0, C).
        ks: Each at least 1.
        tolerance: Cosines that differ by no more than this are tied.

    Returns:
        ``top<k>`` for each k, and ``tie_rate``: the share of pictures whose class ties with
        another one.

    Raises:
        ValueError: If a feature is NaN, a target is no class, or shapes do not fit.
    """
    if targets.shape != image_features.shape[:1] or not len(targets):
        raise ValueError(
            f"targets: shape {list(targets.shape)} given, [{len(image_features)}] with at least "
            "one picture expected"
        )
    if int(targets.min()) < 0 or int(targets.max()) >= len(class_features):
        raise ValueError(
            f"targets: {int(targets.min())} to {int(targets.max())} given, "
            f"each in [0, {len(class_features)}) expected"
        )
    classes = torch.arange(len(class_features))
    ranks, tied = rank_answers(image_features, class_features, targets, classes, tolerance)
    top = {f"top{k}": share for k, share in recalls(ranks, ks).items()}
    return {**top, "tie_rate": float(tied.double().mean())}


@torch.no_grad()
def evaluate_probe(
    positive_scores: Tensor, negative_scores: Tensor, tolerance: float = 0.0
) -> dict[str, float]:
    """Share of questions whose right answer scores higher than each wrong one.

    Args:
        positive_scores: Of the right answers. Float [Q], Q > 0.
        negative_scores: Of the wrong answers, one or K a question. Float [Q] or [Q, K].
        tolerance: Scores that differ by no more than this are tied.

    Returns:
        ``accuracy``, and ``tie_rate``: the share of questions whose right answer ties with the
        best wrong one.

    Raises:
        ValueError: If a score is NaN, there is no question, or shapes do not fit.
    """
    check_no_nan("positive_scores", positive_scores)
    check_no_nan("negative_scores", negative_scores)
    shape = negative_scores.shape
    if positive_scores.ndim != 1 or len(shape) not in (1, 2) or shape[:1] != positive_scores.shape:
        raise ValueError(
            f"scores: shapes {list(positive_scores.shape)} and {list(shape)} given, "
            "[Q] and [Q] or [Q, K] expected"
        )
    if not negative_scores.numel():
        raise ValueError("scores: none given, at least one question expected")
    rival = negative_scores if negative_scores.ndim == 1 else negative_scores.amax(dim=1)
    right = positive_scores > rival + tolerance
    tied = ~right & (positive_scores >= rival - tolerance)
    return {
        "accuracy": float(right.double().mean()),
        "tie_rate": float(tied.double().mean()),
    }
