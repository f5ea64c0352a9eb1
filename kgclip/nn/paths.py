"""PathEncoder: which entities do the paths from here lead to, for this question?

Inductive and conditioned on the question, after NBFNet: no embedding belongs to an entity, so
that one whose facts come in at inference is answered for like any other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PathEncoder(nn.Module):
    r"""Propagate from a start over typed, weighted edges and score every entity.

    .. math::
        h^0_v = s_v \, \sigma_+(W_0 e_q), \qquad
        h^l_v = \sum_{(u, r, v)} w_{uv} \, h^{l-1}_u \odot \sigma_+(W_l e_q)_r
                + h^{l-1}_v \odot \sigma(V_l e_q)

    with s the start distribution, e_q the embedding of the question, σ₊ the softplus, followed
    by a residual ReLU layer on what was reached. The score reads log(1 + 50 h) of all layers.

    Args:
        num_questions: Relations that are asked.
        num_relations: Edge types, inverse and similarity relations included.
        channels: Width of the messages.
        num_layers: Longest path.
        question_channels: Width of e_q.
        num_priors: Numbers that come with each candidate, as how common it is.
        dropout: Of the readout's input.

    Reference:
        Zhu et al., Neural Bellman-Ford Networks, NeurIPS 2021 (arXiv 2106.06935).
    """

    def __init__(
        self,
        num_questions: int,
        num_relations: int,
        *,
        channels: int = 32,
        num_layers: int = 4,
        question_channels: int = 16,
        num_priors: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels, self.num_relations = channels, num_relations
        self.question = nn.Embedding(num_questions, question_channels)
        self.start = nn.Linear(question_channels, channels)
        self.relations = nn.ModuleList(
            nn.Linear(question_channels, num_relations * channels) for _ in range(num_layers)
        )
        self.stay = nn.ModuleList(nn.Linear(question_channels, channels) for _ in range(num_layers))
        self.mix = nn.ModuleList(nn.Linear(channels, channels) for _ in range(num_layers))
        width = num_layers * channels
        self.score = nn.Linear(width, 1)
        self.correct = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width + question_channels + num_priors, 32),
            nn.ReLU(),
            nn.Linear(32, 1),
        )
        for layer in self.relations:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.9 / question_channels**0.5)
            nn.init.constant_(layer.bias, 0.5)

    def forward(
        self,
        start: Tensor,
        questions: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        edge_weight: Tensor,
        priors: Tensor,
    ) -> Tensor:
        """Score every entity as the answer of each query.

        Args:
            start: Where each query starts; each row sums to 1. Float [Q, N].
            questions: Relation that each query asks. Long [Q], each in [0, num_questions).
            edge_index: Paths go from row 0 to row 1. Long [2, M].
            edge_type: Relation of each edge. Long [M].
            edge_weight: As :func:`random_walk_weights` gives them. Float [M].
            priors: What is known of each candidate beforehand. Float [Q, N, num_priors].

        Returns:
            Scores, higher is better. Float [Q, N].
        """
        question = self.question(questions)
        hidden = start.T[:, :, None] * F.softplus(self.start(question))[None]  # [N, Q, C]
        order = torch.argsort(edge_type, stable=True)
        counts = torch.bincount(edge_type, minlength=self.num_relations).tolist()
        pieces = [part.split(counts) for part in (*edge_index[:, order], edge_weight[order])]
        states = []
        for relations, stay, mix in zip(self.relations, self.stay, self.mix, strict=True):
            gates = F.softplus(relations(question) - 1).view(len(questions), -1, self.channels)
            total = hidden * torch.sigmoid(stay(question))
            for relation, (source, target, weight) in enumerate(zip(*pieces, strict=True)):
                if len(source):
                    # The gate is one for all edges of a relation: gathered sums, then one product.
                    moved = hidden.new_zeros(hidden.shape).index_add(
                        0, target, hidden[source] * weight[:, None, None]
                    )
                    total = total + moved * gates[None, :, relation]
            reached = (total.sum(dim=2, keepdim=True) > 0).to(total.dtype)
            hidden = total + F.relu(mix(total)) * reached
            states.append(hidden)
        found = torch.log1p(50 * torch.cat(states, dim=2).transpose(0, 1))  # [Q, N, L C]
        context = question[:, None].expand(-1, found.shape[1], -1)
        corrected = self.correct(torch.cat([found, context, priors], dim=2))
        scores: Tensor = (self.score(found) + corrected).squeeze(2)
        return scores


def random_walk_weights(
    edge_index: Tensor, edge_type: Tensor, weight: Tensor, num_relations: int
) -> Tensor:
    """Share of each edge among the edges of its relation that leave the same entity.

    Args:
        edge_index: Long [2, M].
        edge_type: Long [M].
        weight: Float [M], at least 0.
        num_relations: Number of relations.

    Returns:
        Float [M]; the weights of a source's edges of one relation sum to 1.
    """
    keys = edge_index[0] * num_relations + edge_type
    if not len(keys):
        return weight
    _, group = torch.unique(keys, return_inverse=True)
    total = weight.new_zeros(int(group.max()) + 1).index_add(0, group, weight)
    return weight / total[group].clamp(min=torch.finfo(weight.dtype).tiny)


def propagate(
    start: Tensor, edge_index: Tensor, edge_weight: Tensor, num_layers: int = 4
) -> Tensor:
    """The untrained opponent: how much of a random walk passes each entity.

    Args:
        start: Float [Q, N].
        edge_index: Long [2, M].
        edge_weight: Float [M].
        num_layers: Steps of the walk.

    Returns:
        Sum over the steps. Float [Q, N].
    """
    hidden, total = start.T, torch.zeros_like(start.T)
    source, target = edge_index
    for _ in range(num_layers):
        moved = hidden[source] * edge_weight[:, None]
        hidden = torch.zeros_like(hidden).index_add(0, target, moved)
        hidden = hidden / hidden.sum(dim=0, keepdim=True).clamp(min=1e-12)
        total = total + hidden
    return total.T
