"""Mean of the neighbours, gated by relation: Knowledge-CLIP's G2E aggregation.

Starts as the plain mean of the neighbours and learns to deviate from it, because on small
graphs a freely initialised convolution did worse than no training at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kgclip.nn.edges import check_edges


class RelationGateConv(nn.Module):
    r"""One hop of messages from neighbours, each gated by the text of its relation.

    .. math::
        G(t) = \sum_{(h, r, t)} w_r \, g(r) \odot x_h \Big/ \sum_{(h, r, t)} w_r, \qquad
        g(r) = 1 + W \bar x_r + b, \quad w_r = \exp(a \cdot \bar x_r)

    with :math:`\bar x_r` the text features of the relation. W, b and a start at zero, so that
    step 0 is the mean of the neighbours exactly. An entity's own features are not part of its
    output, and an entity without neighbours gets zeros. Nothing depends on the number of
    relations: an unseen relation needs only its text.

    Args:
        channels: Width of the entities' features.
        relation_channels: Width of the relations' text features.

    Reference:
        Pan et al., NeurIPS 2022 (arXiv 2210.08901), the G2E loss: the gate is theirs; the
        start at the mean and the weight :math:`w_r` are ours.
    """

    def __init__(self, channels: int, relation_channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(relation_channels, channels)
        self.weight = nn.Linear(relation_channels, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, relation_features: Tensor
    ) -> Tensor:
        """Aggregate once.

        Args:
            x: Features of the entities. Float [N, channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Relation of each edge. Long [E], each in [0, R).
            relation_features: Text features of the relations. Float [R, relation_channels].

        Returns:
            Float [N, channels]; zeros where no edge ends.

        Raises:
            ValueError: If the edges are of the wrong kind, shape or range.
        """
        check_edges(edge_index, edge_type, len(x), len(relation_features))
        source, target = edge_index
        gate = 1 + self.gate(relation_features)
        weight = self.weight(relation_features).exp()
        # The weight rides on the gate, so that each edge is touched once.
        messages = x[source] * (gate * weight)[edge_type]
        total = x.new_zeros(x.shape).index_add(0, target, messages)
        norm = x.new_zeros(len(x), 1).index_add(0, target, weight[edge_type])
        return total / norm.clamp(min=torch.finfo(x.dtype).tiny)
