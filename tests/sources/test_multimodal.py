"""Folders in VisualSem's, WN-IMG's and ImageNet's shape; synthetic files."""

import json

import pytest

from kgclip.sources import read_graph
from kgclip.tables import GraphError

VISUALSEM = {
    "nodes.v2.json": {
        "bn:1n": {"ms": "dog#n#1", "se": ["dog", "domestic_dog"], "ims": ["aa11"]},
        "bn:2n": {"ms": "animal", "se": [{"lemma": "animal"}, {"lemma": "beast"}], "ims": []},
    },
    "tuples.v2.json": {"bn:2n": [{"s": "bn:1n", "r": "is-a", "r_id": 0}]},
    "gloss_files/nodes.glosses.json": [
        {"available_languages": ["en", "de"]},
        {"bn:1n": {"en": ["a tame animal"], "de": ["ein Haustier"]}},
    ],
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def texts(graph):
    names = graph.entities["name"]
    return [(names[e], *rest) for e, *rest in graph.texts.iter_rows()]


def named(graph):
    names, kinds = graph.entities["name"], graph.relations["name"]
    rows = graph.triples.select("head", "relation", "tail").iter_rows()
    return [(names[h], kinds[r], names[t]) for h, r, t in rows]


def pictures(graph):
    names = graph.entities["name"]
    return {(names[e], path) for e, path in graph.images.select("entity", "path").iter_rows()}


def test_visualsem(tmp_path):
    files = {"images/aa/aa11.jpg": "x", "images/bn_2n/b.png": "x", "images/bn_2n/notes.txt": "x"}
    graph = read_graph(write(tmp_path, {**VISUALSEM, **files}), format="multimodal")
    assert named(graph) == [("bn:1n", "is-a", "bn:2n")]
    assert graph.relations["label"].to_list() == ["is a"]
    assert texts(graph) == [
        ("bn:1n", "dog", None, "label"), ("bn:1n", "domestic dog", None, "alias"),
        ("bn:2n", "animal", None, "label"), ("bn:2n", "beast", None, "alias"),
        ("bn:1n", "a tame animal", "en", "description"),
        ("bn:1n", "ein Haustier", "de", "description"),
    ]  # fmt: skip
    assert pictures(graph) == {("bn:1n", "images/aa/aa11.jpg"), ("bn:2n", "images/bn_2n/b.png")}
    assert all(graph.image_path(row).is_file() for row in range(2))


def test_wn_img(tmp_path):
    files = {
        "nodes.tsv": "n01\tdog\nn02\tanimal\n", "tuples.tsv": "n01\thypernym\tn02\n",
        "glosses.tsv": "n01\ta tame animal\n", "images/n01/a.jpg": "x", "images/n01/b.JPEG": "x",
    }  # fmt: skip
    graph = read_graph(write(tmp_path, files), format="multimodal", max_images=1)
    assert named(graph) == [("n01", "hypernym", "n02")]
    assert pictures(graph) == {("n01", "images/n01/a.jpg")}
    assert ("n01", "a tame animal", None, "description") in texts(graph)


def test_imagenet_synset_folders(tmp_path):
    files = {
        "n02084071/n02084071_1.JPEG": "x", "n01503061/n01503061_2.JPEG": "x",
        "words.txt": "n02084071\tdog, domestic dog\n", "gloss.txt": "n02084071\ta tame animal\n",
    }  # fmt: skip
    graph = read_graph(write(tmp_path, files), format="multimodal")
    assert pictures(graph) == {
        ("n02084071", "n02084071/n02084071_1.JPEG"), ("n01503061", "n01503061/n01503061_2.JPEG"),
    }  # fmt: skip
    assert ("n02084071", "domestic dog", None, "alias") in texts(graph)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tuples.v2.json", {"bn:9n": [{"s": "bn:1n", "r": "x"}]}, "'bn:9n' is no node"),
        ("tuples.v2.json", {"bn:2n": [{"r": "x"}]}, "an object with s and r"),
        ("nodes.v2.json", '{"bn:1n": {"ms": ', r"nodes\.v2\.json:1: cut off"),
        ("nodes.v2.json", {"bn:1n": []}, "an object with ms"),
        ("gloss_files/nodes.glosses.json", [{"bn:9n": {"en": ["x"]}}], "'bn:9n' is no node"),
    ],
)
def test_mistakes_are_named(tmp_path, name, content, message):
    with pytest.raises(GraphError, match=message):
        read_graph(write(tmp_path, {**VISUALSEM, name: content}), format="multimodal")


def test_nothing_to_read(tmp_path):
    with pytest.raises(GraphError, match="no nodes, no tuples and no pictures"):
        read_graph(tmp_path, format="multimodal")
    with pytest.raises(GraphError, match="leaves the pictures' folder"):
        read_graph(write(tmp_path, VISUALSEM), format="multimodal", images="../secret")
