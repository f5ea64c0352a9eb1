"""Retrieval between pictures and texts: features come in, recall goes out.

A tie counts as wrong, so an encoder that maps everything to one vector scores 0, not 1. Equal
vectors rarely give bit-equal products, hence ties have a tolerance of a few rounding errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.evaluation.ranking import check_no_nan

TOLERANCE = 1e-6  # cosines in float32 are exact to about this
_CHUNK = 1024  # queries scored at once


@torch.no_grad()
def evaluate_retrieval(
    image_features: Tensor,
    text_features: Tensor,
    text_to_image: Tensor | None = None,
    ks: Sequence[int] = (1, 5, 10),
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Recall of the right text for each picture, and of the right picture for each text.

    A picture with several texts is found if one of them is among the first k. A picture
    without text is not asked, but a text can be confused with it.

    Args:
        image_features: Of any length: they are normalised here. Float [I, D].
        text_features: Likewise. Float [T, D].
        text_to_image: Picture of each text. Long [T], each in [0, I); the default is one text
            a picture, in the same order.
        ks: How many of the first count as found, each at least 1.
        tolerance: Cosines that differ by no more than this are tied.

    Returns:
        ``image_to_text/recall@k``, ``text_to_image/recall@k``, ``mean/recall@k`` (of both
        directions) and ``tie_rate``: the share of queries, of both directions, whose best
        right answer ties with a wrong one; recall falls below the truth by at most this much.

    Raises:
        ValueError: If a feature is NaN, shapes do not fit, or there is nothing to retrieve.
    """
    num_images = len(image_features)
    image_ids = torch.arange(num_images, device=image_features.device)
    if text_to_image is None:
        if len(text_features) != num_images:
            raise ValueError(
                f"text_to_image: not given, but {num_images} pictures and {len(text_features)} "
                "texts are; say which picture each text belongs to"
            )
        text_to_image = image_ids
    if text_to_image.shape != text_features.shape[:1]:
        raise ValueError(
            f"text_to_image: shape {list(text_to_image.shape)} given, "
            f"[{len(text_features)}] expected"
        )
    text_to_image = text_to_image.to(image_features.device)
    if not len(text_to_image):
        raise ValueError("text_features: none given, at least one text expected")
    low, high = int(text_to_image.min()), int(text_to_image.max())
    if low < 0 or high >= num_images:
        raise ValueError(
            f"text_to_image: {low} to {high} given, each in [0, {num_images}) expected"
        )
    described = torch.unique(text_to_image)
    ways = {
        "image_to_text": rank_answers(
            image_features[described], text_features, described, text_to_image, tolerance
        ),
        "text_to_image": rank_answers(
            text_features, image_features, text_to_image, image_ids, tolerance
        ),
    }
    results = {
        f"{way}/recall@{k}": recall
        for way, (ranks, _) in ways.items()
        for k, recall in recalls(ranks, ks).items()
    }
    for k in ks:
        results[f"mean/recall@{k}"] = sum(results[f"{way}/recall@{k}"] for way in ways) / 2
    tied = torch.cat([tied for _, tied in ways.values()])
    return {**results, "tie_rate": float(tied.double().mean())}


def rank_answers(
    queries: Tensor,
    candidates: Tensor,
    query_ids: Tensor,
    candidate_ids: Tensor,
    tolerance: float = TOLERANCE,
) -> tuple[Tensor, Tensor]:
    """Rank of each query's best right answer by cosine, behind every wrong one it ties with.

    Args:
        queries: Float [Q, D].
        candidates: Float [C, D].
        query_ids: What each query shows. Long [Q].
        candidate_ids: What each candidate shows; equal ids are right answers, at least one a
            query. Long [C].
        tolerance: Cosines that differ by no more than this are tied.

    Returns:
        1-based ranks among the wrong answers, Long [Q], and whether the best right answer ties
        with a wrong one, Bool [Q].

    Raises:
        ValueError: If a feature is NaN or widths differ.
    """
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"features: shapes {list(queries.shape)} and {list(candidates.shape)} given, "
            "[Q, D] and [C, D] expected"
        )
    check_no_nan("features", queries)
    check_no_nan("features", candidates)
    queries = F.normalize(queries.float(), dim=1)
    candidates = F.normalize(candidates.float(), dim=1).to(queries.device)
    query_ids, candidate_ids = query_ids.to(queries.device), candidate_ids.to(queries.device)
    ranks, tied = [], []
    for some, ids in zip(torch.split(queries, _CHUNK), torch.split(query_ids, _CHUNK), strict=True):
        scores = some @ candidates.T
        wrong = ids[:, None] != candidate_ids
        best = scores.masked_fill(wrong, -torch.inf).amax(dim=1, keepdim=True)
        no_worse = (scores >= best - tolerance) & wrong
        ranks.append(1 + no_worse.sum(dim=1))
        tied.append((no_worse & (scores <= best + tolerance)).any(dim=1))
    return torch.cat(ranks), torch.cat(tied)


def recalls(ranks: Tensor, ks: Sequence[int]) -> dict[int, float]:
    """Share of ranks that are at most k, by k."""
    return {k: float((ranks <= k).double().mean()) for k in ks}
