"""The path model on the countries of the OpenMoji world, and its untrained opponents.

All answer the same question, which fact of a relation has a country, on the same edges: the
facts in both directions, and similarity edges by name and by look. Every opponent gets the same
rule: what the inference graph says of a country is certain, and the rest of that relation hardly
possible.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.experiments.world_scores import ASKED_KNOWN, ASKED_NEW, World
from kgclip.nn.paths import PathEncoder, propagate, random_walk_weights
from kgclip.reasoning import known_facts_win
from kgclip.similarity import nearest_edges, text_vectors

SIMILARITIES = ("looks like", "named like", "capital and demonym like", "name in name")
_MATCHED_TYPES = ("currency", "language", "region", "subregion")
_NEIGHBORS, _MATCHES = 5, 3
_LOOK_THRESHOLD, _NAME_THRESHOLD, _MATCH_THRESHOLD = 0.05, 0.0, 0.15


@dataclasses.dataclass(frozen=True)
class PathOptions:
    """How the path model trains; chosen on the held-out parts of the split seeds 101 and 102.

    Attributes:
        steps: Optimizer steps.
        lr: Peak learning rate, after 20 warm-up steps, then cosine.
        queries: Questions a step, at most.
        new_share: Share of the training countries that a step treats as new.
        similarities: Names of ``SIMILARITIES`` whose edges are used.
        seed: Of weights and episodes.
    """

    steps: int = 100
    lr: float = 5e-3
    queries: int = 32
    new_share: float = 0.25
    similarities: tuple[str, ...] = SIMILARITIES
    seed: int = 0


@dataclasses.dataclass
class PathGraph:
    """Typed, weighted edges over the entities that countries' facts speak of.

    Attributes:
        num_nodes: Number n of entities.
        country: Node of each country. Long [C].
        fact_node: Node of each fact's tail, -1 = not asked here. Long [F].
        known: Whether country c is known to have fact f. Bool [C, F].
        facts: Country row, fact column and relation of each fact edge. Long [3, K].
        edge_index: The fact edges of ``facts``, their inverses, then the rest. Long [2, M].
        edge_type: Long [M].
        edge_weight: Before normalising. Float [M].
        raw_types: First edge type whose weights stay as they are.
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


