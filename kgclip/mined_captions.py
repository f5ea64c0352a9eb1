"""Captions that say a triple of the pictured entity, beside captions that say it wrongly.

Entities of a batch of pictures come in, token ids go out. The wrong captions are mined from the
graph (:mod:`kgclip.negatives`), so that none of them says what the training graph has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kgclip.negatives import NegativeSampler, group_members


class MinedCaptions:
    """Draws captions "head relation tail" and their corrupted copies.

    Args:
        labels: One text an entity, N in all.
        relation_labels: One text a relation, R in all.
        known: The training triples.
        tokenizer: From texts to token ids [n, L].
        kinds: Names in :data:`kgclip.negatives.NEGATIVES`, taken in turn.
        num_negatives: Corrupted captions K of each picture.
        share: Share of pictures whose caption is a triple, of those whose entity heads one.

    Raises:
        ValueError: If there is no kind, or ``share`` is out of [0, 1].
    """

    def __init__(
        self,
        labels: Sequence[str],
        relation_labels: Sequence[str],
        known: NegativeSampler,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        kinds: Sequence[str] = ("sibling", "swap", "relation"),
        num_negatives: int = 3,
        share: float = 0.5,
    ) -> None:
        if not kinds or not 0 <= share <= 1:
            raise ValueError(
                f"kinds {list(kinds)}, share {share}: at least one kind and a number in [0, 1] "
                "expected"
            )
        self.labels, self.relation_labels = labels, relation_labels
        self.known, self.tokenizer = known, tokenizer
        self.kinds, self.num_negatives, self.share = tuple(kinds), num_negatives, share
        rows = torch.arange(len(known.triples))
        self._triples_of = group_members(known.triples[:, 0], rows, known.num_entities)

    def __call__(
        self, entities: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the captions of pictures.

        Args:
            entities: Entity of each picture. Long [B].
            generator: Source of randomness.

        Returns:
            Captions, long [B, L]: a triple, or the entity's label; corrupted captions, long
            [B, K, L]; and whether each is there and differs in words, bool [B, K].
        """
        nothing = torch.full_like(entities, -1)
        row = self._triples_of.draw(entities, nothing, generator)
        told = (torch.rand(len(entities), generator=generator) < self.share) & (row >= 0)
        triples = self.known.triples[row[told]]
        negatives, found = self._mine(triples, generator)
        said = iter(self._words(triples))
        captions = [next(said) if one else self.labels[e]
                    for one, e in zip(told.tolist(), entities.tolist(), strict=True)]  # fmt: skip
        text = self.tokenizer(captions)
        wrong = text.unsqueeze(1).repeat(1, self.num_negatives, 1)
        if len(triples):
            wrong[told] = self.tokenizer(self._words(negatives.flatten(0, 1))).view(
                len(triples), self.num_negatives, -1
            )
        mask = torch.zeros(len(entities), self.num_negatives, dtype=torch.bool)
        mask[told] = found
        # Two entities of one name: the negative says the same.
        return text, wrong, mask & (wrong != text.unsqueeze(1)).any(dim=2)

    def _mine(self, triples: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Negatives, long [n, K, 3], the kinds in turn; and whether each was found, bool [n, K]."""
        drawn = [
            self.known.sample(triples, self.kinds[k % len(self.kinds)], generator=generator)
            for k in range(self.num_negatives)
        ]
        negatives, found = (torch.cat(column, dim=1) for column in zip(*drawn, strict=True))
        return negatives, found

    def _words(self, triples: Tensor) -> list[str]:
        return [
            f"{self.labels[head]} {self.relation_labels[relation]} {self.labels[tail]}"
            for head, relation, tail in triples.tolist()
        ]
