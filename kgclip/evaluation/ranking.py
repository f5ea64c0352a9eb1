"""Ranks of the true candidate, and figures made of ranks.

Scores of queries by candidates come in, float64 ranks go out: they are exact, so that two
ways to compute them agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

Ties = Literal["realistic", "optimistic", "pessimistic"]


def tie_averaged_ranks(scores: Tensor, truth: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Rank of the true candidate for each query, ties counted at their mean.

    A constant scorer therefore gets the chance rank (C + 1) / 2 instead of 1.

    Args:
        scores: Higher is better. Float [Q, C].
        truth: Column of the true candidate. Long [Q], each in [0, C).
        ignore: True where a candidate does not count, as other right answers do not in a
            filtered ranking; the true candidate always counts. Bool [Q, C].

    Returns:
        1-based ranks on the scores' device. Float64 [Q], each in [1, C].

    Raises:
        ValueError: If ``scores`` is not 2-D, holds NaN, or shapes or columns do not fit.

    Reference:
        Berrendorf et al., arXiv 2002.06914 (the "realistic" rank).
    """
    return rank_candidates(scores, truth, ignore)


def rank_candidates(
    scores: Tensor,
    truth: Tensor,
    ignore: Tensor | None = None,
    *,
    ties: Ties = "realistic",
    tolerance: float = 0.0,
) -> Tensor:
    """:func:`tie_averaged_ranks` with a choice of what a tie is and where it counts.

    Args:
        scores: Higher is better. Float [Q, C].
        truth: Column of the true candidate. Long [Q], each in [0, C).
        ignore: True where a candidate does not count. Bool [Q, C].
        ties: ``"realistic"`` = the mean of the tied places, ``"optimistic"`` = the first,
            ``"pessimistic"`` = the last.
        tolerance: Scores that differ by no more than this are tied.

    Returns:
        1-based ranks on the scores' device. Float64 [Q], each in [1, C].

    Raises:
        ValueError: As :func:`tie_averaged_ranks`, or if ``ties`` is unknown or ``tolerance``
            negative.
    """
    _check_scores(scores, truth, ignore)
    rows = columns = truth.new_zeros(0)
    if ignore is not None:
        others = ignore.to(scores.device).scatter(1, truth.to(scores.device)[:, None], False)
        rows, columns = others.nonzero(as_tuple=True)
    return rank_filtered(scores, truth, rows, columns, ties=ties, tolerance=tolerance)


def rank_filtered(
    scores: Tensor,
    truth: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    ties: Ties = "realistic",
    tolerance: float = 0.0,
) -> Tensor:
    """:func:`rank_candidates` where few cells are ignored, listed instead of masked.

    All candidates are counted, and the ignored ones subtracted: no mask of [Q, C] is laid out.

    Args:
        scores: Higher is better. Float [Q, C].
        truth: Column of the true candidate. Long [Q], each in [0, C).
        rows: Query of each ignored cell. Long [M], each in [0, Q).
        columns: Candidate of each ignored cell. Long [M]; no cell occurs twice or is true.
        ties: As :func:`rank_candidates`.
        tolerance: As :func:`rank_candidates`.

    Returns:
        1-based ranks on the scores' device. Float64 [Q], each in [1, C].

    Raises:
        ValueError: As :func:`rank_candidates`.
    """
    check_ties(ties, tolerance)
    _check_scores(scores, truth, None)
    truth, rows, columns = (ids.to(scores.device) for ids in (truth, rows, columns))
    true_scores = scores.gather(1, truth[:, None])
    over, at_least = true_scores + tolerance, true_scores - tolerance
    ignored = scores[rows, columns]
    first = 1 + _count(torch.gt, scores, over)
    first -= count_rows(rows, ignored > over[rows, 0], len(scores))
    last = _count(torch.ge, scores, at_least)
    last -= count_rows(rows, ignored >= at_least[rows, 0], len(scores))
    last += 1 - (true_scores >= at_least)[:, 0].double()  # the true one, whatever it is
    return place_ties(first, last, ties)


def place_ties(first: Tensor, last: Tensor, ties: Ties) -> Tensor:
    """Where in the tied places [first, last] the true candidate counts."""
    if ties == "optimistic":
        return first
    return last if ties == "pessimistic" else (first + last) / 2


