"""Scores of triples from the vectors of head, relation and tail.

The vectors may be learned ids or any encoder's output. Complex numbers are two halves of a
vector: real parts first, imaginary parts second.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORINGS = ("transe", "distmult", "complex", "rotate")
_MAX_CELLS = 1 << 24  # differences of rotations that are laid out at once without gradients


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
    return compare(build_query(heads, relations, scoring), tails, scoring)


def score_all(heads: Tensor, relations: Tensor, entities: Tensor, scoring: str) -> Tensor:
    """Score every entity as the tail.

    Args:
        heads: Float [Q, d].
        relations: Float [Q, d].
        entities: Float [N, d].
        scoring: As for :func:`score_triples`.

    Returns:
        Float [Q, N]. Without gradients the memory beside it is bounded; with them, a rotation
        keeps [Q, N, d].
    """
    return compare_all(build_query(heads, relations, scoring), entities, scoring)


def score_relations(heads: Tensor, tails: Tensor, relations: Tensor, scoring: str) -> Tensor:
    """Score every relation between two entities.

    Args:
        heads: Float [Q, d].
        tails: Float [Q, d].
        relations: Float [R, d].
        scoring: As for :func:`score_triples`.

    Returns:
        Float [Q, R].
    """
    if scoring == "transe":
        return compare_all(tails - heads, relations, scoring)
    if scoring == "distmult":
        return (heads * tails) @ relations.T
    if scoring == "complex":  # Re h r t̄ = Re r (h t̄) = the real product of r and h̄ t
        return build_query(tails, invert_relations(heads, scoring), scoring) @ relations.T
    return score_triples(heads[:, None], relations[None], tails[:, None], scoring)


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


def compare(query: Tensor, tails: Tensor, scoring: str) -> Tensor:
    """Score tails against what :func:`build_query` says of them.

    Args:
        query: Float [..., d].
        tails: Float [..., d], of a shape that broadcasts.
        scoring: As for :func:`score_triples`.

    Returns:
        Float [...].
    """
    if scoring == "transe":
        return -(query - tails).abs().sum(dim=-1)
    if scoring == "rotate":
        real, imaginary = (query - tails).chunk(2, dim=-1)
        return -_hypot(real, imaginary).sum(dim=-1)
    return (query * tails).sum(dim=-1)


def compare_all(query: Tensor, entities: Tensor, scoring: str) -> Tensor:
    """:func:`compare` of each query [Q, d] with each entity [N, d]. Float [Q, N]."""
    if scoring == "transe":
        return -torch.cdist(query, entities, p=1)
    if scoring == "rotate":
        rows = max(1, _MAX_CELLS // max(1, entities.numel()))
        parts = torch.split(query, len(query) if torch.is_grad_enabled() else rows)
        return torch.cat([compare(part[:, None], entities, scoring) for part in parts])
    return query @ entities.T


def invert_relations(relations: Tensor, scoring: str) -> Tensor:
    """The vectors with which (tail, relation⁻¹, head) scores like (head, relation, tail).

    Args:
        relations: Float [..., d].
        scoring: As for :func:`score_triples`.

    Returns:
        Float [..., d].
    """
    if scoring == "distmult":
        return relations
    if scoring == "complex":
        real, imaginary = relations.chunk(2, dim=-1)
        return torch.cat([real, -imaginary], dim=-1)
    return -relations


def _hypot(real: Tensor, imaginary: Tensor) -> Tensor:
    """The absolute value, with a gradient at 0 too."""
    return (real.square() + imaginary.square() + 1e-24).sqrt()
