"""Functions from a graph to polars frames: what is this graph, can I trust it, what is missing?

They are pure, never load torch and take ids and names as
:class:`~kgclip.graph.KnowledgeGraph` has them. ``kgclip analyse`` runs them all into one page.
"""

from __future__ import annotations

from kgclip.analysis.centrality import betweenness, pagerank
from kgclip.analysis.communities import bridges, clustering, communities
from kgclip.analysis.components import components, k_core
from kgclip.analysis.degrees import degree_distribution, degree_table
from kgclip.analysis.paths import path_patterns, shortest_path

__all__ = [
    "betweenness",
    "bridges",
    "clustering",
    "communities",
    "components",
    "degree_distribution",
    "degree_table",
    "k_core",
    "pagerank",
    "path_patterns",
    "shortest_path",
]
