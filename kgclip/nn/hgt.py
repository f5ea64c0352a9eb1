"""Attention between nodes of different types (HGT), at a cost that does not grow with relations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.edges import check_edges, check_features, softmax_by_target
from kgclip.nn.propagation import full_precision


class HGTConv(nn.Module):
    r"""Heterogeneous graph transformer layer.

    With K, Q, V by node type τ, and A, M, p by relation r, for each head:

    .. math::
        \alpha_e = \mathrm{softmax}_{e \to i}\, \frac{p_r\, (K_j A_r) \cdot Q_i}{\sqrt{D}}, \quad
        h_i = \mathrm{Lin}_\tau\, \mathrm{GELU} \sum_{e \to i} \alpha_e V_j M_r, \quad
        x'_i = \sigma(s_\tau) h_i + (1 - \sigma(s_\tau))\, x_i

    Every node and node type has an output, also where no edge ends. If the widths differ, x_i goes
    through a matrix of its type. Memory for the backward pass is O((E + P)·out_channels) with P
    ≤ E pairs of relation and sender.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output, divisible by ``heads``.
        num_relations: Number R of relations.
        num_node_types: Number T of node types.
        heads: Number H of heads.

    Raises:
        ValueError: If ``out_channels`` is not divisible by ``heads``.

    Reference:
        Hu et al., arXiv 2003.01332.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_node_types: int = 1,
        *,
        heads: int = 1,
    ) -> None:
        super().__init__()
        if out_channels % heads:
            raise ValueError(f"out_channels: {out_channels} given, a multiple of {heads} expected")
        self.num_relations, self.num_node_types, self.heads = num_relations, num_node_types, heads
        self.width = width = out_channels // heads
        self.input_weight = _glorot(num_node_types, in_channels, 3 * out_channels)
        self.input_bias = nn.Parameter(torch.zeros(num_node_types, 3 * out_channels))
        self.key_weight = _glorot(num_relations, heads, width, width)
        self.value_weight = _glorot(num_relations, heads, width, width)
        self.prior = nn.Parameter(torch.ones(num_relations, heads))
        self.output_weight = _glorot(num_node_types, out_channels, out_channels)
        self.output_bias = nn.Parameter(torch.zeros(num_node_types, out_channels))
        self.skip = nn.Parameter(torch.ones(num_node_types))
        self.root = (
            None
            if in_channels == out_channels
            else _glorot(num_node_types, in_channels, out_channels)
        )

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, node_type: Tensor | None = None
    ) -> Tensor:
        """Convolve.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, num_relations).
            node_type: Long [N], each in [0, num_node_types); ``None`` = all are of type 0.

        Returns:
            Float [N, out_channels].

        Raises:
            ValueError: If features, edges or types are of the wrong kind, shape or range, or NaN.
        """
        check_features(x, self.input_weight.shape[1])
        check_edges(edge_index, edge_type, len(x), self.num_relations)
        node_type = self._node_types(x, node_type)
        x = x.to(self.input_weight.dtype)
        with full_precision(x):
            heard = self._attend(x, edge_index, edge_type, node_type)
            out = typed_product(F.gelu(heard), node_type, self.output_weight)
            out = out + self.output_bias[node_type]
            own = x if self.root is None else typed_product(x, node_type, self.root)
            share = self.skip.sigmoid()[node_type, None]
            mixed: Tensor = share * out + (1 - share) * own
        return mixed

    def _node_types(self, x: Tensor, node_type: Tensor | None) -> Tensor:
        if node_type is None:
            return torch.zeros(len(x), dtype=torch.long, device=x.device)
        if node_type.dtype != torch.long or node_type.shape != x.shape[:1]:
            raise ValueError(
                f"node_type: {node_type.dtype} {list(node_type.shape)} given, long [{len(x)}] "
                "expected"
            )
        if len(x) and not 0 <= int(node_type.min()) <= int(node_type.max()) < self.num_node_types:
            raise ValueError(
                f"node_type: ids {int(node_type.min())} to {int(node_type.max())} given, "
                f"[0, {self.num_node_types}) expected"
            )
        return node_type

    def _attend(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, node_type: Tensor
    ) -> Tensor:
        """What each node hears. Float [N, out_channels]."""
        source, target = edge_index
        projected = typed_product(x, node_type, self.input_weight) + self.input_bias[node_type]
        key, query, value = projected.view(len(x), 3, self.heads, self.width).unbind(1)
        # A sender is multiplied by a relation's matrices once, however many listen.
        pairs, pair = torch.unique(edge_type * max(1, len(x)) + source, return_inverse=True)
        relation = torch.div(pairs, max(1, len(x)), rounding_mode="floor")
        sender = pairs - relation * len(x)
        key = typed_product(key[sender], relation, self.key_weight)
        value = typed_product(value[sender], relation, self.value_weight)
        logits = (key[pair] * query[target]).sum(dim=-1) * self.prior[edge_type]
        alpha = softmax_by_target(logits / math.sqrt(self.width), target, len(x))
        heard = value.new_zeros(len(x), *value.shape[1:])
        return heard.index_add(0, target, value[pair] * alpha[:, :, None]).flatten(1)


def typed_product(x: Tensor, kind: Tensor, weight: Tensor) -> Tensor:
    """Multiply each row by the matrix of its kind.

    Args:
        x: Float [n, d], or by head [n, H, d].
        kind: Long [n], each in [0, K).
        weight: Float [K, d, d'], or by head [K, H, d, d'].

    Returns:
        Float [n, d'] or [n, H, d'].
    """
    if len(weight) == 1:
        return _product(x, weight[0])
    ordered, order = torch.sort(kind, stable=True)
    sizes = torch.bincount(ordered, minlength=len(weight)).tolist()
    # split and unbind: the gradient of a slice would be as large as the whole.
    parts = [
        _product(part, matrix)
        for part, matrix in zip(torch.split(x[order], sizes), weight.unbind(0), strict=True)
        if len(part)
    ]
    if not parts:
        return _product(x, weight[0])
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(parts)[back]


def _product(x: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return x @ weight
    return torch.matmul(x.transpose(0, 1), weight).transpose(0, 1)


def _glorot(*shape: int) -> nn.Parameter:
    bound = math.sqrt(6.0 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
