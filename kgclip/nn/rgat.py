"""RGAT with a basis on the nodes' projections, never a matrix for each edge."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.edges import check_edges, check_features, softmax_by_target


class RGATConv(nn.Module):
    r"""Relational graph attention.

    .. math::
        g^r_j = W_r x_j, \quad W_r = \sum_b a_{rb} V_b, \quad
        \alpha_e = \mathrm{softmax}_{e \to i}\, \mathrm{LeakyReLU}(q \cdot g^r_i + k \cdot g^r_j),
        \quad x'_i = \sum_{e \to i} \alpha_e\, g^r_j + W_{root} x_i + b

    Memory for the backward pass is O(B·(N + E)·heads·out_channels): for large graphs, sample.

    Args:
        in_channels: Width of the input.
        out_channels: Width of each head's output; heads are concatenated.
        num_relations: Number R of relations.
        heads: Number H of heads.
        num_bases: Number B of basis matrices; ``None`` = min(R, 8).
        negative_slope: Of the LeakyReLU.
        bias: Whether to add a bias.

    Reference:
        Busbridge et al., arXiv 1904.05811 (attention across relations, additive form).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        *,
        heads: int = 1,
        num_bases: int | None = None,
        negative_slope: float = 0.2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_relations, self.heads, self.out_channels = num_relations, heads, out_channels
        self.num_bases = num_bases or min(num_relations, 8)
        self.negative_slope = negative_slope
        width = heads * out_channels
        self.basis = nn.Parameter(torch.empty(self.num_bases, in_channels, width))
        self.comp = nn.Parameter(torch.empty(num_relations, self.num_bases))
        self.query = nn.Parameter(torch.empty(heads, out_channels))
        self.key = nn.Parameter(torch.empty(heads, out_channels))
        self.root = nn.Linear(in_channels, width, bias=bias)
        for parameter in (self.basis, self.comp, self.query, self.key):
            bound = math.sqrt(6.0 / (parameter.shape[-2] + parameter.shape[-1]))
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, num_relations).

        Returns:
            Float [N, heads * out_channels].

        Raises:
            ValueError: If features or edges are of the wrong kind, shape or range, or NaN.
        """
        check_features(x, self.basis.shape[1])
        check_edges(edge_index, edge_type, len(x), self.num_relations)
        source, target = edge_index
        projected = torch.einsum("ni,bio->nbo", x, self.basis)
        projected = projected.view(len(x), self.num_bases, self.heads, self.out_channels)
        mixture = self.comp[edge_type]  # [E, B]
        # What a node adds to the attention is one number a basis and head, not a vector an edge.
        asked = torch.einsum("nbho,ho->nbh", projected, self.query)
        told = torch.einsum("nbho,ho->nbh", projected, self.key)
        logits = torch.einsum("ebh,eb->eh", asked[target] + told[source], mixture)
        # Under autocast too: sums over thousands of neighbours need the full precision.
        logits = F.leaky_relu(logits.to(mixture.dtype), self.negative_slope)
        alpha = softmax_by_target(logits, target, len(x))
        messages = mixture.new_zeros(len(source), self.heads, self.out_channels)
        for number in range(self.num_bases):
            messages = messages + projected[source, number] * mixture[:, number, None, None]
        out = messages.new_zeros(len(x), self.heads, self.out_channels)
        out = out.index_add(0, target, messages * alpha[:, :, None])
        rooted: Tensor = out.flatten(1) + self.root(x)
        return rooted
