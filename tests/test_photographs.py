"""From raw photographs to a checkpoint that open_clip loads: the whole path by the command line."""

import json
from pathlib import Path

import open_clip
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import kgclip
from kgclip.cli import app
from kgclip.metrics import load_metrics
from kgclip.model_evaluation import graph_pictures
from kgclip.models import open_model
from kgclip.nn.pictures import read_picture

CONFIG = Path(__file__).parent.parent / "benchmarks" / "configs" / "coco.toml"


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def name(tiny_clip, tmp_path_factory):
    """The small model by a name that open_clip knows."""
    folder = tmp_path_factory.mktemp("configs")
    config = json.loads(
        (Path(tiny_clip.removeprefix("local-dir:")) / "open_clip_config.json").read_text()
    )
    (folder / "tiny-vit.json").write_text(json.dumps(config["model_cfg"]))
    open_clip.add_model_config(folder)
    return "tiny-vit"


@pytest.mark.parametrize(
    "tower", [{"lock_image": "false", "lora": "{rank = 2}"}, {"lock_image": "true"}], ids=str
)
def test_from_raw_files_to_a_checkpoint(shared_data, tiny_clip, name, tmp_path, monkeypatch, tower):
    monkeypatch.setenv("KGCLIP_DATA", str(shared_data))
    facts = (shared_data / "conceptnet100k" / "train.txt").read_text("utf-8").splitlines()
    near = [fact for fact in facts if fact.split("\t")[0] in ("dog", "cat", "chair")]
    (tmp_path / "facts.txt").write_text("\n".join([*near, *facts[:20]]))
    place = f"sources.1.path={tmp_path / 'facts.txt'}"
    run("build", "coco", "-o", tmp_path / "graph", "--set", place)
    graph = kgclip.load_graph(tmp_path / "graph")
    kept = graph.triples.filter(source="facts")
    assert len(near) <= len(kept) < len(near) + 20
    assert set(graph.triples["source"]) == {"scenes", "facts", "mentions"}
    assert graph.images["split"].value_counts().height == 2
    scenes = graph.images.filter(pl.col("box").is_null())
    assert dict(scenes["split"].value_counts().iter_rows()) == {"train": 60, "test": 20}

    weights = Path(tiny_clip.removeprefix("local-dir:")) / "open_clip_model.safetensors"
    settings = {
        "graph": tmp_path / "graph",
        "output": tmp_path / "run",
        "model.name": name,
        "model.pretrained": weights,
        **{f"model.{key}": value for key, value in tower.items()},
        "trainer.steps": 3,
        "trainer.precision": "amp_bf16",
        "trainer.accumulate": 2,
        "batches.num_pairs": 24,
        "batches.num_triples": 24,
        "batches.chunk_size": 10,
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    printed = run("train", CONFIG, *options)
    assert "start" in printed
    assert "result" in printed
    metrics = load_metrics(tmp_path / "run" / "metrics.json")
    assert metrics["held_out"] is True
    assert {"graph/retrieval/mean/recall@1", "graph/zero_shot/top1"} <= (
        metrics["results"]["start"].keys() & metrics["results"]["result"].keys()
    )

    figures = json.loads(run("evaluate", tmp_path / "run", "--json"))
    assert figures["retrieval/mean/recall@1"] == pytest.approx(
        metrics["results"]["result"]["graph/retrieval/mean/recall@1"]["mean"]
    )
    sweep = json.loads(run("wiseft", tmp_path / "run", "--alphas", "0,1", "--json"))
    assert sweep["1"] == figures
    start = metrics["results"]["start"]
    assert sweep["0"]["zero_shot/top1"] == start["graph/zero_shot/top1"]["mean"]

    run("export", tmp_path / "run", "-o", tmp_path / "exported", "--no-measure")
    opened = open_model(tmp_path / "run")
    loaded = open_clip.create_model(
        name, pretrained=str(tmp_path / "exported" / "open_clip_model.safetensors")
    )
    by_folder = open_clip.create_model(f"local-dir:{tmp_path / 'exported'}")
    untrained = open_clip.create_model(name, pretrained=str(weights))
    pictures = [read_picture(picture) for picture in graph_pictures(graph, range(2))]
    image = torch.stack([opened.preprocess(picture) for picture in pictures])
    text = opened.tokenizer(graph.texts.filter(pl.col("kind") == "caption")["text"][:3].to_list())
    with torch.no_grad():
        for mine, their in (("encode_image", image), ("encode_text", text)):
            expected = getattr(opened.model, mine)(their)
            for model in (loaded.eval(), by_folder.eval()):
                assert (getattr(model, mine)(their) - expected).abs().max() <= 1e-6
        assert not torch.equal(untrained.eval().encode_text(text), opened.model.encode_text(text))
