"""Classes of entities from their places in the graph alone: a relational network without features.

The first layer has a vector for each (relation, source) that an edge holds. That is RGCN on one-hot
features: whoever is not asked for by an edge has no parameter, so that the layer's size and cost
grow with the edges and not with relations × entities.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.edges import check_edges
from kgclip.nn.rgcn import RGCNConv


class FeaturelessRGCNConv(nn.Module):
    r"""RGCN's first layer on one-hot features, bound to the edges of one graph.

    .. math::
        x'_i = \Theta_{root, i} + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} \Theta_{r, j} + b

    Args:
        edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
        edge_type: Long [E], each in [0, R).
        num_entities: Number N of entities.
        num_relations: Number R of relations.
        out_channels: Width of the output.

    Raises:
        ValueError: If the edges are of the wrong kind, shape or range.

    Reference:
        Schlichtkrull et al., arXiv 1703.06103; equals PyG's ``RGCNConv`` with ``x=None``.
    """

    edges: Tensor
    start: Tensor
    count: Tensor
    pair_relation: Tensor
    pair_source: Tensor

    def __init__(
        self,
        edge_index: Tensor,
        edge_type: Tensor,
        num_entities: int,
        num_relations: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        check_edges(edge_index, edge_type, num_entities, num_relations)
        source, target = edge_index
        pairs, places = torch.unique(edge_type * num_entities + source, return_inverse=True)
        received = torch.unique(edge_type * num_entities + target, return_inverse=True)[1]
        count = torch.bincount(received)[received]
        order = torch.argsort(target, stable=True)
        start = torch.bincount(target, minlength=num_entities).cumsum(0)
        self.register_buffer("edges", places[order], persistent=False)
        self.register_buffer("start", F.pad(start, (1, 0)), persistent=False)
        self.register_buffer("count", count[order], persistent=False)
        self.register_buffer("pair_relation", pairs // max(1, num_entities), persistent=False)
        self.register_buffer("pair_source", pairs % max(1, num_entities), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), out_channels))
        self.root = nn.Parameter(torch.empty(num_entities, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = math.sqrt(6.0 / (num_entities + out_channels))  # Glorot's, as PyG's layer has it
        for parameter in (self.weight, self.root):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self) -> Tensor:
        """Convolve. Float [N, out_channels]."""
        messages = F.embedding_bag(
            self.edges, self.weight, self.start, mode="sum",
            per_sample_weights=1 / self.count.to(self.weight.dtype), include_last_offset=True,
        )  # fmt: skip
        return messages + self.root + self.bias


class EntityClassifier(nn.Module):
    """Two relational layers that give logits for some entities; edges no answer needs are dropped.

    Args:
        edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
        edge_type: Long [E], each in [0, R).
        asked: Entities to classify, each once. Long [Q].
        num_entities: Number N of entities.
        num_relations: Number R of relations, inverse ones included.
        num_classes: Number C of classes.
        hidden_channels: Width between the layers.
        dropout: Share of hidden values that are dropped in training.

    Raises:
        ValueError: If ids are out of range or edges of the wrong kind.
    """

    edge_index: Tensor
    edge_type: Tensor
    asked: Tensor

    def __init__(
        self,
        edge_index: Tensor,
        edge_type: Tensor,
        asked: Tensor,
        *,
        num_entities: int,
        num_relations: int,
        num_classes: int,
        hidden_channels: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_edges(edge_index, edge_type, num_entities, num_relations)
        if asked.numel() and not 0 <= int(asked.min()) <= int(asked.max()) < num_entities:
            raise ValueError(
                f"asked: ids {int(asked.min())} to {int(asked.max())} given, "
                f"[0, {num_entities}) expected"
            )
        self.dropout = dropout
        last = edges_into(edge_index, asked, num_entities)
        needed = torch.cat([edge_index[0, last], asked])
        first = edges_into(edge_index, needed, num_entities)
        self.register_buffer("edge_index", edge_index[:, last].contiguous(), persistent=False)
        self.register_buffer("edge_type", edge_type[last].contiguous(), persistent=False)
        self.register_buffer("asked", asked, persistent=False)
        self.embed = FeaturelessRGCNConv(
            edge_index[:, first], edge_type[first], num_entities, num_relations, hidden_channels
        )
        self.conv = RGCNConv(hidden_channels, num_classes, num_relations)

    def forward(self) -> Tensor:
        """Classify the asked entities. Float [Q, C]."""
        hidden = F.dropout(self.embed().relu(), self.dropout, self.training)
        logits: Tensor = self.conv(hidden, self.edge_index, self.edge_type)
        return logits[self.asked]


def edges_into(edge_index: Tensor, targets: Tensor, num_entities: int) -> Tensor:
    """Edges that enter one of the targets.

    Args:
        edge_index: Long [2, E].
        targets: Long [T].
        num_entities: Number N of entities.

    Returns:
        Places in ``edge_index``, ascending. Long [number of such edges].
    """
    wanted = torch.zeros(num_entities, dtype=torch.bool, device=edge_index.device)
    wanted[targets] = True
    return wanted[edge_index[1]].nonzero().squeeze(1)
