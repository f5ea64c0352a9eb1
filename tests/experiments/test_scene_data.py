"""Statements, captions and graphs say the same thing, and false ones are false."""

import numpy as np
import pytest
import torch

from kgclip.experiments.scene_data import (
    KINDS,
    UNSAID,
    Wording,
    corrupt,
    draw_negatives,
    is_true,
    read_scenes,
    say,
    without_attributes,
)
from kgclip.graph import KnowledgeGraph
from kgclip.hetero import to_hetero
from kgclip.nn.clip import build_tokenizer
from kgclip.sources.openmoji_scenes import COLOURS, NOUNS, RELATIONS, SIZES

LEFT, ABOVE, RIGHT, BELOW = range(4)
COW, CANOE = NOUNS.index("cow"), NOUNS.index("canoe")
STATEMENT = torch.tensor([[COW, 0, 0, LEFT, CANOE, 1, 5]])


@pytest.fixture(scope="module")
def graph(scene_tables):
    tables, folder = scene_tables
    return KnowledgeGraph(tables, folder)


@pytest.fixture(scope="module")
def scenes(graph):
    return read_scenes(graph)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("kgclip-grid")


@pytest.fixture(scope="module")
def wording(tokenizer):
    return Wording(tokenizer)


def said_by_the_tables(graph):
    """Every triple in words, by scene: the slow way."""
    labels = dict(zip(graph.texts["entity"], graph.texts["text"], strict=True))
    found = {}
    for head, relation, tail in graph.triples.select("head", "relation", "tail").iter_rows():
        text = f"a {labels[head]} {graph.relations['label'][relation]} a {labels[tail]}"
        found.setdefault(graph.entities["scene"][head], []).append(text)
    return found


def test_statements_are_the_triples_of_the_graph(graph, scenes):
    expected = said_by_the_tables(graph)
    names = graph.entities.filter(graph.entities["type"] == "scene")["name"].to_list()
    assert len(scenes) == len(names)
    for row, name in enumerate(names):
        said = [say(one) for one in scenes.statements[row, : scenes.counts[row]]]
        assert said == expected[name]
        assert scenes.paths[row].endswith(f"{name.replace('/', '-')}.png")
        assert scenes.parts[row] == name.partition("/")[0]
        assert (scenes.statements[row, scenes.counts[row] :] == UNSAID).all()


def test_hetero_data_holds_the_same_edges(graph, scenes):
    data = to_hetero(graph, inverse=False)
    assert set(data.edge_types) == {
        ("object", label.replace(" ", "_"), "object") for label in RELATIONS.values()
    }
    assert sum(store.num_edges for store in data.edge_stores) == int(scenes.counts.sum())


def test_captions_are_what_the_tokenizer_makes_of_the_words(scenes, wording, tokenizer):
    rows = scenes.rows("train")
    statements = scenes.statements[rows, 0]
    for some in (statements, without_attributes(statements)):
        texts = [say(one) for one in some]
        assert torch.equal(wording.captions(some), tokenizer(texts))
    shape = wording.captions(scenes.statements[rows, :2]).shape
    assert shape == (len(rows), 2, 16)
    assert say(STATEMENT[0]) == "a small cow on red left of a big canoe on gray"
    assert say(without_attributes(STATEMENT)[0]) == "a cow left of a canoe"


def test_every_caption_fits_the_context(wording):
    every = torch.arange(len(NOUNS))
    longest = STATEMENT.repeat(len(NOUNS), 1)
    longest[:, 0] = longest[:, 4] = every
    tokens = wording.captions(longest)
    assert ((tokens == tokens.max()).sum(dim=1) == 1).all()


