"""One file of named triples: separated values, JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kgclip.frames import REQUIRED, ROLES, find_roles
from kgclip.sources.bad_lines import BadLines
from kgclip.sources.compression import data_suffix, open_binary
from kgclip.tables import GraphError

POSITIONS = (*REQUIRED, "weight")
JSON_SUFFIXES = (".jsonl", ".ndjson")
_HEADERS = {"head", "h", "subject", "source", "head_id"}
_Lines = list[tuple[int, list[str]]]


def read_rows(
    file: Path,
    *,
    separator: str | None = None,
    header: bool | None = None,
    columns: Sequence[str] | None = None,
    on_error: str = "raise",
) -> pl.DataFrame:
    """Read the triples of a file by name.

    Args:
        file: .jsonl, .ndjson, .parquet, or separated values; all but Parquet also compressed.
        separator: Of separated values, see ``read_delimited``.
        header: Of separated values, see ``read_delimited``.
        columns: Of separated values and Parquet, see ``read_delimited``.
        on_error: ``"raise"`` or ``"skip"``, for files of a triple a line.

    Returns:
        Frame with head, relation, tail and weight, perhaps with source, graph and split.

    Raises:
        GraphError: Says file and line.
    """
    suffix = data_suffix(file)
    if suffix == ".parquet":
        return _from_parquet(file, columns)
    bad = BadLines(file, on_error)
    text = _text(file, bad)
    if suffix in JSON_SUFFIXES:
        rows = _from_json(file, text, bad)
    else:
        rows = _from_lines(file, _split(file, text, separator, bad), header, columns, bad)
    bad.report()
    return rows


def _text(file: Path, bad: BadLines) -> str:
    with open_binary(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        kept = []
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                kept.append(line.decode())
            except UnicodeDecodeError as error:
                bad.add(number, "not UTF-8", f"not UTF-8 ({error.reason}); convert the file")
                kept.append("")  # a blank line, so that the numbers stay right
        text = "\n".join(kept).removeprefix("\ufeff")
    if not text.strip():
        raise GraphError(f"{file}: empty; expected {', '.join(POSITIONS[:3])}[, weight] a line")
    return text


def _split(file: Path, text: str, separator: str | None, bad: BadLines) -> _Lines:
    separator = separator or ("," if data_suffix(file) == ".csv" else "\t")
    if separator != ",":
        numbered = enumerate(text.split("\n"), start=1)
        stripped = ((number, line.removesuffix("\r")) for number, line in numbered)
        return [(number, line.split(separator)) for number, line in stripped if line]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: _Lines = []
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return lines
        except csv.Error as error:
            bad.add(reader.line_num, "unreadable quotes", f"{error}; mend the quotes")
            continue
        if fields:
            lines.append((reader.line_num, fields))


def _from_lines(
    file: Path,
    lines: _Lines,
    header: bool | None,
    columns: Sequence[str] | None,
    bad: BadLines,
) -> pl.DataFrame:
    first = lines[0][1] if lines else []
    names = list(columns) if columns else list(POSITIONS[: len(first)])
    if header or (header is None and first and first[0].strip().casefold() in _HEADERS):
        if columns is None:
            names = _named(file, first)
        lines = lines[1:]
    width = len(names)
    if len(set(names)) < width or not set(REQUIRED) <= set(names) <= set(ROLES):
        raise GraphError(
            f"{file}: {width} columns {names}; expected head, relation, tail[, weight] in any order"
        )
    kept = []
    for number, fields in lines:
        if len(fields) != width:
            expected = f"{len(fields)} fields, expected {width} ({', '.join(names)})"
            bad.add(number, "wrong number of fields", expected)
        else:
            kept.append((number, fields))
    frame = pl.DataFrame(
        [fields for _, fields in kept], schema=dict.fromkeys(names, pl.String()), orient="row"
    )
    return _with_weights(frame, [number for number, _ in kept], bad)


def _named(file: Path, header: list[str]) -> list[str]:
    """Roles of the columns that a header names."""
    try:
        roles = find_roles(header)
    except GraphError as error:
        raise GraphError(f"{file}:1: {error}; or give columns=") from error
    return [roles[name] for name in header]


def _with_weights(frame: pl.DataFrame, lines: list[int], bad: BadLines) -> pl.DataFrame:
    if "weight" not in frame.columns:
        return frame.with_columns(weight=pl.lit(None, pl.Float64()))
    weights = frame["weight"].cast(pl.Float64(), strict=False)
    wrong = weights.is_null() & frame["weight"].is_not_null()
    for row in wrong.arg_true():
        bad.add(lines[row], "no number", f"weight {frame['weight'][row]!r} is no number")
    return frame.with_columns(weight=weights).filter(~wrong)


def _from_json(file: Path, text: str, bad: BadLines) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_json_row(json.loads(line)))
        except (ValueError, TypeError) as error:
            detail = f"{error}; an object or a list with head, relation, tail[, weight] expected"
            bad.add(number, "no triple in JSON", detail)
    schema = dict.fromkeys(ROLES, pl.String()) | {"weight": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _json_row(found: Any) -> dict[str, Any]:
    if isinstance(found, list) and len(found) in (3, 4):
        found = dict(zip(POSITIONS, found, strict=False))
    if not isinstance(found, dict):
        raise TypeError(f"{str(found)[:40]!r} is none")
    row = {role: found[name] for name, role in find_roles(list(found)).items()}
    for name, value in row.items():
        if name == "weight":
            row[name] = None if value is None else float(value)
        elif isinstance(value, dict | list) or (value is None and name in REQUIRED):
            raise TypeError(f"{name} is {value!r}, a name expected")
        elif value is not None:
            row[name] = str(value)
    return row


def _from_parquet(file: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise GraphError(f"{file}: no Parquet file, or damaged ({error})") from error
    if columns is not None and len(columns) == frame.width:
        frame.columns = list(columns)
    try:
        found = frame.rename(find_roles(frame.columns))
    except GraphError as error:
        raise GraphError(f"{file}: {error}") from error
    names = [name for name in found.columns if name != "weight"]
    weight = pl.col("weight") if "weight" in found.columns else pl.lit(None)
    return found.with_columns(pl.col(names).cast(pl.String()), weight=weight.cast(pl.Float64()))
