"""Any relational convolution in several layers, over one graph or over PyG's HeteroData."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from kgclip.nn.convs import GatedResidual
from kgclip.nn.hgt import HGTConv


class ConvStack(nn.Module):
    r"""Layers of one convolution, each behind a gate: x' = x + tanh(a) dropout(GELU(conv(norm x))).

    With ``gate=0`` (the default) the untrained stack returns its input exactly, or the input's
    projection where widths differ. An entity or a type without edges keeps its own features.

    Args:
        conv: Called as ``conv(channels, channels, num_relations)``: a class of
            :data:`kgclip.nn.convs.CONVS` or your own, or ``functools.partial`` of one.
        in_channels: Width of the features; by node type, where they differ.
        channels: Width C of all layers.
        num_relations: Number R of relations, inverses included.
        num_layers: Number of layers, 0 or more.
        dropout: Share of what a layer adds that is dropped in training, in [0, 1).
        gate: Where each layer's gate a starts.

    Raises:
        ValueError: If ``num_layers`` or ``dropout`` is out of range.

    Reference:
        Gates that start at zero: Bachlechner et al., arXiv 2003.04887 (ReZero).
    """

    def __init__(
        self,
        conv: Callable[[int, int, int], nn.Module],
        in_channels: int | Mapping[str, int],
        channels: int,
        num_relations: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.0,
        gate: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"num_layers {num_layers} and dropout {dropout} given, 0 or more and [0, 1) "
                "expected"
            )
        self.num_relations = num_relations
        by_type = in_channels if isinstance(in_channels, Mapping) else {_ANY: in_channels}
        self.inputs = nn.ModuleDict(
            {
                kind: nn.Identity() if width == channels else nn.Linear(width, channels)
                for kind, width in by_type.items()
            }
        )
        convs = [conv(channels, channels, num_relations) for _ in range(num_layers)]
        self.takes_node_type = any(isinstance(layer, HGTConv) for layer in convs)
        self.layers = nn.ModuleList(
            GatedResidual(_Layer(layer, channels, dropout), gate) for layer in convs
        )

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor, *rest: Any) -> Tensor:
        """Encode the nodes of one graph.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, R).
            *rest: What else the convolution takes, such as ``relation_features``.

        Returns:
            Float [N, C].

        Raises:
            ValueError: If features or edges are of the wrong kind, shape or range.
        """
        return self._run(self._project(x, _ANY), edge_index, edge_type, *rest)

    def encode_hetero(self, data: HeteroData, *rest: Any) -> dict[str, Tensor]:
        """Encode the nodes of typed data.

        Args:
            data: With ``x`` for every node type. Relations are the edge stores' ``edge_type``,
                as :func:`kgclip.hetero.to_hetero` puts them there, or else the edge types in
                their order.
            *rest: What else the convolution takes. An :class:`~kgclip.nn.hgt.HGTConv` is given
                the node types, numbered in their order.

        Returns:
            Float [N_t, C] for each node type t, also those where no edge ends.

        Raises:
            ValueError: If a node type has no ``x``, or something is of the wrong kind, shape or
                range.
        """
        missing = [kind for kind in data.node_types if "x" not in data[kind]]
        if missing:
            raise ValueError(f"x: missing for node type {missing[0]!r}; set data[type].x")
        parts = [self._project(data[kind].x, kind) for kind in data.node_types]
        sizes = [len(part) for part in parts]
        edge_index, edge_type = _joined_edges(data, sizes)
        if self.takes_node_type:
            kinds = torch.arange(len(sizes), device=edge_index.device)
            rest = (kinds.repeat_interleave(torch.tensor(sizes, device=kinds.device)), *rest)
        out = self._run(torch.cat(parts), edge_index, edge_type, *rest)
        return dict(zip(data.node_types, torch.split(out, sizes), strict=True))

    def _project(self, x: Tensor, kind: str) -> Tensor:
        name = kind if kind in self.inputs else _ANY
        if name not in self.inputs:
            raise ValueError(f"node type {kind!r} given, one of {list(self.inputs)} expected")
        projected: Tensor = self.inputs[name](x)
        return projected

    def _run(self, x: Tensor, *graph: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *graph)
        return x


_ANY = "any"


class _Layer(nn.Module):
    def __init__(self, conv: nn.Module, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.conv, self.dropout = nn.LayerNorm(channels), conv, nn.Dropout(dropout)

    def forward(self, x: Tensor, *graph: Any) -> Tensor:
        added: Tensor = self.dropout(F.gelu(self.conv(self.norm(x), *graph)))
        return added


def _joined_edges(data: HeteroData, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """One ``edge_index`` over all node types, in their order, and the relation of each edge."""
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    first = dict(zip(data.node_types, starts, strict=True))
    ends, kinds = [], []
    for number, key in enumerate(data.edge_types):
        store = data[key]
        shift = torch.tensor([[first[key[0]]], [first[key[2]]]], device=store.edge_index.device)
        ends.append(store.edge_index + shift)
        own = store.get("edge_type", None)
        kinds.append(torch.full_like(ends[-1][0], number) if own is None else own)
    if not ends:
        return torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    return torch.cat(ends, dim=1), torch.cat(kinds)