def count_rows(rows: Tensor, chosen: Tensor, num_rows: int) -> Tensor:
    """How many of the chosen cells lie in each row.

    Args:
        rows: Row of each cell. Long [M].
        chosen: Bool [M].
        num_rows: Number Q of rows.

    Returns:
        Float64 [Q].
    """
    return torch.bincount(rows[chosen], minlength=num_rows).double()


def _count(compare: Callable[..., Tensor], scores: Tensor, bounds: Tensor) -> Tensor:
    """In how many columns a comparison with the row's bound holds. Float64 [Q]."""
    # Comparing into floats and adding these is several times faster than into booleans, and
    # exact as long as a float holds the count.
    dtype = torch.float32 if scores.shape[1] < 1 << 24 else torch.float64
    held = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    return compare(scores, bounds, out=held).sum(dim=1).double()


def check_ties(ties: str, tolerance: float) -> None:
    """Raise ValueError if ``ties`` is no :data:`Ties` or ``tolerance`` is not at least 0."""
    if ties not in get_args(Ties):
        raise ValueError(f"ties: {ties!r} given, one of {get_args(Ties)} expected")
    if not tolerance >= 0:
        raise ValueError(f"tolerance: {tolerance} given, at least 0 expected")


def _check_scores(scores: Tensor, truth: Tensor, ignore: Tensor | None) -> None:
    if scores.ndim != 2:
        raise ValueError(f"scores: shape {list(scores.shape)} given, [Q, C] expected")
    if truth.shape != scores.shape[:1]:
        raise ValueError(
            f"truth: shape {list(truth.shape)} given, [{len(scores)}] expected, one column a query"
        )
    if ignore is not None and (ignore.shape != scores.shape or ignore.dtype != torch.bool):
        raise ValueError(
            f"ignore: {ignore.dtype} {list(ignore.shape)} given, "
            f"torch.bool {list(scores.shape)} expected"
        )
    if not len(truth):
        return
    if int(truth.min()) < 0 or int(truth.max()) >= scores.shape[1]:
        raise ValueError(
            f"truth: columns {int(truth.min())} to {int(truth.max())} given, "
            f"each in [0, {scores.shape[1]}) expected"
        )
    check_no_nan("scores", scores)


def check_no_nan(name: str, values: Tensor) -> None:
    """Raise ValueError if a tensor holds NaN: no order is right with it."""
    # The largest value of a tensor with NaN is NaN; several times faster than isnan().any().
    if values.numel() and bool(values.max().isnan()):
        raise ValueError(f"{name}: NaN given, numbers expected; did the training diverge?")


def rank_metrics(ranks: Tensor, num_candidates: int | Tensor) -> dict[str, float]:
    """Figures made of ranks.

    AMRI, 1 - (MR - 1) / (E[MR] - 1), is 1 for a perfect scorer and 0 at chance, whatever the
    number of candidates; where no query has a choice it is 0. Mind ``hits@k`` where k is near
    the number of candidates C: a constant scorer has rank (C + 1) / 2, a hit if that is ≤ k.

    Args:
        ranks: 1-based, with or without halves. Float [Q], at least one.
        num_candidates: How many candidates each query has, the true one included and ignored
            ones not. A number, or Long [Q].

    Returns:
        ``mrr``, ``mr``, ``amri``, ``hits@1``, ``hits@3``, ``hits@10`` and ``count``.

    Raises:
        ValueError: If there is no rank, a rank is outside [1, candidates], or lengths differ.

    Reference:
        Berrendorf et al., arXiv 2002.06914 (adjusted mean rank index).
    """
    ranks = ranks.detach().double().cpu()
    candidates = torch.as_tensor(num_candidates).double().cpu().expand(ranks.shape)
    if ranks.ndim != 1 or not len(ranks):
        raise ValueError(f"ranks: shape {list(ranks.shape)} given, [Q] with Q > 0 expected")
    if not bool(((ranks >= 1) & (ranks <= candidates)).all()):
        raise ValueError("ranks: a rank is outside [1, number of candidates]")
    chance = float((candidates - 1).sum()) / 2  # by how much random ranks exceed 1, summed
    return {
        "mrr": float(ranks.reciprocal().mean()),
        "mr": float(ranks.mean()),
        "amri": 1 - float((ranks - 1).sum()) / chance if chance else 0.0,
        **{f"hits@{k}": float((ranks <= k).double().mean()) for k in (1, 3, 10)},
        "count": float(len(ranks)),
    }
