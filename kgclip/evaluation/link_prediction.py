"""Filtered link prediction: a scorer and triples come in, ranks of the true entities go out.

There is no Python loop over triples, only one over batches of queries; what counts as known is
looked up in a :class:`~kgclip.evaluation.triple_index.TripleIndex`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from kgclip.evaluation.frequency import FrequencyScorer
from kgclip.evaluation.ranking import (
    Ties,
    check_ties,
    rank_filtered,
    rank_metrics,
    tie_averaged_ranks,
)
from kgclip.evaluation.triple_index import (
    CARDINALITIES,
    SIDES,
    TripleIndex,
    check_triples,
    is_in,
    orient,
    relation_cardinalities,
)

_MAX_CELLS = 1 << 24  # scores that are laid out at once


class Scorer(Protocol):
    """What :func:`evaluate_link_prediction` asks: a model's method or any callable."""

    def __call__(self, anchor_ids: Tensor, relation_ids: Tensor, side: str, /) -> Tensor:
        """Score every entity as the missing side, higher is better. Float [Q, N]."""


@torch.no_grad()
def evaluate_link_prediction(
    score: Scorer,
    test: Tensor,
    known: Tensor,
    num_entities: int,
    ties: Ties = "realistic",
    tolerance: float = 0.0,
    batch_size: int = 512,
    relation_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Rank the true tail and the true head of every test triple among all entities.

    Other right answers, by ``known`` or ``test``, are left out of a ranking (filtered). The
    baseline is :class:`~kgclip.evaluation.FrequencyScorer` over the triples of ``known`` that are
    not in ``test``.

    Args:
        score: ``score(anchor_ids, relation_ids, side)`` → Float [Q, N], higher is better;
            ``side`` is ``"tail"`` (anchors are heads) or ``"head"`` (anchors are tails). Ids
            are on the device of ``test``; the scores may be on another.
        test: Head, relation, tail; duplicates are asked twice. Long [T, 3], T > 0.
        known: All that is known to be true: training, validation, and test or not. Long [K, 3].
        num_entities: N.
        ties: See :func:`~kgclip.evaluation.ranking.rank_candidates`.
        tolerance: Scores that differ by no more than this are tied.
        batch_size: Queries at once; fewer where N is so large that their scores would take more
            than 64 MB. Beside the scores as much again is laid out, no more.
        relation_names: For the keys of single relations, which count together where they share a
            name; the default is their ids.

    Returns:
        The figures of :func:`~kgclip.evaluation.ranking.rank_metrics` under ``tail/``,
        ``head/`` and ``both/`` (all queries of both sides), the baseline's under ``baseline/``
        (both sides), ``relation/<name>/mrr`` (both sides) of each relation in ``test``, and
        ``cardinality/<class>/tail/mrr``, ``…/head/mrr`` and ``…/count`` (triples) of the classes
        1-1, 1-N, N-1, N-N of ``relation_cardinalities``, found in what the baseline counts.

    Raises:
        ValueError: If ids or shapes do not fit, ``test`` is empty, or a score is NaN.
    """
    check_ties(ties, tolerance)
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, at least 1 expected")
    check_triples("test", test, num_entities)
    check_triples("known", known, num_entities)
    if not len(test):
        raise ValueError("test: no triple given, at least one expected")
    if relation_names is not None and int(test[:, 1].max()) >= len(relation_names):
        raise ValueError(
            f"relation_names: {len(relation_names)} given, but test holds relation "
            f"{int(test[:, 1].max())}"
        )
    known = known.to(test.device)
    trained = known[~is_in(known, test, num_entities)]
    baseline = FrequencyScorer(trained, num_entities)
    rows = min(batch_size, max(1, _MAX_CELLS // num_entities))
    found = {}
    for side in SIDES:
        index = TripleIndex(torch.cat([known, test]), num_entities, side)
        found[side] = _rank_side(score, baseline, test, index, side, ties, tolerance, rows)
    groups = dict(found)
    groups["both"] = tuple(torch.cat(parts) for parts in zip(*found.values(), strict=True))
    results = {
        f"{name}/{metric}": value
        for name, (ranks, _, candidates) in groups.items()
        for metric, value in rank_metrics(ranks, candidates).items()
    }
    _, ranks, candidates = groups["both"]
    results |= {f"baseline/{key}": value for key, value in rank_metrics(ranks, candidates).items()}
    results |= _relation_metrics(test[:, 1].cpu(), groups["both"][0], relation_names)
    return results | _cardinality_metrics(test[:, 1], trained, found)


def _rank_side(
    score: Scorer,
    baseline: FrequencyScorer,
    test: Tensor,
    index: TripleIndex,
    side: str,
    ties: Ties,
    tolerance: float,
    batch_size: int,
) -> tuple[Tensor, ...]:
    """Ranks, those of the baseline, and numbers of candidates; all on the CPU, [T] each."""
    batches = []
    for batch in torch.split(test, batch_size):
        anchors, relations, truth = orient(batch, side)
        rows, answers = index.answers(anchors, relations)
        others = answers != truth[rows]
        ignored = rows[others], answers[others]
        scores = score(anchors, relations, side)
        if scores.shape != (len(batch), index.num_entities):
            raise ValueError(
                f"score: shape {list(scores.shape)} returned for side {side!r}, "
                f"{[len(batch), index.num_entities]} expected, one column an entity"
            )
        columns = (
            rank_filtered(scores, truth, *ignored, ties=ties, tolerance=tolerance),
            baseline.rank(relations, truth, ignored, side, ties=ties, tolerance=tolerance),
            index.num_entities - torch.bincount(ignored[0], minlength=len(batch)),
        )
        batches.append([column.cpu() for column in columns])
    return tuple(torch.cat(columns) for columns in zip(*batches, strict=True))


def _relation_metrics(
    relations: Tensor, ranks: Tensor, names: Sequence[str] | None
) -> dict[str, float]:
    """Mean reciprocal rank of each relation, of those of one name together."""
    ids, places = torch.unique(relations.repeat(len(SIDES)), return_inverse=True)
    # Labels need not be unique.
    labels = [str(one) if names is None else names[one] for one in ids.tolist()]
    number = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    groups = torch.tensor([number[label] for label in labels])[places]
    return {
        f"relation/{label}/mrr": float(ranks[groups == place].reciprocal().mean())
        for label, place in number.items()
    }


def _cardinality_metrics(
    relations: Tensor, trained: Tensor, found: Mapping[str, tuple[Tensor, ...]]
) -> dict[str, float]:
    classes = relation_cardinalities(trained)
    labels = [classes.get(relation) for relation in relations.tolist()]
    results = {}
    for label in CARDINALITIES:
        here = torch.tensor([one == label for one in labels])
        if here.any():
            for side, (ranks, *_) in found.items():
                results[f"cardinality/{label}/{side}/mrr"] = float(ranks[here].reciprocal().mean())
            results[f"cardinality/{label}/count"] = float(here.sum())
    return results


@torch.no_grad()
def evaluate_ranking(
    scores: Tensor,
    relevant: Tensor,
    groups: Tensor | None = None,
    asked: Tensor | None = None,
) -> dict[str, float]:
    """Filtered ranking where queries and candidates may be anything, as pictures and facts.

    Args:
        scores: Higher is better. Float [Q, C].
        relevant: All right answers. Bool [Q, C].
        groups: Group of each query, as its relation; figures are means over the groups' means.
            Long [Q]; the default is one group.
        asked: As :func:`rank_answers` takes it.

    Returns:
        ``mrr``, ``hits@1``, ``hits@10`` and ``count`` (items).

    Raises:
        ValueError: If nothing is asked, something asked is not relevant, shapes do not fit, or
            a score is NaN.
    """
    if groups is not None and groups.shape != scores.shape[:1]:
        raise ValueError(f"groups: shape {list(groups.shape)} given, [{len(scores)}] expected")
    rows, _, ranks = rank_answers(scores, relevant, asked)
    if not len(rows):
        raise ValueError("asked: nothing is asked, at least one right answer expected")
    group = torch.zeros_like(rows) if groups is None else groups.to(rows.device)[rows]
    figures = [rank_metrics(ranks[group == one], scores.shape[1]) for one in torch.unique(group)]
    results = {
        name: sum(one[name] for one in figures) / len(figures)
        for name in ("mrr", "hits@1", "hits@10")
    }
    return {**results, "count": float(len(rows))}


def rank_answers(
    scores: Tensor, relevant: Tensor, asked: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Filtered rank of every right answer that is asked.

    Each asked (query, relevant candidate) is one item: the candidate is ranked among those that
    are not relevant to the query, ties at their mean.

    Args:
        scores: Higher is better. Float [Q, C].
        relevant: All right answers. Bool [Q, C].
        asked: The right answers that are asked; the others are only left out of the rankings.
            Bool [Q, C], a subset of ``relevant``; the default is all.

    Returns:
        Query and candidate of each item, long [K], and its 1-based rank, float64 [K].

    Raises:
        ValueError: If something asked is not relevant, shapes do not fit, or a score is NaN.
    """
    asked = relevant if asked is None else asked
    for name, mask in (("relevant", relevant), ("asked", asked)):
        if mask.shape != scores.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}: {mask.dtype} {list(mask.shape)} given, "
                f"torch.bool {list(scores.shape)} expected"
            )
    if bool((asked & ~relevant).any()):
        raise ValueError("asked: holds an answer that is not relevant")
    rows, columns = asked.nonzero(as_tuple=True)
    size = max(1, _MAX_CELLS // max(1, scores.shape[1]))
    ranks = [
        tie_averaged_ranks(scores[queries], truth, relevant[queries])
        for queries, truth in zip(torch.split(rows, size), torch.split(columns, size), strict=True)
    ]
    return rows, columns, torch.cat(ranks) if len(rows) else rows.double()
