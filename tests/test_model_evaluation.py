"""Anybody's model on local data; against clip_benchmark, on pictures drawn here."""

import json

import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner

from kgclip.cli import app
from kgclip.model_evaluation import (
    class_features,
    encode_pictures,
    encode_texts,
    evaluate_classes,
    evaluate_pairs,
    evaluate_questions,
)
from kgclip.models import OpenedModel, open_model
from kgclip.probes import Question
from kgclip.sources import read_graph
from kgclip.tables import GraphError

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
TEMPLATES = ("a photo of a {}.", "the colour {}")


@pytest.fixture(scope="module")
def opened() -> OpenedModel:
    torch.manual_seed(0)
    return open_model("kgclip-effnet-lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures a colour, two captions each, as classes and as a CSV."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["filepath\ttitle"]
    for colour in COLOURS:
        (folder / "classes" / colour).mkdir(parents=True)
        for number in range(4):
            picture = Image.new("RGB", (40, 40), "white")
            ImageDraw.Draw(picture).ellipse((number, 0, 20 + 4 * number, 30), fill=colour)
            picture.save(folder / "classes" / colour / f"{number}.png")
            for caption in (f"{number} {colour} dots", f"a {colour} spot, number {number}"):
                lines.append(f"classes/{colour}/{number}.png\t{caption}")
    (folder / "pairs.tsv").write_text("\n".join(lines))
    return folder


def test_retrieval_equals_clip_benchmark(opened, folder):
    graph = read_graph(folder / "pairs.tsv", format="pairs")
    images = torch.stack(
        [opened.preprocess(Image.open(graph.image_path(row))) for row in range(len(graph.images))]
    )
    captions = [graph.texts.filter(entity=row)["text"].to_list() for row in range(len(images))]
    theirs = zeroshot_retrieval.evaluate(
        opened.model.clip,
        [(images[:10], captions[:10]), (images[10:], captions[10:])],
        opened.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10],
    )  # fmt: skip
    ours = evaluate_pairs(opened, graph)
    for k in (1, 5, 10):
        recall = ours[f"image_to_text/recall@{k}"], ours[f"text_to_image/recall@{k}"]
        assert recall[0] == pytest.approx(theirs[f"text_retrieval_recall@{k}"], abs=1e-6)
        assert recall[1] == pytest.approx(theirs[f"image_retrieval_recall@{k}"], abs=1e-6)
    assert (ours["num_images"], ours["num_texts"]) == (24, 48)


def test_zero_shot_equals_clip_benchmark(opened, folder):
    pictures = ImageFolder(str(folder / "classes"), opened.preprocess)
    templates = [template.replace("{}", "{c}") for template in TEMPLATES]
    classifier = zeroshot_classification.zero_shot_classifier(
        opened.model.clip, opened.tokenizer, pictures.classes, templates, "cpu", amp=False
    )
    # Not its `accuracy`, which newer versions of numpy refuse: the same top k of its logits.
    logits, targets = zeroshot_classification.run_classification(
        opened.model.clip, classifier, DataLoader(pictures, 8), "cpu", amp=False
    )
    ours = evaluate_classes(opened, folder / "classes", TEMPLATES)
    for k in (1, 5):
        found = (logits.topk(k, dim=1).indices == targets[:, None]).any(dim=1)
        assert ours[f"top{k}"] == pytest.approx(float(found.double().mean()), abs=1e-6)


def test_encodings_are_the_towers(opened, folder):
    file = folder / "classes/red/0.png"
    with torch.no_grad():
        image = opened.preprocess(Image.open(file).crop((5, 6, 15, 18)))[None]
        expected = opened.model.encode_image(image, normalize=True)
    torch.testing.assert_close(encode_pictures(opened, [(file, (5, 6, 10, 12))]), expected)
    assert encode_pictures(opened, []).shape[0] == encode_texts(opened, []).shape[0] == 0
    assert torch.allclose(class_features(opened, ["red"], ["{}"]), encode_texts(opened, ["red"]))


def test_a_box_outside_and_a_missing_picture_are_named(opened, folder):
    question = Question(("classes/red/0.png",), ("a", "b"), "k", (50.0, 0.0, 5.0, 5.0))
    with pytest.raises(GraphError, match=r"0\.png: the box .* of its 40 x 40"):
        evaluate_questions(opened, [question], folder)
    with pytest.raises(GraphError, match=r"none\.png: .*picture"):
        evaluate_questions(opened, [Question(("none.png",), ("a", "b"), "k")], folder)


def test_folders_that_are_no_classes(opened, tmp_path):
    for make, message in (
        (lambda: None, "no such folder"),
        (lambda: (tmp_path / "c").mkdir(), "no folder in it"),
        (lambda: (tmp_path / "c/red").mkdir(), "red: no picture"),
    ):
        make()
        with pytest.raises(GraphError, match=message):
            evaluate_classes(opened, tmp_path / "c")
    with pytest.raises(GraphError, match=r"'photo': \{\} expected"):
        class_features(opened, ["red"], ["photo"])


def test_command_line_on_an_open_clip_name(folder):
    probe = [{"filename": "0.png", "caption": "red", "negative_caption": "blue"}]
    (folder / "probe.json").write_text(json.dumps(probe))
    options = ["--pairs", folder / "pairs.tsv", "--classes", folder / "classes"]
    command = ["evaluate", "kgclip-effnet-lite0", *map(str, options), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert {"retrieval/image_to_text/recall@1", "zero_shot/top1"} <= figures.keys()
    probes = ["--probes", str(folder / "probe.json"), "--images", str(folder / "classes/red")]
    result = CliRunner().invoke(app, ["evaluate", "kgclip-effnet-lite0", *probes])
    assert result.exit_code == 0, result.output
    assert "probes/accuracy" in result.stdout
    bad = CliRunner().invoke(app, ["evaluate", "ViT-B-23", *probes])
    assert bad.exit_code == 2
    assert "ViT-B-32" in bad.stderr
