"""COCO: boxes as scene graphs, with the captions of their photographs.

``instances_*.json`` holds boxes and classes, no relations: here two objects whose boxes lie apart
are "left of", "right of", "above" or "below" each other along the axis on which their centres
differ more, and a box that lies in another's is "inside" it.

Reference:
    Lin et al., arXiv 1405.0312.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.sources.compression import origin_of
from kgclip.sources.json_stream import Key, check_shape, load_json
from kgclip.sources.pairs import CAPTION_OF, IMAGE_OF
from kgclip.sources.scene_tables import Box, SceneTables, read_record
from kgclip.tables import GraphError, Tables


class _Category(TypedDict):
    id: Key
    name: str


class _Image(TypedDict):
    id: Key
    file_name: NotRequired[str]


class _Annotation(TypedDict, total=False):
    id: Key
    image_id: Key
    category_id: Key
    caption: str


_SHAPES: dict[str, TypeAdapter[Any]] = {
    "categories": TypeAdapter(list[_Category]),
    "images": TypeAdapter(list[_Image]),
    "annotations": TypeAdapter(list[_Annotation]),
}
_OPPOSITE = {"left of": "right of", "above": "below", "inside": "around"}


def read_coco(
    path: str | Path,
    *,
    part: str = "train2017",
    captions: bool = True,
    caption_triples: bool = False,
    relations: bool = True,
    min_area: float = 0.0,
    crowds: bool = False,
) -> Tables:
    """Read a folder of COCO: ``annotations/instances_<part>.json`` and the photographs.

    Args:
        path: Folder that holds ``annotations`` and, by part, the photographs.
        part: As in the files' names; photographs lie in ``<path>/<part>``.
        captions: Also read ``annotations/captions_<part>.json``; each becomes a text of kind
            "caption" of its scene.
        caption_triples: Also make the captions entities, with triples "is an image of" and "is a
            caption of", as ``format = "pairs"`` does.
        relations: Derive relations from the boxes.
        min_area: Boxes of fewer square pixels are left out.
        crowds: Keep boxes that stand for a crowd.

    Returns:
        The tables; see ``kgclip.sources.scene_tables``.

    Raises:
        GraphError: If a file is missing or malformed, or an annotation names an unknown image or
            class; says file and annotation.
    """
    folder = Path(path)
    file = folder / "annotations" / f"instances_{part}.json"
    content = _read(file, "images", "annotations", "categories")
    classes = {record["id"]: record["name"] for record in content["categories"]}
    found = SceneTables()
    scenes = {}
    for record in content["images"]:
        name = read_record(file, "an image", record, "file_name")
        scene = scenes[record["id"]] = found.add_scene(record["id"], f"{part}/{name}")
        found.describe(scene, width=record.get("width"), height=record.get("height"))
    boxes: dict[str, dict[str, Box]] = {scene: {} for scene in scenes.values()}
    for number, record in enumerate(content["annotations"], 1):
        where = f"annotation {number}"
        scene = _known(file, where, "image_id", record, scenes)
        name = _known(file, where, "category_id", record, classes)
        box = _box(file, where, record)
        if box[2] * box[3] >= min_area and (crowds or not record.get("iscrowd")):
            boxes[scene][found.add_object(scene, record.get("id", number), [name], box, ())] = box
    if relations:
        _relate(found, boxes)
    origins = [origin_of(file)]
    if captions:
        written = folder / "annotations" / f"captions_{part}.json"
        origins.append(origin_of(_describe(found, written, scenes, caption_triples)))
    return found.tables(origins)


def _describe(
    found: SceneTables, file: Path, scenes: Mapping[Any, str], caption_triples: bool
) -> Path:
    for number, record in enumerate(_read(file, "annotations")["annotations"], 1):
        where = f"annotation {number}"
        text = read_record(file, where, record, "caption").strip()
        scene = _known(file, where, "image_id", record, scenes)
        found.texts[found.ids[scene], text, "en", "caption"] = None
        if caption_triples:
            found.add_caption(scene, text, IMAGE_OF, CAPTION_OF)
    return file


def _read(file: Path, *keys: str) -> dict[str, Any]:
    content = load_json(file)
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise GraphError(f"{file}: COCO's keys {', '.join(keys)} expected")
    for key in keys:
        check_shape(file, key, content[key], _SHAPES[key])
    return content


def _known(file: Path, where: str, key: str, record: Any, known: Mapping[Any, str]) -> str:
    value = read_record(file, where, record, key)
    if value not in known:
        raise GraphError(f"{file}: {where}: {key} {value!r} stands for nothing in the file")
    return known[value]


def _box(file: Path, where: str, record: Any) -> Box:
    given = read_record(file, where, record, "bbox")
    try:
        x, y, width, height = map(float, given)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"{file}: {where}: bbox {given!r}, [x, y, width, height] expected"
        ) from error
    return x, y, width, height


def _relate(found: SceneTables, boxes: Mapping[str, Mapping[str, Box]]) -> None:
    for scene, objects in boxes.items():
        names = list(objects)
        for place, one in enumerate(names):
            for other in names[place + 1 :]:
                for first, second in ((one, other), (other, one)):
                    relation = relate_boxes(objects[first], objects[second])
                    if relation is not None:
                        found.add_relationship(scene, first, relation, second)


def relate_boxes(one: Box, other: Box) -> str | None:
    """How the first of two boxes lies to the second; ``None`` if they overlap.

    Args:
        one: x, y, width and height in pixels.
        other: Likewise.
    """
    for first, second, said in ((one, other, True), (other, one, False)):
        x, y, width, height = first
        left, top = second[0], second[1]
        right, bottom = left + second[2], top + second[3]
        if left <= x and top <= y and x + width <= right and y + height <= bottom:
            return "inside" if said else _OPPOSITE["inside"]
    across = (one[0] + one[2] / 2) - (other[0] + other[2] / 2)
    down = (one[1] + one[3] / 2) - (other[1] + other[3] / 2)
    axis = 0 if abs(across) >= abs(down) else 1
    first, second = (one, other) if (across, down)[axis] < 0 else (other, one)
    if first[axis] + first[axis + 2] > second[axis]:  # the boxes overlap on this axis
        return None
    relation = ("left of", "above")[axis]
    return relation if first is one else _OPPOSITE[relation]
