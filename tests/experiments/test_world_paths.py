"""The path model trains on what it may know, and every method keeps the same rule."""

import pytest
import torch

from kgclip.batches import Corpus
from kgclip.experiments import world_edges as we
from kgclip.experiments import world_paths as wp
from kgclip.experiments import world_scores as ws
from kgclip.graph import KnowledgeGraph
from kgclip.sources.openmoji_splits import split_world


@pytest.fixture(scope="module")
def case(openmoji_tables):
    graph = KnowledgeGraph(split_world(openmoji_tables, seed=8))
    features = torch.rand(len(graph.images), 5, generator=torch.Generator().manual_seed(0))
    corpus = Corpus(graph, lambda texts: torch.zeros(len(texts), 2, dtype=torch.long), features)
    world = ws.build_world(corpus, graph.entities["type"])
    types = graph.entities["type"].to_list()
    layout = (corpus, world, types, corpus.image_features[world.flags])
    known = we.build_path_graph(*layout, splits=("train",))
    given = we.build_path_graph(*layout, splits=("train", "inference"))
    return corpus, world, known, given


def test_new_countries_are_nowhere_in_training(case):
    _, world, known, given = case
    new = set(known.country[world.is_new].tolist())
    assert not new & set(known.edge_index.flatten().tolist()), "no similarity edge either"
    assert new & set(given.edge_index.flatten().tolist())
    assert not known.known[world.is_new].any()


def test_inference_graph_knows_no_asked_fact(case):
    corpus, world, _, given = case
    asked = [corpus.relation_labels.index(name) for name in ws.ASKED_NEW]
    columns = torch.isin(corpus.facts[:, 0], torch.tensor(asked))
    assert not given.known[world.is_new][:, columns].any()


def test_hidden_facts_leave_the_graph_both_ways(case):
    corpus, _, known, _ = case
    generator = torch.Generator().manual_seed(0)
    trained = torch.nonzero(known.known.any(dim=1)).squeeze(1)
    removed = wp._hide(known, corpus, trained, wp.PathOptions(), generator)
    assert removed.any()
    assert not (removed & ~known.known).any()
    keep, rest = wp._without(known, removed)
    weights = we.normalised_weights(known, keep)
    gone = {(int(known.country[c]), int(known.fact_node[f])) for c, f in removed.nonzero().tolist()}
    count = 2 * known.edge_fact.shape[1]
    for column in torch.nonzero(weights[:count] > 0).squeeze(1)[:500].tolist():
        source, target = known.edge_index[:, column].tolist()
        assert (source, target) not in gone or (target, source) not in gone
    assert not rest[removed].any()
    hidden = torch.nonzero(removed)[0].tolist()
    rows, columns = known.edge_fact
    edge = int(torch.nonzero((rows == hidden[0]) & (columns == hidden[1]))[0])
    assert weights[edge] == weights[edge + known.edge_fact.shape[1]] == 0


def test_rule_makes_known_facts_certain(case):
    corpus, _, _, given = case
    even = torch.full(given.known.shape, 0.25)
    ruled = we.apply_rule(even, given.known, corpus)
    assert (ruled[given.known] == 1).all()
    relation = corpus.facts[:, 0]
    for row in (0, 50, 100):
        for name in ws.ASKED_NEW:
            columns = relation == corpus.relation_labels.index(name)
            told = given.known[row, columns]
            expected = 0.25 * 1e-3 if told.any() else 0.25
            assert torch.allclose(ruled[row, columns][~told], torch.tensor(expected))


def test_training_helps_and_repeats(case):
    corpus, world, known, given = case
    options = wp.PathOptions(steps=12, queries=16)
    model = wp.train_paths(known, corpus, options)
    again = wp.train_paths(known, corpus, options)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(0)
    raw = wp.train_paths(known, corpus, wp.PathOptions(steps=1, queries=1, lr=0.0))

    def mrr(scores):
        figures = ws.evaluate_facts(world, corpus, scores, "given", "test")
        return figures["new_entities/image_to_fact/given/mrr"]

    trained, untrained = (mrr(wp.answer_by_paths(m, given, corpus)) for m in (model, raw))
    assert trained > untrained + 0.05


def test_loss_takes_each_right_answer_against_the_wrong_ones():
    torch.manual_seed(0)
    logits, true = torch.randn(4, 6), torch.rand(4, 6) > 0.6
    true[:, 0], true[:, 1] = True, False
    true[2] = False  # nothing is right: no loss
    true[3] = True  # nothing is wrong: none to lose
    losses = wp.multi_answer_loss(logits, true)
    expected = []
    for row in (0, 1, 3):
        wrong = [float(x) for x, t in zip(logits[row], true[row], strict=True) if not t]
        each = []
        for x, right in zip(logits[row], true[row], strict=True):
            if right:
                both = torch.tensor([float(x), *wrong])
                each.append(float(both.logsumexp(0) - x))
        expected.append(sum(each) / len(each))
    torch.testing.assert_close(losses, torch.tensor(expected))
    assert wp.multi_answer_loss(logits[:0], true[:0]).shape == (0,)


def test_every_country_plays_new_by_the_same_rule(case):
    """All asked facts of a new country leave; its borders, capital and demonym stay."""
    corpus, _, known, _ = case
    trained = torch.nonzero(known.known.any(dim=1)).squeeze(1)
    removed = wp._hide(known, corpus, trained, wp.PathOptions(), torch.Generator().manual_seed(1))
    new = removed.any(dim=1)
    assert new.sum() == pytest.approx(0.25 * len(trained), abs=3)
    asked = torch.cat(we.asked_columns(corpus))
    assert torch.equal(removed[new][:, asked], known.known[new][:, asked])
    others = torch.ones(len(corpus.facts), dtype=torch.bool)
    others[asked] = False
    assert not removed[:, others].any()
