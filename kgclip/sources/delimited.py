"""Triples in tables: TSV, CSV and the FB15k folder layout.

Columns are head, relation, tail and, if there is a fourth, weight. A folder with ``train.txt``
(and ``valid.txt``, ``test.txt``) keeps its parts as ``triples.split``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kgclip.sources.compression import data_suffix, open_binary, origin_of
from kgclip.tables import GraphError, Tables, build_tables

COLUMNS = ("head", "relation", "tail", "weight")
PARTS = ("train", "valid", "test")
_HEADERS = {"head", "h", "subject", "source"}


def read_delimited(
    path: str | Path,
    *,
    separator: str | None = None,
    header: bool | None = None,
    columns: Sequence[str] | None = None,
) -> Tables:
    """Read a table of triples, or a folder of them.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst), or folder with ``train``, ``valid``
            and ``test`` files.
        separator: Between fields; ``None`` = a comma in .csv files, else a tab. Quotes count in
            comma-separated files only.
        header: Whether the first line names the columns; ``None`` = it does if its first field
            is "head", "h", "subject" or "source".
        columns: What the columns are, a permutation of ``COLUMNS`` with or without weight.

    Returns:
        The tables.

    Raises:
        GraphError: If a file is missing, empty or damaged, or a line has another number of
            fields or a weight that is no number; says file and line.
    """
    place = Path(path)
    files = _parts(place) if place.is_dir() else {None: place}
    frames, origins = [], []
    for part, file in files.items():
        data = _read(file)
        origins.append(origin_of(file))
        rows = _rows(file, data, separator, header, columns)
        frames.append(rows.with_columns(split=pl.lit(part, pl.String())))
    triples = pl.concat(frames)
    entities = _distinct(pl.concat([triples["head"], triples["tail"]]))
    relations = _distinct(triples["relation"])
    numbered = triples.with_columns(
        pl.col("head", "tail").replace_strict(entities, _ids(entities), return_dtype=pl.Int64()),
        pl.col("relation").replace_strict(relations, _ids(relations), return_dtype=pl.Int64()),
    )
    return build_tables(
        {
            "entities": {"name": entities},
            "relations": {"name": relations},
            "triples": numbered,
        },
        tuple(origins),
    )


def _distinct(names: pl.Series) -> pl.Series:
    return names.unique(maintain_order=True)


def _ids(names: pl.Series) -> pl.Series:
    return pl.Series(range(len(names)), dtype=pl.Int64())


def _parts(folder: Path) -> dict[str | None, Path]:
    found: dict[str | None, Path] = {}
    for part in PARTS:
        for file in sorted(folder.glob(f"{part}.*")):
            found.setdefault(part, file)
    if "train" not in found:
        raise GraphError(
            f"{folder}: no train.txt or train.tsv in it; expected train[, valid, test]"
        )
    return found


def _read(file: Path) -> str:
    with open_binary(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise GraphError(f"{file}:{line}: not UTF-8; convert the file") from error
    if not text.strip():
        raise GraphError(f"{file}: empty; expected {', '.join(COLUMNS[:3])}[, weight] a line")
    return text


def _rows(
    file: Path,
    text: str,
    separator: str | None,
    header: bool | None,
    columns: Sequence[str] | None,
) -> pl.DataFrame:
    separator = separator or ("," if data_suffix(file) == ".csv" else "\t")
    if separator == ",":
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, fields) for fields in _checked(file, reader) if fields]
    else:
        numbered = enumerate(text.splitlines(), start=1)
        lines = [(number, line.split(separator)) for number, line in numbered if line]
    if header or (header is None and lines[0][1][0].strip().casefold() in _HEADERS):
        lines = lines[1:]
    width = len(columns) if columns else (len(lines[0][1]) if lines else 3)
    names = list(columns or COLUMNS[:width])
    if not set(COLUMNS[:3]) <= set(names) <= set(COLUMNS):
        raise GraphError(
            f"{file}: {width} columns {names}; expected head, relation, tail[, weight] in any order"
        )
    for number, fields in lines:
        if len(fields) != width:
            raise GraphError(
                f"{file}:{number}: {len(fields)} fields, expected {width} ({', '.join(names)}) "
                f"separated by {separator!r}"
            )
    rows = [fields for _, fields in lines]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")
    if "weight" not in names:
        return frame.select(COLUMNS[:3]).with_columns(weight=pl.lit(None, pl.Float64()))
    weights = frame["weight"].cast(pl.Float64(), strict=False)
    if weights.null_count():
        row = int(weights.is_null().arg_max() or 0)
        raise GraphError(
            f"{file}:{lines[row][0]}: weight {rows[row][names.index('weight')]!r} is no number"
        )
    return frame.with_columns(weight=weights).select(COLUMNS)


def _checked(file: Path, reader: Any) -> Any:
    """Rows of a csv reader, its errors with file and line."""
    try:
        yield from reader
    except csv.Error as error:
        raise GraphError(f"{file}:{reader.line_num}: {error}; mend the quotes") from error
