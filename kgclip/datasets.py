"""Where the data of a config lie: beside the caller, or in the folder ``KGCLIP_DATA``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.sources import read_graph
from kgclip.storage import MANIFEST
from kgclip.tables import GraphError


def find_data(name: str | Path) -> Path:
    """Find a file or folder.

    Args:
        name: Absolute, relative to the current folder, or else to the folder ``KGCLIP_DATA``.

    Raises:
        GraphError: If it is in none of these places; says which they are.
    """
    path = Path(name)
    folder = os.environ.get("KGCLIP_DATA")
    for candidate in (path, Path(folder) / path) if folder else (path,):
        if candidate.exists():
            return candidate
    looked = f" or in KGCLIP_DATA={folder}" if folder else "; KGCLIP_DATA may name its folder"
    raise GraphError(f"{path}: no such file or folder here{looked}")


def open_dataset(name: str | Path, options: Mapping[str, Any] | None = None) -> KnowledgeGraph:
    """Load a saved graph, or read a foreign file or folder.

    Args:
        name: As for :func:`find_data`.
        options: Keyword arguments of ``read_graph``; a saved graph takes none.

    Raises:
        GraphError: If there is no such data, or it cannot be read with these options.
    """
    path = find_data(name)
    if not (path / MANIFEST).is_file():
        return read_graph(path, **(options or {}))
    if options:
        raise GraphError(f"{path}: a saved graph is read as it is; options {list(options)} given")
    return load_graph(path)