def train_paths(graph: PathGraph, corpus: Corpus, options: PathOptions) -> PathEncoder:
    """Train on episodes in which some countries play new: their asked facts leave the graph.

    Args:
        graph: The training graph; nothing of the held-out countries is in it.
        corpus: Names the relations.
        options: How long, how fast.
    """
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    model = PathEncoder(len(ASKED_NEW), graph.num_relations)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=1e-4)
    candidates = _candidates(corpus, graph.known)
    trained = torch.nonzero(graph.known.any(dim=1)).squeeze(1)
    model.train()
    for step in range(options.steps):
        lr = min((step + 1) / 20, 0.5 * (1 + np.cos(np.pi * step / options.steps)))
        optimizer.param_groups[0]["lr"] = options.lr * lr
        removed = _hide(graph, corpus, trained, options, generator)
        keep, known = _without(graph, removed)
        weights = normalised_weights(graph, keep)
        queries = [
            (country, question)
            for question, columns in enumerate(candidates)
            for country in torch.nonzero(removed[:, columns].any(dim=1)).squeeze(1).tolist()
        ]
        chosen = torch.randperm(len(queries), generator=generator)[: options.queries].sort().values
        if not len(chosen):
            continue
        rows = torch.tensor([queries[i][0] for i in chosen.tolist()])
        questions = torch.tensor([queries[i][1] for i in chosen.tolist()])
        scores = _score(model, graph, rows, questions, weights, known, candidates)
        losses = []
        for question, columns in enumerate(candidates):
            mine = questions == question
            if not mine.any():
                continue
            logits = scores[mine][:, columns]
            true = graph.known[rows[mine]][:, columns]
            losses.append(multi_answer_loss(logits, true))
        loss = torch.cat(losses).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def multi_answer_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy of each right answer against all wrong ones, mean over a query's answers.

    Args:
        logits: Float [Q, A].
        true: Bool [Q, A].

    Returns:
        Of the queries with a right answer. Float [Q' <= Q].
    """
    has = true.any(dim=1)
    logits, true = logits[has], true[has]
    others = torch.logsumexp(logits.masked_fill(true, -torch.inf), dim=1, keepdim=True)
    losses = F.softplus(others - logits).masked_fill(~true, 0.0)
    return losses.sum(dim=1) / true.sum(dim=1)


def _candidates(corpus: Corpus, known: Tensor | None = None) -> list[Tensor]:
    """By question, its facts, or those that are known of some country. Long [k] each."""
    some = torch.ones(len(corpus.facts), dtype=torch.bool) if known is None else known.any(dim=0)
    numbers = [corpus.relation_labels.index(name) for name in ASKED_NEW]
    return [torch.nonzero(some & (corpus.facts[:, 0] == n)).squeeze(1) for n in numbers]


def _hide(
    graph: PathGraph,
    corpus: Corpus,
    trained: Tensor,
    options: PathOptions,
    generator: torch.Generator,
) -> Tensor:
    """Facts that this step's new countries lack. Bool [C, F]."""
    count = max(1, round(options.new_share * len(trained)))
    new = trained[torch.randperm(len(trained), generator=generator)[:count]]
    asked = torch.tensor([corpus.relation_labels.index(name) for name in ASKED_NEW])
    relation = corpus.facts[:, 0]
    hidden = torch.zeros_like(graph.known)
    for country in new.tolist():
        if torch.rand((), generator=generator) < 0.7:
            gone = asked
        else:
            several = [r for r in ASKED_KNOWN if r != "borders"]
            drawn = torch.rand(len(several), generator=generator) < 0.5
            gone = torch.tensor(
                [corpus.relation_labels.index(r) for r, d in zip(several, drawn, strict=True) if d],
                dtype=torch.long,
            )
        hidden[country] = graph.known[country] & torch.isin(relation, gone)
    return hidden


def _without(graph: PathGraph, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Edges that stay, as 0 or 1 for each, and what is still known."""
    rows, columns = graph.edge_fact
    stays = (~removed[rows, columns]).float()
    rest = torch.ones(graph.edge_index.shape[1] - 2 * len(stays))
    return torch.cat([stays, stays, rest]), graph.known & ~removed


def _score(
    model: PathEncoder,
    graph: PathGraph,
    rows: Tensor,
    questions: Tensor,
    weights: Tensor,
    known: Tensor,
    candidates: list[Tensor],
) -> Tensor:
    """Scores of the candidates' facts for (country, question) pairs, 0 elsewhere. Float [Q, F]."""
    start = F.one_hot(graph.country[rows], graph.num_nodes).float()
    answers = torch.unique(torch.cat([graph.fact_node[columns] for columns in candidates]))
    place = torch.full((graph.num_nodes,), -1)
    place[answers] = torch.arange(len(answers))
    counts = torch.zeros(len(candidates), len(answers))
    for question, columns in enumerate(candidates):
        counts[question, place[graph.fact_node[columns]]] = known[:, columns].sum(dim=0).float()
    priors = torch.stack([counts.log1p(), (counts > 0).float()], dim=2)[questions]
    used = weights > 0
    scores: Tensor = model(
        start,
        questions,
        graph.edge_index[:, used],
        graph.edge_type[used],
        weights[used],
        priors,
        answers=answers,
    )
    columns = torch.cat(candidates)
    found = scores.new_zeros(len(rows), len(graph.fact_node))
    return found.index_copy(1, columns, scores.index_select(1, place[graph.fact_node[columns]]))


@torch.no_grad()
def answer(model: PathEncoder, graph: PathGraph, corpus: Corpus, chunk: int = 64) -> Tensor:
    """Probability of each fact for each country, rule applied. Float [C, F]."""
    candidates = _candidates(corpus)
    weights = normalised_weights(graph)
    result = torch.zeros(graph.known.shape)
    for question, columns in enumerate(candidates):
        for rows in torch.split(torch.arange(len(graph.country)), chunk):
            asked = torch.full((len(rows),), question)
            scores = _score(model, graph, rows, asked, weights, graph.known, candidates)
            result[rows[:, None], columns] = scores[:, columns].softmax(dim=1)
    return apply_rule(result, graph.known, corpus)


@torch.no_grad()
def answer_untrained(graph: PathGraph, corpus: Corpus) -> Tensor:
    """The same by an untrained random walk over the same edges. Float [C, F]."""
    start = F.one_hot(graph.country, graph.num_nodes).float()
    passed = propagate(start, graph.edge_index, normalised_weights(graph))
    result = torch.zeros(graph.known.shape)
    for columns in _candidates(corpus):
        mass = passed[:, graph.fact_node[columns]] + 1e-9
        result[:, columns] = mass / mass.sum(dim=1, keepdim=True)
    return apply_rule(result, graph.known, corpus)


def apply_rule(probability: Tensor, known: Tensor, corpus: Corpus) -> Tensor:
    """Known facts are certain; other facts of a relation that is known hardly possible."""
    result = probability.clone()
    for relation in torch.unique(corpus.facts[:, 0]):
        columns = torch.nonzero(corpus.facts[:, 0] == relation).squeeze(1)
        result[:, columns] = known_facts_win(probability[:, columns], known[:, columns])
    return result
