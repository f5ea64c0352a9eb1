"""The baseline of link prediction: how often is an entity that side of a relation?"""

from __future__ import annotations

import torch
from torch import Tensor

from kgclip.evaluation.ranking import Ties, count_rows, place_ties
from kgclip.evaluation.triple_index import SIDES, expand_ranges, orient


class FrequencyScorer:
    """The scorer that knows nothing of the anchor: how often is an entity that relation's side?

    What a model must beat before its figures mean anything.

    Args:
        triples: What it counts, duplicates too. Long [M, 3].
        num_entities: N.
    """

    def __init__(self, triples: Tensor, num_entities: int) -> None:
        self.num_entities = num_entities
        self._counts: dict[str, tuple[Tensor, Tensor]] = {}
        self._most = len(triples) + 1
        self._ordered = {}
        for side in SIDES:
            _, relations, answers = orient(triples, side)
            keys, counts = torch.unique(relations * num_entities + answers, return_counts=True)
            self._counts[side] = keys, counts
            self._ordered[side] = (keys // max(1, num_entities) * self._most + counts).sort()[0]

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

    def count(self, relation_ids: Tensor, entity_ids: Tensor, side: str) -> Tensor:
        """How often an entity is that side of a relation. Long [...]."""
        keys, counts = self._counts[side]
        wanted = relation_ids * self.num_entities + entity_ids
        if not len(keys):
            return torch.zeros_like(wanted)
        places = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[places] == wanted, counts[places], 0)

    def rank(
        self,
        relation_ids: Tensor,
        truth: Tensor,
        ignored: tuple[Tensor, Tensor],
        side: str,
        *,
        ties: Ties = "realistic",
        tolerance: float = 0.0,
    ) -> Tensor:
        """:func:`~kgclip.evaluation.ranking.rank_filtered` of its scores, without laying them out.

        Args:
            relation_ids: Long [Q].
            truth: The right entity. Long [Q].
            ignored: Queries and entities that do not count. Both Long [M].
            side: ``"tail"`` or ``"head"``.
            ties: Where a tie counts.
            tolerance: Counts that differ by no more than this are tied.

        Returns:
            Float64 [Q].
        """
        rows, entities = ignored
        mine = self.count(relation_ids, truth, side)
        theirs = self.count(relation_ids[rows], entities, side)
        slack = min(tolerance, float(self._most))
        over = (mine + slack).floor().long() + 1
        at_least = (mine - slack).ceil().long()
        first, last = (
            self._at_least(relation_ids, bound, side)
            - count_rows(rows, theirs >= bound[rows], len(truth))
            for bound in (over, at_least)
        )
        return place_ties(first + 1, last, ties)

    def _at_least(self, relation_ids: Tensor, bounds: Tensor, side: str) -> Tensor:
        """How many entities have at least such a count. Float64 [Q]."""
        ordered = self._ordered[side]
        start = relation_ids * self._most
        found = torch.searchsorted(ordered, start + self._most)
        found = found - torch.searchsorted(ordered, start + bounds.clamp(1, self._most))
        return torch.where(bounds <= 0, self.num_entities, found).double()
