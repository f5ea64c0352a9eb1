"""Classes of entities from their places in the graph alone: a relational network without features.

The first layer has a vector for each (relation, source) that an edge holds. That is RGCN on one-hot
features: whoever is not asked for by an edge has no parameter, so that the layer's size and cost
grow with the edges and not with relations × entities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kgclip.nn.edges import check_edges
from kgclip.nn.propagation import Sums
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
        targets: Entities to compute, each once; edges into others are left out. Long [T]; the
            default is all of them, T = N.

    Raises:
        ValueError: If the edges are of the wrong kind, shape or range.

    Reference:
        Schlichtkrull et al., arXiv 1703.06103; equals PyG's ``RGCNConv`` with ``x=None``.
    """

    edges: Tensor
    start: Tensor
    count: Tensor
    received: Tensor
    pair_start: Tensor
    pair_count: Tensor
    pair_relation: Tensor
    pair_source: Tensor

    def __init__(
        self,
        edge_index: Tensor,
        edge_type: Tensor,
        num_entities: int,
        num_relations: int,
        out_channels: int,
        targets: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_edges(edge_index, edge_type, num_entities, num_relations)
        targets = torch.arange(num_entities) if targets is None else targets
        kept = edges_into(edge_index, targets, num_entities)
        source, kind = edge_index[0, kept], edge_type[kept]
        target = rows_of(targets, num_entities)[edge_index[1, kept]]
        pairs, pair = torch.unique(kind * num_entities + source, return_inverse=True)
        same = torch.unique(kind * num_entities + target, return_inverse=True)[1]
        count = torch.bincount(same)[same]
        by_target, by_pair = torch.argsort(target, stable=True), torch.argsort(pair, stable=True)
        size = max(1, num_entities)
        for name, value in {
            "edges": pair[by_target],
            "start": _starts(target, len(targets)),
            "count": count[by_target],
            "received": target[by_pair],
            "pair_start": _starts(pair, len(pairs)),
            "pair_count": count[by_pair],
            "pair_relation": pairs // size,
            "pair_source": pairs % size,
        }.items():
            self.register_buffer(name, value, persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), out_channels))
        self.root = nn.Parameter(torch.empty(len(targets), out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = math.sqrt(6.0 / (num_entities + out_channels))  # Glorot's, as PyG's layer has it
        for parameter in (self.weight, self.root):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self) -> Tensor:
        """Convolve. Float [T, out_channels]."""
        dtype = self.weight.dtype
        # What the backward pass sums is in order already: torch would sort it at every step.
        by_target = Sums(self.start, self.edges, self.start, 1 / self.count.to(dtype))
        by_pair = Sums(
            self.pair_start, self.received, self.pair_start, 1 / self.pair_count.to(dtype)
        )
        messages: Tensor = _SumOfRows.apply(self.weight, by_target, by_pair)
        return messages + self.root + self.bias


def _starts(ids: Tensor, size: int) -> Tensor:
    """Where each id's run begins once they are sorted. Long [size + 1]."""
    return F.pad(torch.bincount(ids, minlength=size).cumsum(0), (1, 0))


class _SumOfRows(torch.autograd.Function):
    """Weighted sums of rows, by the same edges the other way round in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sums: Sums, turned: Sums) -> Tensor:
        ctx.turned = turned
        return sums.of(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.turned.of(grad.contiguous()), None, None


class EntityClassifier(nn.Module):
    """Two relational layers that give logits for some entities; what no answer needs is left out.

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
        needed = torch.unique(torch.cat([edge_index[0, last], asked]))
        rows = rows_of(needed, num_entities)
        self.register_buffer("edge_index", rows[edge_index[:, last]], persistent=False)
        self.register_buffer("edge_type", edge_type[last].contiguous(), persistent=False)
        self.register_buffer("asked", rows[asked], persistent=False)
        self.embed = FeaturelessRGCNConv(
            edge_index, edge_type, num_entities, num_relations, hidden_channels, needed
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


def rows_of(ids: Tensor, num_entities: int) -> Tensor:
    """Row of each entity in a list of some, each once; -1 = not there. Long [N]."""
    rows = torch.full((num_entities,), -1, device=ids.device)
    rows[ids] = torch.arange(len(ids), device=ids.device)
    return rows
