"""Triples by what is asked of them: the answers of a query, classes of relations, checks of ids.

A query (relation, anchor) is looked up by binary search in sorted keys relation · N + anchor;
there is no Python loop over triples.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDES = ("tail", "head")
CARDINALITIES = ("1-1", "1-N", "N-1", "N-N")


class TripleIndex:
    """Triples by (relation, anchor): which entities complete a query.

    Args:
        triples: Head, relation, tail; duplicates count once. Long [M, 3].
        num_entities: N.
        side: ``"tail"`` or ``"head"``: the one that is looked up; the other is the anchor.
    """

    def __init__(self, triples: Tensor, num_entities: int, side: str) -> None:
        anchors, relations, answers = orient(triples, side)
        self.num_entities = num_entities
        self._keys, numbers = torch.unique(relations * num_entities + anchors, return_inverse=True)
        cells = torch.unique(numbers * num_entities + answers)
        self._answers = cells % max(1, num_entities)
        counts = torch.bincount(cells // max(1, num_entities), minlength=len(self._keys))
        self._start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def answers(self, anchor_ids: Tensor, relation_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Every (query, entity) for which (anchor, relation, entity) is one of the triples.

        Args:
            anchor_ids: Long [Q].
            relation_ids: Long [Q].

        Returns:
            Queries, ascending, and entities. Both Long [number of answers]; none occurs twice.
        """
        keys = relation_ids * self.num_entities + anchor_ids
        first = torch.searchsorted(self._keys, keys)
        last = torch.searchsorted(self._keys, keys, right=True)
        rows, places = expand_ranges(self._start[first], self._start[last])
        return rows, self._answers[places]


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


def orient(triples: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, relations and answers of the questions for one side; Long [M] each."""
    heads, relations, tails = triples.unbind(dim=1)
    return (heads, relations, tails) if side == "tail" else (tails, relations, heads)


def is_in(triples: Tensor, others: Tensor, num_entities: int) -> Tensor:
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


def relation_cardinalities(triples: Tensor) -> dict[int, str]:
    """Class of each relation: how many tails a head has, and how many heads a tail.

    Args:
        triples: Head, relation, tail; duplicates count once. Long [M, 3].

    Returns:
        ``"1-1"``, ``"1-N"`` (many tails), ``"N-1"`` (many heads) or ``"N-N"`` by relation, for
        those that have a triple.

    Reference:
        Bordes et al., NIPS 2013: many are 1.5 or more on average.
    """
    size = int(triples.max()) + 1 if len(triples) else 1
    ids, numbers = torch.unique(triples[:, 1], return_inverse=True)
    heads, places = torch.unique(numbers * size + triples[:, 0], return_inverse=True)
    tails = torch.unique(numbers * size + triples[:, 2])
    edges = heads[torch.unique(places * size + triples[:, 2]) // size]
    num_heads, num_tails, num_edges = (
        torch.bincount(keys // size, minlength=len(ids)) for keys in (heads, tails, edges)
    )
    many = num_edges >= 1.5 * num_heads, num_edges >= 1.5 * num_tails
    many_tails, many_heads = (flags.tolist() for flags in many)
    return {
        relation: f"{'N' if heads else '1'}-{'N' if tails else '1'}"
        for relation, heads, tails in zip(ids.tolist(), many_heads, many_tails, strict=True)
    }
