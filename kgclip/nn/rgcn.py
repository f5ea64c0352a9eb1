"""RGCN at a cost that does not grow with the number of relations.

PyG's layer loops over the relations and keeps a dense [N, d] tensor for each. Here each edge is
touched once, in blocks of one relation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kgclip.nn.edges import check_edges, check_features
from kgclip.nn.propagation import PLANS, Plan, build_plan, full_precision, propagate


class RGCNConv(nn.Module):
    r"""Relational graph convolution; PyG's layer in signature, parameters and output.

    .. math::
        x'_i = \Theta_{root} x_i + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} \Theta_r x_j + b

    Cost and memory do not grow with the number of relations but for their matrices, and a graph
    is sorted once for all layers: see :mod:`kgclip.nn.propagation`. ``num_bases`` and
    ``num_blocks`` save parameters, not memory: the matrices are put together dense, R·d·d'.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        num_relations: Number R of relations.
        num_bases: Θ_r is a mixture of so many matrices.
        num_blocks: Θ_r is block-diagonal with so many blocks.
        aggr: ``"mean"`` (per relation) or ``"add"``.
        root_weight: Whether an entity sees itself.
        bias: Whether to add a bias.

    Raises:
        ValueError: If both decompositions are given, a width is not divisible by ``num_blocks``,
            or ``aggr`` is another word.

    Reference:
        Schlichtkrull et al., arXiv 1703.06103.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        aggr: str = "mean",
        root_weight: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_bases is not None and num_blocks is not None:
            raise ValueError("num_bases and num_blocks are both given; choose one of them")
        if num_blocks is not None and (in_channels % num_blocks or out_channels % num_blocks):
            raise ValueError(
                f"widths {in_channels} and {out_channels} given, expected multiples of "
                f"num_blocks={num_blocks}"
            )
        if aggr not in ("mean", "add"):
            raise ValueError(f"aggr: {aggr!r} given, 'mean' or 'add' expected")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_relations, self.num_bases, self.num_blocks = num_relations, num_bases, num_blocks
        self.aggr = aggr
        if num_blocks is not None:
            shape = (
                num_relations,
                num_blocks,
                in_channels // num_blocks,
                out_channels // num_blocks,
            )
            self.weight = nn.Parameter(torch.empty(shape))
        else:
            count = num_relations if num_bases is None else num_bases
            self.weight = nn.Parameter(torch.empty(count, in_channels, out_channels))
        self.comp = nn.Parameter(torch.empty(num_relations, num_bases)) if num_bases else None
        self.root = nn.Parameter(torch.empty(in_channels, out_channels)) if root_weight else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, Glorot's as PyG's."""
        for parameter in (self.weight, self.comp, self.root):
            if parameter is not None:
                bound = math.sqrt(6.0 / (parameter.shape[-2] + parameter.shape[-1]))
                nn.init.uniform_(parameter, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, num_relations).

        Returns:
            Float [N, out_channels].

        Raises:
            ValueError: If features or edges are of the wrong kind, shape or range, or NaN.
        """
        check_features(x, self.in_channels)
        x = x.to(self.weight.dtype)
        with full_precision(x):
            out = propagate(x, self._matrices(), self._plan(x, edge_index, edge_type))
        if self.root is not None:
            out = out + x @ self.root
        return out if self.bias is None else out + self.bias

    def _matrices(self) -> Tensor:
        """Θ of every relation. Float [R, in_channels, out_channels]."""
        if self.comp is not None:
            return torch.einsum("rb,bio->rio", self.comp, self.weight)
        if self.num_blocks is None:
            return self.weight
        dense = self.weight.new_zeros(
            self.num_relations, self.num_blocks, self.in_channels // self.num_blocks,
            self.num_blocks, self.out_channels // self.num_blocks,
        )  # fmt: skip
        block = torch.arange(self.num_blocks, device=self.weight.device)
        dense[:, block, :, block] = self.weight.transpose(0, 1)
        return dense.reshape(self.num_relations, self.in_channels, self.out_channels)

    def _plan(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Plan:
        details = ("rgcn", len(x), self.num_relations, self.aggr, x.dtype)
        plan: Plan | None = PLANS.find(edge_index, edge_type, *details)
        if plan is None:
            check_edges(edge_index, edge_type, len(x), self.num_relations)
            mean = self.aggr == "mean"
            plan = build_plan(edge_index, edge_type, self.num_relations, mean, x.dtype)
            PLANS.keep(plan, edge_index, edge_type, *details)
        return plan
