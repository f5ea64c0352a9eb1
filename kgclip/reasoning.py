"""Questions with several hops and conditions, answered by composing the scores of one hop.

Probabilities in, probabilities out, by fuzzy logic: *and* is the product, *there is a* is the
maximum over what may stand in between. What a graph knows is certain, so known facts win over
scores. Any model that gives probabilities of single facts can be composed.

Reference:
    Arakelyan et al., Complex query answering with neural link predictors, ICLR 2021
    (arXiv 2011.03459), with the product t-norm.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

UNLIKELY = 1e-3


def all_of(*conditions: Tensor) -> Tensor:
    """Probability that all conditions hold: their product.

    Args:
        conditions: At least one; each in [0, 1], of shapes that broadcast.

    Raises:
        ValueError: If there is no condition, or a value is outside [0, 1].
    """
    if not conditions:
        raise ValueError("no condition given, at least one expected")
    for condition in conditions:
        _check(condition)
    return reduce(torch.mul, conditions)


def any_of(*conditions: Tensor) -> Tensor:
    """Probability that one of the conditions holds: 1 - the product of the complements.

    Args:
        conditions: At least one; each in [0, 1], of shapes that broadcast.

    Raises:
        ValueError: If there is no condition, or a value is outside [0, 1].
    """
    return 1 - all_of(*(1 - _check(condition) for condition in conditions))


def hop(start: Tensor, relation: Tensor) -> Tensor:
    """Follow a relation: how likely is there a middle entity that leads to each answer?

    Args:
        start: How likely each middle entity is. Float [..., M], in [0, 1].
        relation: How likely each middle entity has each answer. Float [M, N], in [0, 1].

    Returns:
        The maximum over the middle of start times relation. Float [..., N].

    Raises:
        ValueError: If the widths differ or a value is outside [0, 1].
    """
    _check(start), _check(relation)
    if start.shape[-1] != len(relation):
        raise ValueError(
            f"start has {start.shape[-1]} entities, relation {len(relation)}; the same expected"
        )
    if not len(relation):
        return relation.new_zeros(*start.shape[:-1], relation.shape[1])
    # One start at a time: [M, N] numbers in memory instead of [..., M, N].
    rows = [(row[:, None] * relation).amax(dim=0) for row in start.reshape(-1, len(relation))]
    return (
        torch.stack(rows).reshape(*start.shape[:-1], -1)
        if rows
        else start.new_zeros(*start.shape[:-1], relation.shape[1])
    )


def known_facts_win(probability: Tensor, known: Tensor, unlikely: float = UNLIKELY) -> Tensor:
    """Let what a graph says overrule a model.

    Args:
        probability: Of each answer of one relation, for each entity. Float [..., N].
        known: True for the answers that the graph gives. Bool [..., N].
        unlikely: What is left of the other answers of an entity with a known one, in [0, 1].

    Returns:
        1 for known answers; the others of the same entity times ``unlikely``; entities without a
        known answer as they were. Float [..., N].

    Raises:
        ValueError: If the shapes differ or ``known`` is not bool.
    """
    if known.dtype != torch.bool or known.shape != probability.shape:
        raise ValueError(
            f"known: {known.dtype} {list(known.shape)} given, "
            f"torch.bool {list(probability.shape)} expected"
        )
    told = known.any(dim=-1, keepdim=True)
    others = torch.where(told, probability * unlikely, probability)
    return torch.where(known, torch.ones_like(others), others)


def _check(values: Tensor) -> Tensor:
    if values.numel() and not 0 <= float(values.min()) <= float(values.max()) <= 1:
        raise ValueError(
            f"values from {float(values.min())} to {float(values.max())} given, "
            "probabilities in [0, 1] expected"
        )
    return values
