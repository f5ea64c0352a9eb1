"""Visual Genome 1.0, 1.2 and 1.4: a folder of JSON files, read one image at a time.

``objects.json`` and ``relationships.json`` are needed; ``attributes.json``, ``image_data.json``,
``region_descriptions.json``, ``object_alias.txt`` and ``relationship_alias.txt`` are read where
they are there. The versions name their keys differently (``id`` or ``object_id``, ``name`` or
``names``); in 1.4 objects that were merged keep the ids of all. Questions and answers, and the
synsets of relationships, are left out. Synsets are named as WordNet's source names them.

Reference:
    Krishna et al., arXiv 1602.07332.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.sources.compression import COMPRESSIONS, open_binary, origin_of
from kgclip.sources.json_stream import Key, check_shape, stream_json
from kgclip.sources.scene_tables import SceneTables, read_box, read_record, tidy
from kgclip.tables import GraphError, Origin, Tables

_Words = str | list[str] | None


class _Object(TypedDict, total=False):
    object_id: Key
    id: Key
    names: _Words
    object_names: _Words
    name: _Words
    synsets: list[str] | None
    merged_object_ids: list[Key]
    attributes: _Words
    attribute: _Words


class _Relationship(TypedDict, total=False):
    predicate: str
    subject: _Object | Key
    subject_id: Key
    object: _Object | Key
    object_id: Key


class _Region(TypedDict, total=False):
    region_id: Key
    id: Key
    phrase: str


class _Image(TypedDict, total=False):
    image_id: Key
    id: Key
    url: str
    image_url: str


_SHAPES: dict[str, TypeAdapter[Any]] = {
    "objects": TypeAdapter(list[_Object]),
    "attributes": TypeAdapter(list[_Object]),
    "relationships": TypeAdapter(list[_Relationship]),
    "regions": TypeAdapter(list[_Region]),
}
_IMAGE: TypeAdapter[Any] = TypeAdapter(_Image)


def read_visual_genome(
    path: str | Path, *, images: str | None = "", aliases: bool = True, regions: bool = True
) -> Tables:
    """Read a folder of Visual Genome.

    Args:
        path: Folder with the JSON files, plain or compressed.
        images: Folder of ``VG_100K`` and ``VG_100K_2``, relative to ``path``; ``None`` = no
            pictures, and no boxes.
        aliases: Apply ``object_alias.txt`` and ``relationship_alias.txt``: the first name of a line
            stands for all.
        regions: Read the described regions.

    Returns:
        The tables; see ``kgclip.sources.scene_tables``. Pictures' paths are those of their address.

    Raises:
        GraphError: If a file is missing or malformed, or an object is referred to and nowhere
            defined; says file, line or image.
    """
    return _Reader(Path(path), images, aliases).read(regions)


class _Reader:
    def __init__(self, folder: Path, images: str | None, aliases: bool) -> None:
        self.folder, self.images = folder, images
        self.origins: list[Origin] = []
        names = ("object_alias.txt", "relationship_alias.txt") if aliases else ()
        self.found = SceneTables(*(self._aliases(name) for name in names))
        self.objects: dict[tuple[str, Any], str] = {}  # scene and any of its ids: object

    def read(self, regions: bool) -> Tables:
        self._read_images()
        self._read_objects()
        self._read_attributes()
        self._read_relationships()
        if regions:
            self._read_regions()
        return self.found.tables(self.origins)

    def _find(self, name: str) -> Path | None:
        for suffix in ("", *COMPRESSIONS):
            file = self.folder / f"{name}{suffix}"
            if file.is_file():
                self.origins.append(origin_of(file))
                return file
        return None

    def _aliases(self, name: str) -> dict[str, str]:
        file = self._find(name)
        if file is None:
            return {}
        with open_binary(file) as stream:
            data = stream.read()
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise GraphError(f"{file}:{line}: not UTF-8; convert the file") from error
        groups = [[tidy(word) for word in line.split(",")] for line in lines if line.strip()]
        return {word: group[0] for group in groups for word in group[1:]}

    def _records(
        self, name: str, key: str, needed: bool = False
    ) -> Iterator[tuple[Path, str, str, list[dict[str, Any]]]]:
        """File, place for messages, scene and records of each image of a file."""
        file = self._find(name)
        if file is None:
            if needed:
                raise GraphError(
                    f"{self.folder}: no {name} in it; a folder of Visual Genome expected"
                )
            return
        for number, image in stream_json(file):
            where = f"entry {number}"
            if not isinstance(image, dict):
                raise GraphError(f"{file}: {where}: {type(image).__name__}, an object expected")
            image_id = read_record(file, where, image, "image_id", "id")
            records = read_record(file, where, image, key)
            if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
                raise GraphError(f"{file}: {where}: {key!r} must be a list of objects")
            check_shape(file, where, image, _IMAGE)
            check_shape(file, f"{where}: {key}", records, _SHAPES[key])
            yield file, f"image {image_id}", self._scene(image_id, f"{image_id}.jpg"), records

    def _scene(self, image_id: Any, picture: str) -> str:
        if self.images is None:
            return self.found.add_scene(image_id, None)
        return self.found.add_scene(image_id, f"{self.images}/{picture}".lstrip("/"))

    def _read_images(self) -> None:
        file = self._find("image_data.json")
        if file is None:
            return
        for number, image in stream_json(file):
            where = f"entry {number}"
            check_shape(file, where, image, _IMAGE)
            url = read_record(file, where, image, "url", "image_url")
            image_id = read_record(file, where, image, "image_id", "id")
            scene = self._scene(image_id, "/".join(url.split("/")[-2:]))
            self.found.add_link(scene, url)
            facts = ("width", "height", "coco_id", "flickr_id")
            self.found.describe(scene, **{name: image.get(name) for name in facts})

    def _read_objects(self) -> None:
        for file, where, scene, records in self._records("objects.json", "objects", needed=True):
            for record in records:
                self._object(file, where, scene, record)

    def _read_attributes(self) -> None:
        for file, where, scene, records in self._records("attributes.json", "attributes"):
            for record in records:
                thing = self._object(file, where, scene, record)
                said = record.get("attributes", record.get("attribute")) or []
                for attribute in [said] if isinstance(said, str) else said:
                    self.found.add_attribute(scene, thing, attribute)

    def _read_relationships(self) -> None:
        name = "relationships"
        for file, where, scene, records in self._records(f"{name}.json", name, needed=True):
            for record in records:
                predicate = read_record(file, where, record, "predicate")
                subject, other = (
                    self._end(file, where, scene, record, end) for end in ("subject", "object")
                )
                self.found.add_relationship(scene, subject, predicate, other)

    def _end(self, file: Path, where: str, scene: str, record: dict[str, Any], end: str) -> str:
        """Subject or object of a relationship: the object itself, or its id alone."""
        if isinstance(record.get(end), dict):
            return self._object(file, where, scene, record[end])
        return self._object(
            file, where, scene, {"object_id": read_record(file, where, record, end, f"{end}_id")}
        )

    def _read_regions(self) -> None:
        for file, where, scene, records in self._records("region_descriptions.json", "regions"):
            for record in records:
                key = read_record(file, where, record, "region_id", "id")
                phrase = read_record(file, where, record, "phrase")
                self.found.add_region(scene, key, phrase, read_box(file, where, record))

    def _object(self, file: Path, where: str, scene: str, record: dict[str, Any]) -> str:
        """The object that a record describes or refers to."""
        key = read_record(file, where, record, "object_id", "id")
        if (scene, key) in self.objects:
            return self.objects[scene, key]
        words = record.get("names") or record.get("object_names") or record.get("name")
        if words is None:
            raise GraphError(
                f"{file}: {where}: object {key} is referred to and nowhere defined; fetch "
                "objects.json of the same version"
            )
        names = [words] if isinstance(words, str) else words
        box = read_box(file, where, record)
        found = self.found.add_object(scene, key, names, box, record.get("synsets") or ())
        for known in (key, *record.get("merged_object_ids", ())):
            self.objects[scene, known] = found
        return found
