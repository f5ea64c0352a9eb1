"""Tables to and from networkx and scipy."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables

if TYPE_CHECKING:
    import networkx
    import scipy.sparse

DEFAULT_RELATION = "related to"
_TRIPLE_FACTS = ("weight", "source", "graph", "split")
_ENTITY_LISTS = {  # node attribute: columns of its table besides the entity
    "types": ("type",),
    "texts": ("text", "language", "kind"),
    "images": ("path", "sha256", "box", "split"),
    "links": ("url",),
}


class _Names:
    """Numbers names in the order in which they are met."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.ids.setdefault(name, len(self.ids))

    def column(self) -> dict[str, list[str]]:
        return {"name": list(self.ids)}


def tables_from_triples(rows: Iterable[Sequence[Any]]) -> Tables:
    """Number the names of (head, relation, tail) or (head, relation, tail, weight) rows.

    Raises:
        GraphError: If a row has neither three nor four fields, or a weight is no number.
    """
    entities, relations = _Names(), _Names()
    triples = []
    for number, row in enumerate(rows):
        if len(row) not in (3, 4):
            raise GraphError(f"row {number}: {row!r}; expected head, relation, tail[, weight]")
        head, relation, tail, *weight = row
        triples.append(
            (entities(str(head)), relations(str(relation)), entities(str(tail)), *weight, None)[:4]
        )
    columns = ("head", "relation", "tail", "weight")
    frame = pl.DataFrame(triples, schema=list(columns), orient="row", infer_schema_length=None)
    return build_tables(
        {
            "entities": entities.column(),
            "relations": relations.column(),
            "triples": frame if triples else {},
        }
    )


def tables_to_scipy(tables: Tables, relation: int | None = None) -> scipy.sparse.csr_array:
    """Count the triples from each entity to each. Int64 [N, N].

    Args:
        tables: Any graph.
        relation: Id of the relation that counts; ``None`` = all.
    """
    from scipy.sparse import coo_array

    triples = tables.triples
    if relation is not None:
        triples = triples.filter(pl.col("relation") == relation)
    count = len(tables.entities)
    ones = np.ones(len(triples), dtype=np.int64)
    ends = (triples["head"].to_numpy(), triples["tail"].to_numpy())
    return coo_array((ones, ends), shape=(count, count)).tocsr()


def tables_to_scipy_stacked(tables: Tables) -> scipy.sparse.csr_array:
    """The adjacency matrices of all relations, one below the other. Int64 [R * N, N].

    Row ``relation * N + head``: the matrix times features [N, D] gives the sum over the tails for
    each relation and head.
    """
    from scipy.sparse import coo_array

    count, triples = len(tables.entities), tables.triples
    heads, relations, tails = (triples[name].to_numpy() for name in ("head", "relation", "tail"))
    shape = (len(tables.relations) * count, count)
    ones = np.ones(len(triples), dtype=np.int64)
    return coo_array((ones, (relations * count + heads, tails)), shape=shape).tocsr()


