"""Lists that say more of entities: a picture or a text a line, to merge with a graph."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from kgclip.frames import numbers
from kgclip.sources.bad_lines import BadLines
from kgclip.sources.compression import data_suffix, open_binary, origin_of
from kgclip.sources.scene_tables import check_inside
from kgclip.tables import GraphError, Tables, build_tables, is_address

_HEADERS = {"entity", "name", "id", "key"}


def read_entity_images(
    path: str | Path, *, separator: str | None = None, on_error: str = "raise"
) -> Tables:
    """Read a list of entity and picture.

    Args:
        path: .csv or .tsv, plain or compressed; a first field "entity", "name", "id" or "key" is a
            header. Pictures' paths start from the list's folder, or are addresses.
        separator: Between fields; ``None`` = a comma in .csv files, else a tab.
        on_error: ``"raise"``, or ``"skip"``: bad lines are left out, counted and warned of.

    Returns:
        The entities and their pictures, in the order of the list.

    Raises:
        GraphError: If the file is missing or empty, a line has not two fields, or a path leaves
            the folder; says file and line.
    """
    file = Path(path)
    bad = BadLines(file, on_error)
    rows = []
    for line, name, picture in _pairs(file, separator, bad):
        if not is_address(picture):
            try:
                check_inside(picture)
            except GraphError as error:
                bad.add(line, "path outside the folder", str(error))
                continue
        rows.append((name, picture))
    bad.report()
    return _tables(file, "images", "path", rows)


def read_entity_texts(
    path: str | Path,
    *,
    kind: str = "label",
    language: str | None = None,
    separator: str | None = None,
    on_error: str = "raise",
) -> Tables:
    """Read a list of entity and text.

    Args:
        path: .csv, .tsv or .txt, plain or compressed, as in :func:`read_entity_images`.
        kind: Of the texts: label, alias, description or caption.
        language: Of the texts.
        separator: Between fields; ``None`` = a comma in .csv files, else a tab.
        on_error: ``"raise"``, or ``"skip"``: bad lines are left out, counted and warned of.

    Returns:
        The entities and their texts, in the order of the list.

    Raises:
        GraphError: If the file is missing or empty, or a line has not two fields; says file and
            line.
    """
    file = Path(path)
    bad = BadLines(file, on_error)
    rows = [(name, text) for _, name, text in _pairs(file, separator, bad)]
    bad.report()
    return _tables(file, "texts", "text", rows, kind=kind, language=language)


def _pairs(file: Path, separator: str | None, bad: BadLines) -> Iterator[tuple[int, str, str]]:
    """Line, first and second field of each line that is no header."""
    separator = separator or ("," if data_suffix(file) == ".csv" else "\t")
    with open_binary(file) as stream:
        text = stream.read().decode("utf-8-sig", errors="surrogateescape")
    if not text.strip():
        raise GraphError(f"{file}: empty; two fields a line expected")
    lines = enumerate(text.split("\n"), start=1)
    for number, line in lines:
        plain = line.removesuffix("\r")
        if not plain:
            continue
        try:
            fields = next(csv.reader([plain])) if separator == "," else plain.split(separator)
        except csv.Error as error:
            bad.add(number, "not CSV", f"not CSV ({error}); two fields expected, mend the line")
            continue
        if any("\udc80" <= letter <= "\udcff" for letter in plain):
            bad.add(number, "not UTF-8", "not UTF-8; convert the file")
        elif len(fields) != 2 or not all(fields):
            bad.add(number, "wrong number of fields", f"{len(fields)} fields, two expected")
        elif number > 1 or fields[0].strip().casefold() not in _HEADERS:
            yield number, fields[0], fields[1]


def _tables(
    file: Path, table: str, column: str, rows: list[tuple[str, str]], **constant: str | None
) -> Tables:
    keys = pl.Series([key for key, _ in rows], dtype=pl.String())
    names = keys.unique(maintain_order=True)
    values = pl.Series(column, [value for _, value in rows], dtype=pl.String())
    frame = pl.DataFrame({"entity": numbers(keys, names), column: values}).with_columns(
        **{name: pl.lit(value, pl.String()) for name, value in constant.items()}
    )
    return build_tables({"entities": {"name": names}, table: frame}, (origin_of(file),))
