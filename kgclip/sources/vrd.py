"""Visual Relationship Detection: relationships coded by numbers, boxes as corners.

A folder with ``annotations_train.json``, ``annotations_test.json``, ``objects.json`` and
``predicates.json``. A box is written [ymin, ymax, xmin, xmax]; here it is x, y, width, height. Two
boxes of one class in the same place are the same object.

Reference:
    Lu et al., arXiv 1608.00187.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.sources.compression import origin_of
from kgclip.sources.json_stream import check_shape, load_json, stream_json
from kgclip.sources.scene_tables import Box, SceneTables, read_record
from kgclip.tables import GraphError, Tables


class _Object(TypedDict, total=False):
    category: Any
    bbox: Any


class _Relationship(TypedDict, total=False):
    subject: _Object
    object: _Object
    predicate: Any


_RELATIONSHIPS: TypeAdapter[Any] = TypeAdapter(list[_Relationship])
PARTS = ("train", "test")


def read_vrd(path: str | Path, *, images: str | None = "sg_dataset/sg_{part}_images") -> Tables:
    """Read a folder of VRD.

    Args:
        path: Folder with the JSON files.
        images: Folder of the pictures, relative to ``path``, with ``{part}`` for train or test;
            ``None`` = no pictures.

    Returns:
        The tables; see ``kgclip.sources.scene_tables``. The part is the split.

    Raises:
        GraphError: If a file is missing or malformed, a number stands for nothing, or a box is
            none; says file, line or image.
    """
    folder = Path(path)
    classes, predicates = (_words(folder / f"{name}.json") for name in ("objects", "predicates"))
    files = {part: folder / f"annotations_{part}.json" for part in PARTS}
    present = {part: file for part, file in files.items() if file.is_file()}
    if not present:
        raise GraphError(f"{folder}: no annotations_train.json or annotations_test.json in it")
    found = SceneTables()
    for part, file in present.items():
        for name, relationships in stream_json(file):
            picture = None if images is None else f"{images.format(part=part)}/{name}"
            scene = found.add_scene(name, picture, part)
            check_shape(file, f"image {name}", relationships, _RELATIONSHIPS)
            for number, record in enumerate(relationships):
                where = f"image {name}, relationship {number}"
                subject, other = (
                    _object(
                        found, file, where, scene, read_record(file, where, record, end), classes
                    )
                    for end in ("subject", "object")
                )
                code = read_record(file, where, record, "predicate")
                word = _word(file, where, "predicate", code, predicates)
                found.add_relationship(scene, subject, word, other)
    sources = [folder / "objects.json", folder / "predicates.json", *present.values()]
    return found.tables([origin_of(file) for file in sources])


def _words(file: Path) -> list[str]:
    words = load_json(file)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise GraphError(f"{file}: a list of names expected")
    return words


def _object(
    found: SceneTables, file: Path, where: str, scene: str, record: dict[str, Any], words: list[str]
) -> str:
    code = read_record(file, where, record, "category")
    corners = read_record(file, where, record, "bbox")
    name, box = _word(file, where, "category", code, words), _box(file, where, corners)
    key = f"{code}@{','.join(map(str, corners))}"
    return found.add_object(scene, key, [name], box, ())


def _word(file: Path, where: str, kind: str, code: Any, words: list[str]) -> str:
    if not isinstance(code, int) or not 0 <= code < len(words):
        raise GraphError(
            f"{file}: {where}: {kind} {code!r}, a number in [0, {len(words)}) expected"
        )
    return words[code]


def _box(file: Path, where: str, corners: Any) -> Box:
    try:
        top, bottom, left, right = map(float, corners)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"{file}: {where}: bbox {corners!r}, [ymin, ymax, xmin, xmax] expected"
        ) from error
    return left, top, right - left, bottom - top
