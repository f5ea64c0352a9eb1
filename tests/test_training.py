"""From a TOML file to figures, on a small real graph with real pictures."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kgclip.checkpoint import read_checkpoint
from kgclip.cli import app
from kgclip.config import load_config
from kgclip.fact_evaluation import evaluate_facts, evaluate_linking
from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.metrics import load_metrics
from kgclip.model_evaluation import evaluate_pairs, evaluate_questions, graph_pictures
from kgclip.models import build_model, open_model, start_state
from kgclip.probes import build_probes
from kgclip.query import encode_graph, predict_tails, search_entities
from kgclip.tables import GraphError, build_tables
from kgclip.training import evaluate, train
from tests.pretended_gpu import PretendedGPU

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
    train(whole, {"output": str(output), "model.lock_text": True})
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


def changed(run, config):
    """First two parts of the names of the tensors that training changed, merged and averaged."""
    start, result = start_state(config), open_model(run).model.state_dict()
    assert start.keys() == result.keys()
    names = [name for name in start if not torch.equal(start[name], result[name])]
    return {".".join(name.split(".")[1:3]) for name in names if name.startswith("clip.")}


VISUAL = {"visual.transformer", "visual.conv1", "visual.ln_post", "visual.proj"}
TEXT = {"transformer.resblocks", "token_embedding.weight", "ln_final.weight", "text_projection"}


@pytest.mark.parametrize(
    ("model", "trained", "still"),
    [
        ({}, TEXT, VISUAL),
        ({"unlocked_groups": 1}, TEXT | {"visual.proj"}, VISUAL - {"visual.proj"}),
        (
            {"unlocked_groups": 2, "lock_text": True},
            {"visual.proj", "visual.ln_post", "visual.transformer"},
            TEXT | {"visual.conv1"},
        ),
        ({"lock_image": False}, TEXT | VISUAL, set()),
        ({"lock_image": False, "lock_text": True}, VISUAL, TEXT),
        (
            {"lock_image": False, "lora": {"rank": 2}},
            {"visual.transformer", "transformer.resblocks"},
            {"visual.conv1", "visual.proj", "token_embedding.weight", "text_projection"},
        ),
        ({"lora": {"rank": 2}}, {"transformer.resblocks"}, VISUAL | {"token_embedding.weight"}),
        (
            {"lock_image": False, "lock_text": True, "lora": {"rank": 2}},
            {"visual.transformer"},
            TEXT | {"visual.conv1"},
        ),
    ],
)
def test_what_trains_is_what_the_config_says(folder, tiny_clip, tmp_path, model, trained, still):
    changes = {
        "output": str(tmp_path / "run"),
        "model": {"name": tiny_clip, "graph_layers": 1, **model},
        "trainer.ema_decay": 0.5,
        "trainer.accumulate": 2,
        "batches.chunk_size": 3,
    }
    run = train(folder / "config.toml", changes)
    found = changed(run, load_config(folder / "config.toml", changes))
    assert trained <= found
    assert not still & found
    assert evaluate(run)["held_out"] == 1


def test_trained_end_to_end_a_run_repeats_and_resumes(folder, tiny_clip, tmp_path):
    def changes(name):
        model = {"name": tiny_clip, "lock_image": False, "graph_layers": 1}
        return {"output": str(tmp_path / name), "model": model, "trainer.ema_decay": 0.9}

    runs = [train(folder / "config.toml", changes(name)) for name in ("one", "two")]
    for file in ("model", "average"):
        one, two = (load_file(run / "last" / f"{file}.safetensors") for run in runs)
        assert all(torch.equal(one[name], two[name]) for name in one)
    again = train(folder / "config.toml", changes("one"), resume="auto")
    assert (
        load_metrics(again / "metrics.json")["results"]
        == (load_metrics(runs[1] / "metrics.json")["results"])
    )


def test_pictures_decoded_in_each_step_give_what_cached_features_give(folder, tiny_clip, tmp_path):
    """Nothing but the text tower learns in either run, so they are one run."""
    runs = []
    for name, locked in (("cached", True), ("decoded", False)):
        model = {"name": tiny_clip, "graph_layers": 0, "lock_image": locked}
        changes = {
            "output": str(tmp_path / name),
            "model": model,
            "losses": {"e2e": {}},
            "batches": {"num_pairs": 8, "num_triples": 8, "image_share": 0.0, "chunk_size": 5},
        }
        runs.append(train(folder / "config.toml", changes))
    one, two = (load_file(run / "last" / "model.safetensors") for run in runs)
    assert all(torch.allclose(one[name], two[name], atol=1e-7) for name in one)


def test_start_and_result_stand_side_by_side(folder, tmp_path):
    (tmp_path / "classes").mkdir()
    for colour in ("red", "blue"):
        (tmp_path / "classes" / colour).mkdir()
        Image.new("RGB", (20, 20), colour).save(tmp_path / "classes" / colour / "a.png")
    pairs = ["filepath,title", *(f"{c}/a.png,all {c}" for c in ("red", "blue"))]
    (tmp_path / "pairs.csv").write_text("\n".join(pairs))
    evaluation = {"classes": str(tmp_path / "classes"), "pairs": str(tmp_path / "pairs.csv")}
    evaluation["images"] = str(tmp_path / "classes")
    overrides = [
        f"output={tmp_path / 'run'}",
        *(f"evaluation.{k}={v}" for k, v in evaluation.items()),
    ]
    options = [part for override in overrides for part in ("--set", override)]
    result = CliRunner().invoke(app, ["train", str(folder / "config.toml"), *options])
    assert result.exit_code == 0, result.output
    assert "start" in result.stdout
    assert "zero-shot" in result.stdout
    metrics = load_metrics(tmp_path / "run" / "metrics.json")
    start, end = metrics["results"]["start"], metrics["results"]["result"]
    assert start.keys() == end.keys()
    assert {"graph/retrieval/mean/recall@1", "graph/zero_shot/top1", "named_data/classes/top1",
            "named_data/pairs/mean/recall@1"} <= start.keys()  # fmt: skip
    opened = open_model(tmp_path / "run")
    state = start_state(opened.config)
    for figures, weights in ((start, state), (end, None)):
        measured = evaluate(tmp_path / "run", weights)
        for key, figure in figures.items():
            assert figure["mean"] == measured[key.split("/", 1)[1]]
    assert 0 < metrics["epochs"] < 4
    assert metrics["held_out"] is True
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What training changed" in page
    assert "kgclip wiseft" in page


def answers(folder, device):
    """What every command that opens a model would print."""
    opened, graph = open_model(folder / "run", device=device), load_graph(folder / "graph")
    picture = graph_pictures(graph)[0].path
    return [
        encode_graph(opened, graph).cpu().tolist(),
        *(search_entities(opened, graph, **asked).to_dicts()
          for asked in ({"text": "a country"}, {"image": picture})),
        predict_tails(opened, graph, "country:KE", "borders"),
        evaluate_facts(opened, graph),
        evaluate_linking(opened, graph),
        evaluate_questions(opened, build_probes(graph), folder / "graph"),
        evaluate_pairs(opened, graph),
    ]  # fmt: skip


def test_on_a_gpu_every_question_has_the_same_answer(folder):
    with PretendedGPU() as gpu:
        found = answers(folder, "cuda")
        assert gpu.seen > 1000
    assert found == answers(folder, "cpu")


def test_what_a_run_cannot_use_is_named(folder, tiny_clip, tmp_path):
    other, _ = build_model(load_config(folder / "config.toml"))
    torch.save(other.clip.state_dict(), tmp_path / "other.pt")
    (tmp_path / "noise.pt").write_bytes(b"no weights")
    for weights, message in (
        (tmp_path / "other.pt", "other.pt: no weights of ViT-B-32"),
        (tmp_path / "noise.pt", "noise.pt: no weights of ViT-B-32"),
        ("openia", "openia: no weights of ViT-B-32"),
    ):
        model = {"name": "ViT-B-32", "pretrained": str(weights), "graph_layers": 1}
        with pytest.raises(GraphError, match=message):
            train(folder / "config.toml", {"model": model, "output": str(tmp_path / "run")})
    for model, message in (
        ({"name": "RN50", "unlocked_groups": 1}, "ModifiedResNet in part"),
        ({"name": "RN50", "lock_image": False}, "batch norm"),
    ):
        model["graph_layers"] = 1
        changes = {"model": model, "batches.chunk_size": 2, "output": str(tmp_path / "run")}
        with pytest.raises(GraphError, match=message):
            train(folder / "config.toml", changes)
    folder_of = Path(tiny_clip.removeprefix("local-dir:"))
    config = json.loads((folder_of / "open_clip_config.json").read_text())
    weights = load_file(folder_of / "open_clip_model.safetensors")
    weights["token_embedding.weight"] = weights["token_embedding.weight"][:100].clone()
    config["model_cfg"]["text_cfg"]["vocab_size"] = 100
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "open_clip_config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "small" / "open_clip_model.safetensors")
    small = {"name": f"local-dir:{tmp_path / 'small'}", "graph_layers": 1}
    changes = {"model": small, "output": str(tmp_path / "run")}
    with pytest.raises(GraphError, match=r"its tokenizer makes .* a vocabulary of 100"):
        train(folder / "config.toml", changes)


@pytest.mark.parametrize("locked", [True, False])
def test_a_picture_that_cannot_be_read_is_named_or_skipped(folder, tiny_clip, tmp_path, locked):
    graph = load_graph(folder / "graph")
    graph.save(tmp_path / "graph")
    broken, row = load_graph(tmp_path / "graph").image_path(0), 0
    broken.write_bytes(b"no picture")
    name = graph.entities["name"][graph.images["entity"][row]]
    changes = {
        "graph": str(tmp_path / "graph"),
        "output": str(tmp_path / "run"),
        "model": {"name": tiny_clip, "lock_image": locked, "graph_layers": 1},
        "trainer.steps": 8,
    }
    with pytest.raises(GraphError, match=rf"{broken.name}: picture of {name}"):
        train(folder / "config.toml", changes)
    changes["unreadable_pictures"] = "skip"
    with pytest.warns(UserWarning, match=f"1 of {len(graph.images)} pictures left out"):
        run = train(folder / "config.toml", changes)
    assert evaluate(run)["held_out"] == 1


def test_a_graph_without_pictures_trains_on_its_facts(folder, tiny_clip, tmp_path):
    graph = load_graph(folder / "graph")
    frames = {**graph.tables.frames(), "images": graph.images.clear()}
    KnowledgeGraph(build_tables(frames)).save(tmp_path / "graph")
    changes = {"graph": str(tmp_path / "graph"), "output": str(tmp_path / "run")}
    changes["model"] = {"name": tiny_clip, "graph_layers": 1}
    with pytest.raises(GraphError, match=r"num_pairs = 0"):
        train(folder / "config.toml", changes)
    changes |= {"losses": {"e2e": {}, "graph_fact": {}}, "batches.num_pairs": 0}
    run = train(folder / "config.toml", changes)
    assert "link_prediction/both/mrr" in evaluate(run)


def test_the_triple_encoder_reads_pictures_while_the_image_tower_trains(folder, whole, tiny_clip):
    options = {"width": 32, "num_heads": 2, "num_layers": 1, "max_tokens": 4}
    model = {"name": tiny_clip, "lock_image": False, "graph_layers": 2}
    model |= {"triple_encoder": "small", "triple_options": options}
    changes = {"output": str(folder / "unlocked"), "model": model}
    run = train(whole, changes)
    assert changed(run, load_config(whole, changes)) >= VISUAL
    assert 0 < evaluate(run)["link_prediction/tail/mrr"] <= 1


def figures_of(run):
    return load_metrics(run / "metrics.json")["results"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batches.num_neighbors": [4, 2], "model.lock_text": True},
        {"model.lock_image": False, "batches.chunk_size": 3, "trainer.ema_decay": 0.5},
        {"model.lock_image": False, "model.lora": {"rank": 2}, "trainer.accumulate": 2},
        {"losses": {name: {} for name in ("contrastive", "text_negatives", "negclip", "margin")}},
    ],
)
def test_on_a_gpu_a_run_gives_the_same_figures(folder, tiny_clip, tmp_path, changes):
    changes = {"model": {"name": tiny_clip, "graph_layers": 1}, **changes}
    near, far = ({**changes, "output": str(tmp_path / name)} for name in ("near", "far"))
    expected = train(folder / "config.toml", {**near, "device": "cpu"})
    with PretendedGPU() as gpu:
        run = train(folder / "config.toml", {**far, "device": "cuda"})
        assert gpu.seen > 1000
        figures = evaluate(run, device="cuda")
    assert figures_of(run) == figures_of(expected)
    assert figures == evaluate(expected, device="cpu")


@pytest.mark.parametrize("model", [{}, {"lock_text": True}, {"lock_image": False}])
def test_on_a_gpu_the_whole_method_gives_the_same_figures(whole, tiny_clip, tmp_path, model):
    changes = {"model.name": tiny_clip} | {f"model.{key}": value for key, value in model.items()}
    near, far = ({**changes, "output": str(tmp_path / name)} for name in ("near", "far"))
    expected = train(whole, near)
    with PretendedGPU():
        run = train(whole, {**far, "device": "cuda"})
        assert evaluate(run, device="cuda") == evaluate(expected)
    assert figures_of(run) == figures_of(expected)
