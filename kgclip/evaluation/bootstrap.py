"""How sure is a comparison of two methods that answered the same queries?

Figures by query come in, a ratio of means with its interval goes out. Queries are drawn anew,
the same for both methods: what makes a query hard for both then cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MAX_CELLS = 1 << 22  # (sample, query) pairs that are drawn at once


def bootstrap_ratio(
    above: Sequence[float] | np.ndarray,
    below: Sequence[float] | np.ndarray,
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    confidence: float = 0.95,
    num_samples: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """Ratio of two means over the same queries, with its paired-bootstrap interval.

    A mean is the mean over the groups' means (macro). Queries are drawn with replacement within
    each group, so that every sample has each group at its size.

    Args:
        above: Figure of each query by the first method, as its reciprocal rank; its mean over
            the training seeds where there are several. Float [Q].
        below: Figure of the same queries by the second method. Float [Q].
        groups: Group of each query, as its relation. Q values; the default is one group.
        confidence: Share of the samples that the interval holds, in (0, 1).
        num_samples: How often the queries are drawn.
        seed: Of the draws.

    Returns:
        ``ratio``; ``low`` and ``high``, the ends of its interval (percentiles); ``above`` and
        ``below``, the two means; ``count``, the number of queries. A ratio over 0 is infinite.

    Raises:
        ValueError: If there is no query, lengths differ, a figure is negative or not finite, or
            an option is out of its range.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    figures = _pair(above, below)
    if not 0 < confidence < 1 or num_samples < 1:
        raise ValueError(
            f"confidence={confidence}, num_samples={num_samples} given, "
            "expected within (0, 1), and at least 1"
        )
    if groups is None:
        groups = np.zeros(len(figures))
    if len(groups) != len(figures):
        raise ValueError(f"groups: {len(groups)} given, {len(figures)} expected, one a query")
    generator = np.random.default_rng(seed)
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    parts = [figures[numbers == number] for number in range(numbers.max() + 1)]
    mean = np.mean([part.mean(axis=0) for part in parts], axis=0)
    samples = np.mean([_draw_means(part, num_samples, generator) for part in parts], axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_divide(samples), [tail, 1 - tail], method="inverted_cdf")
    return {
        "ratio": float(_divide(mean)),
        "low": float(low),
        "high": float(high),
        "above": float(mean[0]),
        "below": float(mean[1]),
        "count": float(len(figures)),
    }


def _pair(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> np.ndarray:
    """Both figures of each query, checked. Float64 [Q, 2]."""
    if len(above) != len(below) or not len(above):
        raise ValueError(
            f"above has {len(above)} queries, below {len(below)}; "
            "the same number expected, at least one"
        )
    figures = np.stack([above, below], axis=1).astype(np.float64)
    if figures.ndim != 2 or not np.isfinite(figures).all() or (figures < 0).any():
        raise ValueError("above, below: finite numbers of at least 0 expected, one a query")
    return figures


def _draw_means(
    figures: np.ndarray, num_samples: int, generator: np.random.Generator
) -> np.ndarray:
    """Means of queries drawn with replacement. Float64 [S, 2]."""
    count = len(figures)
    size = max(1, _MAX_CELLS // count)
    means = []
    for first in range(0, num_samples, size):
        drawn = generator.integers(count, size=(min(size, num_samples - first), count))
        means.append(figures[drawn].mean(axis=1))
    return np.concatenate(means)


def _divide(means: np.ndarray) -> np.ndarray:
    """First over second along the last axis; 0 / 0 counts as a draw, 1."""
    above, below = means[..., 0], means[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((above == 0) & (below == 0), 1.0, above / below)
