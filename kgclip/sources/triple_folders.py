"""Folders of benchmarks: FB15k's parts, OpenKE's ids, KG-BERT's texts.

``train``, ``valid`` (or ``dev``) and ``test`` become ``triples.split``. ``entity2text``,
``entity2textlong``, ``relation2text``, ``entities`` and ``relations`` are read where they are, and
so is a list of pictures, ``entity2image``; whatever they name is an entity, also without a triple.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from kgclip.frames import numbers, tables_from_names
from kgclip.sources.compression import COMPRESSIONS, data_suffix, open_binary, origin_of
from kgclip.sources.triple_files import JSON_SUFFIXES
from kgclip.tables import GraphError, Origin, Tables, build_tables

PARTS = {"train": ("train",), "valid": ("valid", "dev", "val"), "test": ("test",)}
SUFFIXES = (".txt", ".tsv", ".csv", ".parquet", *JSON_SUFFIXES)
TEXT_FILES = {"entity2text": "label", "entity2textlong": "description"}


def find_file(folder: Path, *stems: str) -> Path | None:
    """The file of one of these names, whatever its suffix; ``None`` if there is none."""
    for stem in stems:
        for file in sorted(folder.glob(f"{stem}.*")):
            packed = "".join(
                file.suffixes[-2:] if file.suffix in COMPRESSIONS else file.suffixes[-1:]
            )
            if data_suffix(file) in SUFFIXES and file.name == f"{stem}{packed}":
                return file
    return None


def find_parts(folder: Path) -> dict[str, Path]:
    """The file of each part that is there.

    Raises:
        GraphError: If there is no training part.
    """
    found = {part: find_file(folder, *stems) for part, stems in PARTS.items()}
    present = {part: file for part, file in found.items() if file is not None}
    if "train" not in present:
        raise GraphError(
            f"{folder}: no train.txt or train.tsv in it; expected train[, valid, test], or "
            "entity2id.txt and train2id.txt as OpenKE has them"
        )
    return present


def is_openke(folder: Path) -> bool:
    """Whether the folder is in OpenKE's layout."""
    return (folder / "entity2id.txt").is_file() and (folder / "train2id.txt").is_file()


def read_openke(folder: Path) -> Tables:
    """Read OpenKE's layout: names with ids, then triples of ids as head, tail, relation.

    Raises:
        GraphError: If a file is malformed, its first line is not its count, or a triple has an id
            that stands for nothing; says file and line.
    """
    entities, relations = (_names(folder / f"{kind}2id.txt") for kind in ("entity", "relation"))
    rows: list[tuple[int, int, int, str]] = []
    files = [folder / "entity2id.txt", folder / "relation2id.txt"]
    for part in PARTS:
        file = folder / f"{part}2id.txt"
        if not file.is_file():
            continue
        files.append(file)
        for number, line in _counted(file):
            try:
                head, tail, relation = map(int, line.split())
            except ValueError as error:
                raise GraphError(
                    f"{file}:{number}: three ids expected: head tail relation"
                ) from error
            for what, given, count in (
                ("head", head, len(entities)), ("tail", tail, len(entities)),
                ("relation", relation, len(relations)),
            ):  # fmt: skip
                if not 0 <= given < count:
                    raise GraphError(
                        f"{file}:{number}: {what} {given}, an id in [0, {count}) expected"
                    )
            rows.append((head, relation, tail, part))
    schema = {"head": pl.Int64(), "relation": pl.Int64(), "tail": pl.Int64(), "split": pl.String()}
    return build_tables(
        {
            "entities": {"name": entities},
            "relations": {"name": relations},
            "triples": pl.DataFrame(rows, schema=schema, orient="row"),
        },
        tuple(origin_of(file) for file in files),
    )


def _counted(file: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines after the first, which is their count."""
    lines = _lines(file)
    try:
        count = int(lines[0])
    except (ValueError, IndexError) as error:
        raise GraphError(f"{file}:1: the number of lines expected") from error
    found = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if len(found) != count:
        raise GraphError(f"{file}: {len(found)} lines, its first line says {count}; is it cut off?")
    yield from found


def _names(file: Path) -> pl.Series:
    by_id: dict[int, str] = {}
    for number, line in _counted(file):
        try:
            name, key = line.rsplit(maxsplit=1)
            by_id[int(key)] = name
        except ValueError as error:
            raise GraphError(f"{file}:{number}: a name and an id expected") from error
    if sorted(by_id) != list(range(len(by_id))):
        raise GraphError(f"{file}: ids from 0 to {len(by_id) - 1} expected, each once")
    return pl.Series([by_id[number] for number in range(len(by_id))], dtype=pl.String())


def _lines(file: Path) -> list[str]:
    with open_binary(file) as stream:
        data = stream.read()
    try:
        return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise GraphError(f"{file}:{line}: not UTF-8; convert the file") from error


def read_named(file: Path, separator: str | None = None) -> list[tuple[str, str]]:
    """Key and value of each line; a line without value is a key alone.

    Raises:
        GraphError: If the file is missing or no UTF-8; says file and line.
    """
    separator = separator or ("," if data_suffix(file) == ".csv" else "\t")
    pairs = (line.partition(separator)[::2] for line in _lines(file) if line.strip())
    return [(key.strip(), value.strip()) for key, value in pairs]


def add_companions(folder: Path, triples: pl.DataFrame, origins: list[Origin]) -> Tables:
    """Tables of a folder's triples, with the texts and pictures that lie beside them."""
    texts: list[tuple[str, str, str]] = []
    entities: list[str] = []
    for stem, kind in TEXT_FILES.items():
        texts += [(key, text, kind) for key, text in _companion(folder, stem, origins)]
    pictures = _companion(folder, "entity2image", origins)
    entities += [key for key, _ in _companion(folder, "entities", origins)]
    labels = dict(_companion(folder, "relation2text", origins))
    relations = [key for key, _ in _companion(folder, "relations", origins)]
    named = [*entities, *(key for key, *_ in texts), *(key for key, _ in pictures)]
    tables = tables_from_names(triples)
    extra = pl.concat([tables.entities["name"], pl.Series(named, dtype=pl.String())])
    more = pl.Series([*relations, *labels], dtype=pl.String())
    kinds = pl.concat([tables.relations["name"], more]).unique(maintain_order=True)
    names = extra.unique(maintain_order=True)
    said = [row for row in texts if row[1]]
    return build_tables(
        {
            **{name: frame for name, frame in tables.frames().items() if len(frame)},
            "entities": {"name": names},
            "relations": {
                "name": kinds,
                "label": pl.Series([labels.get(name) or None for name in kinds], dtype=pl.String()),
            },
            "texts": {
                "entity": numbers(pl.Series([key for key, *_ in said], dtype=pl.String()), names),
                "text": pl.Series([text for _, text, _ in said], dtype=pl.String()),
                "kind": pl.Series([kind for *_, kind in said], dtype=pl.String()),
            },
            "images": picture_frame(pictures, names),
        },
        tuple(origins),
    )


def _companion(folder: Path, stem: str, origins: list[Origin]) -> list[tuple[str, str]]:
    file = find_file(folder, stem)
    if file is None:
        return []
    origins.append(origin_of(file))
    return read_named(file)


def picture_frame(pictures: list[tuple[str, str]], names: pl.Series) -> dict[str, pl.Series]:
    """Columns of the pictures' table."""
    keys = pl.Series([key for key, _ in pictures], dtype=pl.String())
    paths = pl.Series([path for _, path in pictures], dtype=pl.String())
    return {"entity": numbers(keys, names), "path": paths}
