"""Answers without training, on the same edges as the path model and by the same rule.

Each gives the probability of every fact for every country. Their few settings were chosen on
the split seeds 1234, 101 and 102, as the path model's were.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.experiments.world_edges import (
    SIMILARITIES,
    PathGraph,
    apply_rule,
    asked_columns,
    normalised_weights,
)
from kgclip.experiments.world_scores import ASKED_KNOWN
from kgclip.nn.paths import propagate

TEXT_SCALE = 20.0  # inverse temperature of a cosine as evidence for a fact
NAME_SHARE = 1.0  # weight of a name match beside the neighbours' vote
_PRIOR = 1e-3  # weight of how common a fact is: decides ties


@torch.no_grad()
def answer_by_walk(graph: PathGraph, corpus: Corpus) -> Tensor:
    """How much of a random walk over the graph's edges passes each fact. Float [C, F]."""
    start = F.one_hot(graph.country, graph.num_nodes).float()
    passed = propagate(start, graph.edge_index, normalised_weights(graph))
    asked = graph.fact_node >= 0
    mass = torch.zeros(graph.known.shape)
    mass[:, asked] = passed[:, graph.fact_node[asked]] + 1e-9
    return _normalise(mass, graph, corpus)


def answer_by_vote(graph: PathGraph, corpus: Corpus, name_share: float = NAME_SHARE) -> Tensor:
    """Neighbours over land vote, and names that contain each other count. Float [C, F].

    Args:
        graph: With the edges "name in name", if names shall count.
        corpus: Names the relations.
        name_share: Weight of the name match: 0 = vote alone, infinity = names alone.
    """
    common = _PRIOR * graph.known.float().mean(dim=0)
    if name_share == float("inf"):
        return _normalise(match_names(graph) + common, graph, corpus)
    scores = vote(graph) + common
    if name_share:
        scores = scores + name_share * match_names(graph)
    return _normalise(scores, graph, corpus)


def answer_by_text(cosines: Tensor, graph: PathGraph, corpus: Corpus) -> Tensor:
    """Cosines of embeddings, made comparable between countries by a softmax. Float [C, F]."""
    scaled = torch.zeros_like(cosines)
    for columns in asked_columns(corpus):
        scaled[:, columns] = (TEXT_SCALE * cosines[:, columns]).softmax(dim=1)
    return apply_rule(scaled, graph.known, corpus)


def borders(graph: PathGraph) -> Tensor:
    """Which countries are known to share a border, in both directions. Bool [C, C]."""
    relation = ASKED_KNOWN.index("borders")
    source, target = graph.edge_index[:, graph.edge_type == relation]
    place = torch.full((graph.num_nodes,), -1)
    here = graph.country >= 0
    place[graph.country[here]] = torch.nonzero(here).squeeze(1)
    row, column = place[source], place[target]
    inside = (row >= 0) & (column >= 0)
    found = torch.zeros(len(graph.country), len(graph.country), dtype=torch.bool)
    found[row[inside], column[inside]] = True
    return found | found.T


def vote(graph: PathGraph) -> Tensor:
    """Share of the bordering countries that are known to have a fact. Float [C, F]."""
    near = borders(graph).float()
    return near @ graph.known.float() / near.sum(dim=1, keepdim=True).clamp(min=1)


def match_names(graph: PathGraph) -> Tensor:
    """Best match of a fact's name with a country's own, its capital's or demonym's. [C, F]."""
    first = graph.num_relations - len(SIMILARITIES)
    named = graph.edge_type == first + SIMILARITIES.index("name in name")
    match = torch.zeros(graph.num_nodes, graph.num_nodes)
    match[tuple(graph.edge_index[:, named])] = graph.edge_weight[named]
    names = torch.zeros(len(graph.country), graph.num_nodes)
    names[torch.arange(len(names)), graph.country] = 1
    for relation in ("capital", "demonym"):
        told = graph.edge_type == ASKED_KNOWN.index(relation)
        source, target = graph.edge_index[:, told]
        rows, columns = (graph.country[:, None] == source).nonzero(as_tuple=True)
        names[rows, target[columns]] = 1
    best = torch.stack([(row[:, None] * match)[row > 0].amax(dim=0) for row in names])
    return torch.where(graph.fact_node >= 0, best[:, graph.fact_node], 0.0)


def _normalise(scores: Tensor, graph: PathGraph, corpus: Corpus) -> Tensor:
    """Shares within each asked relation, rule applied."""
    result = torch.zeros(graph.known.shape)
    for columns in asked_columns(corpus):
        result[:, columns] = scores[:, columns] / scores[:, columns].sum(dim=1, keepdim=True)
    return apply_rule(result, graph.known, corpus)
