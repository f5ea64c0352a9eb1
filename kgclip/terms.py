"""The losses of a config as the trainer takes them, with what they need of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.config import LossSettings
from kgclip.graph_similarity import PersonalizedPageRank, SharedNeighbors
from kgclip.nn.losses import LOSSES, same_entity
from kgclip.tables import GraphError
from kgclip.trainer import LossTerm


def build_terms(losses: Mapping[str, LossSettings], corpus: Corpus) -> dict[str, LossTerm]:
    """Build the losses of a config; all that comes from the graph comes from training triples.

    ``e2r`` gets the relations' counts unless its options say ``relation_counts``, and the option
    ``similarity`` of ``multi_positive`` is a name in ``SIMILARITIES``.

    Args:
        losses: Settings by name in ``LOSSES``.
        corpus: The training graph.

    Raises:
        GraphError: If an option is unknown or its value of no use; names the loss.
    """
    terms = {}
    for name, settings in losses.items():
        options = dict(settings.options)
        if name == "e2r":
            options.setdefault("relation_counts", count_relations(corpus))
        if name == "multi_positive" and "similarity" in options:
            options["similarity"] = _similarity(options["similarity"], corpus)
        try:
            loss = LOSSES[name](**options)
        except (TypeError, ValueError) as error:
            raise GraphError(f"losses.{name}.options: {error}") from error
        terms[name] = LossTerm(loss, settings.weight, settings.ramp)
    return terms


def count_relations(corpus: Corpus) -> Tensor:
    """Training triples of each relation. Long [R]."""
    trained = torch.from_numpy(corpus.triple_split == "train")
    return torch.bincount(corpus.triples[trained, 1], minlength=corpus.num_relations)


SIMILARITIES: dict[str, Callable[[Tensor, int], Callable[[Tensor], Tensor]]] = {
    "same": lambda edges, num_entities: same_entity,
    "neighbors": SharedNeighbors,
    "pagerank": PersonalizedPageRank,
}


def _similarity(name: Any, corpus: Corpus) -> Callable[[Tensor], Tensor]:
    if name not in SIMILARITIES:
        raise GraphError(
            f"losses.multi_positive.options.similarity: {name!r} given, one of "
            f"{', '.join(SIMILARITIES)} expected"
        )
    return SIMILARITIES[name](corpus.edges(["train"])[0], corpus.num_entities)
