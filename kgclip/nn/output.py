"""The vocabulary that the model, the batches and the losses share.

The model returns a :class:`KnowledgeOutput`; a batch carries :class:`Targets`. A loss names
the fields of both that it reads and nothing else.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass
class KnowledgeOutput:
    """What one forward pass computed; ``None`` where it was not asked for.

    All features are unit vectors of the joint space, width D.

    Attributes:
        image_features: Pictures of the image-text pairs. Float [B, D].
        text_features: Captions of the image-text pairs. Float [B, D].
        logit_scale: Inverse temperature, already exponentiated. Float scalar.
        entity_features: Entities of the triples, each as the picture or text drawn for it,
            f(e, ∅, ∅). Float [E, D].
        graph_features: The same entities as the graph encoder sees them. Float [E, D].
        fused_features: Text or picture and graph of the same entities, joined by the entity gate;
            only the gate learns from them. Float [E, D].
        head_query: Triples without their head, f(∅, r, t). Float [T, D].
        tail_query: Triples without their tail, f(h, r, ∅). Float [T, D].
        relation_logits: Classification of each triple's relation. Float [T, R].
        logit_bias: SigLIP's bias of every logit. Float scalar.
        pair_graph_features: The graph of each image-text pair (its scene graph, or the subgraph
            around its entity), pooled. Float [B, D].
        negative_graph_features: Corrupted graphs of each pair. Float [B, K, D].
        negative_text_features: Corrupted captions of each pair. Float [B, K, D].
        region_features: Regions of the pairs' pictures. Float [N, D].
        region_text_features: What these regions are called. Float [N, D].
        teacher_image_features: ``image_features`` of the frozen start model. Float [B, D'].
        teacher_text_features: ``text_features`` of the frozen start model. Float [B, D'].
        teacher_logit_scale: Its inverse temperature. Float scalar.
    """

    image_features: Tensor | None = None
    text_features: Tensor | None = None
    logit_scale: Tensor | None = None
    entity_features: Tensor | None = None
    graph_features: Tensor | None = None
    fused_features: Tensor | None = None
    head_query: Tensor | None = None
    tail_query: Tensor | None = None
    relation_logits: Tensor | None = None
    logit_bias: Tensor | None = None
    pair_graph_features: Tensor | None = None
    negative_graph_features: Tensor | None = None
    negative_text_features: Tensor | None = None
    region_features: Tensor | None = None
    region_text_features: Tensor | None = None
    teacher_image_features: Tensor | None = None
    teacher_text_features: Tensor | None = None
    teacher_logit_scale: Tensor | None = None


@dataclasses.dataclass
class Targets:
    """What is true of a batch; ``None`` where the batch has no such part.

    Attributes:
        pair_ids: Entity of each image-text pair; equal ids are positives of each other. Long [B].
        negative_graph_mask: True where the corrupted graph exists and is untrue. Bool [B, K].
        negative_text_mask: The same for corrupted captions. Bool [B, K].
        region_ids: Regions that are called the same have the same one. Long [N].
        entity_ids: Entity of each row of ``entity_features``. Long [E].
        head_rows: Row of each triple's head in ``entity_features``. Long [T], each in [0, E).
        tail_rows: Row of each triple's tail. Long [T], each in [0, E).
        relation_ids: Relation of each triple. Long [T], each in [0, R).
        relation_known: True at [i, r] where (head of i, r, tail of i) is in the training graph, so
            that r is no negative of triple i. Bool [T, R].
        head_known: True at [i, j] where (head of j, relation of i, tail of i) is in the training
            graph, so that head j is no negative of triple i; the diagonal is True. Bool [T, T].
        tail_known: The same for (head of i, relation of i, tail of j). Bool [T, T].
    """

    pair_ids: Tensor | None = None
    negative_graph_mask: Tensor | None = None
    negative_text_mask: Tensor | None = None
    region_ids: Tensor | None = None
    entity_ids: Tensor | None = None
    head_rows: Tensor | None = None
    tail_rows: Tensor | None = None
    relation_ids: Tensor | None = None
    relation_known: Tensor | None = None
    head_known: Tensor | None = None
    tail_known: Tensor | None = None


def unit_vectors(x: Tensor) -> Tensor:
    """Normalise the last dimension; zeros stay zeros, with a gradient of ordinary size.

    ``F.normalize`` gives them one of 1e12, as soon as something could move them from zero.
    """
    length = x.norm(dim=-1, keepdim=True)
    unit: Tensor = x / torch.where(length > 0, length, 1.0)
    return unit


@dataclasses.dataclass
class Batch:
    """One training step's material.

    Attributes:
        inputs: Keyword arguments of the model's ``forward``; tensors, PyG data, or dictionaries,
            lists and dataclasses of them.
        targets: What the losses compare the output with.
        size: Number of examples, at least 1; only logged.
    """

    inputs: dict[str, Any]
    targets: Targets
    size: int
