"""How two entities are connected: a shortest path, and the relation sequences between them."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.csgraph import shortest_path as all_shortest

from kgclip.analysis.adjacency import undirected_matrix
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

ARROWS = ("→", "←")  # along the triple, against it


def shortest_path(graph: KnowledgeGraph, source: str, target: str) -> pl.DataFrame:
    """A shortest chain of triples between two entities, in either direction of each triple.

    Args:
        graph: Any graph.
        source: Name of the entity it starts from.
        target: Name of the entity it leads to.

    Returns:
        A row a step: names ``from``, ``relation`` and ``to``, and ``direction``: "→" where the
        triple leads on, "←" where it leads back. Of several triples the first one stands for the
        step. No row if there is no path or both ends are the same.

    Raises:
        GraphError: If an entity does not exist; names the nearest.
    """
    here, there = graph.entity_id(source), graph.entity_id(target)
    matrix = undirected_matrix(graph)
    _, before = breadth_first_order(matrix, here, directed=True)
    chain = [there]
    while chain[-1] != here and before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    steps = list(zip(chain[::-1], chain[-2::-1], strict=False)) if chain[-1] == here else []
    names, relations = graph.entities["name"], graph.relations["name"]
    rows = [
        (names[one], relations[relation], arrow, names[other])
        for one, other in steps
        for relation, arrow in [_first_triple(graph, one, other)]
    ]
    schema = dict.fromkeys(("from", "relation", "direction", "to"), pl.String())
    return pl.DataFrame(rows, schema=schema, orient="row")


def _first_triple(graph: KnowledgeGraph, one: int, other: int) -> tuple[int, str]:
    ends = (pl.col("head"), pl.col("tail"))
    on = (ends[0] == one) & (ends[1] == other)
    back = (ends[0] == other) & (ends[1] == one)
    row = graph.triples.filter(on | back).row(0, named=True)
    return row["relation"], ARROWS[0] if row["head"] == one else ARROWS[1]


def path_patterns(
    graph: KnowledgeGraph, source: str, target: str, *, max_length: int = 3
) -> pl.DataFrame:
    """Relation sequences that lead from one entity to another, and how many paths follow each.

    A path visits no entity twice. What could not reach the target in the steps that are left is
    never followed, but between two hubs there may be very many paths.

    Args:
        graph: Any graph.
        source: Name of the entity that paths start from.
        target: Name of the entity they lead to, another one.
        max_length: Triples in a path, at least 1.

    Returns:
        ``pattern`` (as "→ capital ← borders"), ``length``, ``paths`` and ``example`` (names of
        the entities on one path), shortest and then most frequent first.

    Raises:
        GraphError: If an entity does not exist (names the nearest), both are the same, or the
            length is below 1.
    """
    here, there = graph.entity_id(source), graph.entity_id(target)
    if here == there or max_length < 1:
        raise GraphError(
            f"path_patterns from {source!r} to {target!r} in {max_length} steps; expected two "
            "different entities and at least one step"
        )
    steps = _steps(graph, there)
    paths = pl.DataFrame({"at": [here], "pattern": [""], "visited": [[here]]})
    found = []
    for left in reversed(range(max_length)):
        paths = (
            paths.join(steps.filter(pl.col("distance") <= left), left_on="at", right_on="from")
            .filter(~pl.col("visited").list.contains(pl.col("to")))
            .select(
                at="to",
                pattern=pl.concat_str("pattern", pl.lit(" "), "step"),
                visited=pl.concat_list("visited", "to"),
            )
        )
        found.append(paths.filter(pl.col("at") == there))
        paths = paths.filter(pl.col("at") != there)
    names = graph.entities["name"]
    return (
        pl.concat(found)
        .group_by("pattern", maintain_order=True)
        .agg(
            length=pl.col("visited").first().list.len() - 1,
            paths=pl.len(),
            example=pl.col("visited").first().list.eval(pl.element()),
        )
        .with_columns(
            pl.col("pattern").str.strip_chars(),
            pl.col("example").map_elements(
                lambda ids: " - ".join(names.gather(ids)), return_dtype=pl.String()
            ),
        )
        .sort("length", "paths", "pattern", descending=[False, True, False])
    )


def _steps(graph: KnowledgeGraph, target: int) -> pl.DataFrame:
    """Every triple in both directions, with the distance that is left after it."""
    distance = all_shortest(undirected_matrix(graph), unweighted=True, indices=target)
    triples = graph.triples.select("head", "tail", name=pl.col("relation")).unique(
        maintain_order=True
    )
    name = graph.relations["name"].gather(triples["name"])
    both = [
        pl.DataFrame({"from": triples[a], "to": triples[b], "step": f"{arrow} " + name})
        for a, b, arrow in (("head", "tail", ARROWS[0]), ("tail", "head", ARROWS[1]))
    ]
    steps = pl.concat(both)
    left = pl.Series(np.asarray(distance)).gather(steps["to"])
    return steps.with_columns(distance=left)
