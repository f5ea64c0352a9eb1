"""What every contrastive loss rests on: InfoNCE in two forms, and how a loss reads its fields.

An encoder that maps everything to one point gets exactly log(number of candidates) from both
forms, and a loss over no query at all is 0.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.nn.output import KnowledgeOutput, Targets


class Loss(Protocol):
    """What the trainer expects of a loss; any object of this form will do.

    Attributes:
        reads: Fields of the output and of the targets that must not be ``None``.
    """

    reads: tuple[str, ...]

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss, a float scalar connected to what it reads."""


def info_nce(
    queries: Tensor, keys: Tensor, logit_scale: Tensor | float, positives: Tensor
) -> Tensor:
    """InfoNCE with any number of positives a query: the mean of −1/|P| Σ_{p∈P} log softmax_p.

    The softmax runs over all keys, the other positives included.

    Args:
        queries: Unit vectors. Float [Q, D].
        keys: Unit vectors. Float [K, D].
        logit_scale: Inverse temperature. Float scalar.
        positives: True where the key answers the query. Bool [Q, K], at least one True a row.

    Returns:
        Mean over the queries. Float scalar; 0 for no query.

    Raises:
        ValueError: If the shapes do not fit or a query has no positive.

    Reference:
        Khosla et al., Supervised Contrastive Learning (L_out), arXiv 2004.11362.
    """
    logits = similarity_logits(queries, keys, logit_scale)
    check_mask("positives", positives, logits)
    counts = positives.sum(dim=1)
    if not bool((counts > 0).all()):
        row = int((counts == 0).nonzero()[0])
        raise ValueError(f"positives: query {row} has no positive key; leave such queries out")
    chosen = logits.log_softmax(dim=1).masked_fill(~positives, 0.0).sum(dim=1)
    return -mean_over_queries(chosen / counts)


def masked_info_nce(
    queries: Tensor, keys: Tensor, logit_scale: Tensor | float, ignore: Tensor | None = None
) -> Tensor:
    """InfoNCE of query i against key i, where other true answers are no negatives.

    Args:
        queries: Unit vectors. Float [Q, D].
        keys: Unit vectors, the answer to query i in row i. Float [K, D], K >= Q.
        logit_scale: Inverse temperature. Float scalar.
        ignore: True where a key leaves the query's denominator; the own key never does.
            Bool [Q, K].

    Returns:
        Mean over the queries. Float scalar; 0 for no query.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits = similarity_logits(queries, keys, logit_scale)
    if len(keys) < len(queries):
        raise ValueError(f"keys: {len(keys)} rows for {len(queries)} queries, one each expected")
    own = torch.arange(len(queries), device=logits.device)
    if ignore is not None:
        check_mask("ignore", ignore, logits)
        logits = logits.masked_fill(ignore.clone().fill_diagonal_(False), -torch.inf)
    return mean_over_queries(F.cross_entropy(logits, own, reduction="none"))


def read_fields(loss: Loss, output: KnowledgeOutput, targets: Targets) -> list[Tensor]:
    """Return the fields that ``loss.reads`` names, in its order."""
    values = []
    for field in loss.reads:
        in_output = hasattr(output, field)
        value = getattr(output if in_output else targets, field, None)
        if value is None:
            owner = "the model's output" if in_output else "the batch's targets"
            raise ValueError(f"{type(loss).__name__} reads {field!r}, which {owner} left out")
        values.append(value)
    return values


def similarity_logits(queries: Tensor, keys: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Scaled cosines of unit vectors [Q, D] and [K, D]: Float [Q, K]; ValueError for others."""
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries {list(queries.shape)}, keys {list(keys.shape)}: [Q, D] and [K, D] expected"
        )
    return logit_scale * queries @ keys.T


def both_directions(
    left: Tensor, right: Tensor, logit_scale: Tensor | float, ignore: Tensor | None
) -> Tensor:
    """Mean of left → right and right → left; ``ignore`` is Bool [B, B]."""
    flipped = None if ignore is None else ignore.T
    forward = masked_info_nce(left, right, logit_scale, ignore)
    return (forward + masked_info_nce(right, left, logit_scale, flipped)) / 2


def mean_over_queries(per_query: Tensor) -> Tensor:
    """Mean of Float [Q], 0 for no query."""
    # Tensor.mean() of no query would be NaN and end the training.
    return per_query.sum() / max(len(per_query), 1)


def check_mask(name: str, mask: Tensor, logits: Tensor) -> None:
    """Raise ValueError, naming the tensor, unless ``mask`` is Bool of the shape of ``logits``."""
    if mask.dtype != torch.bool:
        raise ValueError(f"{name}: {mask.dtype} given, torch.bool expected")
    check_shape(name, mask, logits)


def check_shape(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise ValueError, naming the tensor, unless it has the shape of ``like``."""
    if tensor.shape != like.shape:
        raise ValueError(f"{name}: {list(tensor.shape)} given, {list(like.shape)} expected")
