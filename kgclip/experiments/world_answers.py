"""What a trained run of the OpenMoji world answers, and the opponents that lean on it.

Every row gives a score of each fact for each country, for the country told (*given*) and for
the picture linked to it (*linked*); rows that give probabilities are asked multi-hop questions
too, all composed alike.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.experiments import world_edges as edges
from kgclip.experiments import world_opponents as opponents
from kgclip.experiments import world_questions as questions_of
from kgclip.experiments import world_scores as scores_of
from kgclip.experiments.world_paths import PathOptions, answer_by_paths, train_paths
from kgclip.experiments.world_scores import Features, World
from kgclip.nn.model import KnowledgeCLIP

# Rows of the table, in its order, and the run whose model answers for them.
ROWS = {
    "clip": "clip",
    "clip_matched": "clip_matched",
    "verbalised": "verbalised",
    "verbalised_matched": "verbalised_matched",
    "propagation": "verbalised",
    "propagation_rule": "verbalised",
    "symbolic": "clip",
    "lexical": "clip",
    "knowledge": "knowledge",
    "knowledge_mean": "knowledge",
    "knowledge_rewired": "knowledge",
    "vote_names": "knowledge",
    "walk_facts": "knowledge",
    "walk": "knowledge",
    "paths_facts": "knowledge",
    "paths": "knowledge",
}
# Path models, trained beside the run, and the similarity edges that they walk.
PATHS: dict[str, tuple[str, ...]] = {"paths": edges.SIMILARITIES, "paths_facts": ()}
_NUM_GALLERIES, _GALLERY_LENGTH = 5, 5
_KEPT_SPLITS = ("new_entities", "new_entities_no_overlap", "questions")


@dataclasses.dataclass
class Trained:
    """A trained run, and what it is asked.

    Attributes:
        run: Its name.
        seed: Its seed, which the path model and the rewired graph share.
        model: Its model.
        corpus: The graph as tensors.
        world: The questions.
        features: The model's view of everything.
        entity_types: Type of each entity.
        path_options: How path models train.
    """

    run: str
    seed: int
    model: KnowledgeCLIP
    corpus: Corpus
    world: World
    features: Features
    entity_types: list[str | None]
    path_options: PathOptions


@dataclasses.dataclass
class _Rows:
    """What the rows of one run say.

    Attributes:
        scores: By row and scoring, of each fact for each country or its picture. [C, F] each.
        beliefs: By row, the same as probabilities, the country given. Float [C, F].
        seconds: CPU seconds of what is trained beside the run.
    """

    scores: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
    beliefs: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def believe(self, row: str, belief: Tensor, link: Tensor) -> None:
        """Add a row that is scored by its probabilities."""
        self.beliefs[row] = belief
        self.scores[row] = {"given": belief, "linked": link @ belief}


def answer_world(trained: Trained) -> dict[str, Any]:
    """Every row that this model answers for.

    Returns:
        ``figures`` by part, row and key; ``ranks``, one row for each answer of the test part to
        a question about a new country; ``top`` flags by fact; ``seconds``.
    """
    corpus, world, features = trained.corpus, trained.world, trained.features
    link = scores_of.link_flags(features, world)
    graph = _build_graph(trained, ("train", "inference"))
    rows = _Rows()
    if trained.run == "knowledge":
        _add_graph_rows(trained, link, rows)
        _add_path_rows(trained, graph, link, rows)
    elif trained.run == "verbalised":
        nodes = scores_of.neighbor_mean(features)
        rows.scores["propagation"] = _linked(features, world, link, nodes)
        given = rows.scores["propagation"]["given"]
        rows.believe("propagation_rule", opponents.answer_by_text(given, graph, corpus), link)
    elif trained.run == "clip":
        known = features.edge_index, features.edge_type
        for name, scores in (
            ("symbolic", scores_of.known_scores(world, corpus, known)),
            ("lexical", scores_of.lexical_scores(world, corpus)),
        ):
            rows.scores[name] = {"given": scores, "linked": link @ scores}
        rows.beliefs["symbolic"] = opponents.answer_by_vote(graph, corpus, name_share=0)
    _add_own_row(trained, graph, link, rows)
    return _evaluate(trained, graph, link, rows)


def _build_graph(trained: Trained, splits: tuple[str, ...]) -> edges.PathGraph:
    flags = trained.corpus.image_features[trained.world.flags]
    layout = trained.corpus, trained.world, trained.entity_types, flags
    return edges.build_path_graph(*layout, splits=splits)


def _add_graph_rows(trained: Trained, link: Tensor, rows: _Rows) -> None:
    """The graph encoder, and what is left without it or with a scrambled graph."""
    model, features = trained.model, trained.features
    for name, nodes in {
        "knowledge": scores_of.encode_graph(model, features),
        "knowledge_mean": scores_of.neighbor_mean(features),
        "knowledge_rewired": scores_of.encode_graph(model, features, rewire_seed=trained.seed),
    }.items():
        rows.scores[name] = _linked(features, trained.world, link, nodes)


def _add_path_rows(trained: Trained, graph: edges.PathGraph, link: Tensor, rows: _Rows) -> None:
    """The path model and its untrained opponents, with similarity edges and without."""
    corpus = trained.corpus
    facts = edges.keep_similarities(graph, ())
    rows.believe("vote_names", opponents.answer_by_vote(graph, corpus), link)
    rows.believe("walk", opponents.answer_by_walk(graph, corpus), link)
    rows.believe("walk_facts", opponents.answer_by_walk(facts, corpus), link)
    known = _build_graph(trained, ("train",))
    for name, similarities in PATHS.items():
        began = time.process_time()
        model = train_paths(
            edges.keep_similarities(known, similarities), corpus, trained.path_options
        )
        rows.seconds[name] = round(time.process_time() - began, 2)
        asked = edges.keep_similarities(graph, similarities)
        rows.believe(name, answer_by_paths(model, asked, corpus), link)


def _add_own_row(trained: Trained, graph: edges.PathGraph, link: Tensor, rows: _Rows) -> None:
    """The run by its texts; `knowledge` answers linked and given questions with its graph."""
    features, world = trained.features, trained.world
    names = features.entities[world.countries]
    wording = _choose(world, trained.corpus, features, scores_of.FACT_TEMPLATES)
    text = {
        "encoder": scores_of.score_facts(features, features.images[world.flags], wording),
        "linked": scores_of.score_facts(features, link @ names, wording),
        "given": scores_of.score_facts(features, names, wording),
    }
    own = text | rows.scores.get(trained.run, {})
    rows.scores[trained.run] = own
    rows.beliefs[trained.run] = opponents.answer_by_text(own["given"], graph, trained.corpus)


def _evaluate(
    trained: Trained, graph: edges.PathGraph, link: Tensor, rows: _Rows
) -> dict[str, Any]:
    corpus, world, features = trained.corpus, trained.world, trained.features
    figures: dict[str, dict[str, dict[str, float]]] = {}
    kept = []
    for part in scores_of.PARTS:
        figures[part] = {row: {} for row in rows.scores}
        for row, scoring, ranks in _rank(trained, graph, link, rows, part):
            figures[part][row] |= scores_of.average_ranks(ranks, scoring)
            if "questions" in ranks["split"]:  # each kind, beside their mean
                by_kind = ranks.with_columns(task=pl.col("group"))
                figures[part][row] |= scores_of.average_ranks(by_kind, scoring)
            if part == "test":
                labels = {"run": row, "seed": trained.seed, "scoring": scoring}
                columns = [pl.lit(value).alias(name) for name, value in labels.items()]
                kept.append(ranks.filter(pl.col("split").is_in(_KEPT_SPLITS)).select(*columns, "*"))
    label = _choose_class(world, corpus, features)
    for part in scores_of.PARTS:
        figures[part][trained.run] |= scores_of.evaluate_pictures(
            world, corpus, features, part, label
        )
    return {
        "figures": figures,
        "ranks": pl.concat(kept),
        "top": _top_flags(world, corpus, rows.scores),
        "seconds": rows.seconds,
    }


def _rank(
    trained: Trained, graph: edges.PathGraph, link: Tensor, rows: _Rows, part: str
) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Row, scoring and ranks of all that is asked; multi-hop questions in the test part only."""
    corpus, world = trained.corpus, trained.world
    for row, by_scoring in rows.scores.items():
        for scoring, scores in by_scoring.items():
            yield row, scoring, scores_of.rank_facts(world, corpus, scores, part)
    if part != "test":
        return
    asked = questions_of.build_questions(world, corpus, part)
    for row, belief in rows.beliefs.items():
        facts = questions_of.believed_facts(belief, graph, corpus)
        for scoring, linked in (("given", None), ("linked", link)):
            yield row, scoring, questions_of.rank_questions(asked, facts, linked)


