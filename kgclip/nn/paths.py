"""PathEncoder: which entities do the paths from here lead to, for this question?

Inductive and conditioned on the question, after NBFNet: no embedding belongs to an entity, so
that one whose facts come in at inference is answered for like any other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PathEncoder(nn.Module):
    r"""Propagate from a start over typed, weighted edges and score entities.

    .. math::
        h^0_v = s_v \, \sigma_+(W_0 e_q), \qquad
        h^l_v = \sum_{(u, r, v)} w_{uv} \, h^{l-1}_u \odot \sigma_+(g^l_{qr})
                + h^{l-1}_v \odot \sigma(V_l e_q)

    with s the start distribution, e_q the vector of the question, g the gate of relation r for
    it, σ₊ the softplus, followed by a residual ReLU layer on what was reached. The score reads
    log(1 + 50 h) of all layers.

    Vectors are learned for each relation, or made from the relations' texts: then g is a layer
    over [e_q, d_r, e_q ⊙ d_r], d_r from the text of r, and any relation that has a text can be
    asked and walked, whether or not it was trained.

    Args:
        num_questions: Relations that are asked; ``None`` = any, with texts.
        num_relations: Edge types, inverse and similarity relations included; ``None`` likewise.
        text_channels: Width of the relations' text features; ``None`` = learned vectors.
        channels: Width of the messages.
        num_layers: Longest path.
        question_channels: Width of e_q and d_r.
        num_priors: Numbers that come with each candidate, as how common it is.
        dropout: Of the readout's input.

    Raises:
        ValueError: If neither or both of ``text_channels`` and the two numbers are given.

    Reference:
        Zhu et al., Neural Bellman-Ford Networks, NeurIPS 2021 (arXiv 2106.06935).
    """

    def __init__(
        self,
        num_questions: int | None = None,
        num_relations: int | None = None,
        *,
        text_channels: int | None = None,
        channels: int = 32,
        num_layers: int = 4,
        question_channels: int = 16,
        num_priors: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels, self.num_relations = channels, num_relations
        self.text_channels, self.num_priors = text_channels, num_priors
        width, gates = self._build_questions(num_questions, question_channels)
        self.start = nn.Linear(question_channels, channels)
        self.relations = nn.ModuleList(
            nn.Linear(width, gates * channels) for _ in range(num_layers)
        )
        self.stay = nn.ModuleList(nn.Linear(question_channels, channels) for _ in range(num_layers))
        self.mix = nn.ModuleList(nn.Linear(channels, channels) for _ in range(num_layers))
        self.score = nn.Linear(num_layers * channels, 1)
        self.correct = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(num_layers * channels + question_channels + num_priors, 32),
            nn.ReLU(),
            nn.Linear(32, 1),
        )
        for layer in self.relations:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.9 / width**0.5)
            nn.init.constant_(layer.bias, 0.5)

    def _build_questions(self, num_questions: int | None, width: int) -> tuple[int, int]:
        """Where e_q and d_r come from; how wide the gates' input is and how many they are."""
        given = [number is not None for number in (num_questions, self.num_relations)]
        if self.text_channels is not None and not any(given):
            self.question: nn.Module = nn.Linear(self.text_channels, width)
            self.describe = nn.Linear(self.text_channels, width)
            return 3 * width, 1
        if self.text_channels is not None or num_questions is None or self.num_relations is None:
            raise ValueError(
                f"num_questions={num_questions}, num_relations={self.num_relations}, "
                f"text_channels={self.text_channels} given; expected the first two, or the last"
            )
        self.question = nn.Embedding(num_questions, width)
        return width, self.num_relations

    def forward(
        self,
        start: Tensor,
        questions: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        edge_weight: Tensor,
        priors: Tensor | None = None,
        *,
        answers: Tensor | None = None,
        relation_features: Tensor | None = None,
    ) -> Tensor:
        """Score entities as the answer of each query.

        Args:
            start: Where each query starts; each row sums to 1. Float [Q, N].
            questions: Relation that each query asks. Long [Q], each in [0, num_questions), or a
                row of ``relation_features``.
            edge_index: Paths go from row 0 to row 1. Long [2, M].
            edge_type: Relation of each edge. Long [M], each in [0, R).
            edge_weight: As :func:`random_walk_weights` gives them. Float [M].
            priors: What is known of each candidate beforehand. Float [Q, A, num_priors]; the
                default is zeros.
            answers: Entities that are scored. Long [A]; the default is all N.
            relation_features: Text features of the relations, if ``text_channels`` was given.
                Float [R, text_channels].

        Returns:
            Scores, higher is better. Float [Q, A].

        Raises:
            ValueError: If ``relation_features`` does not fit the model.
        """
        self._check(relation_features)
        asked = questions if relation_features is None else relation_features[questions]
        question = self.question(asked)
        hidden = start.T[:, :, None] * F.softplus(self.start(question))[None]  # [N, Q, C]
        move = _Moves(edge_index, edge_type, edge_weight)
        states = []
        for relations, stay, mix in zip(self.relations, self.stay, self.mix, strict=True):
            gates = self._gates(relations, question, relation_features)
            total = move(hidden, gates) + hidden * torch.sigmoid(stay(question))
            reached = (total.sum(dim=2, keepdim=True) > 0).to(total.dtype)
            hidden = total + F.relu(mix(total)) * reached
            states.append(hidden if answers is None else hidden.index_select(0, answers))
        found = torch.log1p(50 * torch.cat(states, dim=2).transpose(0, 1))  # [Q, A, L C]
        if priors is None:
            priors = found.new_zeros(*found.shape[:2], self.num_priors)
        context = question[:, None].expand(-1, found.shape[1], -1)
        corrected = self.correct(torch.cat([found, context, priors], dim=2))
        scores: Tensor = (self.score(found) + corrected).squeeze(2)
        return scores

    def _gates(self, layer: nn.Module, question: Tensor, features: Tensor | None) -> Tensor:
        """What each relation lets through for each question, positive. Float [Q, R, C]."""
        if features is None:
            wide = layer(question).unflatten(1, (-1, self.channels))
        else:
            shape = len(question), len(features), question.shape[1]
            asked = question[:, None].expand(shape)
            told = self.describe(features)[None].expand(shape)
            wide = layer(torch.cat([asked, told, asked * told], dim=2))
        return F.softplus(wide - 1)

    def _check(self, features: Tensor | None) -> None:
        width = None if features is None else features.shape[-1]
        if width != self.text_channels:
            raise ValueError(
                f"relation_features of width {width} given, text_channels={self.text_channels} "
                "expected"
            )


