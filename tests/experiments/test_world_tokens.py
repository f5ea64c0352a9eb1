"""Scores of the triple encoder are the cosines of what it makes of each flag, name and fact."""

import pytest
import torch
from open_clip.model import CLIP

from kgclip.batches import Corpus
from kgclip.experiments import world_scores as ws
from kgclip.experiments.world_tokens import score_tokens
from kgclip.graph import KnowledgeGraph
from kgclip.nn.model import KnowledgeCLIP, build_triple_encoder
from kgclip.nn.token_inputs import TokenInputs
from kgclip.nn.triples import TripleEncoderOptions
from kgclip.sources.openmoji_splits import split_world
from tests.test_batches import tokenizer


@pytest.fixture(scope="module")
def corpus(openmoji_tables):
    graph = KnowledgeGraph(split_world(openmoji_tables, seed=5))
    pictures = torch.randn(len(graph.images), 3, 32, generator=torch.Generator().manual_seed(0))
    return Corpus(graph, tokenizer, torch.randn(len(graph.images), 16), pictures), graph


@pytest.mark.parametrize("alone", ["fused", "towers"])
@pytest.mark.parametrize("cell", [(0, 0), (17, 300)])
def test_each_cell_is_the_models_own_answer(corpus, cell, alone):
    corpus, graph = corpus
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    clip = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    options = TripleEncoderOptions(width=16, num_heads=2, num_layers=1, max_tokens=4, alone=alone)
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, options)).eval()
    world = ws.build_world(corpus, graph.entities["type"])
    count = len(world.countries)
    link = torch.eye(count).roll(1, dims=1)  # each flag is taken for the next country's
    scores = score_tokens(model, corpus, world, link)
    assert {name: tuple(table.shape) for name, table in scores.items()} == dict.fromkeys(
        ("encoder", "given", "linked"), (count, len(corpus.facts))
    )
    row, column = cell
    relation, tail = corpus.facts[column].tolist()
    inputs = TokenInputs(
        text=corpus.text[[int(world.countries[row]), tail]],
        image=corpus.image_tokens[world.flags[row : row + 1]],
        image_features=corpus.image_features[world.flags[row : row + 1]],
        image_mask=torch.tensor([False, False, True]),
        relation_text=corpus.relation_text[: corpus.num_relations],
        triples=torch.tensor([[0], [relation], [1]]),
    )
    with torch.no_grad():
        output = model(triples=inputs)
        name, flag = (output.entity_features[[0, 2]] @ output.head_query[0]).tolist()
    assert scores["given"][row, column].item() == pytest.approx(name, abs=1e-5)
    assert scores["encoder"][row, column].item() == pytest.approx(flag, abs=1e-5)
    assert scores["linked"][row - 1, column].item() == pytest.approx(name, abs=1e-5)
