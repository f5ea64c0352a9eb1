"""Named triples in files and folders: TSV, CSV, JSON lines, Parquet, the layouts of benchmarks.

Columns are head, relation, tail and, if there is a fourth, weight; a header may name them in
another order, and source, graph and split besides. Folders are those of
``kgclip.sources.triple_folders``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from kgclip.frames import tables_from_names
from kgclip.progress import track
from kgclip.sources.compression import origin_of
from kgclip.sources.triple_files import read_rows
from kgclip.sources.triple_folders import add_companions, find_parts, is_openke, read_openke
from kgclip.tables import Tables


def read_delimited(
    path: str | Path,
    *,
    separator: str | None = None,
    header: bool | None = None,
    columns: Sequence[str] | None = None,
    on_error: str = "raise",
) -> Tables:
    """Read a table of triples, or a folder of them.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst), or folder with ``train``, ``valid``
            (or ``dev``) and ``test`` files, or in OpenKE's layout.
        separator: Between fields; ``None`` = a comma in .csv files, else a tab. Quotes count in
            comma-separated files only.
        header: Whether the first line names the columns; ``None`` = it does if its first field
            is "head", "h", "subject", "source" or "head_id".
        columns: What the columns are: head, relation, tail, perhaps weight, source, graph, split.
        on_error: ``"raise"``, or ``"skip"``: bad lines are left out, counted and warned of.

    Returns:
        The tables; a part is a split.

    Raises:
        GraphError: If a file is missing, empty or damaged, or a line has another number of
            fields or a weight that is no number; says file and line.
    """
    place = Path(path)
    if place.is_dir() and is_openke(place):
        return read_openke(place)
    parts = find_parts(place) if place.is_dir() else {"": place}
    frames = []
    for part, file in track(parts.items(), f"reading {place.name}"):
        rows = read_rows(
            file, separator=separator, header=header, columns=columns, on_error=on_error
        )
        frames.append(rows.with_columns(split=pl.lit(part)) if part else rows)
    triples = pl.concat(frames, how="diagonal")
    origins = [origin_of(file) for file in parts.values()]
    if not place.is_dir():
        return tables_from_names(triples, origins=tuple(origins))
    return add_companions(place, triples, origins)
