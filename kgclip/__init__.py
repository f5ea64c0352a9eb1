"""Knowledge graphs and CLIP in one toolkit.

``import kgclip`` loads the graph half alone and never torch; models are in ``kgclip.nn``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kgclip.graph import GraphError, KnowledgeGraph, load_graph
from kgclip.sources import read_graph

__version__ = "0.1.0"
__all__ = [
    "GraphError",
    "KnowledgeGraph",
    "__version__",
    "build_graph",
    "load_graph",
    "read_graph",
]


def build_graph(
    name: str | Path,
    overrides: Mapping[str, object] | None = None,
    output: str | Path | None = None,
) -> KnowledgeGraph:
    """Build a graph from a recipe; see :func:`kgclip.recipe.build_graph`."""
    from kgclip.recipe import build_graph as build  # pydantic only where it is needed

    return build(name, overrides, output)
