"""Five steps on 64 scenes: every run trains, repeats, and ends as a model of open_clip's."""

import dataclasses

import open_clip
import pytest
import torch
import torch.nn.functional as F

from kgclip.experiments import scenes as experiment
from kgclip.experiments.scene_data import Wording, read_scenes
from kgclip.experiments.scene_probes import evaluate_scenes
from kgclip.experiments.scenes import (
    QUICK_RUNS,
    RUNS,
    Job,
    choose_runs,
    draw_batch,
    load_features,
    run_job,
    run_scenes,
)
from kgclip.graph import load_graph
from kgclip.metrics import write_metrics
from kgclip.nn.clip import build_tokenizer, create_model_and_transforms, image_trunk_features
from kgclip.recipe import build_graph
from kgclip.report import write_report
from kgclip.report_text import OPENMOJI_CREDIT, SCENES
from kgclip.tables import GraphError

SMALL = {
    f"sources.0.options.{name}": value
    for name, value in {"num_train": 64, "num_valid": 8, "num_test": 8, "num_nouns": 20}.items()
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    output = tmp_path_factory.mktemp("scenes")
    build_graph("scenes", overrides=SMALL, output=output / "graph")
    return output


@pytest.fixture(scope="module")
def scenes(output):
    return read_scenes(load_graph(output / "graph"))


@pytest.fixture(scope="module")
def features(output, scenes):
    clip, _, preprocess = create_model_and_transforms(experiment.MODEL, pretrained_image=True)
    return load_features(output, scenes, clip, preprocess)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(experiment, "BATCH", 16)


def without_seconds(answer):
    curve = [{k: v for k, v in one.items() if k != "cpu_seconds"} for one in answer["curve"]]
    return {**{k: v for k, v in answer.items() if k != "seconds"}, "curve": curve}


@pytest.mark.parametrize("run", RUNS)
def test_every_run_trains_and_answers(run, output, features):
    answer = run_job(Job(run, RUNS[run], 0, 5, output))
    assert answer["curve"][-1]["step"] == 5
    assert {f"loss/{name}" for name in RUNS[run]} <= set(answer["curve"][-1])
    for split in ("valid", "test"):
        assert all(0 <= value <= 1 for value in answer[split].values())


def test_two_runs_with_one_seed_are_equal(output, features):
    job = Job("graph", RUNS["graph"], 2, 5, output)
    first, second = (run_job(job) for _ in range(2))
    assert without_seconds(first) == without_seconds(second)
    resumed = run_job(dataclasses.replace(job, resume=True))  # has ended: only probed
    assert resumed == second


def test_runs_are_chosen_by_name():
    assert choose_runs(["neg", "clip"]) == {"neg": RUNS["neg"], "clip": RUNS["clip"]}
    for wrong in ([], ["grph"]):
        with pytest.raises(GraphError, match="some of clip, graph"):
            choose_runs(wrong)


def test_the_saved_model_answers_as_the_trained_one_did(output, scenes, features):
    """Pictures in, captions in, through open_clip alone: no cache, no shrunk vocabulary."""
    job = Job("graph", RUNS["graph"], 1, 5, output)
    answer = run_job(job)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{job.folder / 'clip'}")
    model.eval()
    from PIL import Image

    rows = scenes.rows("test-pairs")
    images = torch.zeros(len(scenes), 128)
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.open(scenes.paths[row])) for row in rows.tolist()])
        images[rows] = model.encode_image(pixels, normalize=True)

        def encode(captions):
            return model.encode_text(captions, normalize=True)

        wording = Wording(build_tokenizer(experiment.MODEL))
        figures = evaluate_scenes(images, encode, scenes, wording, "test")
    for key, value in figures.items():
        if key.startswith("held_out_pairs"):
            assert value == answer["test"][key], key


@pytest.mark.slow
def test_the_whole_experiment_ends_in_a_report(tmp_path):
    """Processes, progress and all, on few scenes and for few steps."""
    run = run_scenes(tmp_path, [3], 7, runs=QUICK_RUNS, steps=2, overrides=SMALL)
    assert (run["split_seed"], run["seeds"], run["steps"]) == (7, [3], 2)
    for part in ("values", "validation"):
        assert set(run[part]) == set(run["seconds"]) == {"clip", "graph"}
        assert all(len(values) == 1 for values in run[part]["graph"].values())
    metrics = write_metrics(
        tmp_path / "metrics.json", run["values"], split_seed=7, seeds=[3], seconds=run["seconds"]
    )
    write_report(
        tmp_path / "report.html",
        metrics,
        curves=run["curves"],
        galleries=run["galleries"],
        credit=OPENMOJI_CREDIT,
        text=SCENES,
    )
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "CC BY-SA 4.0" in page
    assert page.count("data:image/png;base64,") == 6
    for run_name in QUICK_RUNS:
        assert f"<code>{run_name}</code>" in page


def test_every_run_sees_the_same_scenes_captions_and_negatives(output, scenes, features):
    wording = Wording(build_tokenizer(experiment.MODEL))
    batches = {
        run: draw_batch(Job(run, RUNS[run], 0, 5, output), scenes, features, wording, 3)
        for run in RUNS
    }
    for batch in batches.values():
        assert torch.equal(batch.inputs["text"], batches["clip"].inputs["text"])
        assert torch.equal(batch.inputs["image"], batches["clip"].inputs["image"])
    assert set(batches["clip"].inputs) == {"image", "text"}
    graph, captions = batches["graph"], batches["neg"]
    assert torch.equal(graph.targets.negative_graph_mask, captions.targets.negative_text_mask)
    assert graph.inputs["graphs"].num_graphs == 4 * 16
    assert batches["graph0"].inputs["graphs"].num_graphs == 16
    again = draw_batch(Job("clip", RUNS["clip"], 0, 5, output), scenes, features, wording, 3)
    assert torch.equal(again.inputs["text"], batches["clip"].inputs["text"])
    other = draw_batch(Job("clip", RUNS["clip"], 1, 5, output), scenes, features, wording, 3)
    assert not torch.equal(other.inputs["text"], batches["clip"].inputs["text"])


def test_an_epoch_shows_every_training_scene_once(scenes):
    rows = torch.cat([experiment._draw_rows(scenes.rows("train"), 0, step) for step in range(4)])
    assert sorted(rows.tolist()) == scenes.rows("train").tolist()


def test_features_are_in_the_order_of_the_scenes(output, scenes, features):
    from PIL import Image

    model, _, preprocess = create_model_and_transforms(experiment.MODEL, pretrained_image=True)
    pixels = preprocess(Image.open(scenes.paths[5])).unsqueeze(0)
    with torch.no_grad():
        alone = image_trunk_features(model.eval(), pixels)[0]
    assert F.cosine_similarity(alone.flatten(), features[5].flatten(), dim=0) > 0.9999
