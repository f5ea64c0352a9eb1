"""KnowledgeGraph to PyG's HeteroData and back, names kept.

Node stores hold ``entity_id`` and edge stores ``triple_id``, long tensors that every transform of
PyG slices; names live once, in ``data.entity_names`` and ``data.relation_names``, and the graph's
tables in ``data.graph``. So :func:`from_hetero` finds its way back after ``subgraph``,
``to_homogeneous`` and sampling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError, build_tables

ENTITY = "entity"
INVERSE = "inverse_of_"


def to_hetero(graph: KnowledgeGraph, inverse: bool = True, by_type: bool = True) -> HeteroData:
    """Convert a graph to ``HeteroData``.

    Args:
        graph: Any graph.
        inverse: Add each triple's inverse edge, in edge types named ``inverse_of_<relation>``.
        by_type: One node type for each first type of an entity; ``False`` = one for all.

    Returns:
        Node stores with ``num_nodes`` and ``entity_id`` long [n]; edge stores with ``edge_index``
        long [2, m], ``edge_type`` long [m] (inverse relations are r + R) and ``triple_id`` long
        [m], -1 - triple for an inverse edge. An entity without a type is an ``entity``. Where the
        graph has weights, edge stores have ``edge_weight`` float [m], 1 where a triple has none;
        the exact ones are in ``data.graph``, with all texts and names.
    """
    kinds = graph.entities["type"].fill_null(ENTITY) if by_type else None
    names = [ENTITY] * graph.num_entities if kinds is None else kinds.to_list()
    distinct = list(dict.fromkeys(names or [ENTITY]))  # PyG needs one type at least
    labels = dict(zip(distinct, unique_keys(distinct), strict=True))
    data = HeteroData()
    place = np.zeros(graph.num_entities, dtype=np.int64)
    kind = np.array([labels[name] for name in names], dtype=object)
    for label in labels.values():
        members = np.flatnonzero(kind == label)
        place[members] = np.arange(len(members))
        data[label].num_nodes = len(members)
        data[label].entity_id = torch.from_numpy(members)
    _add_edges(data, graph, kind, place, inverse)
    data.entity_names = graph.entities["name"].to_list()
    data.relation_names = graph.relations["name"].to_list()
    data.graph = graph
    return data


def _add_edges(
    data: HeteroData, graph: KnowledgeGraph, kind: np.ndarray, place: np.ndarray, inverse: bool
) -> None:
    keys = unique_keys(
        [label or name for name, label in graph.relations.select("name", "label").iter_rows()]
    )
    # A relation may be called as the inverse of another one would be.
    inverse_keys = unique_keys([*keys, *(INVERSE + key for key in keys)])[len(keys) :]
    heads, relations, tails = (
        graph.triples[column].to_numpy() for column in ("head", "relation", "tail")
    )
    weights = _weights(graph)
    count = graph.num_relations
    triples = pl.DataFrame(
        {"head": kind[heads], "relation": relations, "tail": kind[tails]},
        schema={"head": pl.String, "relation": pl.Int64, "tail": pl.String},
    ).with_row_index("triple")
    groups = triples.group_by("head", "relation", "tail", maintain_order=True).agg("triple")
    for head, relation, tail, rows in groups.iter_rows():
        ids = np.array(rows, dtype=np.int64)
        ends = torch.from_numpy(np.stack([place[heads[ids]], place[tails[ids]]]))
        number = torch.full((len(ids),), relation)
        triple_id = torch.from_numpy(ids)
        store = data[head, keys[relation], tail]
        store.edge_index, store.edge_type, store.triple_id = ends, number, triple_id
        stores = [store]
        if inverse:
            store = data[tail, inverse_keys[relation], head]
            store.edge_index = ends.flip(0)
            store.edge_type, store.triple_id = number + count, -1 - triple_id
            stores.append(store)
        if weights is not None:
            for store in stores:
                store.edge_weight = weights[triple_id]


def _weights(graph: KnowledgeGraph) -> Tensor | None:
    """Weight of each triple, 1 where it has none; ``None`` if no triple has one. Float [T]."""
    weight = graph.triples["weight"]
    if weight.null_count() == len(weight):
        return None
    return torch.from_numpy(weight.fill_null(1.0).to_numpy().astype(np.float32))


def unique_keys(names: Sequence[str]) -> list[str]:
    """Names as PyG's keys: letters, digits and ``_``, made unique by a number.

    Args:
        names: Any texts, none twice.
    """
    keys: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[\W_]+", "_", name).strip("_") or "x"  # PyG warns of "__"
        key, number = base, 2
        while key in keys:
            key, number = f"{base}_{number}", number + 1
        keys[key] = name
    return list(keys)


def from_hetero(data: HeteroData | Data) -> KnowledgeGraph:
    """Convert back what :func:`to_hetero` made, whole, cut or merged to one type.

    Args:
        data: With ``entity_id`` in its nodes, ``triple_id`` in its edges, and ``graph``.

    Returns:
        The graph of the entities and triples that are still there, in the order of the graph
        that it was made from; equal to that graph if nothing was cut.

    Raises:
        GraphError: If the data were not made by :func:`to_hetero`, or lost their ids.
    """
    graph = getattr(data, "graph", None)
    if not isinstance(graph, KnowledgeGraph):
        raise GraphError("data.graph is missing: only what to_hetero made can be converted back")
    entities = _ids(data.node_stores, "entity_id", "node")
    triples = _ids(data.edge_stores, "triple_id", "edge")
    triples = torch.unique(torch.where(triples < 0, -1 - triples, triples))
    keep = np.zeros(graph.num_entities, dtype=bool)
    keep[entities.numpy()] = True
    if keep.all() and len(triples) == graph.num_triples:
        return graph
    chosen = graph.triples[triples.numpy()] if len(triples) else graph.triples.clear()
    cut = KnowledgeGraph(
        build_tables({**graph.tables.frames(), "triples": chosen}, graph.origins), graph.root
    )
    return cut.restrict(keep)


def _ids(stores: Sequence[object], name: str, kind: str) -> Tensor:
    found = []
    for store in stores:
        if getattr(store, "num_nodes" if kind == "node" else "num_edges", 0):
            ids = getattr(store, name, None)
            if not isinstance(ids, Tensor):
                raise GraphError(f"a {kind} store has no {name}; keep it when you change the data")
            found.append(ids.cpu())
    return torch.unique(torch.cat(found)) if found else torch.zeros(0, dtype=torch.long)


def global_edges(data: HeteroData | Data) -> tuple[Tensor, Tensor]:
    """All edges of converted data, in the ids of the graph's entities.

    Args:
        data: As :func:`to_hetero` makes it, whole, cut or merged to one type.

    Returns:
        ``edge_index`` long [2, M] and ``edge_type`` long [M].
    """
    relations = torch.from_numpy(data.graph.triples["relation"].to_numpy().copy())
    indices, types = [torch.zeros(2, 0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    for store in data.edge_stores:
        ends = store._key[::2] if isinstance(data, HeteroData) else (None, None)
        source, target = (data.entity_id if end is None else data[end].entity_id for end in ends)
        row, column = store.edge_index
        indices.append(torch.stack([source[row], target[column]]))
        # Not edge_type: to_homogeneous() overwrites it with the number of the edge type.
        triple = store.triple_id
        relation = relations[torch.where(triple < 0, -1 - triple, triple)]
        types.append(torch.where(triple < 0, relation + data.graph.num_relations, relation))
    return torch.cat(indices, dim=1), torch.cat(types)


def edge_index_and_type(
    graph: KnowledgeGraph, inverse: bool = True, splits: Sequence[str] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """All triples as one homogeneous graph with typed edges.

    Args:
        graph: Any graph.
        inverse: Add each triple's inverse edge, behind all others.
        splits: Splits whose triples become edges; ``None`` = all triples.

    Returns:
        ``edge_index`` long [2, M], ``edge_type`` long [M] (inverse relations are r + R) and
        ``triple_id`` long [M], the row of each edge's triple.
    """
    triples = graph.triples.with_row_index("triple")
    if splits is not None:
        triples = triples.filter(pl.col("split").is_in(list(splits)))
    head, relation, tail, triple = (
        torch.from_numpy(triples[column].cast(pl.Int64).to_numpy().copy())
        for column in ("head", "relation", "tail", "triple")
    )
    edge_index = torch.stack([head, tail])
    if not inverse:
        return edge_index, relation, triple
    return (
        torch.cat([edge_index, edge_index.flip(0)], dim=1),
        torch.cat([relation, relation + graph.num_relations]),
        torch.cat([triple, triple]),
    )
