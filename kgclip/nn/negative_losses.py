"""Losses over whole graphs and over hard negatives: corrupted graphs, corrupted captions.

A hard negative is like the truth but for one thing (two nouns swapped, an edge reversed). As one
more column of the softmax it takes all of the mass while the objects are still unknown;
:class:`GraphNegativesLoss` and :class:`TextNegativesLoss` therefore compare it with the truth
alone, pair by pair. :class:`NegCLIPLoss` keeps the columns, as the opponent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.nn.info_nce import (
    both_directions,
    check_shape,
    masked_info_nce,
    mean_over_queries,
    read_fields,
    similarity_logits,
)
from kgclip.nn.output import KnowledgeOutput, Targets


class GraphAlignmentLoss:
    """The graph of a pair must match picture and caption: ½ [InfoNCE(I, G) + InfoNCE(T, G)].

    Pairs of the same entity are no negatives of each other where the targets carry ``pair_ids``.

    Args:
        sides: What must match, of ``"image"`` and ``"text"``; their losses are averaged.

    Raises:
        ValueError: If ``sides`` is empty or names anything else.
    """

    reads: tuple[str, ...] = (
        "pair_graph_features", "logit_scale", "image_features", "text_features",
    )  # fmt: skip

    def __init__(self, sides: Sequence[str] = ("image", "text")) -> None:
        self.reads = ("pair_graph_features", "logit_scale", *_features(sides))

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        graph, scale, *sides = read_fields(self, output, targets)
        ids = targets.pair_ids
        same = None if ids is None else ids[:, None] == ids[None, :]
        losses = [both_directions(side, graph, scale, same) for side in sides]
        return torch.stack(losses).mean()


class GraphNegativesLoss:
    """A picture and its caption must be closer to their graph than to its corrupted copies.

    ½ [H(I; G⁺, G⁻) + H(T; G⁺, G⁻)] with H(q; p, n) = softplus(scale · (q·n − q·p)), mean over the
    negatives of each pair, then over the pairs that have one.

    Args:
        scale: Inverse temperature of the comparison, above 0.
        sides: What must be closer, of ``"image"`` and ``"text"``; their losses are averaged.

    Raises:
        ValueError: If ``scale`` is not above 0, or ``sides`` is empty or names anything else.
    """

    reads: tuple[str, ...] = (
        "pair_graph_features", "negative_graph_features", "negative_graph_mask",
        "image_features", "text_features",
    )  # fmt: skip

    def __init__(self, scale: float = 20.0, sides: Sequence[str] = ("image", "text")) -> None:
        self.scale = _above_zero("scale", scale)
        self.reads = (*type(self).reads[:3], *_features(sides))

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the shapes differ."""
        graph, negatives, mask, *sides = read_fields(self, output, targets)
        losses = [pairwise_softplus(side, graph, negatives, mask, self.scale) for side in sides]
        return torch.stack(losses).mean()


class TextNegativesLoss:
    """A picture must be closer to its caption than to the caption's corrupted copies.

    Args:
        scale: Inverse temperature of the comparison, above 0.

    Raises:
        ValueError: If ``scale`` is not above 0.
    """

    reads: tuple[str, ...] = (
        "image_features", "text_features", "negative_text_features", "negative_text_mask",
    )  # fmt: skip

    def __init__(self, scale: float = 20.0) -> None:
        self.scale = _above_zero("scale", scale)

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the shapes differ."""
        image, text, negatives, mask = read_fields(self, output, targets)
        return pairwise_softplus(image, text, negatives, mask, self.scale)


class NegCLIPLoss:
    """CLIP's loss with corrupted captions as further columns of the image's softmax.

    Without any negative it is ``open_clip.loss.ClipLoss``.

    Reference:
        Yuksekgonul et al., NegCLIP, arXiv 2210.01936.
    """

    reads: tuple[str, ...] = (
        "image_features", "text_features", "logit_scale",
        "negative_text_features", "negative_text_mask",
    )  # fmt: skip

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the shapes differ."""
        image, text, scale, negatives, mask = read_fields(self, output, targets)
        _check_negatives(negatives, mask, text)
        ids = targets.pair_ids
        same = torch.eye(len(image), dtype=torch.bool, device=image.device)
        if ids is not None:
            same = ids[:, None] == ids[None, :]
        columns = torch.cat([text, negatives[mask]])
        free = torch.zeros(len(image), int(mask.sum()), dtype=torch.bool, device=image.device)
        to_text = masked_info_nce(image, columns, scale, torch.cat([same, free], dim=1))
        return (to_text + masked_info_nce(text, image, scale, same.T)) / 2


