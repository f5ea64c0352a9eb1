"""Folders of multimodal knowledge graphs: nodes, tuples, glosses, one picture folder an entity.

Read are, where they are there, in this order:

- ``nodes*.json`` as VisualSem has it (``ms`` main sense, ``se`` senses, ``ims`` pictures), or
  ``nodes.tsv`` (id, name);
- ``tuples*.json`` as VisualSem has it (tail: ``s``, ``r``), or ``tuples.tsv`` (head, relation,
  tail);
- ``glosses*.json``, also in ``gloss_files/``, or ``glosses.tsv`` (id, gloss), or ``words.txt`` and
  ``gloss.txt`` as ImageNet has them;
- a folder of pictures for each entity, in ``images/`` or in the folder itself, such as ImageNet's
  synset folders (``n02084071/*.JPEG``).

Reference:
    Alberts et al., VisualSem, arXiv 2008.09150; Deng et al., ImageNet, CVPR 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.progress import track
from kgclip.sources.compression import origin_of
from kgclip.sources.json_stream import Key, check_shape, stream_json
from kgclip.sources.scene_tables import check_inside
from kgclip.sources.triple_files import read_rows
from kgclip.sources.triple_folders import read_named
from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables


class _Lemma(TypedDict, total=False):
    lemma: str | None
    simpleLemma: str | None
    fullLemma: str | None


_Sense = str | _Lemma | None


class _Node(TypedDict, total=False):
    ms: _Sense
    se: list[_Sense]
    ims: list[Key] | None
    images: list[Key] | None


class _Tuple(TypedDict, total=False):
    s: str
    r: str


_NODE: TypeAdapter[Any] = TypeAdapter(_Node)
_TUPLES: TypeAdapter[Any] = TypeAdapter(list[_Tuple])
_GLOSSES: TypeAdapter[Any] = TypeAdapter(dict[str, str | list[str]])
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def read_multimodal(
    path: str | Path, *, images: str = "images", max_images: int | None = None
) -> Tables:
    """Read a folder of a multimodal knowledge graph.

    Args:
        path: The folder.
        images: Folder of the pictures below it; the folder itself where there is none of this name.
        max_images: Pictures of an entity that are kept, the first ones by name; ``None`` = all.

    Returns:
        The tables. Pictures' paths start from the folder.

    Raises:
        GraphError: If there is nothing to read, a file is malformed, or a tuple or gloss is of no
            node; says file and entry.
    """
    reader = _Reader(Path(path))
    reader.read_nodes()
    reader.read_tuples()
    reader.read_glosses()
    reader.read_pictures(images, max_images)
    return reader.tables()


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise GraphError(f"{folder}: a folder of nodes, tuples, glosses or pictures expected")
        self.ids: dict[str, int] = {}
        self.is_closed = False  # whether nodes are listed, so that others are mistakes
        self.relations: dict[str, int] = {}
        self.triples: list[tuple[int, int, int]] = []
        self.texts: dict[tuple[int, str, str | None, str], None] = {}
        self.images: dict[tuple[int, str], None] = {}
        self.named_pictures: dict[str, str] = {}
        self.origins: list[Origin] = []

    def read_nodes(self) -> None:
        for file in self._files("nodes", ".json"):
            for key, node in stream_json(file):
                where = f"node {key!r}"
                if not isinstance(node, dict):
                    raise GraphError(f"{file}: {where}: an object with ms, se, ims expected")
                check_shape(file, where, node, _NODE)
                number = self._entity(str(key))
                senses = [node.get("ms"), *node.get("se", ())]
                self._names(number, [_lemma(sense) for sense in senses if sense])
                for picture in node.get("ims") or node.get("images") or ():
                    self.named_pictures[str(picture)] = str(key)
        for file in self._files("nodes", ".tsv"):
            for key, name in read_named(file):
                self._names(self._entity(key), [name])
        self.is_closed = bool(self.ids)

    def read_tuples(self) -> None:
        for file in self._files("tuples", ".json"):
            for tail, entries in stream_json(file):
                check_shape(file, f"tuples of {tail!r}", entries, _TUPLES)
                for entry in entries:
                    if not isinstance(entry, dict) or not {"s", "r"} <= entry.keys():
                        raise GraphError(
                            f"{file}: tuple of {tail!r}: an object with s and r expected"
                        )
                    self._triple(file, entry["s"], entry["r"], str(tail))
        for file in self._files("tuples", ".tsv"):
            rows = read_rows(file).select("head", "relation", "tail")
            for head, relation, tail in rows.iter_rows():
                self._triple(file, head, relation, tail)

    def read_glosses(self) -> None:
        for folder in ("", "gloss_files"):
            for file in self._files("*glosses", ".json", folder):
                self._json_glosses(file)
        for pattern in ("glosses.tsv", "gloss.txt"):
            for file in self._present(pattern):
                for key, gloss in read_named(file, "\t"):
                    self._text(file, key, gloss, None, "description")
        for file in self._present("words.txt"):
            for key, words in read_named(file, "\t"):
                self._names(self._known(file, key), words.split(", "))

    def _json_glosses(self, file: Path) -> None:
        for number, entry in stream_json(file):
            # VisualSem's list begins with the languages; each further entry is of one node.
            about = entry if isinstance(number, int) else {number: entry}
            if not isinstance(about, dict):
                raise GraphError(f"{file}: entry {number}: an object expected")
            for key, glosses in about.items():
                if key == "available_languages":
                    continue
                check_shape(file, f"glosses of {key!r}", glosses, _GLOSSES)
                for language, texts in glosses.items():
                    for text in [texts] if isinstance(texts, str) else texts:
                        self._text(file, key, text, language, "description")

    def read_pictures(self, images: str, max_images: int | None) -> None:
        check_inside(images)
        place = self.folder / images
        place = place if place.is_dir() else self.folder
        known = {key.replace(":", "_"): key for key in self.ids}  # no colons on some disks
        for child in track(sorted(place.iterdir()), f"looking for pictures in {place.name}"):
            if child.is_dir() and child.name not in ("gloss_files",):
                files = sorted(file for file in child.iterdir() if _is_picture(file))
                key = known.get(child.name, child.name)
                owned = [(self.named_pictures.get(_stem(file.name), key), file) for file in files]
                self._pictures(owned, max_images)
            elif _is_picture(child) and _stem(child.name) in self.named_pictures:
                self._pictures([(self.named_pictures[_stem(child.name)], child)], max_images)
        if not self.ids:
            raise GraphError(f"{self.folder}: no nodes, no tuples and no pictures in it")

    def _pictures(self, owned: Iterable[tuple[str, Path]], max_images: int | None) -> None:
        counts: dict[str, int] = {}
        for key, file in owned:
            counts[key] = counts.get(key, 0) + 1
            if max_images is None or counts[key] <= max_images:
                path = file.relative_to(self.folder).as_posix()
                self.images[self._entity(key), path] = None

    def _present(self, name: str) -> list[Path]:
        file = self.folder / name
        if not file.is_file():
            return []
        self.origins.append(origin_of(file))
        return [file]

    def _files(self, stem: str, suffix: str, folder: str = "") -> list[Path]:
        pattern = f"{stem}*{suffix}" if suffix == ".json" else f"{stem}{suffix}"
        found = sorted((self.folder / folder).glob(pattern))
        self.origins += [origin_of(file) for file in found]
        return found

    def _entity(self, key: str) -> int:
        return self.ids.setdefault(key, len(self.ids))

    def _known(self, file: Path, key: str) -> int:
        if self.is_closed and key not in self.ids:
            raise GraphError(f"{file}: {key!r} is no node; fetch all files of one version")
        return self._entity(key)

    def _triple(self, file: Path, head: str, relation: str, tail: str) -> None:
        number = self.relations.setdefault(relation, len(self.relations))
        self.triples.append((self._known(file, head), number, self._known(file, tail)))

    def _text(self, file: Path, key: str, text: str, language: str | None, kind: str) -> None:
        if text.strip():
            self.texts[self._known(file, key), text.strip(), language, kind] = None

    def _names(self, number: int, names: list[str]) -> None:
        for place, name in enumerate(dict.fromkeys(filter(None, names))):
            self.texts[number, name, None, "alias" if place else "label"] = None

    def tables(self) -> Tables:
        """The tables of what was read."""
        rows: dict[str, tuple[list[tuple[Any, ...]], tuple[str, ...]]] = {
            "entities": ([(key,) for key in self.ids], ("name",)),
            "relations": (
                [(name, name.replace("-", " ").replace("_", " ")) for name in self.relations],
                ("name", "label"),
            ),
            "triples": (list(self.triples), ("head", "relation", "tail")),
            "texts": (list(self.texts), ("entity", "text", "language", "kind")),
            "images": (list(self.images), ("entity", "path")),
        }
        frames = {
            table: pl.DataFrame(
                found, schema={name: SCHEMAS[table][name] for name in names}, orient="row"
            )
            for table, (found, names) in rows.items()
        }
        return build_tables(frames, tuple(self.origins))


def _lemma(sense: Any) -> str:
    """A sense is a text, with or without its part of speech, or an object with a lemma."""
    if isinstance(sense, dict):
        sense = sense.get("lemma") or sense.get("simpleLemma") or sense.get("fullLemma") or ""
    return str(sense).partition("#")[0].replace("_", " ").strip()


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