def _linked(features: Features, world: World, link: Tensor, nodes: Tensor) -> dict[str, Tensor]:
    vectors = nodes[world.countries]
    return {
        "linked": scores_of.score_facts(features, link @ vectors),
        "given": scores_of.score_facts(features, vectors),
    }


def _choose(world: World, corpus: Corpus, features: Features, templates: Sequence[str]) -> str:
    """The wording of facts that suits this model best, by validation: no run is held back."""

    def quality(template: str) -> float:
        scores = scores_of.score_facts(features, features.images[world.flags], template)
        figures = scores_of.evaluate_facts(world, corpus, scores, "encoder", "valid")
        return sum(value for key, value in figures.items() if key.endswith("/mrr"))

    return max(templates, key=quality)


def _choose_class(world: World, corpus: Corpus, features: Features) -> str:
    def quality(template: str) -> float:
        figures = scores_of.evaluate_pictures(world, corpus, features, "valid", template)
        return figures["unseen_pictures/subgroup/encoder/top1"]

    return max(scores_of.CLASS_TEMPLATES, key=quality)


def _top_flags(
    world: World, corpus: Corpus, rows: Mapping[str, Mapping[str, Tensor]]
) -> list[dict[str, Any]]:
    """For a few facts of new entities, the first flags of each row: entity ids and whether true."""
    test = torch.from_numpy(world.part == "test") & world.is_new
    shown = []
    for fact in _gallery_facts(world, corpus, test):
        # Countries whose fact was trained on would only show memory.
        rivals = torch.nonzero(test | ~world.true[:, fact]).squeeze(1)
        ranked = {}
        for row, by_scoring in rows.items():
            order = by_scoring["linked"][rivals, fact].argsort(descending=True, stable=True)
            top = rivals[order[:_GALLERY_LENGTH]].tolist()
            ranked[row] = [(int(world.countries[c]), bool(world.true[c, fact])) for c in top]
        relation, tail = corpus.facts[fact].tolist()
        title = f"{corpus.relation_labels[relation]}: {corpus.labels[tail]}"
        shown.append({"title": title, "rows": ranked})
    return shown


def _gallery_facts(world: World, corpus: Corpus, test: Tensor) -> Iterator[int]:
    """Facts that most new test countries have, at most two a relation."""
    count = world.true[test].sum(dim=0)
    taken: dict[str, int] = {}
    for fact in count.argsort(descending=True, stable=True).tolist():
        relation = corpus.relation_labels[int(corpus.facts[fact, 0])]
        if relation in scores_of.ASKED_NEW and taken.get(relation, 0) < 2 and count[fact]:
            taken[relation] = taken.get(relation, 0) + 1
            yield fact
            if sum(taken.values()) == _NUM_GALLERIES:
                return
