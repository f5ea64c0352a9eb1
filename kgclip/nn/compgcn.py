"""CompGCN: messages composed of neighbour and relation, summed before they are multiplied.

Because the weights are shared by all relations of a direction, the sum over neighbours comes
first and one product a direction is enough: no product an edge, and no cost that grows with the
number of relations. A relation may be computed from its text, so that an unseen one needs no
new weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kgclip.nn import edge_kernels
from kgclip.nn.composition import COMPOSITIONS, PairPlan, compose_and_sum, plan_pairs
from kgclip.nn.edge_kernels import EdgePlan, plan_edges, sum_composed_edges
from kgclip.nn.edges import check_edges, check_features
from kgclip.nn.propagation import PLANS, full_precision


class CompGCNConv(nn.Module):
    r"""Compositional relational convolution.

    .. math::
        x'_i = W_{in} \sum_{fwd} c\,\phi(x_j, z_r) + W_{out} \sum_{inv} c\,\phi(x_j, z_r)
               + W_{loop}\,\phi(x_i, z_{loop}) + b

    Relations below R/2 are forward, those from R/2 on their inverses. With ``combine="mean3"``
    the three sums are averaged.

    Args:
        in_channels: Width of the entities.
        out_channels: Width of the output.
        num_relations: Number R of relations, inverses included, that have a vector of their own;
            ``None`` = relations come from their text alone.
        relation_channels: Width of the relations' text features; ``None`` = no text.
        composition: ``"mult"``, ``"sub"`` or ``"corr"``.
        norm: ``"mean"`` over all edges that enter an entity, or ``"sym"``, c = 1/√(d_j d_i) with
            degrees within the direction.
        combine: ``"sum"`` or ``"mean3"``.
        residual: Add the input to the output; the widths must be equal.
        bias: Whether to add a bias.

    Raises:
        ValueError: If a word is unknown, relations have neither vector nor text, or ``residual`` is
            asked for between different widths.

    Reference:
        Vashishth et al., arXiv 1911.03082. The case of G2E in Pan et al., arXiv 2210.08901:
        ``"mult"``, ``"mean"``, ``"sum"``, identity weights, text alone, no loop.
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
        residual: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("composition", composition, COMPOSITIONS),
            ("norm", norm, ("mean", "sym")),
            ("combine", combine, ("sum", "mean3")),
        ):
            if value not in known:
                raise ValueError(f"{name}: {value!r} given, one of {known} expected")
        if num_relations is None and relation_channels is None:
            raise ValueError("give num_relations (vectors), relation_channels (texts), or both")
        if residual and in_channels != out_channels:
            raise ValueError(
                f"residual: widths {in_channels} and {out_channels} given, equal ones expected"
            )
        self.num_relations, self.residual = num_relations, residual
        self.composition, self.norm, self.combine = composition, norm, combine
        bound = math.sqrt(6.0 / (in_channels + out_channels))
        self.weight = nn.Parameter(
            torch.empty(3, in_channels, out_channels).uniform_(-bound, bound)
        )
        self.loop_relation = nn.Parameter(torch.ones(in_channels))
        self.relation_text = (
            None if relation_channels is None else nn.Linear(relation_channels, in_channels)
        )
        self.relations = None
        if num_relations is not None:
            # Beside a text it is a correction, so it starts at nothing.
            start = torch.randn if relation_channels is None else torch.zeros
            self.relations = nn.Parameter(start(num_relations, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        relation_features: Tensor | None = None,
    ) -> Tensor:
        """Convolve.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, R).
            relation_features: Text features of the R relations, inverses last. Float
                [R, relation_channels]; only if the layer was built for it.

        Returns:
            Float [N, out_channels].

        Raises:
            ValueError: If features, edges or relation features are missing, of the wrong shape
                or range, or the number of relations is odd.
        """
        check_features(x, len(self.loop_relation))
        x = x.to(self.weight.dtype)
        relations = self.relation_vectors(relation_features).to(x.dtype)
        if len(relations) % 2:
            raise ValueError(
                f"{len(relations)} relations given, an even number expected: each with its inverse"
            )
        plan = self._plan(x, edge_index, edge_type, len(relations))
        relations = torch.cat([relations, self.loop_relation[None]])
        with full_precision(x):
            sums = (
                sum_composed_edges(x, relations, plan, self.composition)
                if isinstance(plan, EdgePlan)
                else compose_and_sum(x, relations, plan, self.composition, 3 * len(x))
            )
        sums, weight = sums.reshape(len(x), 3 * x.shape[1]), self.weight.flatten(0, 1)
        out = sums @ weight if self.bias is None else torch.addmm(self.bias, sums, weight)
        result: Tensor = out + x if self.residual else out
        return result

    def relation_vectors(self, relation_features: Tensor | None = None) -> Tensor:
        """Vector of each relation: from its text, its own, or both added. [R, in_channels]."""
        if (relation_features is None) != (self.relation_text is None):
            raise ValueError(
                "relation_features: "
                + ("given, but the layer has no relation_channels" if self.relation_text is None
                   else "missing; the layer was built with relation_channels")
            )  # fmt: skip
        vectors: Tensor | None = self.relations
        if self.relation_text is not None:
            assert relation_features is not None
            check_features(relation_features, self.relation_text.in_features, "relation_features")
            text: Tensor = self.relation_text(relation_features)
            if vectors is not None and len(vectors) != len(text):
                raise ValueError(
                    f"relation_features: {len(text)} rows given, {len(vectors)} relations expected"
                )
            vectors = text if vectors is None else vectors + text
        assert vectors is not None
        return vectors

    def _plan(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, num_relations: int
    ) -> PairPlan | EdgePlan:
        plan_graph = plan_edges if self._has_kernel(x) else plan_pairs
        details = (plan_graph, len(x), num_relations, self.norm, self.combine, x.dtype)
        plan: PairPlan | EdgePlan | None = PLANS.find(edge_index, edge_type, *details)
        if plan is None:
            check_edges(edge_index, edge_type, len(x), num_relations)
            # A loop is an edge of one more relation; a row is a receiver and a direction.
            loop = torch.arange(len(x), device=x.device)
            source, target = torch.cat([edge_index, loop.expand(2, -1)], dim=1)
            kind = torch.cat([edge_type, torch.full_like(loop, num_relations)])
            row = 3 * target + torch.div(2 * kind, num_relations, rounding_mode="floor")
            weight = self._coefficients(source, row, kind < num_relations).to(x.dtype)
            sizes = len(x), 3 * len(x), num_relations + 1
            plan = plan_graph(torch.stack([source, row]), kind, weight, sizes)
            PLANS.keep(plan, edge_index, edge_type, *details)
        return plan

    def _has_kernel(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype in edge_kernels.DTYPES
            and self.composition in edge_kernels.COMPOSITIONS
        )

    def _coefficients(self, source: Tensor, row: Tensor, is_edge: Tensor) -> Tensor:
        """Weight c of each edge; 1 of each loop. Double [E + N]."""
        weight = torch.ones(len(source), dtype=torch.double, device=source.device)
        if self.norm == "mean":
            target = torch.div(row[is_edge], 3, rounding_mode="floor")
            weight[is_edge] = 1 / torch.bincount(target)[target].double()
        else:
            # Degrees within the direction: of a sender, and of a receiver.
            degrees = [torch.bincount(ends)[ends] for ends in (3 * source + row % 3, row)]
            weight[is_edge] = (degrees[0] * degrees[1]).double().rsqrt()[is_edge]
        return weight / 3 if self.combine == "mean3" else weight
