"""Image-text pairs as a graph: COCO captions, open_clip's CSV, WebDataset shards.

A picture becomes an entity of type "image" with its file and its captions as texts of kind
"caption". With ``triples=True`` each caption is an entity too, joined by "is an image of" and
"is a caption of", as Knowledge-CLIP mixes image-text pairs into the graph's triples.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kgclip.sources.compression import open_binary, origin_of
from kgclip.sources.json_stream import Key, check_shape, load_json
from kgclip.tables import GraphError, Origin, Tables, build_tables

IMAGE_OF, CAPTION_OF = "is an image of", "is a caption of"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_CAPTION_SUFFIXES = (".txt", ".json")
_Pair = tuple[str, str]  # picture, caption


class _Image(TypedDict, total=False):
    id: Key
    file_name: str | None


class _Annotation(TypedDict, total=False):
    image_id: Key
    caption: Any


_IMAGES: TypeAdapter[Any] = TypeAdapter(list[_Image])
_LIST: TypeAdapter[Any] = TypeAdapter(list[Any])
_ANNOTATION: TypeAdapter[Any] = TypeAdapter(_Annotation)


def read_pairs(
    path: str | Path,
    *,
    images: str | Path | None = None,
    img_key: str = "filepath",
    caption_key: str = "title",
    separator: str | None = None,
    triples: bool = False,
    on_error: str = "raise",
) -> Tables:
    """Read image-text pairs.

    Args:
        path: ``.json`` in COCO's layout (``images``, ``annotations``), ``.csv`` or ``.tsv`` with a
            header, or a WebDataset shard ``.tar`` or a folder of them.
        images: Folder that picture names start from; absent = the file's folder. For shards the
            folder that pictures are unpacked into, which must be given.
        img_key: Column of the pictures in a CSV; open_clip's name and default.
        caption_key: Column of the captions in a CSV, or key of a shard's JSON captions.
        separator: Of the CSV's fields; ``None`` = a tab if the header has one, else a comma.
        triples: Make the captions entities, and triples of the pairs.
        on_error: ``"raise"``, or ``"skip"`` = leave out pairs without picture file or caption and
            what is behind a shard's damage, and warn with their number.

    Returns:
        The tables, pictures in the order of their first caption.

    Raises:
        GraphError: If the file is of no known layout, or a pair lacks its picture or caption;
            says file, line or sample.
    """
    file = Path(path)
    if on_error not in ("raise", "skip"):
        raise GraphError(f"on_error: {on_error!r} given, 'raise' or 'skip' expected")
    problems: list[str] = []

    def report(problem: str) -> None:
        if on_error == "raise":
            raise GraphError(f"{problem}; mend it, or leave such pairs out with on_error='skip'")
        problems.append(problem)

    folder = Path(images) if images is not None else file.parent
    if file.is_dir() or file.suffix == ".tar":
        if images is None:
            raise GraphError(f"{file}: shards need images=, the folder to unpack pictures into")
        shards = sorted(file.glob("*.tar")) if file.is_dir() else [file]
        if not shards:
            raise GraphError(f"{file}: no .tar file in it; a folder of WebDataset shards expected")
        pairs = [pair for shard in shards for pair in _shard(shard, folder, caption_key, report)]
        origins = tuple(origin_of(shard) for shard in shards)
    else:
        pairs = list(_file_pairs(file, img_key, caption_key, separator, report))
        origins = (origin_of(file),)
    kept = _existing(pairs, folder, report)
    if problems:
        warnings.warn(
            f"{file}: {len(problems)} pairs left out, the first: {problems[0]}", stacklevel=2
        )
    if not kept:
        raise GraphError(f"{file}: no image-text pair in it")
    return _tables(kept, folder, triples, origins)


def _file_pairs(
    file: Path, img_key: str, caption_key: str, separator: str | None, report: Callable[[str], None]
) -> Iterator[_Pair]:
    if file.name.removesuffix(".gz").endswith(".json"):
        return _coco(file, report)
    with open_binary(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GraphError(f"{file}: not UTF-8 at byte {error.start}; convert the file") from error
    return _table(file, text, img_key, caption_key, separator, report)


def _coco(file: Path, report: Callable[[str], None]) -> Iterator[_Pair]:
    content = load_json(file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise GraphError(f"{file}: COCO's keys 'images' and 'annotations' expected")
    check_shape(file, "images", content["images"], _IMAGES)
    check_shape(file, "annotations", content["annotations"], _LIST)
    names = {image.get("id"): image.get("file_name") for image in content["images"]}
    for number, annotation in enumerate(content["annotations"], 1):
        try:
            check_shape(file, f"annotation {number}", annotation, _ANNOTATION)
        except GraphError as error:
            report(str(error))
            continue
        name, caption = names.get(annotation.get("image_id")), annotation.get("caption")
        if name is None or not isinstance(caption, str):
            report(
                f"{file}: annotation {number}: no image {annotation.get('image_id')!r} with a "
                "file_name, or no caption"
            )
            continue
        yield str(name), caption.strip()


def _table(
    file: Path,
    text: str,
    img_key: str,
    caption_key: str,
    separator: str | None,
    report: Callable[[str], None],
) -> Iterator[_Pair]:
    header = text.partition("\n")[0]
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=separator or ("\t" if "\t" in header else ","))
    columns = next(rows, [])
    for key in (img_key, caption_key):
        if key not in columns:
            raise GraphError(
                f"{file}:1: no column {key!r}; the header has {', '.join(columns) or 'nothing'}; "
                "give img_key= and caption_key="
            )
    picture, caption = columns.index(img_key), columns.index(caption_key)
    for row in rows:
        if len(row) != len(columns):
            report(f"{file}:{rows.line_num}: {len(row)} fields, {len(columns)} expected")
            continue
        yield row[picture], row[caption].strip()


def _shard(
    file: Path, folder: Path, caption_key: str, report: Callable[[str], None]
) -> Iterator[_Pair]:
    """Pairs of a shard, whose pictures are unpacked into ``folder/<shard>/``."""
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None:
                    continue
                key, suffix = _split_name(member.name)
                if suffix in PICTURE_SUFFIXES + _CAPTION_SUFFIXES:
                    samples.setdefault(key, {})[suffix] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        report(f"{file}: damaged or cut off after {len(samples)} samples ({error})")
    target = folder / file.stem
    target.mkdir(parents=True, exist_ok=True)
    for key, parts in samples.items():
        picture = next((suffix for suffix in PICTURE_SUFFIXES if suffix in parts), None)
        caption = _caption(parts, caption_key)
        if picture is None or caption is None:
            wanted = f"no caption in .txt, or in .json under {caption_key!r}"
            report(f"{file}: sample {key!r}: {'no picture' if picture is None else wanted}")
            continue
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}{picture}"  # no path of the archive
        (target / name).write_bytes(parts[picture])
        yield f"{file.stem}/{name}", caption


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the base name."""
    path = PurePosixPath(name)
    base, dot, rest = path.name.partition(".")
    return str(path.parent / base), (dot + rest).lower()