class _Moves:
    """Weighted sums over the edges, laid out once for all layers.

    The gate is one for all edges of a relation: the sources of each (relation, target) pair are
    summed first, then gated. No sum is split over threads, so that two runs are equal.
    """

    def __init__(self, edge_index: Tensor, edge_type: Tensor, edge_weight: Tensor) -> None:
        source, target = edge_index
        num_nodes = int(target.max()) + 1 if len(target) else 1
        key, order = torch.sort(edge_type * num_nodes + target, stable=True)
        pairs, counts = torch.unique_consecutive(key, return_counts=True)
        self.source, self.weight = source[order], edge_weight[order]
        self.offsets = F.pad(counts.cumsum(0), (1, 0))
        self.target = pairs % num_nodes
        relation, counts = torch.unique_consecutive(pairs // num_nodes, return_counts=True)
        self.relations, self.counts = relation.tolist(), counts.tolist()

    def __call__(self, hidden: Tensor, gates: Tensor) -> Tensor:
        """Move features one step. Float [N, Q, C] and [Q, R, C] to [N, Q, C]."""
        if not self.relations or not hidden.numel():
            return torch.zeros_like(hidden)
        sums = F.embedding_bag(
            self.source,
            hidden.flatten(1),
            self.offsets,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=True,
        ).view(len(self.target), *hidden.shape[1:])
        gated = [
            part * gates[:, relation]
            for part, relation in zip(torch.split(sums, self.counts), self.relations, strict=True)
        ]
        return torch.zeros_like(hidden).index_add(0, self.target, torch.cat(gated))


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
