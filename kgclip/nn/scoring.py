"""Scores of triples from the vectors of head, relation and tail.

The vectors may be learned ids or any encoder's output. Complex numbers are two halves of a
vector: real parts first, imaginary parts second.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORINGS = ("transe", "distmult", "complex", "rotate")


def score_triples(heads: Tensor, relations: Tensor, tails: Tensor, scoring: str) -> Tensor:
    """Score triples; higher is better.

    Args:
        heads: Float [..., d]; d is even for ``"complex"`` and ``"rotate"``.
        relations: Float [..., d]; of a rotation only the first d/2 count, as angles in radians.
        tails: Float [..., d].
        scoring: ``"transe"`` −‖h + r − t‖₁, ``"distmult"`` Σ h r t, ``"complex"``
            Re Σ h r t̄, or ``"rotate"`` −Σ |h e^{ir} − t|.

    Returns:
        Float [...].

    Raises:
        ValueError: If ``scoring`` is another word or d is odd where it must not be.

    Reference:
        Bordes et al., NIPS 2013; Yang et al., arXiv 1412.6575; Trouillon et al.,
        arXiv 1606.06357; Sun et al., arXiv 1902.10197.
    """
    query = build_query(heads, relations, scoring)
    if scoring == "transe":
        return -(query - tails).abs().sum(dim=-1)
    if scoring == "rotate":
        real, imaginary = (query - tails).chunk(2, dim=-1)
        return -torch.hypot(real, imaginary).sum(dim=-1)
    return (query * tails).sum(dim=-1)


def score_all(heads: Tensor, relations: Tensor, entities: Tensor, scoring: str) -> Tensor:
    """Score every entity as the tail.

    Args:
        heads: Float [Q, d].
        relations: Float [Q, d].
        entities: Float [N, d].
        scoring: As for :func:`score_triples`.

    Returns:
        Float [Q, N].
    """
    query = build_query(heads, relations, scoring)
    if scoring == "transe":
        return -torch.cdist(query, entities, p=1)
    if scoring == "rotate":
        real, imaginary = (query[:, None] - entities).chunk(2, dim=-1)
        return -torch.hypot(real, imaginary).sum(dim=-1)
    return query @ entities.T


def build_query(heads: Tensor, relations: Tensor, scoring: str) -> Tensor:
    """What head and relation say of the tail: a point to be near to, or a direction. [..., d]."""
    if scoring not in SCORINGS:
        raise ValueError(f"scoring: {scoring!r} given, one of {SCORINGS} expected")
    if scoring == "transe":
        return heads + relations
    if scoring == "distmult":
        return heads * relations
    if heads.shape[-1] % 2:
        raise ValueError(f"{scoring}: width {heads.shape[-1]} given, an even number expected")
    real, imaginary = heads.chunk(2, dim=-1)
    if scoring == "rotate":
        angle = relations.chunk(2, dim=-1)[0]
        cosine, sine = angle.cos(), angle.sin()
    else:
        cosine, sine = relations.chunk(2, dim=-1)
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)
