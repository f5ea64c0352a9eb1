"""Probes by hand: who knows everything is always right, who knows nothing never."""

import pytest
import torch
import torch.nn.functional as F

from kgclip.experiments.scene_data import Wording, read_scenes
from kgclip.experiments.scene_probes import (
    PARTS,
    PROBES,
    asked_statements,
    captions_of,
    evaluate_scenes,
    show_answers,
)
from kgclip.graph import KnowledgeGraph
from kgclip.nn.clip import build_tokenizer


@pytest.fixture(scope="module")
def scenes(scene_tables):
    tables, folder = scene_tables
    return read_scenes(KnowledgeGraph(tables, folder))


@pytest.fixture(scope="module")
def wording():
    return Wording(build_tokenizer("kgclip-grid"))


class Oracle:
    """Gives every caption a direction of its own; a picture points to all that are true of it."""

    def __init__(self, scenes, wording):
        self.directions = {}
        rows = torch.arange(len(scenes))
        said = [scenes.statements[rows, side] for side in (0, 1)]
        said += [captions_of("reverse_nouns", one)[0] for one in said]
        true = [self.encode(wording.captions(one)) for one in said]
        self.images = F.normalize(sum(true), dim=-1)

    def encode(self, captions):
        features = []
        for row in captions.tolist():
            seed = self.directions.setdefault(tuple(row), len(self.directions))
            features.append(torch.randn(256, generator=torch.Generator().manual_seed(seed)))
        return F.normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_oracle_is_always_right(scenes, wording, split):
    oracle = Oracle(scenes, wording)
    figures = evaluate_scenes(oracle.images, oracle.encode, scenes, wording, split)
    assert set(figures) == {
        f"{part}/{key}"
        for part in PARTS
        for key in (
            *(f"{probe}/encoder/accuracy" for probe in (*PROBES, "binding")),
            "retrieval/encoder/recall@1",
        )
    }
    assert set(figures.values()) == {1.0}


def test_a_collapsed_encoder_is_never_right(scenes, wording):
    images = torch.ones(len(scenes), 4) / 2

    def encode(captions):
        return torch.ones(len(captions), 4) / 2

    figures = evaluate_scenes(images, encode, scenes, wording, "test")
    assert set(figures.values()) == {0.0}


def test_an_encoder_that_counts_words_is_never_right_about_their_order(scenes, wording):
    def encode(captions):  # a bag of words
        counts = torch.zeros(len(captions), 49408)
        return F.normalize(counts.scatter_add(1, captions, (captions != 0).float()), dim=-1)

    rows = torch.arange(len(scenes))
    images = encode(wording.captions(scenes.statements[rows, 0]))
    figures = evaluate_scenes(images, encode, scenes, wording, "test")
    for probe in ("reverse", "reverse_nouns", "nouns", "colours", "sizes", "binding"):
        assert figures[f"held_out_pairs/{probe}/encoder/accuracy"] == 0.0
    assert figures["held_out_pairs/inverse/encoder/accuracy"] > 0.0


def test_questions_are_asked_from_either_end_and_always_the_same_way(scenes):
    rows = scenes.rows("test-pairs")
    asked = asked_statements(scenes, rows)
    assert torch.equal(asked, asked_statements(scenes, rows))
    first = (asked == scenes.statements[rows, 0]).all(dim=1)
    assert 0 < first.sum() < len(rows)


def test_answers_are_shown_with_the_caption_that_is_preferred(scenes, wording):
    oracle = Oracle(scenes, wording)
    shown = show_answers(oracle.images, oracle.encode, scenes, wording, count=3)
    assert [len(one["items"]) for one in shown] == [3, 3]
    assert all(item["correct"] for one in shown for item in one["items"])
    collapsed = show_answers(
        oracle.images, lambda captions: torch.ones(len(captions), 256), scenes, wording, count=3
    )
    wrong = collapsed[0]["items"][0]
    assert not wrong["correct"]
    assert wrong["label"] != shown[0]["items"][0]["label"]