def tables_to_networkx(tables: Tables) -> networkx.MultiDiGraph:
    """Convert to a ``MultiDiGraph``; nothing but the relations' table is left out of the edges.

    Nodes are entity names with ``type``, ``scene``, ``types``, ``texts``, ``images``, ``links``
    and ``literals``; edges carry ``relation`` and what the triple says besides. The relations'
    table and the origins are in ``graph.graph``.
    """
    import networkx

    names, relations = tables.entities["name"].to_list(), tables.relations["name"].to_list()
    origins = [dataclasses.asdict(origin) for origin in tables.origins]
    graph = networkx.MultiDiGraph(relations=tables.relations.to_dicts(), origins=origins)
    graph.add_nodes_from((row.pop("name"), _filled(row)) for row in tables.entities.to_dicts())
    for attribute in _ENTITY_LISTS:
        for row in getattr(tables, attribute).to_dicts():
            node = graph.nodes[names[row.pop("entity")]]
            node.setdefault(attribute, []).append(_filled(row))
    for row in tables.literals.to_dicts():
        node = graph.nodes[names[row.pop("entity")]]
        row["relation"] = relations[row["relation"]]
        node.setdefault("literals", []).append(_filled(row))
    for row in tables.triples.to_dicts():
        head, relation, tail = (row.pop(column) for column in ("head", "relation", "tail"))
        graph.add_edge(names[head], names[tail], relation=relations[relation], **_filled(row))
    return graph


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def tables_from_networkx(graph: networkx.Graph, drop: bool = False) -> Tables:
    """Read any networkx graph; an undirected edge becomes one triple.

    The relation is the edge's ``relation`` (or ``label``, or the key of a multigraph if it is a
    text), else ``"related to"``. Attributes that :func:`tables_to_networkx` writes are read
    back, on whichever nodes and edges have them; other node attributes become literals.

    Args:
        graph: Directed or not, with one or several edges between two nodes.
        drop: Leave out other edge attributes, with a warning that names them; else they are
            refused.

    Raises:
        GraphError: If two nodes have the same text, an edge attribute has no place, or a weight is
            no number.
    """
    entities, relations = _Names(), _Names()
    known = graph.graph.get("relations", [])
    for row in known:
        relations(row["name"])
    frames: dict[str, list[dict[str, Any]]] = {name: [] for name in _ENTITY_LISTS}
    literals: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for node, attributes in graph.nodes(data=True):
        entity = entities(str(node))
        if entity != len(rows):
            raise GraphError(f"node {node!r}: another node is written {str(node)!r} too; rename")
        rows.append({"name": str(node), **_texts(attributes, ("type", "scene"))})
        ours = {name for name in (*_ENTITY_LISTS, "literals") if _is_ours(attributes.get(name))}
        for attribute in ours - {"literals"}:
            frames[attribute] += [{"entity": entity, **row} for row in attributes[attribute]]
        for row in attributes["literals"] if "literals" in ours else ():
            literals.append({**row, "entity": entity, "relation": relations(row["relation"])})
        for key in sorted(attributes.keys() - {"type", "scene", *ours}, key=str):
            value = attributes[key]
            literals.append(
                {"entity": entity, "relation": relations(str(key)), "value": str(value)}
            )
    dropped: set[str] | None = set() if drop else None
    triples = [
        {
            "head": entities(str(head)),
            "relation": relations(_relation(key, attributes)),
            "tail": entities(str(tail)),
            **_triple_facts(head, tail, attributes, dropped),
        }
        for head, tail, key, attributes in _edges(graph)
    ]
    if dropped:
        names = ", ".join(sorted(dropped))
        warnings.warn(f"edge attributes without a place are left out: {names}", stacklevel=3)
    described = {row["name"]: row for row in known}
    return build_tables(
        {
            "entities": _frame(rows, "entities"),
            "relations": _frame(
                [described.get(name, {"name": name}) for name in relations.ids], "relations"
            ),
            "triples": _frame(triples, "triples"),
            "literals": _frame(literals, "literals"),
            **{name: _frame(found, name) for name, found in frames.items()},
        },
        tuple(Origin(**row) for row in graph.graph.get("origins", ())),
    )


def _is_ours(value: Any) -> bool:
    """Whether a node's attribute is a list of rows, as :func:`tables_to_networkx` writes them."""
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _texts(attributes: dict[str, Any], names: Iterable[str]) -> dict[str, str | None]:
    found = {name: attributes.get(name) for name in names}
    return {name: None if value is None else str(value) for name, value in found.items()}


def _edges(graph: networkx.Graph) -> Iterable[tuple[Any, Any, Any, dict[str, Any]]]:
    if graph.is_multigraph():
        yield from graph.edges(keys=True, data=True)
        return
    yield from ((head, tail, None, attributes) for head, tail, attributes in graph.edges(data=True))


def _relation(key: Any, attributes: dict[str, Any]) -> str:
    fallback = key if isinstance(key, str) else DEFAULT_RELATION
    return str(attributes.get("relation", attributes.get("label", fallback)))


def _triple_facts(
    head: Any, tail: Any, attributes: dict[str, Any], dropped: set[str] | None
) -> dict[str, Any]:
    unknown = attributes.keys() - {"relation", "label", *_TRIPLE_FACTS}
    if unknown and dropped is not None:
        dropped.update(map(str, unknown))
    elif unknown:
        raise GraphError(
            f"edge {head!r} -> {tail!r}: attributes {sorted(unknown, key=str)} have no place; "
            f"expected relation, {', '.join(_TRIPLE_FACTS)}; drop=True leaves them out"
        )
    weight = attributes.get("weight")
    try:
        weight = None if weight is None else float(weight)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"edge {head!r} -> {tail!r}: weight {weight!r} is no number; convert or rename it"
        ) from error
    return {"weight": weight, **_texts(attributes, _TRIPLE_FACTS[1:])}


def _frame(rows: list[dict[str, Any]], table: str) -> pl.DataFrame:
    schema = dict(SCHEMAS[table])
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
