"""Visual Genome, GQA and VRD: real annotations where there are some, else files made by hand."""

import json

import polars as pl
import pytest

from kgclip.sources import read_graph
from kgclip.sources.scene_tables import SceneTables
from kgclip.tables import GraphError


def write(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def named(graph):
    """Triples by name."""
    entities, relations = graph.entities["name"], graph.relations["name"]
    rows = graph.triples.select("head", "relation", "tail").iter_rows()
    return [(entities[h], relations[r], entities[t]) for h, r, t in rows]


def boxes(graph):
    """Picture and box of each entity that has one."""
    names = graph.entities["name"]
    rows = graph.images.select("entity", "path", "box").iter_rows()
    return {names[e]: (path, None if box is None else list(box)) for e, path, box in rows}


def test_the_real_excerpt_of_visual_genome(shared_data):
    graph = read_graph(shared_data / "visual_genome_excerpt" / "v1.2.0", format="visual_genome")
    kinds = dict(graph.types["type"].value_counts().iter_rows())
    assert (kinds["scene"], kinds["object"], kinds["region"]) == (5, 177, 1278)
    between = graph.triples.filter(
        ~pl.col("relation").is_in(
            [graph.relation_id(n) for n in ("instance_of", "has_attribute", "in_synset")]
        )
    )
    assert len(between) == 158
    facts = dict(graph.triples["relation"].value_counts().iter_rows())
    assert facts[graph.relation_id("instance_of")] == 191, "some objects have several names"
    assert facts[graph.relation_id("has_attribute")] == 167
    triples = named(graph)
    assert ("object:1/5045", "on", "object:1/5046") in triples
    assert ("object:1/1058498", "has_attribute", "attribute:green") in triples
    assert ("object:1/1058498", "instance_of", "class:clock") in triples
    assert ("object:1/1058498", "in_synset", "clock.n.01") in triples
    assert boxes(graph)["object:1/1058498"] == ("VG_100K_2/1.jpg", [421, 91, 79, 339])
    assert boxes(graph)["scene:1"] == ("VG_100K_2/1.jpg", None)
    phrase = graph.texts.filter(pl.col("entity") == graph.entity_id("region:1/1382"))
    assert phrase.select("text", "kind").rows() == [("the clock is green in colour", "caption")]
    scenes = graph.entities.filter(pl.col("type").is_in(["object", "region", "scene"]))
    assert set(scenes["scene"]) == {f"scene:{number}" for number in range(1, 6)}
    assert graph.entities.filter(pl.col("type") == "class")["scene"].null_count() > 20
    assert len(graph.images) == 5 + 177 + 1278
    assert "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg" in graph.links["url"].to_list()
    assert ("800") in graph.literals["value"].to_list()


# Synthetic, in the layout of each version: one picture with a dog beside a puppy on grass.
BOX = {"x": 1, "y": 2, "w": 30, "h": 40}
SHORT = {"dog": "dog.n.01", "grass": "grass.n.01"}
V10 = {
    "image_data__json": [
        {"id": 7, "width": 100, "height": 80, "url": "http://x.org/VG_100K/7.jpg"}
    ],
    "objects__json": [
        {"id": 7, "objects": [
            {"id": 1, "names": ["Dog"], "synsets": ["dog.n.01"], **BOX},
            {"id": 2, "names": ["grass"], "synsets": ["grass.n.01"], **BOX},
            {"id": 3, "names": ["pup"], **BOX},
        ]}
    ],
    "attributes__json": [
        {"id": 7, "attributes": [{"id": 1, "object_names": ["dog"], "attributes": ["Brown "]}]}
    ],
    "relationships__json": [
        {"id": 7, "relationships": [
            {"id": 9, "predicate": "ON", "subject": {"id": 1, "name": "dog", **BOX}, "object": 2},
            {"id": 10, "predicate": "next  to", "subject": {"id": 3}, "object": {"id": 1}},
        ]}
    ],
    "region_descriptions__json": [
        {"id": 7, "regions": [
            {"id": 5, "image": 7, "phrase": "a dog on grass ",
             "x": 0, "y": 0, "width": 9, "height": 8}
        ]}
    ],
}  # fmt: skip
V14 = {
    "image_data__json": [
        {"image_id": 7, "width": 100, "height": 80, "url": "http://x.org/VG_100K/7.jpg",
         "coco_id": None}
    ],
    "objects__json": [
        {"image_id": 7, "image_url": "http://x.org/VG_100K/7.jpg", "objects": [
            {"object_id": 1, "names": ["dog"], "synsets": ["dog.n.01"],
             "merged_object_ids": [11, 12], **BOX},
            {"object_id": 2, "names": ["grass"], "synsets": ["grass.n.01"],
             "merged_object_ids": [], **BOX},
            {"object_id": 3, "names": ["pup"], "merged_object_ids": [], **BOX},
        ]}
    ],
    "attributes__json": [
        {"image_id": 7, "attributes": [
            {"object_id": 12, "names": ["dog"], "attributes": ["brown"]}
        ]}
    ],
    "relationships__json": [
        {"image_id": 7, "relationships": [
            {"relationship_id": 9, "predicate": "on", "synsets": ["along.r.01"],
             "subject": {"object_id": 11, "name": "dog", "merged_object_ids": [], **BOX},
             "object": {"object_id": 2, "names": ["grass"], **BOX}},
            {"relationship_id": 10, "predicate": "beside", "subject_id": 3, "object_id": 1},
        ]}
    ],
    "region_descriptions__json": [
        {"id": 7, "regions": [
            {"region_id": 5, "image_id": 7, "phrase": "a dog on grass",
             "x": 0, "y": 0, "width": 9, "height": 8}
        ]}
    ],
    "object_alias__txt": "puppy,pup\n",
    "relationship_alias__txt": "next to,beside,by\n",
}  # fmt: skip


@pytest.mark.parametrize(("files", "pup"), [(V10, "pup"), (V14, "puppy")], ids=["1.0", "1.4"])
def test_synthetic_visual_genome_of_other_versions(tmp_path, files, pup):
    graph = read_graph(write(tmp_path, **files), format="visual_genome")
    assert sorted(named(graph)) == sorted([
        ("object:7/1", "instance_of", "class:dog"),
        ("object:7/1", "in_synset", "dog.n.01"),
        ("object:7/1", "has_attribute", "attribute:brown"),
        ("object:7/1", "on", "object:7/2"),
        ("object:7/2", "instance_of", "class:grass"),
        ("object:7/2", "in_synset", "grass.n.01"),
        ("object:7/3", "instance_of", f"class:{pup}"),
        ("object:7/3", "next to", "object:7/1"),
    ])  # fmt: skip
    assert boxes(graph)["object:7/2"] == ("VG_100K/7.jpg", [1, 2, 30, 40])
    assert boxes(graph)["region:7/5"] == ("VG_100K/7.jpg", [0, 0, 9, 8])
    kinds = graph.texts.filter(pl.col("entity") == graph.entity_id(f"class:{pup}"))
    assert ("pup", "alias" if pup == "puppy" else "label") in kinds.select("text", "kind").rows()


def test_visual_genome_options(tmp_path):
    folder = write(tmp_path, **V14)
    graph = read_graph(folder, format="visual_genome", images="photos", aliases=False)
    assert boxes(graph)["scene:7"][0] == "photos/VG_100K/7.jpg"
    assert "class:pup" in graph.entities["name"].to_list()
    bare = read_graph(folder, format="visual_genome", images=None, regions=False)
    assert bare.images.is_empty()
    assert "region" not in bare.entities["type"].to_list()
    (folder / "image_data.json").unlink()
    assert boxes(read_graph(folder, format="visual_genome"))["object:7/1"][0] == "7.jpg"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("objects__json", '[{"image_id": 7, "objects": [', r"objects\.json:1: cut off"),
        ("objects__json", [{"objects": []}], "no 'image_id' or 'id'"),
        ("objects__json", [{"image_id": 7, "objects": [{"object_id": 1, "names": ["x"], "x": 1}]}],
         "image 7: no 'y'"),
        ("relationships__json", [{"image_id": 7, "relationships": [
            {"predicate": "on", "subject": {"object_id": 1}, "object": {"object_id": 99}}]}],
         "object 99 is referred to and nowhere defined"),
        ("image_data__json", [{"image_id": 7, "url": "http://x/../7.jpg"}], "leaves the pictures"),
    ],
)  # fmt: skip
def test_mistakes_in_visual_genome_are_named(tmp_path, name, content, message):
    folder = write(tmp_path, **{**V14, name: content})
    with pytest.raises(GraphError, match=message):
        read_graph(folder, format="visual_genome")


