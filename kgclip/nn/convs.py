"""Relation-aware convolutions: features of entities and typed edges in, new features out.

All share ``forward(x, edge_index, edge_type)``; messages go from row 0 of ``edge_index`` to row 1.
None needs a compiled extension, and in none does the cost grow with relations x nodes. Every entity
keeps its own features: one without edges does not vanish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.aggregate import check_edges, relation_matmul, relation_plan


class GatedResidual(nn.Module):
    r"""Any convolution behind a gate that is closed at the start: x' = x + tanh(a) conv(x).

    a = 0 at step 0, so that the output equals the input exactly, and a pre-trained model beside
    the graph is untouched until training opens the gate.

    Args:
        conv: Any module from [N, C] to [N, C].
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Convolve and add.

        Args:
            x: Float [N, C].
            *args: Everything else that the convolution takes.
            **kwargs: As ``args``.

        Returns:
            Float [N, C].

        Raises:
            ValueError: If the convolution changes the shape of ``x``.
        """
        change: Tensor = self.conv(x, *args, **kwargs)
        if change.shape != x.shape:
            raise ValueError(
                f"x is {tuple(x.shape)} and the convolution gives {tuple(change.shape)}; "
                "expected equal shapes: in_channels = out_channels"
            )
        return x + torch.tanh(self.gate) * change


class CompGCNConv(nn.Module):
    r"""Messages composed of entity and relation vectors.

    .. math::
        x_v' = \sum_{d \in \{in, out\}} W_d \sum_{(u, r, v) \in E_d} c_{uv} \, \phi(x_u, z_r)
               + W_{loop} \, \phi(x_v, z_{loop}) + b

    Relations come with their inverses: ids below R / 2 are forward and use ``weight_in``, ids from
    R / 2 on are their inverses and use ``weight_out``. The messages are summed before they are
    multiplied, so that the cost does not grow with the number of relations.

    Args:
        in_channels: Width of the entities' features, and of z.
        out_channels: Width of the result.
        num_relations: R, inverse relations included: a vector is learned for each relation.
            ``None`` = the relations come from their features alone, and R is free.
        relation_channels: Width of the relations' features, as text features: z is a linear map
            of them. With ``num_relations`` as well, plus a learned vector that starts at zero.
        composition: φ: ``"mult"`` x * z, ``"sub"`` x - z, or ``"corr"`` circular correlation.
        norm: c: ``"mean"`` 1 / in-degree of v, or ``"sym"`` 1 / sqrt(out-degree of u x in-degree
            of v). Degrees count the edges of the direction.
        combine: ``"sum"`` of the three parts, or ``"mean3"``, the sum / 3.
        bias: Learn b.

    Raises:
        ValueError: If an option is another word, the number of relations is odd, or neither
            ``num_relations`` nor ``relation_channels`` is given.

    Reference:
        Vashishth et al., ICLR 2020 (arXiv 1911.03082).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int | None = None,
        *,
        relation_channels: int | None = None,
        composition: str = "mult",
        norm: str = "mean",
        combine: str = "sum",
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_option("composition", composition, ("mult", "sub", "corr"))
        _check_option("norm", norm, ("mean", "sym"))
        _check_option("combine", combine, ("sum", "mean3"))
        if num_relations is None and relation_channels is None:
            raise ValueError("give num_relations, relation_channels or both")
        _check_even(num_relations or 0)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.composition, self.norm, self.combine = composition, norm, combine
        self.relation = None
        if relation_channels is not None:
            self.relation = nn.Linear(relation_channels, in_channels)
        self.relation_weight = _parameter(num_relations, in_channels)
        self.loop_relation = _parameter(in_channels)
        self.weight_in = _parameter(in_channels, out_channels)
        self.weight_out = _parameter(in_channels, out_channels)
        self.weight_loop = _parameter(in_channels, out_channels)
        self.bias = _parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for weight in (self.weight_in, self.weight_out, self.weight_loop):
            _glorot(weight)
        _zeros(self.bias)
        if self.loop_relation is not None:
            # With "mult" an entity passes itself on unchanged.
            nn.init.constant_(self.loop_relation, float(self.composition == "mult"))
            if self.composition == "corr":
                nn.init.normal_(self.loop_relation, std=self.in_channels**-0.5)
        if self.relation is not None:
            self.relation.reset_parameters()
            _zeros(self.relation_weight)
        elif self.relation_weight is not None:
            _glorot(self.relation_weight)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        relation_features: Tensor | None = None,
    ) -> Tensor:
        """Convolve once.

        Args:
            x: Float [N, in_channels].
            edge_index: Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, R).
            relation_features: Float [R, relation_channels]; given exactly if
                ``relation_channels`` is.

        Returns:
            Float [N, out_channels].

        Raises:
            ValueError: If shapes, types or ids do not fit.
        """
