"""Filtered link prediction: a scorer and triples come in, ranks of the true entities go out.

What counts as known is found by binary search in sorted keys relation · N + anchor; there is
no Python loop over triples, only one over batches of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from kgclip.evaluation.ranking import (
    Ties,
    check_ties,
    rank_candidates,
    rank_metrics,
    tie_averaged_ranks,
)

SIDES = ("tail", "head")
_MAX_CELLS = 1 << 24  # scores that evaluate_ranking lays out at once


class Scorer(Protocol):
    """What :func:`evaluate_link_prediction` asks: a model's method or any callable."""

    def __call__(self, anchor_ids: Tensor, relation_ids: Tensor, side: str, /) -> Tensor:
        """Score every entity as the missing side, higher is better. Float [Q, N]."""


class TripleIndex:
    """Triples by (relation, anchor): which entities complete a query.

    Args:
        triples: Head, relation, tail. Long [M, 3].
        num_entities: N.
        side: ``"tail"`` or ``"head"``: the one that is looked up; the other is the anchor.
    """

    def __init__(self, triples: Tensor, num_entities: int, side: str) -> None:
        anchors, relations, answers = _orient(triples, side)
        self.num_entities = num_entities
        self._keys, order = (relations * num_entities + anchors).sort()
        self._answers = answers[order]

    def answer_mask(self, anchor_ids: Tensor, relation_ids: Tensor) -> Tensor:
        """True where (anchor, relation, entity) is one of the triples. Bool [Q, N]."""
        keys = relation_ids * self.num_entities + anchor_ids
        rows, places = expand_ranges(
            torch.searchsorted(self._keys, keys), torch.searchsorted(self._keys, keys, right=True)
        )
        mask = torch.zeros(
            len(keys), self.num_entities, dtype=torch.bool, device=self._answers.device
        )
        mask[rows, self._answers[places]] = True
        return mask


class FrequencyScorer:
    """The scorer that knows nothing of the anchor: how often is an entity that relation's side?

    What a model must beat before its figures mean anything.

    Args:
        triples: What it counts, duplicates too. Long [M, 3].
        num_entities: N.
    """

    def __init__(self, triples: Tensor, num_entities: int) -> None:
        self.num_entities = num_entities
        self._counts = {}
        for side in SIDES:
            _, relations, answers = _orient(triples, side)
            self._counts[side] = torch.unique(
                relations * num_entities + answers, return_counts=True
            )

    def __call__(self, anchor_ids: Tensor, relation_ids: Tensor, side: str) -> Tensor:
        """Counts; ``anchor_ids`` is not looked at. Float [Q, N]."""
        keys, counts = self._counts[side]
        start = relation_ids * self.num_entities
        rows, places = expand_ranges(
            torch.searchsorted(keys, start), torch.searchsorted(keys, start + self.num_entities)
        )
        scores = torch.zeros(len(start), self.num_entities, device=keys.device)
        scores[rows, keys[places] % self.num_entities] = counts[places].float()
        return scores


