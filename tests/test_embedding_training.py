"""Embeddings learn, over ids and over encoders; steps equal the plain formula."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kgclip import embedding_training, read_graph
from kgclip.embedding_training import EmbeddingOptions, train_embedding
from kgclip.evaluation import evaluate_link_prediction
from kgclip.nn.embedding import KnowledgeGraphEmbedding
from kgclip.nn.scoring import SCORINGS, score_triples


def capitals(count=8):
    """Countries and their capitals, and which country each capital lies in."""
    country = torch.arange(count)
    relation = torch.zeros(count, dtype=torch.long)
    capital_of = torch.stack([country, relation, country + count], dim=1)
    lies_in = torch.stack([country + count, relation + 1, country], dim=1)
    return torch.cat([capital_of, lies_in])


def share_right(model, triples):
    right = []
    with torch.no_grad():
        for side, anchor, answer in (("tail", 0, 2), ("head", 2, 0)):
            best = model(triples[:, anchor], triples[:, 1], side).argmax(dim=1)
            right.append((best == triples[:, answer]).float().mean())
    return float(torch.stack(right).mean())


MODES = {
    "all": {},
    "shared": {"negatives": 5},
    "own": {"negatives": 3, "shared": False},
    "either": {"negatives": 3, "shared": False, "sides": "either"},
    "relations": {"relation_weight": 0.5},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_small_pattern_is_learned_and_repeats(scoring, mode):
    triples, models = capitals(), []
    for _ in range(2):
        torch.manual_seed(1)
        model = KnowledgeGraphEmbedding(16, 2, 16, scoring, reciprocal=mode != "own")
        options = EmbeddingOptions(epochs=120, batch_size=8, n3=0.0, **MODES[mode])
        records = train_embedding(model, triples, options=options)
        assert records[-1]["loss"] < records[0]["loss"]
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    assert share_right(models[0], triples) >= 0.9


def slow_loss(model, anchors, directed, answers, negatives, options):
    """The loss a question at a time."""
    entities, relations = model.entities.weight, model.directed_vectors()
    total = 0.0
    for row, (anchor, kind, answer) in enumerate(zip(anchors, directed, answers, strict=True)):
        if negatives is None:
            rivals = [e for e in range(len(entities)) if e != int(answer)]
        else:
            drawn = negatives if negatives.ndim == 1 else negatives[row]
            rivals = [int(e) for e in drawn if int(e) != int(answer)]
        scores = torch.stack([
            score_triples(entities[anchor], relations[kind], entities[e], model.scoring)
            for e in [int(answer), *rivals]
        ])  # fmt: skip
        kinds = torch.stack([
            score_triples(entities[anchor], relation, entities[answer], model.scoring)
            for relation in relations
        ])  # fmt: skip
        loss = -F.log_softmax(scores, dim=0)[0]
        loss = loss - options.relation_weight * F.log_softmax(kinds, dim=0)[kind]
        for vector in (entities[anchor], relations[kind], entities[answer]):
            if model.scoring in ("complex", "rotate"):
                sizes = torch.complex(*vector.chunk(2)).abs()
            else:
                sizes = vector.abs()
            loss = loss + options.n3 * (sizes**3).sum()
        total = total + loss
    return total / len(anchors)


@pytest.mark.parametrize("cells", [1 << 24, 8])  # in one part, and a question at a time
@pytest.mark.parametrize("kind", ["all", "shared", "own"])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_step_equals_the_slow_one(scoring, kind, cells, monkeypatch):
    monkeypatch.setattr(embedding_training, "_MAX_CELLS", cells)
    torch.manual_seed(0)
    model = KnowledgeGraphEmbedding(40, 3, 6, scoring, reciprocal=False, scale=0.5).double()
    negatives = {"all": None, "shared": 6, "own": 2}[kind]
    options = EmbeddingOptions(
        negatives=negatives, shared=kind != "own", n3=0.2, relation_weight=0.3, lr=0.1
    )
    triples = torch.randint(0, 3, (5, 3))
    triples = torch.cat([triples, torch.tensor([[4, 1, 4], [4, 1, 4]])])  # self loop, duplicate
    peer = KnowledgeGraphEmbedding(40, 3, 6, scoring, reciprocal=False).double()
    peer.load_state_dict(model.state_dict())
    fit = embedding_training._Fit(model, triples, options, None)
    batch = next(fit._batches())
    used = batch.ids if batch.ids is not None else torch.arange(40)
    anchors, answers = used[batch.anchors], used[batch.answers]
    drawn = None if batch.negatives is None else used[batch.negatives]
    loss = slow_loss(peer, anchors, batch.directed, answers, drawn, options)
    loss.backward()
    torch.optim.Adagrad(peer.parameters(), lr=0.1).step()
    assert float(fit._step(batch)) == pytest.approx(float(loss.detach()), rel=1e-6)
    for one, other in zip(model.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_an_epoch_asks_every_triple_for_what_it_should():
    triples = capitals(3)
    both, either = (
        embedding_training._Fit(
            KnowledgeGraphEmbedding(6, 2, 4), triples, EmbeddingOptions(sides=sides), None
        )
        for sides in ("both", "either")
    )

    def questions(fit):
        return sorted(
            row
            for batch in fit._batches()
            for row in zip(
                batch.anchors.tolist(), batch.directed.tolist(), batch.answers.tolist(), strict=True
            )
        )

    tails = [(h, r, t) for h, r, t in triples.tolist()]
    heads = [(t, r + 2, h) for h, r, t in triples.tolist()]
    assert questions(both) == sorted(tails + heads)
    asked = questions(either)
    assert len(asked) == len(triples)
    assert set(asked) <= set(tails + heads)


class Projected(nn.Module):
    """What an image or text tower is: fixed features, a trained projection."""

    def __init__(self, features, channels):
        super().__init__()
        self.register_buffer("features", features)
        self.project = nn.Linear(features.shape[1], channels)

    def forward(self, entity_ids):
        return self.project(self.features[entity_ids])


@pytest.mark.parametrize("negatives", [None, 2])
def test_an_encoder_is_trained_instead_of_ids(negatives):
    torch.manual_seed(0)
    triples = capitals()
    encoder = Projected(torch.randn(200, 32), 16)
    before = encoder.project.weight.clone()
    model = KnowledgeGraphEmbedding(200, 2, 16, encode=encoder)
    options = EmbeddingOptions(epochs=60, batch_size=4, n3=0.0, negatives=negatives)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
    train_embedding(model, triples, options=options, optimizer=optimizer)
    assert not torch.equal(encoder.project.weight, before)
    if negatives is None:
        assert share_right(model, triples) >= 0.9


def test_a_frozen_encoder_still_trains_relations():
    torch.manual_seed(0)
    encoder = nn.Embedding.from_pretrained(torch.randn(16, 32))
    model = KnowledgeGraphEmbedding(16, 2, 32, encode=nn.Sequential(encoder))
    train_embedding(model, capitals(), options=EmbeddingOptions(epochs=60, batch_size=8, n3=0.0))
    assert share_right(model, capitals()) >= 0.9


def test_training_stops_when_validation_does_and_keeps_the_best(monkeypatch):
    given = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    states = []

    def validate(model, valid, known):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        assert known.tolist() == [*capitals().tolist(), *valid.tolist(), [0, 1, 2]]
        return next(given)

    monkeypatch.setattr(embedding_training, "validate", validate)
    model = KnowledgeGraphEmbedding(16, 2, 8)
    records = train_embedding(
        model,
        capitals(),
        valid=torch.tensor([[0, 0, 3]]),
        known=torch.tensor([[0, 1, 2]]),
        options=EmbeddingOptions(epochs=50, validate_every=2, patience=2),
    )
    assert [record["epoch"] for record in records if "valid_mrr" in record] == [2, 4, 6, 8]
    assert len(records) == 8
    for name, value in model.state_dict().items():
        assert torch.equal(value, states[1][name])
    assert not model.training


def test_umls_beats_the_frequency_baseline(shared_data):
    graph = read_graph(shared_data / "pykeen_small" / "umls")
    rows = torch.from_numpy(graph.triples.select("head", "relation", "tail").to_numpy().copy())
    is_train = torch.from_numpy((graph.triples["split"] == "train").to_numpy().copy())
    is_test = torch.from_numpy((graph.triples["split"] == "test").to_numpy().copy())
    torch.manual_seed(0)
    model = KnowledgeGraphEmbedding(graph.num_entities, graph.num_relations, 128)
    options = EmbeddingOptions(epochs=25, batch_size=256, n3=0.005)
    train_embedding(model, rows[is_train], options=options)
    with torch.no_grad():
        figures = evaluate_link_prediction(model, rows[is_test], rows, graph.num_entities)
    assert figures["both/mrr"] > 0.9
    assert figures["both/mrr"] > figures["baseline/mrr"] + 0.2


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        (torch.zeros(0, 3, dtype=torch.long), "triples: no triple"),
        (torch.tensor([[0, 0, 2]]), "triples: entity 2 given, below 2 expected"),
        (torch.tensor([[0, 1, 1]]), "triples: relation 1 given, below 1 expected"),
        (torch.tensor([[-1, 0, 1]]), "triples: id -1 given"),
        (torch.zeros(1, 3), "torch.float32"),
    ],
)
def test_bad_triples_are_refused(triples, message):
    with pytest.raises(ValueError, match=message):
        train_embedding(KnowledgeGraphEmbedding(2, 1, 4), triples)


@pytest.mark.parametrize(
    "option",
    [
        *({name: 0} for name in ("epochs", "batch_size", "negatives", "patience")),
        *({name: -1.0} for name in ("n3", "relation_weight", "lr")),
        *({name: 1.0} for name in ("dropout", "label_smoothing")),
        {"n3": math.nan},
        {"sides": "neither"},
    ],
)
def test_bad_options_are_refused(option):
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: .* given"):
        EmbeddingOptions(**option)


def test_divergence_is_said():
    model = KnowledgeGraphEmbedding(16, 2, 8, scale=1e18)
    with pytest.raises(FloatingPointError, match="epoch 1: loss is"):
        train_embedding(model, capitals(), options=EmbeddingOptions(epochs=2))
