import json

import polars as pl
import pytest

from kgclip.sources import read_graph
from kgclip.sources.coco import relate_boxes
from kgclip.tables import GraphError

LEFT, RIGHT, BELOW = (0.0, 0.0, 10.0, 10.0), (20.0, 2.0, 10.0, 10.0), (1.0, 30.0, 10.0, 5.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (LEFT, RIGHT, "left of"),
        (RIGHT, LEFT, "right of"),
        (LEFT, BELOW, "above"),
        (BELOW, LEFT, "below"),
        ((2.0, 2.0, 3.0, 3.0), LEFT, "inside"),
        (LEFT, (2.0, 2.0, 3.0, 3.0), "around"),
        (LEFT, (5.0, 1.0, 10.0, 10.0), None),
    ],
)
def test_how_boxes_lie(one, other, expected):
    assert relate_boxes(one, other) == expected


def test_real_photographs(shared_data):
    graph = read_graph(shared_data / "coco_mini", format="coco", crowds=True)
    kinds = graph.types["type"].value_counts(sort=True)
    counts = dict(kinds.iter_rows())
    assert (counts["scene"], counts["object"]) == (80, 739)
    assert len(graph.texts.filter(kind="caption")) == 400
    assert graph.images["box"].null_count() == 80
    assert all(graph.image_path(row).is_file() for row in range(0, len(graph.images), 50))
    said = graph.triples.join(
        graph.relations.with_row_index("relation").cast({"relation": int}), on="relation"
    )
    left, right = (len(said.filter(name=name)) for name in ("left of", "right of"))
    assert left == right > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "image_id 2"),
        ({"annotations": [{"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}]}, "category_id"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0]}]}, "bbox"),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "annotation 1: no 'bbox'"),
        ({"images": [{"id": 1, "file_name": "../../x.jpg"}]}, "leaves the pictures' folder"),
    ],
)
def test_bad_annotations(change, message, tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/instances_val2017.json"
    file.write_text(json.dumps(content | change))
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path, format="coco", part="val2017", captions=False)


def test_files_that_are_not_coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/instances_train2017.json"
    for text, message in (("[1]", "COCO's keys"), ('{"images": [', "not JSON")):
        file.write_text(text)
        with pytest.raises(GraphError, match=message):
            read_graph(tmp_path, format="coco")


def test_captions_as_triples_go_both_ways(shared_data):
    graph = read_graph(shared_data / "coco_mini", format="coco", caption_triples=True)
    names, relations = graph.entities["name"], graph.relations["name"]
    rows = graph.triples.select("head", "relation", "tail").iter_rows()
    said = [(names[h], relations[r], names[t]) for h, r, t in rows]
    shown = [(h, t) for h, r, t in said if r == "is an image of"]
    assert len(shown) == 400
    assert sorted(shown) == sorted((t, h) for h, r, t in said if r == "is a caption of")
    captions = graph.texts.filter(pl.col("kind") == "caption").select("entity", "text")
    assert sorted(shown) == sorted(
        (names[e], f"caption:{text}") for e, text in captions.iter_rows()
    )