def test_visual_genome_needs_its_files(tmp_path):
    with pytest.raises(GraphError, match=r"no objects\.json in it"):
        read_graph(tmp_path, format="visual_genome")


# Synthetic, in GQA's layout.
GQA = {
    "2407890": {
        "width": 640, "height": 480, "location": "living room",
        "objects": {
            "271881": {
                "name": "chair", "x": 220, "y": 310, "w": 50, "h": 80, "attributes": ["brown"],
                "relations": [{"object": "32452", "name": "on"}],
            },
            "32452": {
                "name": "rug", "x": 0, "y": 338, "w": 640, "h": 141, "attributes": [],
                "relations": [],
            },
        },
    }
}  # fmt: skip


def test_synthetic_gqa(tmp_path):
    write(tmp_path, val_sceneGraphs__json=GQA)
    graph = read_graph(tmp_path, format="gqa")
    assert ("object:2407890/271881", "on", "object:2407890/32452") in named(graph)
    assert ("object:2407890/271881", "has_attribute", "attribute:brown") in named(graph)
    assert boxes(graph)["object:2407890/32452"] == ("images/2407890.jpg", [0, 338, 640, 141])
    assert set(graph.triples["split"]) == set(graph.images["split"]) == {"valid"}
    assert graph.literals["value"].to_list() == ["640", "480", "living room"]
    assert read_graph(tmp_path / "val_sceneGraphs.json", format="gqa") == graph


