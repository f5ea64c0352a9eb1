"""CompGCN: messages composed of neighbour and relation, summed before they are multiplied.

Because the weights are shared by all relations of a direction, the sum over neighbours comes
first and one product a direction is enough: no product an edge, and no cost that grows with the
number of relations. A relation may be computed from its text, so that an unseen one needs no
new weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kgclip.nn.edges import check_edges, check_features

COMPOSITIONS = ("mult", "sub", "corr")


def compose(heads: Tensor, relations: Tensor, composition: str) -> Tensor:
    """Compose entities with relations.

    Args:
        heads: Float [..., d].
        relations: Float [..., d].
        composition: ``"mult"`` h∘z, ``"sub"`` h − z, or ``"corr"``, the circular correlation
            Σ_i h_i z_{(i+k) mod d}.

    Returns:
        Float [..., d].
    """
    if composition == "mult":
        return heads * relations
    if composition == "sub":
        return heads - relations
    spectrum = torch.conj(torch.fft.rfft(heads)) * torch.fft.rfft(relations)
    correlated: Tensor = torch.fft.irfft(spectrum, n=heads.shape[-1])
    return correlated


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
        bias: Whether to add a bias.

    Raises:
        ValueError: If a word is unknown, or relations have neither vector nor text.

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
        self.num_relations = num_relations
        self.composition, self.norm, self.combine = composition, norm, combine
        self.forward_weight = nn.Linear(in_channels, out_channels, bias=False)
        self.inverse_weight = nn.Linear(in_channels, out_channels, bias=False)
        self.loop_weight = nn.Linear(in_channels, out_channels, bias=False)
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
        # Under autocast too: sums over thousands of neighbours need the full precision.
        x = x.to(self.loop_relation.dtype)
        relations = self.relation_vectors(relation_features).to(x.dtype)
        if len(relations) % 2:
            raise ValueError(
                f"{len(relations)} relations given, an even number expected: each with its inverse"
            )
        check_edges(edge_index, edge_type, len(x), len(relations))
        is_forward = edge_type < len(relations) // 2
        out = self.loop_weight(compose(x, self.loop_relation, self.composition))
        for chosen, weight in (
            (is_forward, self.forward_weight),
            (~is_forward, self.inverse_weight),
        ):
            source, target = edge_index[:, chosen]
            messages = compose(x[source], relations[edge_type[chosen]], self.composition)
            messages = messages * self._coefficients(edge_index, chosen, len(x), x.dtype)[:, None]
            out = out + weight(x.new_zeros(x.shape).index_add(0, target, messages))
        if self.combine == "mean3":
            out = out / 3
        if self.bias is not None:
            out = out + self.bias
        result: Tensor = out
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

    def _coefficients(
        self, edge_index: Tensor, chosen: Tensor, num_nodes: int, dtype: torch.dtype
    ) -> Tensor:
        source, target = edge_index[:, chosen]
        if self.norm == "mean":
            entering = torch.bincount(edge_index[1], minlength=num_nodes)
            return 1 / entering[target].to(dtype)
        leaving = torch.bincount(source, minlength=num_nodes)[source]
        entering = torch.bincount(target, minlength=num_nodes)[target]
        return (leaving * entering).to(dtype).rsqrt()
