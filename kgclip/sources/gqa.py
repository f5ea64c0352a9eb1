"""GQA's scene graphs: ``train_sceneGraphs.json`` and ``val_sceneGraphs.json``.

Reference:
    Hudson and Manning, arXiv 1902.09506.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.sources.compression import origin_of
from kgclip.sources.json_stream import Key, check_shape, stream_json
from kgclip.sources.scene_tables import SceneTables, read_box, read_record
from kgclip.tables import GraphError, Tables


class _Relation(TypedDict, total=False):
    object: Key
    name: str


class _Object(TypedDict, total=False):
    name: str
    attributes: list[str]
    relations: list[_Relation]


class _Graph(TypedDict, total=False):
    objects: dict[str, _Object]


_GRAPH: TypeAdapter[Any] = TypeAdapter(_Graph)
PARTS = {"train": "train", "val": "valid", "test": "test"}


def read_gqa(path: str | Path, *, images: str | None = "images") -> Tables:
    """Read scene graphs of GQA.

    Args:
        path: A file, plain or compressed, or a folder with ``<part>_sceneGraphs.json``; the part
            of a file becomes the split of its triples and pictures.
        images: Folder of the pictures, relative to the folder; ``None`` = no pictures.

    Returns:
        The tables; see ``kgclip.sources.scene_tables``.

    Raises:
        GraphError: If a file is missing or malformed, or a relation leads to an object that the
            image does not have; says file, line or image.
    """
    place = Path(path)
    files = sorted(place.glob("*sceneGraphs.json*")) if place.is_dir() else [place]
    if not files:
        raise GraphError(f"{place}: no train_sceneGraphs.json or val_sceneGraphs.json in it")
    found = SceneTables()
    for file in files:
        split = PARTS.get(file.name.partition("_")[0])
        for key, graph in stream_json(file):
            if not isinstance(graph, dict):
                raise GraphError(f"{file}: image {key}: an object expected")
            check_shape(file, f"image {key}", graph, _GRAPH)
            picture = None if images is None else f"{images}/{key}.jpg"
            _add(found, file, key, graph, found.add_scene(key, picture, split))
    return found.tables([origin_of(file) for file in files])


def _add(found: SceneTables, file: Path, key: str, graph: dict[str, Any], scene: str) -> None:
    where = f"image {key}"
    facts = ("width", "height", "location", "weather")
    found.describe(scene, **{name: graph.get(name) for name in facts})
    things = read_record(file, where, graph, "objects")
    names = {
        number: found.add_object(
            scene,
            number,
            [read_record(file, where, thing, "name")],
            read_box(file, where, thing),
            (),
        )
        for number, thing in things.items()
    }
    for number, thing in things.items():
        for attribute in thing.get("attributes", ()):
            found.add_attribute(scene, names[number], attribute)
        for relation in thing.get("relations", ()):
            other = read_record(file, where, relation, "object")
            if other not in names:
                raise GraphError(
                    f"{file}: {where}: object {number} is related to object {other}, which the "
                    "image does not have; fetch the file again"
                )
            word = read_record(file, where, relation, "name")
            found.add_relationship(scene, names[number], word, names[other])
