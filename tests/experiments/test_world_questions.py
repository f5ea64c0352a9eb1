"""Questions are built from the graph, ask only what no graph holds, and favour no method."""

import dataclasses

import polars as pl
import pytest
import torch

from kgclip.batches import Corpus
from kgclip.experiments import world_edges as we
from kgclip.experiments import world_questions as wq
from kgclip.experiments import world_scores as ws
from kgclip.graph import KnowledgeGraph
from kgclip.sources.openmoji_splits import split_world


@pytest.fixture(scope="module")
def case(openmoji_tables):
    graph = KnowledgeGraph(split_world(openmoji_tables, seed=8))
    features = torch.rand(len(graph.images), 5, generator=torch.Generator().manual_seed(0))
    corpus = Corpus(graph, lambda texts: torch.zeros(len(texts), 2, dtype=torch.long), features)
    world = ws.build_world(corpus, graph.entities["type"])
    types, flags = graph.entities["type"].to_list(), corpus.image_features[world.flags]
    given = we.build_path_graph(corpus, world, types, flags, splits=("train", "inference"))
    return corpus, world, given, wq.build_questions(world, corpus)


def test_every_kind_is_asked(case):
    _, _, _, questions = case
    assert {many.kind for many in questions} == set(wq.KINDS)
    assert len(wq.KINDS) == 12
    for many in questions:
        assert many.asked.any(dim=1).all(), "every question has a hard answer"
        assert not (many.asked & ~many.right).any()
        assert len(many.starts) == len(many.right) == len(many.asked)


def known_sets(case):
    """Facts as sets of names: what is true, and what the inference graph holds."""
    corpus, world, given, _ = case
    true, known = {}, {}
    for matrix, sets in ((world.true, true), (given.known, known)):
        for row, column in matrix.nonzero().tolist():
            relation, tail = corpus.facts[column].tolist()
            sets.setdefault(corpus.relation_labels[relation], set()).add((row, tail))
    place = {int(entity): row for row, entity in enumerate(world.countries)}
    for sets in (true, known):
        pairs = {(a, place[b]) for a, b in sets["borders"] if b in place}
        sets["borders"] = pairs | {(b, a) for a, b in pairs}
    return true, known


def test_answers_equal_the_search_by_hand(case):
    """Currency of a neighbour of X that speaks L: sets of names instead of matrices."""
    corpus, _, _, questions = case
    true, known = known_sets(case)
    kind = "currency_of_neighbor_with_language"
    languages, currencies = (
        corpus.facts[wq.tail_columns(corpus, name), 1].tolist() for name in ("language", "currency")
    )

    def search(sets, start, language):
        middle = {b for a, b in sets["borders"] if a == start}
        speakers = {c for c in middle if (c, language) in sets["language"]}
        return {tail for c, tail in sets["currency"] if c in speakers}

    checked = 0
    for many in questions:
        if many.kind != kind:
            continue
        language = languages[many.tails[0]]
        for start, right, asked in zip(many.starts.tolist(), many.right, many.asked, strict=True):
            answers = {currencies[i] for i in right.nonzero().flatten().tolist()}
            hard = {currencies[i] for i in asked.nonzero().flatten().tolist()}
            assert answers == search(true, start, language)
            assert not hard & search(known, start, language), "an easy answer is asked"
            checked += 1
    assert checked > 20


def test_hard_answers_need_a_new_country_of_the_part(case):
    _, world, _, questions = case
    new = world.is_new & torch.from_numpy(world.part == "test")
    for many in questions:
        kind = wq.KINDS[many.kind]
        if kind.answers == "country":
            countries = many.asked.any(dim=0).nonzero().flatten()
            starts = many.starts[many.starts >= 0]
            assert new[countries].any() or new[starts].any()
        if kind.start == "new":
            assert new[many.starts].all()


def test_a_country_is_no_answer_about_itself(case):
    for many in case[3]:
        if wq.KINDS[many.kind].start and wq.KINDS[many.kind].answers == "country":
            rows = torch.arange(len(many.starts))
            assert not many.asked[rows, many.starts].any()
            assert many.right[rows, many.starts].all(), "left out of the ranking"


def test_who_knows_all_answers_all(case):
    corpus, world, given, questions = case
    facts = wq.believed_facts(world.true.float(), given, corpus)
    ranks = wq.rank_questions(questions, facts)
    assert set(ranks["group"]) == set(wq.KINDS)
    # An answer that the graph's borders do not hold cannot be found by looking them up.
    assert (1 / ranks["rank"]).mean() > 0.99
    certain = wq.rank_questions(questions, facts, torch.eye(len(world.countries)))
    assert ranks.equals(certain), "a picture that surely shows its country is that country"


def test_who_knows_nothing_is_at_chance(case):
    corpus, world, given, questions = case
    even = torch.full(world.true.shape, 0.5)
    blind = dataclasses.replace(given, known=torch.zeros_like(given.known))
    facts = wq.believed_facts(even, blind, corpus)
    ranks = wq.rank_questions([q for q in questions if not q.kind.startswith("neighbor")], facts)
    assert (1 / ranks["rank"]).mean() < 0.1


def test_pictures_mix_the_answers(case):
    """A picture that shows one of two countries is asked about both, by its doubts."""
    corpus, world, given, questions = case
    facts = wq.believed_facts(world.true.float() * 0.9, given, corpus)
    link = torch.eye(len(world.countries)) * 0.75
    link = link + 0.25 * torch.roll(torch.eye(len(link)), 1, dims=1)
    for kind in ("currency_of_neighbor", "neighbor_with_language", "with_language_in_subregion"):
        many = next(one for one in questions if one.kind == kind)
        every = torch.arange(len(link))
        scores = wq.KINDS[kind].compose(facts, every, *many.tails)
        if wq.KINDS[kind].start:
            scores = link[many.starts] @ scores
        if wq.KINDS[kind].answers == "country":
            scores = scores @ link.T
        torch.testing.assert_close(wq._score(many, facts, link), scores)


def test_queries_are_named_once(case):
    corpus, world, given, questions = case
    facts = wq.believed_facts(torch.rand(world.true.shape), given, corpus)
    ranks = wq.rank_questions(questions, facts)
    assert ranks.select("group", "query").is_duplicated().sum() == 0
    assert ranks["rank"].min() >= 1
    assert wq.rank_questions([], facts).schema == ranks.schema
    assert isinstance(ranks, pl.DataFrame)