def _caption(parts: dict[str, bytes], caption_key: str) -> str | None:
    try:
        if ".txt" in parts:
            return parts[".txt"].decode("utf-8").strip() or None
        found = json.loads(parts[".json"]).get(caption_key) if ".json" in parts else None
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        return None
    return found.strip() if isinstance(found, str) else None


def _existing(
    pairs: list[_Pair], folder: Path, report: Callable[[str], None]
) -> list[tuple[str, str]]:
    root, known = folder.resolve(), {}
    kept = []
    for name, caption in pairs:
        if name not in known and "\0" in name:
            known[name] = False
            report(f"{folder}: no picture {name!r}, which no file can be called; mend the name")
        elif name not in known:
            file = (folder / name).resolve()
            known[name] = file.is_file()
            if not Path(name).is_absolute() and not file.is_relative_to(root):
                raise GraphError(f"{name}: leaves the folder of pictures {folder}")
            if not known[name]:
                report(f"{folder / name}: no such picture")
        if known[name] and not caption:
            report(f"{folder / name}: its caption is empty")
        elif known[name]:
            kept.append((name, caption))
    return kept


def _tables(pairs: list[_Pair], folder: Path, triples: bool, origins: tuple[Origin, ...]) -> Tables:
    names = list(dict.fromkeys(name for name, _ in pairs))
    row = {name: number for number, name in enumerate(names)}
    shown = [row[name] for name, _ in pairs]
    captions = [caption for _, caption in pairs]
    frames: dict[str, Any] = {
        "images": {
            "entity": list(range(len(names))),
            "path": [str((folder / name).resolve()) for name in names],
        },
    }
    entities = [f"image:{name}" for name in names]
    types = ["image"] * len(names)
    if triples:
        distinct = list(dict.fromkeys(captions))
        place = {caption: len(names) + number for number, caption in enumerate(distinct)}
        entities += [f"caption:{caption}" for caption in distinct]
        types += ["caption"] * len(distinct)
        written = [place[caption] for caption in captions]
        frames["relations"] = {
            "name": [IMAGE_OF, CAPTION_OF],
            "label": [IMAGE_OF, CAPTION_OF],
            "inverse": [CAPTION_OF, IMAGE_OF],
        }
        frames["triples"] = {
            "head": shown + written,
            "relation": [0] * len(pairs) + [1] * len(pairs),
            "tail": written + shown,
        }
        frames["texts"] = {
            "entity": shown + list(place.values()),
            "text": captions + distinct,
            "kind": ["caption"] * len(pairs) + ["label"] * len(distinct),
        }
    else:
        frames["texts"] = {"entity": shown, "text": captions, "kind": ["caption"] * len(pairs)}
    frames["entities"] = {"name": entities, "type": types}
    frames["types"] = pl.DataFrame(
        {"entity": list(range(len(types))), "type": types}, schema_overrides={"entity": pl.Int64}
    )
    return build_tables(frames, origins)
