"""Functions from a graph to polars frames: what is this graph, can I trust it, what is missing?

They are pure, never load torch and take ids and names as
:class:`~kgclip.graph.KnowledgeGraph` has them. ``kgclip analyse`` runs them all into one page.
"""

from __future__ import annotations

from kgclip.analysis.agreement import Agreement, compare_distances, similar_vectors
from kgclip.analysis.centrality import betweenness, pagerank
from kgclip.analysis.communities import bridges, clustering, communities
from kgclip.analysis.comparison import Difference, compare_graphs
from kgclip.analysis.components import components, k_core
from kgclip.analysis.degrees import degree_distribution, degree_table
from kgclip.analysis.labels import audit_labels
from kgclip.analysis.leakage import audit_leakage, find_leaks
from kgclip.analysis.modalities import missing_modality, modality_coverage, text_languages
from kgclip.analysis.paths import path_patterns, shortest_path
from kgclip.analysis.pictures import duplicate_pictures, hash_pictures
from kgclip.analysis.relations import (
    duplicate_relations,
    inverse_relations,
    relation_table,
    type_schema,
)
from kgclip.analysis.rules import mine_rules

__all__ = [
    "Agreement",
    "Difference",
    "audit_labels",
    "audit_leakage",
    "betweenness",
    "bridges",
    "clustering",
    "communities",
    "compare_distances",
    "compare_graphs",
    "components",
    "degree_distribution",
    "degree_table",
    "duplicate_pictures",
    "duplicate_relations",
    "find_leaks",
    "hash_pictures",
    "inverse_relations",
    "k_core",
    "mine_rules",
    "missing_modality",
    "modality_coverage",
    "pagerank",
    "path_patterns",
    "relation_table",
    "shortest_path",
    "similar_vectors",
    "text_languages",
    "type_schema",
]
