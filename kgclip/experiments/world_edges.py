"""The edges over which facts about countries are found: known facts, and what is alike.

A split OpenMoji world comes in, one typed, weighted graph goes out, the same for the trained
path model and for every untrained opponent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.experiments.world_scores import ASKED_KNOWN, ASKED_NEW, World
from kgclip.nn.paths import random_walk_weights
from kgclip.reasoning import known_facts_win
from kgclip.similarity import nearest_edges, text_vectors

SIMILARITIES = ("looks like", "named like", "capital and demonym like", "name in name")
_MATCHED_TYPES = ("currency", "language", "region", "subregion")
_NEIGHBORS, _MATCHES = 5, 3
_LOOK_THRESHOLD, _NAME_THRESHOLD, _MATCH_THRESHOLD = 0.05, 0.0, 0.15


@dataclasses.dataclass
class PathGraph:
    """Typed, weighted edges over the entities that countries' facts speak of.

    Attributes:
        num_nodes: Number n of entities.
        country: Node of each country. Long [C].
        fact_node: Node of each fact's tail, -1 = not asked here. Long [F].
        known: Whether country c is known to have fact f. Bool [C, F].
        edge_fact: Country row and fact column of each fact edge. Long [2, K].
        edge_index: The fact edges of ``edge_fact``, their inverses, then the rest. Long [2, M].
        edge_type: Relations of ``ASKED_KNOWN``, their inverses, ``SIMILARITIES``. Long [M].
        edge_weight: Before normalising. Float [M].
        num_relations: Number of edge types.
    """

    num_nodes: int
    country: Tensor
    fact_node: Tensor
    known: Tensor
    edge_fact: Tensor
    edge_index: Tensor
    edge_type: Tensor
    edge_weight: Tensor
    num_relations: int


def build_path_graph(
    corpus: Corpus, world: World, entity_types: list[str | None], flags: Tensor,
    splits: tuple[str, ...], similarities: tuple[str, ...] = SIMILARITIES,
) -> PathGraph:  # fmt: skip
    """Lay out the edges that some splits know.

    Args:
        corpus: The graph as tensors.
        world: Its questions.
        entity_types: Type of each entity.
        flags: Features of the countries' flags, for what looks alike. Float [C, W].
        splits: Splits whose triples are edges; a country without any is left without similarity
            edges too, as it is not there yet.
        similarities: Names of the similarity edges to add.
    """
    relations = [corpus.relation_labels.index(name) for name in ASKED_KNOWN]
    ours = torch.isin(corpus.triples[:, 1], torch.tensor(relations))
    nodes = torch.unique(corpus.triples[ours][:, [0, 2]])
    place = torch.full((corpus.num_entities,), -1)
    place[nodes] = torch.arange(len(nodes))
    position = torch.full((corpus.num_entities,), -1)
    position[world.countries] = torch.arange(len(world.countries))
    given = ours & torch.from_numpy(np.isin(corpus.triple_split, splits))
    heads, kinds, tails = corpus.triples[given].T
    number = torch.full((corpus.num_relations,), -1)
    number[torch.tensor(relations)] = torch.arange(len(relations))
    forward = torch.stack([place[heads], place[tails]])
    known = torch.zeros(len(world.countries), len(corpus.facts), dtype=torch.bool)
    known[position[heads], corpus.fact_ids[given]] = True
    edges = [forward, forward.flip(0)]
    types = [number[kinds], number[kinds] + len(relations)]
    weights = [torch.ones(len(heads)), torch.ones(len(heads))]
    there = torch.zeros(corpus.num_entities, dtype=torch.bool)
    there[heads], there[tails] = True, True
    extra = _similar(corpus, world, np.array(entity_types, dtype=str), flags, there)
    for kind, name in enumerate(SIMILARITIES):
        if name in similarities:
            edge_index, values = extra[name]
            edges.append(place[edge_index])
            types.append(torch.full((len(values),), 2 * len(relations) + kind))
            weights.append(values)
    asked = torch.isin(corpus.facts[:, 0], torch.tensor(relations))
    fact_of_edge = corpus.fact_ids[given]
    return PathGraph(
        num_nodes=len(nodes),
        country=place[world.countries],
        fact_node=torch.where(asked, place[corpus.facts[:, 1]], -1),
        known=known,
        edge_fact=torch.stack([position[heads], fact_of_edge]),
        edge_index=torch.cat(edges, dim=1),
        edge_type=torch.cat(types),
        edge_weight=torch.cat(weights).float(),
        num_relations=2 * len(relations) + len(SIMILARITIES),
    )


def _similar(
    corpus: Corpus, world: World, types: np.ndarray, flags: Tensor, there: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Similarity edges among the entities that are there."""
    rows = torch.nonzero(there[world.countries]).squeeze(1)
    countries = world.countries[rows].numpy()
    look = flags[rows].double()
    look = F.normalize((look - look.mean(dim=0)) / (look.std(dim=0) + 1e-6), dim=1)
    described = _capital_and_demonym(corpus, there)
    found = {}
    for name, similarity, threshold in (
        ("looks like", (look @ look.T).numpy(), _LOOK_THRESHOLD),
        ("named like", _cosines([corpus.labels[c] for c in countries]), _NAME_THRESHOLD),
        ("capital and demonym like", _cosines([described.get(c, "") for c in countries.tolist()]),
         _NAME_THRESHOLD),
    ):  # fmt: skip
        found[name] = nearest_edges(
            similarity, countries, countries, k=_NEIGHBORS, threshold=threshold
        )
    present = there.numpy()
    asking = np.flatnonzero(present & np.isin(types, ("country", "demonym", "city")))
    # A currency that only a new country uses is an entity all the same.
    answers = np.flatnonzero(np.isin(types, _MATCHED_TYPES))
    vectors = text_vectors([corpus.labels[e] for e in (*asking, *answers)])
    cosines = (vectors[: len(asking)] @ vectors[len(asking) :].T).toarray()
    found["name in name"] = nearest_edges(
        cosines, asking, answers, k=_MATCHES, threshold=_MATCH_THRESHOLD
    )
    return {
        name: (torch.from_numpy(edges), torch.from_numpy(values))
        for name, (edges, values) in found.items()
    }


