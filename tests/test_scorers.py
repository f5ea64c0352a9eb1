"""Scores of every entity at once are the cosines of the model's own outputs."""

import pytest
import torch

from kgclip.batches import Corpus
from kgclip.nn.model import KnowledgeCLIP, build_triple_encoder
from kgclip.nn.token_inputs import TokenInputs
from kgclip.nn.triples import TripleEncoderOptions
from kgclip.scorers import FactScorer, TokenScorer
from tests.test_batches import clip, graph, tokenizer  # noqa: F401  # fixtures

QUERIES = torch.tensor([2, 0, 4]), torch.tensor([1, 0, 1])  # anchors, relations


@pytest.fixture
def corpus(graph):  # noqa: F811
    return Corpus(graph, tokenizer, torch.zeros(3, 16))


@torch.no_grad()
@pytest.mark.parametrize("side", ["head", "tail"])
@pytest.mark.parametrize("alone", ["fused", "towers"])
def test_token_scores_are_the_triple_encoders(corpus, clip, side, alone):  # noqa: F811
    options = TripleEncoderOptions(width=32, num_heads=2, max_tokens=4, alone=alone)
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, options)).eval()
    scores = TokenScorer(model, corpus, chunk=2)(*QUERIES, side)
    assert scores.shape == (3, corpus.num_entities)
    inputs = TokenInputs(
        text=corpus.text,
        image=torch.zeros(0, 1, 32),
        image_mask=torch.zeros(corpus.num_entities, dtype=torch.bool),
        relation_text=corpus.relation_text[: corpus.num_relations],
        triples=torch.stack([QUERIES[0], QUERIES[1], QUERIES[0]]),
    )
    output = model(triples=inputs)
    query = output.head_query if side == "head" else output.tail_query
    torch.testing.assert_close(scores, query @ output.entity_features.T, atol=1e-5, rtol=0)


@torch.no_grad()
def test_fact_scores_are_the_text_towers(corpus, clip):  # noqa: F811
    model = KnowledgeCLIP(clip).eval()
    score = FactScorer(model, corpus, tokenizer)
    names = model.encode_text(corpus.text, normalize=True)
    for side in ("head", "tail"):
        scores = score(*QUERIES, side)
        for row, (anchor, relation) in enumerate(zip(*(q.tolist() for q in QUERIES), strict=True)):
            for entity in range(corpus.num_entities):
                head, tail = (anchor, entity) if side == "tail" else (entity, anchor)
                words = f"{corpus.relation_labels[relation]} {corpus.labels[tail]}"
                fact = model.encode_text(tokenizer([words]), normalize=True)[0]
                expected = float(names[head] @ fact)
                assert scores[row, entity].item() == pytest.approx(expected, abs=1e-5)
