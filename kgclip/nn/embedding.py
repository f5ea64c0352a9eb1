"""Knowledge graph embeddings: a vector for each entity and relation, and the scores they give.

Two id spaces of relations are kept apart by their types. A relation id is in [0, R). A directed
id (:data:`DirectedIds`) is in [0, 2R): r asks for the tail, r + R asks for the head. Only
:meth:`KnowledgeGraphEmbedding.direct` makes directed ids.
"""

from __future__ import annotations

import copy
import math
from typing import NewType

import torch
from torch import Tensor, nn

from kgclip.nn.scoring import SCORINGS, invert_relations, score_all

DirectedIds = NewType("DirectedIds", Tensor)
_ENCODED_AT_ONCE = 8192  # entities that :meth:`encode_entities` gives the encoder at once


class KnowledgeGraphEmbedding(nn.Module):
    """Scores of triples from vectors of ids, or of any encoder's output.

    Args:
        num_entities: Number N of entities.
        num_relations: Number R of relations.
        channels: Width d.
        scoring: A word of ``kgclip.nn.scoring.SCORINGS``.
        reciprocal: Heads are asked for by relation vectors of their own; else by those that score
            (tail, relation⁻¹, head) like (head, relation, tail).
        encode: From entity ids, Long [n], to vectors, Float [n, d]: a text tower over their
            names, an image tower over their pictures, a graph network. Default: learned ids.
        scale: Standard deviation of new vectors; the default suits each scoring.

    Raises:
        ValueError: If a size is below 1, or ``scoring`` is another word or does not fit the width.

    Reference:
        Lacroix et al., arXiv 1806.07297 (reciprocal relations).
    """

    def __init__(
        self,
        num_entities: int,
        num_relations: int,
        channels: int,
        scoring: str = "complex",
        *,
        reciprocal: bool = True,
        encode: nn.Module | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        sizes = {"num_entities": num_entities, "num_relations": num_relations, "channels": channels}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}: {size} given, at least 1 expected")
        if scoring not in SCORINGS:
            raise ValueError(f"scoring: {scoring!r} given, one of {SCORINGS} expected")
        if scoring in ("complex", "rotate") and channels % 2:
            raise ValueError(f"channels: {channels} given, {scoring} needs an even number")
        self.num_entities, self.num_relations, self.channels = num_entities, num_relations, channels
        self.scoring, self.reciprocal = scoring, reciprocal
        self.relations = nn.Embedding(num_relations * (2 if reciprocal else 1), channels)
        if encode is None:
            encode = nn.Embedding(num_entities, channels)
            wide = 0.1 / math.sqrt(channels / 64)
            nn.init.normal_(encode.weight, std=wide if scale is None else scale)
        self.entities = encode
        wide = 1.0 if scoring == "rotate" else 0.1
        nn.init.normal_(self.relations.weight, std=wide if scale is None else scale)

    @property
    def learns_ids(self) -> bool:
        """Whether entities are learned ids, not an encoder's output."""
        return isinstance(self.entities, nn.Embedding)

    def direct(self, relation_ids: Tensor, side: str) -> DirectedIds:
        """Directed ids of relations, each in [0, 2R).

        Args:
            relation_ids: Long [...], each in [0, R).
            side: ``"tail"`` or ``"head"``: what is asked for.

        Raises:
            ValueError: If ``side`` is another word.
        """
        if side not in ("tail", "head"):
            raise ValueError(f"side: {side!r} given, 'tail' or 'head' expected")
        return DirectedIds(relation_ids + self.num_relations if side == "head" else relation_ids)

    def directed_vectors(self) -> Tensor:
        """Vectors of all directed ids. Float [2R, d]."""
        weight: Tensor = self.relations.weight
        if self.reciprocal:
            return weight
        return torch.cat([weight, invert_relations(weight, self.scoring)])

    def forward(self, anchor_ids: Tensor, relation_ids: Tensor, side: str = "tail") -> Tensor:
        """Score every entity as the missing side; what ``evaluate_link_prediction`` calls.

        Args:
            anchor_ids: Heads where the tail is asked, else tails. Long [Q].
            relation_ids: Long [Q], each in [0, R).
            side: ``"tail"`` or ``"head"``.

        Returns:
            Float [Q, N].

        Raises:
            ValueError: If ``side`` is another word or the encoder's vectors do not fit.
        """
        directed = self.direct(relation_ids, side)
        entities = self.encode_entities()
        relations = self.directed_vectors()[directed]
        return score_all(entities[anchor_ids], relations, entities, self.scoring)

    def encode_entities(self) -> Tensor:
        """Vectors of all entities; an encoder is asked for some thousands at a time. Float [N, d].

        Raises:
            ValueError: If the encoder's vectors have another shape.
        """
        if isinstance(self.entities, nn.Embedding):
            return self.entities.weight
        ids = torch.arange(self.num_entities, device=self.relations.weight.device)
        return torch.cat([self.encode(part) for part in torch.split(ids, _ENCODED_AT_ONCE)])

    def encode(self, entity_ids: Tensor) -> Tensor:
        """Vectors of some entities. Float [n, d].

        Raises:
            ValueError: If the encoder's vectors have another shape.
        """
        vectors: Tensor = self.entities(entity_ids)
        if vectors.shape != (len(entity_ids), self.channels):
            raise ValueError(
                f"encode: {list(vectors.shape)} returned for {len(entity_ids)} ids, "
                f"[{len(entity_ids)}, {self.channels}] expected"
            )
        return vectors

    @torch.no_grad()
    def with_encoded_entities(self) -> KnowledgeGraphEmbedding:
        """A copy that holds the encoder's vectors, so that many questions encode but once.

        A model of learned ids is its own copy.
        """
        if self.learns_ids:
            return self
        bare = copy.copy(self)
        bare._modules = {
            **self._modules,
            "entities": nn.Embedding(
                self.num_entities, self.channels, _weight=self.encode_entities(), _freeze=True
            ),
        }
        return bare
