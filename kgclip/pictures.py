"""Where a graph's pictures are: copied along, left in their place, or missing."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import polars as pl

from kgclip.progress import track
from kgclip.tables import GraphError, Tables, build_tables, is_address

POLICIES = ("keep", "drop", "error")


def place_pictures(
    tables: Tables, root: Path, *, copy_to: Path | None, prefix: str, missing: str = "keep"
) -> Tables:
    """Rewrite the paths of a source's pictures for the graph that they become part of.

    Args:
        tables: With paths relative to ``root``; absolute ones and addresses stay.
        root: Folder of the pictures.
        copy_to: Folder that pictures are copied into, named ``prefix`` in the graph; ``None`` =
            they stay where they are, and their path becomes absolute.
        prefix: What a copied picture's path starts with.
        missing: Rows whose file is not there: ``"keep"`` them as they are, ``"drop"`` them, or
            ``"error"``. Whatever is missing is counted in a warning.

    Raises:
        GraphError: If a path leaves ``root``, or a picture is missing and must not be.
    """
    placed: dict[str, str | None] = {}
    absent = []
    paths = tables.images["path"].unique(maintain_order=True)
    for path in track(paths, "placing pictures"):
        if Path(path).is_absolute() or is_address(path):
            placed[path] = path
            continue
        file = root / path
        if not file.resolve().is_relative_to(root.resolve()):
            raise GraphError(f"image {path}: leaves its folder {root}; mend the path")
        if not file.is_file():
            absent.append(path)
            placed[path] = None if missing == "drop" else path
            continue
        placed[path] = str(file.resolve()) if copy_to is None else f"{prefix}/{path}"
        if copy_to is not None:
            (copy_to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy_to / path)
    if absent and missing == "error":
        raise GraphError(
            f"{root / absent[0]}: no such picture, {len(absent)} in all; fetch them, give "
            "images.root, or set images.missing"
        )
    if absent:
        done = "left out" if missing == "drop" else "kept by name"
        warnings.warn(f"{root}: {len(absent)} pictures are not there, {done}", stacklevel=2)
    images = tables.images.with_columns(
        path=tables.images["path"].replace_strict(placed, return_dtype=pl.String())
    ).drop_nulls("path")
    return build_tables({**tables.frames(), "images": images}, tables.origins)