class MarginLoss:
    """Structure-CLIP's hinges: against the hardest other pair, and against corrupted captions.

    mean[relu(max_{j≠i} s_ij + m − s_ii) + relu(max_{j≠i} s_ji + m − s_ii)]
    + w · mean relu(m⁻ − (s_ii − s_i,neg)), s the cosine.

    Args:
        margin: m, at least 0.
        negative_margin: m⁻, at least 0.
        negative_weight: w, at least 0.

    Raises:
        ValueError: If a number is below 0.

    Reference:
        Huang et al., Structure-CLIP, arXiv 2305.06152; the margins are those of its code.
    """

    reads: tuple[str, ...] = (
        "image_features", "text_features", "negative_text_features", "negative_text_mask",
    )  # fmt: skip

    def __init__(
        self, margin: float = 0.2, negative_margin: float = 0.1, negative_weight: float = 5.0
    ) -> None:
        if min(margin, negative_margin, negative_weight) < 0:
            raise ValueError(
                f"margin {margin}, negative_margin {negative_margin}, "
                f"negative_weight {negative_weight}: at least 0 expected"
            )
        self.margin = margin
        self.negative_margin = negative_margin
        self.negative_weight = negative_weight

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the shapes differ."""
        image, text, negatives, mask = read_fields(self, output, targets)
        cosines = similarity_logits(image, text, 1.0)
        own = cosines.diagonal()
        same = torch.eye(len(image), dtype=torch.bool, device=image.device)
        if targets.pair_ids is not None:
            same = targets.pair_ids[:, None] == targets.pair_ids[None, :]
        others = cosines.masked_fill(same, -torch.inf)
        hinges = own.new_zeros(len(own))
        if len(own):
            for dim in (0, 1):
                hinges = hinges + (others.amax(dim=dim) + self.margin - own).relu()
        gaps = _gaps(image, text, negatives, mask)
        hard = _mean_of_negatives((self.negative_margin + gaps).relu(), mask)
        return mean_over_queries(hinges) + self.negative_weight * hard


def pairwise_softplus(
    queries: Tensor, positives: Tensor, negatives: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Mean of softplus(scale · (q·n − q·p)) over each query's negatives, then over the queries.

    Args:
        queries: Unit vectors. Float [B, D].
        positives: The truth of each query. Float [B, D].
        negatives: Float [B, K, D].
        mask: True where the negative counts. Bool [B, K]; a row without any is left out.
        scale: Inverse temperature.

    Returns:
        Float scalar; 0 without negatives, log 2 for a collapsed encoder.

    Raises:
        ValueError: If the shapes do not fit.
    """
    gaps = _gaps(queries, positives, negatives, mask)
    return _mean_of_negatives(F.softplus(scale * gaps), mask)


def _gaps(queries: Tensor, positives: Tensor, negatives: Tensor, mask: Tensor) -> Tensor:
    """How much closer each negative is than the truth: Float [B, K]."""
    _check_negatives(negatives, mask, queries)
    check_shape("positives", positives, queries)
    return torch.einsum("bd,bkd->bk", queries, negatives) - (queries * positives).sum(1)[:, None]


def _mean_of_negatives(losses: Tensor, mask: Tensor) -> Tensor:
    counts = mask.sum(dim=1)
    per_query = (losses * mask).sum(dim=1) / counts.clamp(min=1)
    return per_query.sum() / (counts > 0).sum().clamp(min=1)


def _check_negatives(negatives: Tensor, mask: Tensor, queries: Tensor) -> None:
    if (
        negatives.ndim != 3
        or mask.dtype != torch.bool
        or mask.shape != negatives.shape[:2]
        or negatives[:, :0].shape != (len(queries), 0, queries.shape[-1])
    ):
        raise ValueError(
            f"negatives {list(negatives.shape)}, mask {list(mask.shape)} {mask.dtype}: "
            f"[{len(queries)}, K, {queries.shape[-1]}] and Bool [{len(queries)}, K] expected"
        )


def _features(sides: Sequence[str]) -> list[str]:
    if not sides or isinstance(sides, str) or set(sides) - {"image", "text"}:
        raise ValueError(f"sides: {sides!r} given, a list of 'image' and 'text' expected")
    return [f"{side}_features" for side in sides]


def _above_zero(name: str, value: float) -> float:
    if value <= 0:
        raise ValueError(f"{name}: {value} given, a number above 0 expected")
    return value
