"""One model over learned ids or over any encoder; inverse relations in an id space of their own."""

import pytest
import torch
from torch import nn

from kgclip.nn.embedding import KnowledgeGraphEmbedding
from kgclip.nn.scoring import SCORINGS, score_triples


class Named(nn.Module):
    """An encoder: a linear map of fixed features; counts how often it is asked."""

    def __init__(self, num_entities, channels, width=5):
        super().__init__()
        self.register_buffer("features", torch.randn(num_entities, width))
        self.project = nn.Linear(width, channels)
        self.calls = 0

    def forward(self, entity_ids):
        self.calls += 1
        return self.project(self.features[entity_ids])


@pytest.mark.parametrize("reciprocal", [True, False])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_scores_equal_those_of_single_triples(scoring, reciprocal):
    torch.manual_seed(0)
    model = KnowledgeGraphEmbedding(6, 3, 8, scoring, reciprocal=reciprocal)
    anchors, relations = torch.tensor([0, 5, 2]), torch.tensor([2, 0, 1])
    entities, weight = model.entities.weight, model.relations.weight
    for side in ("tail", "head"):
        found = model(anchors, relations, side)
        for row, (anchor, relation) in enumerate(zip(anchors, relations, strict=True)):
            for candidate in range(6):
                ends = entities[anchor], entities[candidate]
                if side == "tail":
                    one = score_triples(ends[0], weight[relation], ends[1], scoring)
                elif reciprocal:
                    one = score_triples(ends[0], weight[relation + 3], ends[1], scoring)
                else:
                    one = score_triples(ends[1], weight[relation], ends[0], scoring)
                torch.testing.assert_close(found[row, candidate], one, rtol=1e-4, atol=1e-5)


def test_directed_ids_have_a_space_of_their_own():
    model = KnowledgeGraphEmbedding(2, 3, 4)
    ids = torch.tensor([0, 2])
    assert model.direct(ids, "tail").tolist() == [0, 2]
    assert model.direct(ids, "head").tolist() == [3, 5]
    assert len(model.directed_vectors()) == 6
    assert len(KnowledgeGraphEmbedding(2, 3, 4, reciprocal=False).relations.weight) == 3
    with pytest.raises(ValueError, match="'left' given"):
        model.direct(ids, "left")


def test_an_encoder_takes_the_place_of_ids(monkeypatch):
    monkeypatch.setattr("kgclip.nn.embedding._ENCODED_AT_ONCE", 3)
    torch.manual_seed(0)
    encoder = Named(7, 4)
    model = KnowledgeGraphEmbedding(7, 2, 4, encode=encoder).eval()
    anchors, relations = torch.tensor([1, 6]), torch.tensor([0, 1])
    scores = model(anchors, relations, "head")
    assert encoder.calls == 3  # a few entities at a time
    bare = model.with_encoded_entities()
    assert encoder.calls == 6
    torch.testing.assert_close(bare(anchors, relations, "head"), scores)
    assert encoder.calls == 6
    assert model.entities is encoder
    ids = KnowledgeGraphEmbedding(7, 2, 4)
    assert ids.with_encoded_entities() is ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_entities": 0}, "num_entities: 0 given"),
        ({"num_relations": 0}, "num_relations: 0 given"),
        ({"channels": 0}, "channels: 0 given"),
        ({"channels": 3}, "complex needs an even number"),
        ({"scoring": "transH"}, "'transH' given"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        KnowledgeGraphEmbedding(
            **{"num_entities": 2, "num_relations": 1, "channels": 4, "scoring": "complex"} | change
        )


def test_an_encoder_of_another_width_is_refused():
    model = KnowledgeGraphEmbedding(7, 2, 8, encode=Named(7, 4))
    with pytest.raises(ValueError, match=r"\[7, 4\] returned for 7 ids, \[7, 8\] expected"):
        model(torch.tensor([0]), torch.tensor([0]), "tail")
