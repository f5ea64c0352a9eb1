"""Knowledge graph embeddings: a vector for each entity and relation, trained on triples alone."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.scoring import score_all


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """How embeddings train.

    Attributes:
        epochs: Passes over the triples, each asked for its tail and for its head.
        batch_size: Questions a step.
        lr: Of Adagrad.
        n3: Weight of the nuclear 3-norm.
        dropout: Of the question's vector.
        label_smoothing: Share of the target that goes to all entities.
        seed: Of weights and batches.
    """

    epochs: int = 50
    batch_size: int = 500
    lr: float = 0.1
    n3: float = 0.01
    dropout: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0


class KnowledgeGraphEmbedding(nn.Module):
    """Entities and relations as vectors; heads are asked for by reciprocal relations.

    Args:
        num_entities: Number N of entities.
        num_relations: Number R of relations; reciprocal ones have the ids r + R.
        channels: Width d.
        scoring: A word of ``kgclip.nn.scoring.SCORINGS``.

    Reference:
        Lacroix et al., arXiv 1806.07297 (N3, reciprocal relations, one against all).
    """

    def __init__(
        self, num_entities: int, num_relations: int, channels: int, scoring: str = "complex"
    ) -> None:
        super().__init__()
        self.num_relations, self.scoring = num_relations, scoring
        self.entities = nn.Embedding(num_entities, channels)
        self.relations = nn.Embedding(2 * num_relations, channels)
        nn.init.normal_(self.entities.weight, std=0.1 / math.sqrt(channels / 64))
        nn.init.normal_(self.relations.weight, std=1.0 if scoring == "rotate" else 0.1)

    def forward(self, anchor_ids: Tensor, relation_ids: Tensor, side: str = "tail") -> Tensor:
        """Score every entity as the missing side; what ``evaluate_link_prediction`` calls.

        Args:
            anchor_ids: Heads where the tail is asked, else tails. Long [Q].
            relation_ids: Long [Q], each in [0, R).
            side: ``"tail"`` or ``"head"``.

        Returns:
            Float [Q, N].
        """
        shift = self.num_relations if side == "head" else 0
        anchors, relations = self.entities(anchor_ids), self.relations(relation_ids + shift)
        return score_all(anchors, relations, self.entities.weight, self.scoring)


def train_embedding(
    triples: Tensor, num_entities: int, num_relations: int, channels: int, *,
    scoring: str = "complex", options: EmbeddingOptions | None = None,
) -> KnowledgeGraphEmbedding:  # fmt: skip
    """Train embeddings, each question against all entities.

    Args:
        triples: Head, relation, tail. Long [T, 3], on the device to train on.
        num_entities: Number N of entities.
        num_relations: Number R of relations.
        channels: Width d.
        scoring: A word of ``kgclip.nn.scoring.SCORINGS``.
        options: How long, how fast.

    Returns:
        The model, in evaluation mode. The same seed gives the same model.

    Raises:
        ValueError: If there is no triple.
    """
    if not len(triples):
        raise ValueError("no triple to train on")
    options = options or EmbeddingOptions()
    torch.manual_seed(options.seed)
    model = KnowledgeGraphEmbedding(num_entities, num_relations, channels, scoring)
    model = model.to(triples.device)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=options.lr)
    heads, relations, tails = triples.T
    questions = torch.cat(
        [
            torch.stack([heads, relations, tails], dim=1),
            torch.stack([tails, relations + num_relations, heads], dim=1),
        ]
    )
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.epochs):
        order = torch.randperm(len(questions), generator=generator).to(triples.device)
        for rows in torch.split(order, options.batch_size):
            anchors, kinds, answers = questions[rows].T
            anchor, kind = model.entities(anchors), model.relations(kinds)
            asked = F.dropout(anchor, options.dropout)
            scores = score_all(asked, kind, model.entities.weight, scoring)
            loss = F.cross_entropy(scores, answers, label_smoothing=options.label_smoothing)
            if options.n3:
                parts = (anchor, kind, model.entities(answers))
                loss = loss + options.n3 * sum(_cubes(part, scoring) for part in parts)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()
    return model.eval()


def _cubes(vectors: Tensor, scoring: str) -> Tensor:
    """Sum of the cubed absolute values, mean over the batch."""
    if scoring in ("complex", "rotate"):
        real, imaginary = vectors.chunk(2, dim=1)
        sizes = (real.square() + imaginary.square() + 1e-12).sqrt()
    else:
        sizes = vectors.abs()
    return sizes.pow(3).sum(dim=1).mean()
