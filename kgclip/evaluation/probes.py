"""Answers to :class:`~kgclip.probes.Question`: any model's, as two callables.

A tie counts as wrong, so a model that maps everything to one vector scores 0 and not 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.evaluation.retrieval import TOLERANCE
from kgclip.evaluation.zero_shot import evaluate_probe
from kgclip.probes import Question

Picture = tuple[str, Any]  # a file, and the box that is meant or None


@torch.no_grad()
def evaluate_probes(
    questions: Sequence[Question],
    encode_images: Callable[[list[Picture]], Tensor],
    encode_texts: Callable[[list[str]], Tensor],
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Share of questions that a model answers right, in all and by kind.

    With one picture a question is right if its caption scores above every wrong one. With
    several (Winoground) ``text`` asks each picture for its caption, ``image`` each caption for
    its picture, and the question is right (Winoground's "group") if all of these are.

    Args:
        questions: At least one.
        encode_images: (file, box) of P distinct pictures → float [P, D], of any length.
        encode_texts: C distinct captions → float [C, D].
        tolerance: Cosines that differ by no more than this are tied, and so wrong.

    Returns:
        ``accuracy`` and ``tie_rate``; ``kind/<kind>/accuracy``; ``macro`` = mean over the kinds;
        ``text`` and ``image`` where a question has several pictures.

    Raises:
        ValueError: If there is no question, or a feature is NaN.
    """
    if not questions:
        raise ValueError("questions: none given, at least one expected")
    pictures = list(dict.fromkeys((file, q.box) for q in questions for file in q.images))
    captions = list(dict.fromkeys(caption for q in questions for caption in q.captions))
    images = F.normalize(encode_images(pictures).float(), dim=-1)
    texts = F.normalize(encode_texts(captions).float(), dim=-1).to(images.device)
    picture_row = {picture: row for row, picture in enumerate(pictures)}
    caption_row = {caption: row for row, caption in enumerate(captions)}
    margins: list[tuple[float, float]] = []  # of text and image; the smaller decides
    for question in questions:
        seen = images[[picture_row[file, question.box] for file in question.images]]
        read = texts[[caption_row[caption] for caption in question.captions]]
        margins.append(_margins(seen @ read.T))
    text, image = torch.tensor(margins, dtype=torch.float64).unbind(dim=1)
    both = torch.minimum(text, image)
    results = _figures(both, tolerance)
    if any(len(question.images) > 1 for question in questions):
        results["text"] = _figures(text, tolerance)["accuracy"]
        results["image"] = _figures(image, tolerance)["accuracy"]
    kinds = sorted({question.kind for question in questions})
    for kind in kinds:
        rows = [row for row, question in enumerate(questions) if question.kind == kind]
        results[f"kind/{kind}/accuracy"] = _figures(both[rows], tolerance)["accuracy"]
    results["macro"] = sum(results[f"kind/{kind}/accuracy"] for kind in kinds) / len(kinds)
    return results


def _margins(scores: Tensor) -> tuple[float, float]:
    """How far the right answers are ahead: of captions by picture, of pictures by caption.

    Args:
        scores: Of P pictures and C >= P captions; the diagonal is right. Float [P, C].
    """
    count = len(scores)
    diagonal = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    right = scores.diagonal()
    rival = scores.masked_fill(diagonal, -torch.inf)
    text = float((right - rival.amax(dim=1)).min())
    if count == 1:  # nothing to choose between
        return text, torch.inf if text == text else text
    return text, float((right - rival[:, :count].amax(dim=0)).min())


def _figures(margins: Tensor, tolerance: float) -> dict[str, float]:
    return evaluate_probe(margins, torch.zeros_like(margins), tolerance)