def test_vocabulary_covers_captions_and_renumbers_them(tokenizer, scenes, wording):
    kept = wording.vocabulary()
    captions = wording.captions(scenes.statements[:, :2])
    renumbered = Wording(tokenizer)
    renumbered.renumber(kept)
    assert torch.equal(kept[renumbered.captions(scenes.statements[:, :2])], captions)
    graphs, old = (one.graphs(scenes.statements[:, 0]) for one in (renumbered, wording))
    assert torch.equal(kept[graphs.words], old.words)
    assert torch.equal(kept[graphs.relation_words], old.relation_words)


def test_a_graph_says_the_statement_from_both_ends(wording):
    graphs = wording.graphs(STATEMENT)
    other = torch.tensor([[CANOE, 1, 5, RIGHT, COW, 0, 0]])  # the same, from the other end
    flipped = wording.graphs(other)

    def edges(graphs):
        words = [tuple(row) for row in graphs.words.tolist()]
        return {
            (words[source], relation, words[target])
            for source, target, relation in zip(
                *graphs.edge_index.tolist(), graphs.edge_type.tolist(), strict=True
            )
        }

    assert edges(graphs) == edges(flipped)
    assert len(edges(graphs)) == 2
    assert (graphs.num_graphs, graphs.graph_ids.tolist()) == (1, [0, 0])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("reverse", "a big canoe on gray left of a small cow on red"),
        ("relation", "a small cow on red right of a big canoe on gray"),
        ("nouns", "a small canoe on red left of a big cow on gray"),
        ("colours", "a small cow on gray left of a big canoe on red"),
        ("sizes", "a big cow on red left of a small canoe on gray"),
    ],
)
def test_corruptions_in_words(kind, text):
    assert say(corrupt(STATEMENT, kind)[0]) == text


def test_what_is_unsaid_is_not_asked():
    truths = torch.tensor([[[COW, 0, 0, LEFT, CANOE, 1, 5], [UNSAID] * 7]])
    plain = without_attributes(STATEMENT)
    assert is_true(STATEMENT, truths).tolist() == [True]
    assert is_true(plain, truths).tolist() == [True]
    assert is_true(corrupt(plain, "reverse"), truths).tolist() == [False]
    assert is_true(corrupt(STATEMENT, "colours"), truths).tolist() == [False]


def test_negatives_are_false_and_of_different_kinds(scenes):
    rows = scenes.rows("train")
    draws = torch.Generator().manual_seed(0)
    truths = scenes.statements[rows]
    for _ in range(10):
        statements = scenes.statements[rows, 1]
        plain = torch.rand(len(rows), generator=draws) < 0.5
        statements = torch.where(plain[:, None], without_attributes(statements), statements)
        negatives, mask = draw_negatives(statements, truths, 3, draws)
        assert negatives.shape == (len(rows), 3, 7)
        for i in range(len(rows)):
            holds = {say(one) for one in truths[i, : scenes.counts[rows[i]]]}
            holds |= {say(without_attributes(one)) for one in truths[i, : scenes.counts[rows[i]]]}
            said = [say(one) for one in negatives[i][mask[i]]]
            assert not holds & set(said)
        assert mask[~plain].sum(dim=1).min() >= 3  # reverse, relation and nouns always are false


def test_a_swap_of_equal_things_is_no_negative():
    alike = torch.tensor([[COW, 1, 2, ABOVE, CANOE, 1, 2]])
    assert torch.equal(corrupt(alike, "colours"), alike)
    negatives, mask = draw_negatives(
        alike, alike[None], len(KINDS), torch.Generator().manual_seed(0)
    )
    assert int(mask.sum()) == 3
    assert not is_true(negatives[0][mask[0]], alike[None].expand(3, -1, -1)).any()


def test_attributes_are_within_their_lists(scenes):
    said = scenes.statements[scenes.statements[..., 0] != UNSAID]
    highest = [len(NOUNS), len(SIZES), len(COLOURS), len(RELATIONS)]
    assert (said.amin(dim=0) >= 0).all()
    assert (said.amax(dim=0) < torch.tensor(highest + highest[:3])).all()
    assert np.unique(scenes.parts).size == 9
