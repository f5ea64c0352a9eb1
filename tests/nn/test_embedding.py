"""Embeddings learn a real graph far better than how often an entity occurs."""

import pytest
import torch

from kgclip.evaluation import evaluate_link_prediction
from kgclip.nn.embedding import EmbeddingOptions, train_embedding
from kgclip.nn.scoring import SCORINGS
from kgclip.sources import read_graph


def split_triples(graph):
    rows = torch.from_numpy(graph.triples.select("head", "relation", "tail").to_numpy().copy())
    parts = graph.triples["split"].to_list()
    return {
        name: rows[[i for i, part in enumerate(parts) if part == name]]
        for name in ("train", "valid", "test")
    }


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_small_pattern_is_learned_and_repeats(scoring):
    """Countries and their capitals, asked both ways."""
    country = torch.arange(8)
    relation = torch.zeros(8, dtype=torch.long)
    capital_of = torch.stack([country, relation, country + 8], dim=1)
    lies_in = torch.stack([country + 8, relation + 1, country], dim=1)
    triples = torch.cat([capital_of, lies_in])
    options = EmbeddingOptions(epochs=200, batch_size=8, n3=0.0)
    models = [train_embedding(triples, 16, 2, 16, scoring=scoring, options=options) for _ in "ab"]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for side, anchor, answer in (("tail", 0, 2), ("head", 2, 0)):
            scores = models[0](triples[:, anchor], triples[:, 1], side)
            right = (scores.argmax(dim=1) == triples[:, answer]).float().mean()
            assert right >= 0.9, (scoring, side)


def test_umls_beats_the_frequency_baseline(shared_data):
    graph = read_graph(shared_data / "pykeen_small" / "umls")
    parts = split_triples(graph)
    options = EmbeddingOptions(epochs=25, batch_size=256, lr=0.1, n3=0.005)
    model = train_embedding(
        parts["train"], graph.num_entities, graph.num_relations, 128, options=options
    )
    known = torch.cat(list(parts.values()))
    with torch.no_grad():
        figures = evaluate_link_prediction(model, parts["test"], known, graph.num_entities)
    assert figures["both/mrr"] > 0.9
    assert figures["both/mrr"] > figures["baseline/mrr"] + 0.2


def test_nothing_to_train_on():
    with pytest.raises(ValueError, match="no triple"):
        train_embedding(torch.zeros(0, 3, dtype=torch.long), 2, 1, 4)
