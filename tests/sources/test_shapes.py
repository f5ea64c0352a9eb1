"""A JSON file of another shape than its reader expects is an error that names the place."""

import copy
import json

import pytest

from kgclip.sources import read_graph
from kgclip.tables import GraphError
from tests.sources.test_multimodal import VISUALSEM
from tests.sources.test_scene_graphs import GQA, V14, VRD

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5]}],
    "categories": [{"id": 3, "name": "dog"}],
}
CAPTIONS = {"images": COCO["images"], "annotations": [{"image_id": 1, "caption": "a dog"}]}


def dotted(files):
    return {name.replace("__", "."): content for name, content in files.items()}


FILES = {
    "visual_genome": dotted(V14),
    "gqa": {"val_sceneGraphs.json": GQA},
    "vrd": dotted(VRD),
    "coco": {
        "annotations/instances_train2017.json": COCO,
        "annotations/captions_train2017.json": CAPTIONS,
    },
    "multimodal": VISUALSEM,
    "pairs": {"captions.json": CAPTIONS, "a.jpg": "x"},
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def read(folder, source):
    return read_graph(folder / "captions.json" if source == "pairs" else folder, format=source)


@pytest.mark.parametrize("source", FILES)
def test_files_of_the_right_shape_are_read(tmp_path, source):
    write(tmp_path, FILES[source])
    assert read(tmp_path, source).num_entities


@pytest.mark.parametrize(
    ("source", "file", "place", "value", "message"),
    [
        ("visual_genome", "objects.json", [0, "objects", 0, "names"], 1.5,
         r"objects\.json: entry 0: objects: 0\.names.*not 1\.5; mend"),
        ("visual_genome", "objects.json", [0, "objects", 0, "synsets"], [10**30], r"0\.synsets\.0"),
        ("visual_genome", "objects.json", [0, "objects", 0, "merged_object_ids"], [[]],
         r"0\.merged_object_ids\.0"),
        ("visual_genome", "image_data.json", [0, "url"], 7, r"entry 0: url: .*string, not 7"),
        ("visual_genome", "image_data.json", [0], [], r"entry 0: .*not \[\]"),
        ("gqa", "val_sceneGraphs.json", ["2407890", "objects"], "",
         r"image 2407890: objects: .*dictionary, not ''"),
        ("gqa", "val_sceneGraphs.json", ["2407890", "objects", "271881", "attributes"], [0],
         r"objects\.271881\.attributes\.0: .*string, not 0"),
        ("gqa", "val_sceneGraphs.json",
         ["2407890", "objects", "271881", "relations", 0, "object"], [[]], r"relations\.0\.object"),
        ("vrd", "annotations_train.json", ["1.jpg"], 1.5, r"image 1\.jpg: .*list, not 1\.5"),
        ("vrd", "annotations_train.json", ["1.jpg", 0], "x", r"image 1\.jpg: 0: .*not 'x'"),
        ("coco", "annotations/instances_train2017.json", ["images", 0, "id"], [1],
         r"instances_train2017\.json: images: 0\.id"),
        ("coco", "annotations/instances_train2017.json", ["categories", 0], {"id": 3},
         r"categories: 0\.name: Field required"),
        ("coco", "annotations/captions_train2017.json", ["annotations"], 7,
         r"annotations: Input .*not 7"),
        ("multimodal", "nodes.v2.json", ["bn:1n", "ims"], 5, r"node 'bn:1n': ims"),
        ("multimodal", "tuples.v2.json", ["bn:2n"], 1.5, r"tuples of 'bn:2n': .*not 1\.5"),
        ("multimodal", "tuples.v2.json", ["bn:2n", 0, "r"], {}, r"tuples of 'bn:2n': 0\.r"),
        ("multimodal", "gloss_files/nodes.glosses.json", [1, "bn:1n", "de"], None,
         r"glosses of 'bn:1n': de"),
        ("pairs", "captions.json", ["images", 0], "a.jpg", r"images: 0: .*not 'a\.jpg'"),
        ("pairs", "captions.json", ["annotations", 0], -1, r"annotation 1: .*not -1"),
        ("pairs", "captions.json", ["annotations", 0, "image_id"], [[]], r"annotation 1: image_id"),
    ],
)  # fmt: skip
def test_another_shape_is_refused(tmp_path, source, file, place, value, message):
    files = copy.deepcopy(FILES[source])
    part = files[file]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    write(tmp_path, files)
    with pytest.raises(GraphError, match=message):
        read(tmp_path, source)


def test_aliases_that_are_no_text(tmp_path):
    write(tmp_path, FILES["visual_genome"])
    (tmp_path / "object_alias.txt").write_bytes(b"dog,pup\nca\xfft,kitty\n")
    with pytest.raises(GraphError, match=r"object_alias\.txt:2: not UTF-8"):
        read(tmp_path, "visual_genome")
