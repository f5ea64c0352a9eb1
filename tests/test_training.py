"""From a TOML file to figures, on a small real graph with real pictures."""

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from kgclip.checkpoint import read_checkpoint
from kgclip.cli import app
from kgclip.config import load_config
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from kgclip.training import build_model, evaluate, train

CONFIG = """
graph = "{graph}"
output = "{output}"
model = {{ graph_layers = 2 }}
batches = {{ num_pairs = 8, num_triples = 8, graph = true, refresh_every = 2 }}
trainer = {{ steps = 4, warmup_steps = 1, checkpoint_every = 2 }}

[losses]
contrastive = {{}}
e2e = {{}}
graph_fact = {{}}
g2e = {{ weight = 0.5, ramp = 0.5 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, openmoji_tables, openmoji_folder):
    """A saved graph of Kenya and what is around it, and a config for it."""
    folder = tmp_path_factory.mktemp("training")
    graph = KnowledgeGraph(openmoji_tables, openmoji_folder).select(
        relations=["borders", "capital", "currency", "region"], seeds=["country:KE"], hops=2
    )
    graph = graph.split(seed=0)
    graph.save(folder / "graph")
    text = CONFIG.format(graph=folder / "graph", output=folder / "run")
    (folder / "config.toml").write_text(text)
    train(folder / "config.toml")
    return folder


def test_run_holds_weights_and_log(folder):
    assert {file.name for file in (folder / "run" / "last").iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "state.json"
    }  # fmt: skip
    log = pl.read_ndjson(folder / "run" / "log.jsonl")
    assert log["step"].to_list() == [1, 4]
    assert {"loss/contrastive", "loss/e2e", "loss/graph_fact", "loss/g2e"} <= set(log.columns)


def test_evaluation_is_held_out_and_repeats(folder):
    figures = evaluate(folder / "run")
    assert figures["held_out"] == 1
    assert 0 < figures["link_prediction/both/mrr"] <= 1
    assert 0 <= figures["retrieval/image_to_text/recall@1"] <= 1
    assert evaluate(folder / "run") == figures


def test_resume_from_the_middle_gives_the_same_run(folder):
    other = {"output": str(folder / "resumed")}
    config = folder / "config.toml"
    # A whole run is there to resume: nothing is left to do, and nothing changes.
    train(config, other)
    before = (folder / "resumed" / "last" / "model.safetensors").read_bytes()
    train(config, other, resume="auto")
    assert (folder / "resumed" / "last" / "model.safetensors").read_bytes() == before
    assert (folder / "run" / "last" / "model.safetensors").read_bytes() == before


def test_command_line(folder):
    result = CliRunner().invoke(app, ["evaluate", str(folder / "run"), "--json"])
    assert result.exit_code == 0
    assert '"link_prediction/both/mrr"' in result.stdout


def test_no_run_is_said(tmp_path):
    with pytest.raises(GraphError, match=str(tmp_path)):
        evaluate(tmp_path)


WHOLE_METHOD = """
graph = "{graph}"
output = "{output}"

[model]
graph_layers = 2
triple_encoder = "small"
triple_options = {{ width = 32, num_heads = 2, num_layers = 1, max_tokens = 4 }}
tower_lr = 1e-4

[batches]
num_pairs = 8
num_triples = 8
graph = true

[trainer]
steps = 3
warmup_steps = 1

[losses.contrastive]
[losses.multi_positive]
options = {{ alpha = 0.1, similarity = "pagerank" }}
[losses.e2e]
options = {{ sides = ["head", "tail"] }}
[losses.e2r]
ramp = 0.5
[losses.g2e]
[losses.distillation]
"""
OFF = ("contrastive", "e2e", "e2r", "g2e", "distillation", "multi_positive")


@pytest.fixture(scope="module")
def whole(folder):
    """A config of the whole method on the same graph, and its run."""
    text = WHOLE_METHOD.format(graph=folder / "graph", output=folder / "whole")
    (folder / "whole.toml").write_text(text)
    train(folder / "whole.toml")
    return folder / "whole.toml"


def test_each_loss_of_the_method_has_its_curve(folder, whole):
    log = pl.read_ndjson(folder / "whole" / "log.jsonl")
    assert {f"loss/{name}" for name in OFF} <= set(log.columns)
    assert log["loss/distillation"][0] == pytest.approx(0, abs=1e-5), "the start is the teacher"
    assert log["loss/distillation"][-1] > 1e-5
    assert log["grad_norm"].max() < 1e4


@pytest.mark.parametrize("name", OFF)
def test_each_loss_of_the_method_can_be_off(folder, whole, name):
    output = folder / f"without-{name}"
    train(whole, {"output": str(output), "trainer.steps": 1, f"losses.{name}.weight": 0.0})
    log = pl.read_ndjson(output / "log.jsonl")
    assert f"loss/{name}" not in log.columns
    assert len([column for column in log.columns if column.startswith("loss/")]) == 5


def test_the_towers_have_their_own_rate_and_frozen_texts_stay(folder, whole):
    output = folder / "frozen"
    train(whole, {"output": str(output), "model.freeze_text": True})
    weights = load_file(output / "last" / "model.safetensors")
    model, _ = build_model(load_config(whole))
    start = model.state_dict()
    name = "clip.token_embedding.weight"
    assert torch.equal(weights[name], start[name])
    assert not torch.equal(weights["triple_encoder.slots"], start["triple_encoder.slots"])
    peaks = read_checkpoint(folder / "whole").extra["peaks"]
    assert set(peaks.values()) == {1e-4, 1e-3}


def test_the_triple_encoder_ranks_entities(folder, whole):
    figures = evaluate(folder / "whole")
    assert 0 < figures["link_prediction/tail/mrr"] <= 1


def test_mined_captions_feed_the_losses_over_negatives(folder, whole):
    output = folder / "negatives"
    losses = {name: {} for name in ("contrastive", "text_negatives", "negclip", "margin")}
    train(whole, {"output": str(output), "losses": losses, "batches.triple_captions": 1.0})
    log = pl.read_ndjson(output / "log.jsonl")
    for name in ("text_negatives", "negclip", "margin"):
        assert (log[f"loss/{name}"] > 0).all()
