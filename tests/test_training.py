"""From a TOML file to figures, on a small real graph with real pictures."""

import polars as pl
import pytest
from typer.testing import CliRunner

from kgclip.cli import app
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from kgclip.training import evaluate, train

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