def _cosines(texts: list[str]) -> np.ndarray:
    vectors = text_vectors(texts)
    cosines: np.ndarray = (vectors @ vectors.T).toarray()
    return cosines


def _capital_and_demonym(corpus: Corpus, there: Tensor) -> dict[int, str]:
    wanted = [corpus.relation_labels.index(name) for name in ("capital", "demonym")]
    texts: dict[int, str] = {}
    given = np.isin(corpus.triple_split, ("train", "inference"))
    for (head, relation, tail), use in zip(corpus.triples.tolist(), given, strict=True):
        if use and relation in wanted and there[head]:
            texts[head] = f"{texts.get(head, '')} {corpus.labels[tail]}"
    return texts


def normalised_weights(graph: PathGraph, keep: Tensor | None = None) -> Tensor:
    """Random-walk weights; edges "name in name" keep their cosine, removed edges get 0."""
    weight = graph.edge_weight if keep is None else graph.edge_weight * keep
    walked = random_walk_weights(graph.edge_index, graph.edge_type, weight, graph.num_relations)
    raw = graph.edge_type == graph.num_relations - 1
    return torch.where(raw, weight, walked)


def keep_similarities(graph: PathGraph, names: Sequence[str]) -> PathGraph:
    """The same graph with the similarity edges of some names only, numbered as before."""
    first = graph.num_relations - len(SIMILARITIES)
    gone = [first + kind for kind, name in enumerate(SIMILARITIES) if name not in names]
    stays = ~torch.isin(graph.edge_type, torch.tensor(gone, dtype=torch.long))
    return dataclasses.replace(
        graph,
        edge_index=graph.edge_index[:, stays],
        edge_type=graph.edge_type[stays],
        edge_weight=graph.edge_weight[stays],
    )


def asked_columns(corpus: Corpus, known: Tensor | None = None) -> list[Tensor]:
    """By question, its facts, or those that are known of some country. Long [k] each."""
    some = torch.ones(len(corpus.facts), dtype=torch.bool) if known is None else known.any(dim=0)
    numbers = [corpus.relation_labels.index(name) for name in ASKED_NEW]
    return [torch.nonzero(some & (corpus.facts[:, 0] == n)).squeeze(1) for n in numbers]


def apply_rule(probability: Tensor, known: Tensor, corpus: Corpus) -> Tensor:
    """Known facts are certain; other facts of a relation that is known hardly possible."""
    result = probability.clone()
    for relation in torch.unique(corpus.facts[:, 0]):
        columns = torch.nonzero(corpus.facts[:, 0] == relation).squeeze(1)
        result[:, columns] = known_facts_win(probability[:, columns], known[:, columns])
    return result