def test_gqa_with_a_dangling_id(tmp_path):
    text = json.dumps(GQA).replace('"object": "32452"', '"object": "404"')
    write(tmp_path, train_sceneGraphs__json=text)
    with pytest.raises(GraphError, match="is related to object 404, which the image does not"):
        read_graph(tmp_path, format="gqa")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphError, match=r"no train_sceneGraphs\.json"):
        read_graph(tmp_path / "empty", format="gqa")


# Synthetic, in VRD's layout: bbox is [ymin, ymax, xmin, xmax].
VRD = {
    "objects__json": ["person", "horse"],
    "predicates__json": ["on", "next to"],
    "annotations_train__json": {
        "1.jpg": [
            {"predicate": 0, "subject": {"category": 0, "bbox": [10, 110, 20, 60]},
             "object": {"category": 1, "bbox": [50, 150, 5, 95]}},
            {"predicate": 1, "subject": {"category": 1, "bbox": [50, 150, 5, 95]},
             "object": {"category": 0, "bbox": [10, 110, 200, 260]}},
        ],
        "2.jpg": [],
    },
    "annotations_test__json": {"3.jpg": []},
}  # fmt: skip


def test_synthetic_vrd(tmp_path):
    graph = read_graph(write(tmp_path, **VRD), format="vrd")
    assert dict(graph.types["type"].value_counts().iter_rows()) == {
        "scene": 3, "object": 3, "class": 2
    }  # fmt: skip
    person, horse = "object:1.jpg/0@10,110,20,60", "object:1.jpg/1@50,150,5,95"
    assert (person, "on", horse) in named(graph)
    folder = "sg_dataset/sg_train_images"
    assert boxes(graph)[person] == (f"{folder}/1.jpg", [20, 10, 40, 100])
    assert boxes(graph)["scene:3.jpg"] == ("sg_dataset/sg_test_images/3.jpg", None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"predicate": 1',
            '"predicate": 2',
            r"image 1\.jpg, relationship 1: predicate 2, a number",
        ),
        ('"category": 0', '"category": -1', r"category -1, a number in \[0, 2\)"),
        ("[10, 110, 20, 60]", "[10, 110, 20]", r"\[ymin, ymax, xmin, xmax\] expected"),
        ('"1.jpg"', '"../1.jpg"', "leaves the pictures' folder"),
    ],
)
def test_mistakes_in_vrd_are_named(tmp_path, old, new, message):
    text = json.dumps(VRD["annotations_train__json"]).replace(old, new)
    write(tmp_path, **{**VRD, "annotations_train__json": text})
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path, format="vrd")


def test_a_scene_without_a_picture_has_no_boxes_and_says_so_by_its_images():
    found = SceneTables()
    scene = found.add_scene(1, None)
    found.add_object(scene, 1, ["cat"], (0, 0, 1, 1), ())
    assert found.tables(()).images.is_empty()