def expand_ranges(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Every (row, i) with ``start[row] <= i < stop[row]``, in order.

    Args:
        start: Long [Q].
        stop: Long [Q], each at least its ``start``.

    Returns:
        Rows and the i. Both Long [sum of the lengths].
    """
    lengths = stop - start
    rows = torch.repeat_interleave(torch.arange(len(start), device=start.device), lengths)
    first = lengths.cumsum(0) - lengths
    return rows, torch.arange(len(rows), device=start.device) - (first - start)[rows]


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
    baseline is :class:`FrequencyScorer` over the triples of ``known`` that are not in ``test``.

    Args:
        score: ``score(anchor_ids, relation_ids, side)`` → Float [Q, N], higher is better;
            ``side`` is ``"tail"`` (anchors are heads) or ``"head"`` (anchors are tails). Ids
            are on the device of ``test``; the scores may be on another.
        test: Head, relation, tail; duplicates are asked twice. Long [T, 3], T > 0.
        known: All that is known to be true: training, validation, and test or not. Long [K, 3].
        num_entities: N.
        ties: See :func:`~kgclip.evaluation.ranking.rank_candidates`.
        tolerance: Scores that differ by no more than this are tied.
        batch_size: Queries at once; it takes about 16 · N · ``batch_size`` bytes.
        relation_names: For the keys of single relations, which count together where they share a
            name; the default is their ids.

    Returns:
        The figures of :func:`~kgclip.evaluation.ranking.rank_metrics` under ``tail/``,
        ``head/`` and ``both/`` (all queries of both sides), the baseline's under ``baseline/``
        (both sides), and ``relation/<name>/mrr`` (both sides) of each relation in ``test``.

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
    trained = known[~_is_in(known, test, num_entities)]
    scorers = score, FrequencyScorer(trained, num_entities)
    found = []
    for side in SIDES:
        index = TripleIndex(torch.cat([known, test]), num_entities, side)
        found.append(_rank_side(scorers, test, index, side, ties, tolerance, batch_size))
    model, baseline, candidates = (torch.cat(parts) for parts in zip(*found, strict=True))
    parts = {
        **{side: (ranks, counts) for side, (ranks, _, counts) in zip(SIDES, found, strict=True)},
        "both": (model, candidates),
        "baseline": (baseline, candidates),
    }
    results = {
        f"{name}/{metric}": value
        for name, part in parts.items()
        for metric, value in rank_metrics(*part).items()
    }
    return results | _relation_metrics(test[:, 1].cpu(), *parts["both"], relation_names)


def _rank_side(
    scorers: Sequence[Scorer],
    test: Tensor,
    index: TripleIndex,
    side: str,
    ties: Ties,
    tolerance: float,
    batch_size: int,
) -> tuple[Tensor, ...]:
    """Ranks by each scorer, then numbers of candidates; all on the CPU, [T] each."""
    batches = []
    for batch in torch.split(test, batch_size):
        anchors, relations, truth = _orient(batch, side)
        ignore = index.answer_mask(anchors, relations)
        ignore.scatter_(1, truth[:, None], False)
        columns = []
        for score in scorers:
            scores = score(anchors, relations, side)
            if scores.shape != ignore.shape:
                raise ValueError(
                    f"score: shape {list(scores.shape)} returned for side {side!r}, "
                    f"{list(ignore.shape)} expected, one column an entity"
                )
            columns.append(rank_candidates(scores, truth, ignore, ties=ties, tolerance=tolerance))
        columns.append(index.num_entities - ignore.sum(dim=1, dtype=torch.int32))
        batches.append([column.cpu() for column in columns])
    return tuple(torch.cat(columns) for columns in zip(*batches, strict=True))


def _relation_metrics(
    relations: Tensor, ranks: Tensor, candidates: Tensor, names: Sequence[str] | None
) -> dict[str, float]:
    ids_by_name: dict[str, list[int]] = {}  # labels need not be unique
    for relation in torch.unique(relations).tolist():
        name = str(relation) if names is None else names[relation]
        ids_by_name.setdefault(name, []).append(relation)
    both = relations.repeat(len(SIDES))
    results = {}
    for name, ids in ids_by_name.items():
        here = torch.isin(both, torch.tensor(ids))
        results[f"relation/{name}/mrr"] = rank_metrics(ranks[here], candidates[here])["mrr"]
    return results


def _orient(triples: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, relations and answers of the questions for one side."""
    heads, relations, tails = triples.unbind(dim=1)
    return (heads, relations, tails) if side == "tail" else (tails, relations, heads)


def _is_in(triples: Tensor, others: Tensor, num_entities: int) -> Tensor:
    """Whether each triple is among the others. Bool [M]."""
    # In two steps, because relation · N² overflows in a large graph.
    pairs = torch.cat([triples, others])
    keys = torch.unique(pairs[:, 1] * num_entities + pairs[:, 0], return_inverse=True)[1]
    keys = keys * num_entities + pairs[:, 2]
    return torch.isin(keys[: len(triples)], keys[len(triples) :])


def check_triples(
    name: str, triples: Tensor, num_entities: int, num_relations: int | None = None
) -> None:
    """Check triples of ids.

    Args:
        name: What the message calls them.
        triples: Expected long [M, 3]: head, relation, tail.
        num_entities: Heads and tails are below it.
        num_relations: Relations are below it; ``None`` = any from 0.

    Raises:
        ValueError: Says what was given and what was expected.
    """
    if triples.ndim != 2 or triples.shape[1] != 3 or triples.dtype != torch.long:
        raise ValueError(
            f"{name}: {triples.dtype} {list(triples.shape)} given, "
            "torch.int64 [M, 3] expected: head, relation, tail"
        )
    if not len(triples):
        return
    if int(triples.min()) < 0:
        raise ValueError(f"{name}: id {int(triples.min())} given, at least 0 expected")
    for what, column, count in (
        ("entity", triples[:, ::2], num_entities),
        ("relation", triples[:, 1], num_relations),
    ):
        if count is not None and int(column.max()) >= count:
            raise ValueError(f"{name}: {what} {int(column.max())} given, below {count} expected")


@torch.no_grad()
def evaluate_ranking(
    scores: Tensor,
    relevant: Tensor,
    groups: Tensor | None = None,
    asked: Tensor | None = None,
) -> dict[str, float]:
    """Filtered ranking where queries and candidates may be anything, as pictures and facts.

    Each asked (query, relevant candidate) is one item: the candidate is ranked among those that
    are not relevant to the query, ties at their mean.

    Args:
        scores: Higher is better. Float [Q, C].
        relevant: All right answers. Bool [Q, C].
        groups: Group of each query, as its relation; figures are means over the groups' means.
            Long [Q]; the default is one group.
        asked: The right answers that are asked; the others are only left out of the rankings.
            Bool [Q, C], a subset of ``relevant``; the default is all.

    Returns:
        ``mrr``, ``hits@1``, ``hits@10`` and ``count`` (items).

    Raises:
        ValueError: If nothing is asked, something asked is not relevant, shapes do not fit, or
            a score is NaN.
    """
    asked = relevant if asked is None else asked
    for name, mask in (("relevant", relevant), ("asked", asked)):
        if mask.shape != scores.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}: {mask.dtype} {list(mask.shape)} given, "
                f"torch.bool {list(scores.shape)} expected"
            )
    if groups is not None and groups.shape != scores.shape[:1]:
        raise ValueError(f"groups: shape {list(groups.shape)} given, [{len(scores)}] expected")
    if bool((asked & ~relevant).any()):
        raise ValueError("asked: holds an answer that is not relevant")
    rows, columns = asked.nonzero(as_tuple=True)
    if not len(rows):
        raise ValueError("asked: nothing is asked, at least one right answer expected")
    size = max(1, _MAX_CELLS // scores.shape[1])
    ranks = torch.cat(
        [
            tie_averaged_ranks(scores[queries], truth, relevant[queries])
            for queries, truth in zip(
                torch.split(rows, size), torch.split(columns, size), strict=True
            )
        ]
    )
    group = torch.zeros_like(rows) if groups is None else groups.to(rows.device)[rows]
    figures = [rank_metrics(ranks[group == one], scores.shape[1]) for one in torch.unique(group)]
    results = {
        name: sum(one[name] for one in figures) / len(figures)
        for name in ("mrr", "hits@1", "hits@10")
    }
    return {**results, "count": float(len(rows))}
