"""Scene graphs as tables, whatever data set they are from.

A scene is an entity with its picture. Every object in it is an entity with the same picture and a
box; ``instance_of`` leads to its class, ``has_attribute`` to its attributes, its relationships to
other objects of the scene. Classes, attributes and synsets are shared by all scenes. The column
``scene`` names the scene of each object and region.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables

INSTANCE_OF, HAS_ATTRIBUTE, IN_SYNSET = "instance_of", "has_attribute", "in_synset"
Box = tuple[float, float, float, float]


class SceneTables:
    """Collects scenes, objects, attributes, relationships and regions.

    Args:
        aliases: Other name of a class: the name that it goes by.
        predicates: Other name of a relationship: the name that it goes by.
    """

    def __init__(
        self, aliases: Mapping[str, str] | None = None, predicates: Mapping[str, str] | None = None
    ) -> None:
        self.aliases, self.predicates = aliases or {}, predicates or {}
        self.entities: dict[str, tuple[str, str | None]] = {}  # name: type, scene
        self.ids: dict[str, int] = {}
        self.relations: dict[str, int] = {}
        self.triples: list[tuple[int, int, int, str | None]] = []
        self.texts: dict[tuple[int, str, str, str], None] = {}
        self.images: list[tuple[int, str, Box | None, str | None]] = []
        self.literals: list[tuple[int, int, str]] = []
        self.links: list[tuple[int, str]] = []
        self.pictures: dict[str, str] = {}  # scene: path
        self.splits: dict[str, str] = {}  # scene: split

    def add_scene(self, key: object, picture: str | None, split: str | None = None) -> str:
        """Add a scene, once; returns its name.

        Args:
            key: Its id in the data set.
            picture: Path below the pictures' folder; ``None`` = not known.
            split: Part of the benchmark that it belongs to.

        Raises:
            GraphError: If the picture's path leaves the folder.
        """
        name = f"scene:{key}"
        if name not in self.ids:
            number = self._entity(name, "scene", name)
            if picture is not None:
                check_inside(picture)
                self.pictures[name] = picture
                self.images.append((number, picture, None, split))
            if split is not None:
                self.splits[name] = split
        return name

    def describe(self, scene: str, **facts: object) -> None:
        """Keep what is said of a scene, such as its width, as literals; nulls are left out."""
        for relation, value in facts.items():
            if value is not None:
                self.literals.append((self.ids[scene], self._relation(relation), str(value)))

    def add_link(self, entity: str, url: str) -> None:
        """Keep an address of an entity."""
        self.links.append((self.ids[entity], url))

    def add_object(
        self, scene: str, key: object, names: Iterable[str], box: Box | None, synsets: Iterable[str]
    ) -> str:
        """Add an object, once; returns its name."""
        name = f"object:{scene.removeprefix('scene:')}/{key}"
        if name in self.ids:
            return name
        number = self._entity(name, "object", scene)
        for word in map(tidy, names):
            kind = self._class(word)
            self._triple(number, INSTANCE_OF, kind, scene)
            self.texts[number, word, "en", "label"] = None
        for synset in synsets:
            self._triple(number, IN_SYNSET, self._entity(synset, "synset", None), scene)
        if box is not None and scene in self.pictures:
            self.images.append((number, self.pictures[scene], box, self.splits.get(scene)))
        return name

    def add_attribute(self, scene: str, thing: str, attribute: str) -> None:
        """Say what an object is like; said twice it counts once."""
        word = tidy(attribute)
        if word:
            number = self._entity(f"attribute:{word}", "attribute", None)
            self.texts[number, word, "en", "label"] = None
            self._triple(self.ids[thing], HAS_ATTRIBUTE, number, scene)

    def add_relationship(self, scene: str, subject: str, predicate: str, other: str) -> None:
        """Say how two objects of a scene are related."""
        word = tidy(predicate) or "related to"
        relation = self.predicates.get(word, word)
        self._triple(self.ids[subject], relation, self.ids[other], scene)

    def add_region(self, scene: str, key: object, phrase: str, box: Box) -> None:
        """Add a described part of the picture."""
        number = self._entity(f"region:{scene.removeprefix('scene:')}/{key}", "region", scene)
        self.texts[number, phrase.strip(), "en", "caption"] = None
        if scene in self.pictures:
            self.images.append((number, self.pictures[scene], box, self.splits.get(scene)))

    def add_caption(self, scene: str, text: str, relation: str, inverse: str) -> None:
        """Make a caption an entity that its scene is joined with, both ways."""
        caption = self._entity(f"caption:{text}", "caption", None)
        self.texts[caption, text, "en", "label"] = None
        self._triple(self.ids[scene], relation, caption, scene)
        self._triple(caption, inverse, self.ids[scene], scene)

    def _class(self, word: str) -> int:
        name = self.aliases.get(word, word)
        number = self._entity(f"class:{name}", "class", None)
        self.texts[number, name, "en", "label"] = None
        if name != word:
            self.texts[number, word, "en", "alias"] = None
        return number

    def _entity(self, name: str, kind: str, scene: str | None) -> int:
        if name not in self.ids:
            self.ids[name] = len(self.ids)
            self.entities[name] = kind, scene
        return self.ids[name]

    def _relation(self, name: str) -> int:
        return self.relations.setdefault(name, len(self.relations))

    def _triple(self, head: int, relation: str, tail: int, scene: str) -> None:
        self.triples.append((head, self._relation(relation), tail, self.splits.get(scene)))

    def tables(self, origins: Sequence[Origin]) -> Tables:
        """The tables of what was collected."""
        kinds = [(name, kind, scene) for name, (kind, scene) in self.entities.items()]
        relations = [(name, name.replace("_", " ")) for name in self.relations]
        columns: dict[str, tuple[Sequence[tuple[Any, ...]], tuple[str, ...]]] = {
            "entities": (kinds, ("name", "type", "scene")),
            "types": ([(i, kind) for i, (_, kind, _) in enumerate(kinds)], ("entity", "type")),
            "relations": (relations, ("name", "label")),
            "triples": (self.triples, ("head", "relation", "tail", "split")),
            "literals": (self.literals, ("entity", "relation", "value")),
            "texts": (list(self.texts), ("entity", "text", "language", "kind")),
            "images": (self.images, ("entity", "path", "box", "split")),
            "links": (self.links, ("entity", "url")),
        }
        return build_tables(
            {
                table: pl.DataFrame(
                    rows, schema={name: SCHEMAS[table][name] for name in names}, orient="row"
                )
                for table, (rows, names) in columns.items()
            },
            tuple(origins),
        )


def tidy(text: str) -> str:
    """Lower case, spaces once: annotators write "ON", "on " and "on top  of"."""
    return re.sub(r"\s+", " ", text).strip().lower()


def check_inside(path: str) -> None:
    """Check that a picture's path stays below its folder.

    Raises:
        GraphError: If it is absolute or goes up.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise GraphError(f"image {path}: leaves the pictures' folder; mend the path")


def read_record(file: Path, where: str, record: Mapping[str, Any], *keys: str) -> Any:
    """The value of the first key that a record has; versions of a data set name it differently.

    Raises:
        GraphError: If it has none of them.
    """
    for key in keys:
        if key in record:
            return record[key]
    raise GraphError(f"{file}: {where}: no {' or '.join(map(repr, keys))} in {sorted(record)}")


def read_box(file: Path, where: str, record: Mapping[str, Any]) -> Box:
    """x, y, width and height in pixels, under the long or the short names.

    Raises:
        GraphError: If one of them is missing or no number.
    """
    found = (
        read_record(file, where, record, *names)
        for names in (("x",), ("y",), ("w", "width"), ("h", "height"))
    )
    try:
        x, y, width, height = map(float, found)
    except (TypeError, ValueError) as error:
        raise GraphError(f"{file}: {where}: a box of four numbers expected ({error})") from error
    return x, y, width, height
