"""Untrained opponents answer as they claim, on the same edges and by the same rule."""

import pytest
import torch

from kgclip.batches import Corpus
from kgclip.experiments import world_edges as we
from kgclip.experiments import world_opponents as wo
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
    return corpus, world, we.build_path_graph(corpus, world, types, flags, ("train", "inference"))


def answers(case):
    corpus, _, graph = case
    cosines = torch.rand(graph.known.shape, generator=torch.Generator().manual_seed(1))
    return {
        "walk": wo.answer_by_walk(graph, corpus),
        "walk_facts": wo.answer_by_walk(we.keep_similarities(graph, ()), corpus),
        "vote": wo.answer_by_vote(graph, corpus, name_share=0),
        "names": wo.answer_by_vote(graph, corpus, name_share=float("inf")),
        "vote_names": wo.answer_by_vote(graph, corpus),
        "text": wo.answer_by_text(cosines, graph, corpus),
    }


def test_all_give_probabilities_by_the_rule(case):
    corpus, _, graph = case
    for name, belief in answers(case).items():
        assert 0 <= belief.min() <= belief.max() <= 1, name
        assert (belief[graph.known] == 1).all(), name
        for columns in we.asked_columns(corpus):
            told = graph.known[:, columns].any(dim=1)
            free = belief[:, columns][~told].sum(dim=1)
            torch.testing.assert_close(free, torch.ones_like(free))
            others = belief[:, columns].masked_fill(graph.known[:, columns], 0)
            assert (others[told] <= 1e-3).all(), name


def test_vote_equals_the_symbolic_row(case):
    corpus, world, graph = case
    edges = corpus.edges(["train", "inference"])
    known = graph.known.float()
    common = 1e-3 * known.mean(dim=0)
    expected = ws.known_scores(world, corpus, edges) - known - common
    asked = graph.fact_node >= 0
    torch.testing.assert_close(wo.vote(graph)[:, asked], expected[:, asked], atol=1e-6, rtol=0)


def test_borders_go_both_ways(case):
    corpus, world, graph = case
    found = wo.borders(graph)
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()
    place = {corpus.labels[int(c)]: row for row, c in enumerate(world.countries)}
    assert found[place["Kenya"], place["Tanzania"]]
    assert not found[place["Kenya"], place["Japan"]]


def test_names_match_by_the_edges_of_the_graph(case):
    """Best of a country's own name, its capital's and its demonym's: the loop over the edges."""
    _, _, graph = case
    found = wo.match_names(graph)
    kind = graph.num_relations - 1
    weight = {}
    for (source, target), relation, value in zip(
        graph.edge_index.T.tolist(), graph.edge_type.tolist(), graph.edge_weight, strict=True
    ):
        if relation == kind:
            weight[source, target] = float(value)
    for row in (0, 33, 120, 200):
        country = int(graph.country[row])
        names = {country}
        for (source, target), relation in zip(
            graph.edge_index.T.tolist(), graph.edge_type.tolist(), strict=True
        ):
            if source == country and ws.ASKED_KNOWN[relation % 7] in ("capital", "demonym"):
                names |= {target} if relation < 7 else set()
        for column in torch.nonzero(graph.fact_node >= 0).flatten()[::9].tolist():
            target = int(graph.fact_node[column])
            best = max((weight.get((name, target), 0.0) for name in names), default=0.0)
            assert float(found[row, column]) == pytest.approx(best), (row, column)


def test_similarity_edges_can_be_left_out(case):
    _, _, graph = case
    facts = we.keep_similarities(graph, ())
    assert facts.edge_index.shape[1] == 2 * graph.edge_fact.shape[1]
    assert (facts.edge_type < graph.num_relations - len(we.SIMILARITIES)).all()
    some = we.keep_similarities(graph, we.SIMILARITIES[1:])
    assert set(graph.edge_type.tolist()) - set(some.edge_type.tolist()) == {14}
    assert torch.equal(we.keep_similarities(graph, we.SIMILARITIES).edge_index, graph.edge_index)


def test_more_is_known_with_names(case):
    """On real facts each source of evidence helps: names beside votes, and edges in the walk."""
    corpus, world, _ = case
    mrr = {
        name: ws.evaluate_facts(world, corpus, belief, "given", "test")[
            "new_entities/image_to_fact/given/mrr"
        ]
        for name, belief in answers(case).items()
    }
    assert mrr["vote_names"] > mrr["vote"] > mrr["text"]
    assert mrr["walk"] > mrr["walk_facts"]
