"""Everything that ``kgclip analyse`` looks at, by section: numbers, and frames of what stands out.

A section is a function from a graph to a dictionary. Frames hold the top rows alone; the function
behind each gives all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from kgclip.analysis.agreement import compare_distances, similar_vectors
from kgclip.analysis.centrality import betweenness, pagerank
from kgclip.analysis.communities import bridges, clustering, communities
from kgclip.analysis.components import components, k_core
from kgclip.analysis.degrees import degree_distribution, degree_table
from kgclip.analysis.leakage import ASKED, audit_leakage, find_leaks
from kgclip.analysis.modalities import (
    has_modality,
    missing_modality,
    modality_coverage,
    text_languages,
)
from kgclip.analysis.paths import path_patterns
from kgclip.analysis.pictures import duplicate_pictures, hash_pictures
from kgclip.analysis.relations import relation_table, type_schema
from kgclip.analysis.rules import mine_rules
from kgclip.graph import KnowledgeGraph
from kgclip.progress import track
from kgclip.tables import GraphError

TOP = 20  # rows of a frame of what stands out
Section = dict[str, Any]


def analyse_graph(
    graph: KnowledgeGraph,
    *,
    vectors: np.ndarray | None = None,
    entity: str | None = None,
    other: str | None = None,
    seed: int = 0,
) -> dict[str, Section]:
    """Run the whole set.

    Args:
        graph: At least two entities and one triple.
        vectors: One an entity, as ``kgclip embed`` writes them, for the section "embedding".
            Float [N, D].
        entity: Name of an entity, for the section "entity": what is near it.
        other: Name of a second one: the paths between them.
        seed: Of everything that draws.

    Returns:
        By section ("graph", "structure", "trust", "missing", then "entity" and "embedding" where
        asked for), by name: a number, a text, or a frame of at most ``TOP`` rows.

    Raises:
        GraphError: If there is too little to analyse, an entity does not exist (names the
            nearest), or the vectors do not fit.
    """
    check_enough(graph)
    sections: dict[str, Callable[[], Section]] = {
        "graph": lambda: describe_tables(graph),
        "structure": lambda: describe_structure(graph, seed),
        "trust": lambda: describe_trust(graph),
        "missing": lambda: describe_missing(graph),
    }
    if entity is not None:
        graph.entity_id(entity)
        sections["entity"] = lambda: describe_entity(graph, entity, other)
    if vectors is not None:
        sections["embedding"] = lambda: describe_embedding(graph, vectors, seed)
    return {name: run() for name, run in track(list(sections.items()), "analysing")}


def check_enough(graph: KnowledgeGraph) -> None:
    """Raise GraphError unless there are two entities and a triple."""
    if graph.num_entities < 2 or not graph.num_triples:
        raise GraphError(
            f"nothing to analyse: {graph.num_entities} entities and {graph.num_triples} triples; "
            "expected at least two entities and one triple"
        )


def describe_tables(graph: KnowledgeGraph) -> Section:
    """How much there is, of what."""
    split = graph.triples.group_by("split").len("triples").sort("triples", descending=True)
    types = (
        graph.types["type"]
        .value_counts(name="entities")
        .sort("entities", "type", descending=[True, False])
    )
    return {
        **{f"num_{name}": len(frame) for name, frame in graph.tables.frames().items()},
        "origins": [origin.name for origin in graph.origins],
        "splits": split,
        "types": types.head(TOP),
        "num_entity_types": len(types),
        "relations_by_triples": relation_table(graph).head(2 * TOP),
        "schema": type_schema(graph).head(TOP),
    }


def describe_structure(graph: KnowledgeGraph, seed: int = 0) -> Section:
    """How the entities hang together."""
    parts, groups = components(graph), communities(graph, seed=seed)
    cores, degrees = k_core(graph), degree_table(graph)
    ranks = pagerank(graph)
    central = (
        ranks.with_columns(
            label=pl.Series(graph.labels()),
            degree=degrees["degree"],
            core=cores["core"],
            betweenness=betweenness(graph, seed=seed)["betweenness"],
        )
        .select("name", "label", "pagerank", "betweenness", "degree", "core")
        .sort("pagerank", "name", descending=[True, False])
    )
    biggest = (
        groups[0]
        .with_columns(pagerank=ranks["pagerank"])
        .sort("community", "pagerank", descending=[False, True])
        .group_by("community", "size", maintain_order=True)
        .agg(pl.col("name").head(5).str.join(", ").alias("most central members"))
    )
    return {
        "num_components": int(parts["component"].max()) + 1,  # type: ignore[arg-type]  # a number
        "largest_component": int(parts["size"].max()),  # type: ignore[arg-type]
        "num_isolated": int((degrees["degree"] == 0).sum()),
        "mean_degree": float(2 * graph.num_triples / graph.num_entities),
        "max_core": int(cores["core"].max()),  # type: ignore[arg-type]
        "num_communities": len(biggest),
        "modularity": groups[1],
        "mean_clustering": float(clustering(graph)["clustering"].mean()),  # type: ignore[arg-type]
        "num_bridges": len(bridges(graph)),
        "degree_distribution": degree_distribution(graph),
        "central": central.head(TOP),
        "communities": biggest.head(TOP),
    }


def describe_trust(graph: KnowledgeGraph) -> Section:
    """What gives held-out triples away, and what follows from what."""
    split = graph.triples.select(part="split").filter(pl.col("part").is_in(ASKED))
    asked = split.group_by("part").len("asked").sort("part", descending=True)
    leaks = find_leaks(graph).filter(pl.col("kind") != "word")
    given_away = leaks.group_by("part").agg(given_away=pl.col("triple").n_unique())
    leakage = audit_leakage(graph)
    return {
        "asked": asked.join(given_away, on="part", how="left").with_columns(
            pl.col("given_away").fill_null(0)
        ),
        "leakage": leakage.filter(pl.col("kind") != "word").head(3 * TOP),
        "shared_words": leakage.filter(pl.col("kind") == "word").head(TOP),
        "rules": mine_rules(graph).drop("head", "body").head(TOP),
        "warnings": graph.validate() if len(graph.images) <= 50_000 else [],
    }


def describe_missing(graph: KnowledgeGraph) -> Section:
    """Which entities lack what, and which pictures there are twice."""
    found: Section = {
        "num_with_text": int(has_modality(graph, "text").sum()),
        "num_with_image": int(has_modality(graph, "image").sum()),
        "by_type": modality_coverage(graph).head(TOP),
        "by_relation": modality_coverage(graph, by="relation").head(2 * TOP),
        "languages": text_languages(graph).head(TOP),
        "without_text": missing_modality(graph, "text").head(TOP).drop("entity"),
        "without_image": missing_modality(graph, "image").head(TOP).drop("entity"),
    }
    if len(graph.images):
        hashes = hash_pictures(graph)
        pairs = duplicate_pictures(hashes)
        different = pairs.filter(pl.col("entity") != pl.col("other_entity"))
        names = graph.entities["name"]
        found |= {
            "num_unreadable_pictures": int(hashes["hash"].null_count()),
            "num_same_pictures": int(pairs["same"].sum()),
            "num_alike_pictures": len(pairs),
            "alike_pictures": different.head(TOP).select(
                name=pl.col("entity").map_batches(names.gather, pl.String()),
                other_name=pl.col("other_entity").map_batches(names.gather, pl.String()),
                same="same",
                distance="distance",
            ),
        }
    return found


def describe_entity(graph: KnowledgeGraph, entity: str, other: str | None = None) -> Section:
    """What is near an entity, and how it is connected with another one."""
    near = pagerank(graph, seeds={entity: 1.0}).sort("pagerank", "name", descending=[True, False])
    found: Section = {"entity": entity, "near": near.drop("entity").head(TOP)}
    if other is not None:
        found |= {"other": other, "paths": path_patterns(graph, entity, other).head(TOP)}
    return found


def describe_embedding(graph: KnowledgeGraph, vectors: np.ndarray, seed: int = 0) -> Section:
    """Where an embedding disagrees with the graph."""
    agreement = compare_distances(graph, vectors, seed=seed)
    return {
        "correlation": agreement.correlation,
        "by_hops": agreement.by_hops,
        "disagreements": agreement.disagreements,
        "alike": similar_vectors(graph, vectors).head(TOP),
    }


def to_json(findings: Mapping[str, Section]) -> dict[str, Any]:
    """Findings as strings, numbers, lists and dictionaries; a frame becomes a list of rows.

    Args:
        findings: From :func:`analyse_graph`.
    """
    return {
        name: {
            key: value.to_dicts() if isinstance(value, pl.DataFrame) else _plain(value)
            for key, value in section.items()
        }
        for name, section in findings.items()
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
