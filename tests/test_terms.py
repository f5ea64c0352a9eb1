"""Losses get from the training graph what they need, and wrong options are named."""

import pytest
import torch

from kgclip.batches import Corpus
from kgclip.config import LossSettings
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from kgclip.terms import build_terms, count_relations
from tests.test_batches import graph, tokenizer  # noqa: F401  # a fixture


@pytest.fixture
def corpus(graph: KnowledgeGraph):  # noqa: F811
    return Corpus(graph, tokenizer, torch.zeros(3, 2))


def build(corpus, **losses):
    settings = {name: LossSettings(**value) for name, value in losses.items()}
    return build_terms(settings, corpus)


def test_weights_ramps_and_options_arrive(corpus):
    terms = build(corpus, e2e={"weight": 0.5, "ramp": 0.25, "options": {"sides": ["tail"]}})
    assert (terms["e2e"].weight, terms["e2e"].ramp) == (0.5, 0.25)
    assert terms["e2e"].loss.sides == ("tail",)


def test_relations_are_counted_in_training_alone(corpus):
    assert count_relations(corpus).tolist() == [2, 2], "one 'near' is a test triple"
    prior = build(corpus, e2r={})["e2r"].loss.adjustment.exp()
    torch.testing.assert_close(prior, torch.tensor([0.5, 0.5]))
    prior = build(corpus, e2r={"options": {"relation_counts": [3, 1]}})["e2r"].loss.adjustment
    torch.testing.assert_close(prior.exp(), torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize(("name", "similar"), [("same", 0), ("neighbors", 1), ("pagerank", 1)])
def test_similarity_is_found_by_name(corpus, name, similar):
    loss = build(corpus, multi_positive={"options": {"similarity": name}})["multi_positive"].loss
    found = loss.similarity(torch.tensor([1, 3]))  # b and d both know c
    assert bool(found[0, 1] > 0) == similar
    assert found[0, 0] > 0


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"multi_positive": {"options": {"similarity": "ppr"}}}, "'ppr' given, one of same"),
        ({"e2e": {"options": {"side": "head"}}}, r"losses\.e2e\.options: .*'side'"),
        ({"e2e": {"options": {"sides": ["top"]}}}, r"losses\.e2e\.options: sides"),
    ],
)
def test_wrong_options_name_the_loss(corpus, losses, message):
    with pytest.raises(GraphError, match=message):
        build(corpus, **losses)
