"""Models by name, and out again: what open_clip loads from an export is the run."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kgclip.cli import app
from kgclip.graph import KnowledgeGraph
from kgclip.models import export_model, open_model, start_state
from kgclip.nn.clip import build_tokenizer
from kgclip.tables import GraphError
from kgclip.training import evaluate, train

CONFIG = """
graph = "{folder}/graph"
output = "{folder}/run"
model = {{ graph_layers = 1 }}
batches = {{ num_pairs = 8, num_triples = 8, graph = true, refresh_every = 2 }}
trainer = {{ steps = 3, warmup_steps = 1 }}
claim = {{ licence = "pictures: OpenMoji, CC BY-SA 4.0" }}

[losses]
contrastive = {{}}
graph_fact = {{}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, openmoji_tables, openmoji_folder):
    folder = tmp_path_factory.mktemp("models")
    graph = KnowledgeGraph(openmoji_tables, openmoji_folder).select(
        relations=["borders", "capital", "currency", "region"], seeds=["country:KE"], hops=2
    )
    graph.split(seed=0).save(folder / "graph")
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    train(folder / "config.toml")
    export_model(folder / "run", folder / "export", evaluate(folder / "run"))
    return folder


@torch.no_grad()
def embeddings(model, tokenizer):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 128, 128)
    return model.encode_image(images), model.encode_text(tokenizer(["Kenya", "borders Uganda"]))


def close(one, other):
    return all((a - b).abs().max() <= 1e-6 * b.abs().max() for a, b in zip(one, other, strict=True))


def test_open_clip_loads_what_was_exported(folder):
    run = open_model(folder / "run")
    expected = embeddings(run.model, run.tokenizer)
    by_folder = open_clip.create_model(f"local-dir:{folder / 'export'}").eval()
    by_file = open_clip.create_model(
        run.config.model.name, pretrained=str(folder / "export/open_clip_model.safetensors")
    ).eval()
    assert close(embeddings(by_folder, run.tokenizer), expected)
    assert close(embeddings(by_file, run.tokenizer), expected)
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder / 'export'}")
    picture = Image.radial_gradient("L").convert("RGB")
    assert torch.equal(preprocess(picture), run.preprocess(picture))


def test_an_export_opens_with_its_graph_part(folder):
    run, export = open_model(folder / "run"), open_model(folder / "export")
    mine, theirs = run.model.state_dict(), export.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(run.tokenizer(["Kenya"]), export.tokenizer(["Kenya"]))


def test_the_card_says_what_it_is_and_no_folder_of_ours(folder):
    card = (folder / "export/README.md").read_text()
    assert "CC BY-SA 4.0" in card
    assert "link_prediction/both/mrr" in card
    for file in ("README.md", "kgclip.json", "open_clip_config.json"):
        assert str(folder) not in (folder / "export" / file).read_text()


def test_a_plain_open_clip_model_is_untouched():
    torch.manual_seed(0)
    theirs = open_clip.create_model("RN50").eval()
    torch.manual_seed(0)
    ours = open_model("RN50")
    assert ours.config is None
    tokens = build_tokenizer("RN50")(["a cat"])
    with torch.no_grad():
        assert torch.equal(ours.model.encode_text(tokens), theirs.encode_text(tokens))


def test_what_cannot_be_opened(folder, tmp_path):
    with pytest.raises(GraphError, match="neither a run nor an exported model"):
        open_model(tmp_path)
    with pytest.raises(ValueError, match="ViT-B-32"):
        open_model("ViT-B-23")
    with pytest.raises(GraphError, match="no earlier export"):
        export_model(folder / "run", tmp_path)
    (tmp_path / "kgclip.json").write_text("{")
    with pytest.raises(GraphError, match="not JSON"):
        open_model(tmp_path)


def test_export_of_the_start_is_the_start(folder):
    options = ["-o", str(folder / "start"), "--alpha", "0", "--no-measure"]
    result = CliRunner().invoke(app, ["export", str(folder / "run"), *options])
    assert result.exit_code == 0, result.output
    start = start_state(open_model(folder / "run").config)
    loaded = open_clip.create_model(f"local-dir:{folder / 'start'}").state_dict()
    assert all(torch.equal(loaded[key], start[f"clip.{key}"]) for key in loaded)


def test_sweep_ends_at_the_run(folder):
    result = CliRunner().invoke(
        app, ["wiseft", str(folder / "run"), "--alphas", "0,0.5,1", "--json"]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert list(figures) == ["0", "0.5", "1"]
    assert figures["1"] == evaluate(folder / "run")
    assert figures["0"] != figures["1"]
    bad = CliRunner().invoke(app, ["wiseft", str(folder / "run"), "--alphas", "0,2"])
    assert bad.exit_code == 2


def test_an_export_with_a_hugging_face_text_tower_brings_its_tokenizer(
    folder, hugging_face_folder, tmp_path
):
    model = {"name": f"local-dir:{hugging_face_folder}", "graph_layers": 1, "lock_image": False}
    changes = {"output": str(tmp_path / "run"), "model": model, "batches.chunk_size": 3}
    run = open_model(train(folder / "config.toml", changes))
    name = f"local-dir:{export_model(tmp_path / 'run', tmp_path / 'export')}"
    tokenizer = open_clip.get_tokenizer(name)
    tokens = run.tokenizer(["a red cat", "dog"])
    assert torch.equal(tokenizer(["a red cat", "dog"]), tokens)
    loaded = open_clip.create_model(name).eval()
    with torch.no_grad():
        assert close([loaded.encode_text(tokens)], [run.model.encode_text(tokens)])
    assert (tmp_path / "export" / "tokenizer_config.json").is_file()
