"""Facts by what entities have; on a model whose features are known words and colours."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

from kgclip.cli import app
from kgclip.fact_evaluation import evaluate_facts, evaluate_linking
from kgclip.graph import KnowledgeGraph
from kgclip.models import OpenedModel, open_model
from kgclip.tables import GraphError, build_tables

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
FRUITS = {"cherry": "red", "lime": "green", "plum": "blue", "apple": "red"}
# cherry has both, lime a text, plum a picture, apple neither: it stands beside cherry.


class Seer:
    """Reads a text or a picture as its colours; nothing else."""

    graph_encoder = None
    logit_scale = torch.zeros(())

    def encode_image(self, images, normalize=False):
        return F.normalize(images.mean(dim=(2, 3)), dim=-1)

    def encode_text(self, tokens, normalize=False):
        return F.normalize(tokens.float() + 1e-3, dim=-1)


@pytest.fixture
def opened(monkeypatch):
    seer = Seer()
    seer.clip = seer
    monkeypatch.setattr(
        "kgclip.model_evaluation.encode_text_trimmed",
        lambda clip, ids, normalize: clip.encode_text(ids),
    )

    def tokenizer(texts):
        worn = [" ".join(FRUITS.get(word, word) for word in text.split()) for text in texts]
        return torch.tensor([[int(colour in text) for colour in COLOURS] for text in worn])

    def preprocess(picture):
        return torch.tensor(list(picture.getdata())).float().view(2, 2, 3).permute(2, 0, 1) / 255

    return OpenedModel(seer, preprocess, tokenizer)


@pytest.fixture
def graph(tmp_path):
    for name in ("cherry", "plum"):
        Image.new("RGB", (2, 2), COLOURS[FRUITS[name]]).save(tmp_path / f"{name}.png")
    names = [*COLOURS, "a:cherry", "b:lime", "c:plum", "d:apple"]
    tables = build_tables(
        {
            "entities": {"name": names},
            "texts": {
                "entity": [0, 1, 2, 3, 4],
                "text": [*COLOURS, "cherry", "lime"],
                "kind": ["label"] * 5,
            },
            "images": {"entity": [3, 5], "path": ["cherry.png", "plum.png"]},
            "relations": {"name": ["looks", "beside"]},
            "triples": {
                "head": [3, 4, 5, 6, 6],
                "relation": [0, 0, 0, 0, 1],
                "tail": [0, 1, 2, 0, 3],
                "split": ["test", "test", "test", "test", "train"],
            },
        }
    )
    return KnowledgeGraph(tables, tmp_path)


def test_every_pattern_is_asked_by_what_it_has(opened, graph):
    found = evaluate_facts(opened, graph)
    for key, count in {
        "text/to_fact": 2,  # cherry and lime
        "image/to_fact": 2,  # cherry and plum
        "mixed/to_fact": 4,
        "pattern/both/to_fact": 1,
        "pattern/text/to_fact": 1,
        "pattern/image/to_fact": 1,
        "pattern/neither/to_fact": 1,
        "image/from_fact": 2,
        "text/from_fact": 2,
        "mixed/from_fact": 4,
    }.items():
        assert found[f"{key}/count"] == count, key
        assert found[f"{key}/mrr"] == 1 or key in ("mixed/from_fact", "text/from_fact"), key
    # "looks red" finds the colour's own entity as near as the fruit: a tie is no hit.
    assert found["text/from_fact/mrr"] < 1
    assert found["unreachable"] == 0


def test_without_its_neighbour_an_entity_of_nothing_is_at_chance(opened, graph):
    triples = graph.triples.filter(split="test")
    alone = KnowledgeGraph(build_tables({**graph.tables.frames(), "triples": triples}), graph.root)
    found = evaluate_facts(opened, alone)
    assert found["unreachable"] == 1
    assert found["pattern/neither/to_fact/mrr"] == 0.5  # three facts, all tied: the second place
    assert found["pattern/both/to_fact/mrr"] == 1


def test_names_are_texts_only_where_asked(opened, graph):
    bare = KnowledgeGraph(
        build_tables(
            {**graph.tables.frames(), "texts": graph.texts.head(0), "images": graph.images.head(0)}
        )
    )
    with pytest.raises(GraphError, match="--names"):
        evaluate_facts(opened, bare)
    named = evaluate_facts(opened, bare, names=True)
    assert named["pattern/text/to_fact/count"] == 4
    assert "image/to_fact/mrr" not in named
    empty = build_tables({**graph.tables.frames(), "triples": graph.triples.head(0)})
    with pytest.raises(GraphError, match="no triple"):
        evaluate_facts(opened, KnowledgeGraph(empty, graph.root))


def test_command_line(graph, tmp_path):
    graph.save(tmp_path / "graph")
    for name in ("cherry", "plum"):
        (tmp_path / f"{name}.png").replace(tmp_path / "graph" / f"{name}.png")
    result = CliRunner().invoke(
        app,
        ["evaluate", "kgclip-effnet-lite0", "--facts", str(tmp_path / "graph"), "--linking",
         str(tmp_path / "graph"), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["facts/pattern/neither/to_fact/count"] == 1
    assert found["linking/image/count"] == 2


def test_linking_ranks_the_entity_that_is_meant():
    torch.manual_seed(0)
    opened = open_model("kgclip-effnet-lite0")
    names = ["Kenya", "Uganda", "Rwanda", "Burundi"]
    tables = build_tables(
        {
            "entities": {"name": names},
            "texts": {
                "entity": [0, 1, 2, 3, 0, 1, 2, 3],
                "text": [*names, "Kenya", "Uganda", "Burundi", "Uganda"],
                "kind": ["label"] * 4 + ["alias"] * 3 + ["caption"],
            },
        }
    )
    found = evaluate_linking(opened, KnowledgeGraph(tables))
    assert found["alias/count"] == 3
    assert found["alias/hits@1"] == pytest.approx(2 / 3)  # Rwanda's alias is Burundi's label
    assert found["caption/hits@1"] == 0
    labels = build_tables(
        {"entities": {"name": names}, "texts": {"entity": [0], "text": ["x"], "kind": ["label"]}}
    )
    with pytest.raises(GraphError, match="nothing to link"):
        evaluate_linking(opened, KnowledgeGraph(labels))
