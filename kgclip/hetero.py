"""KnowledgeGraph to PyG's HeteroData and back, names kept.

Node stores hold ``entity_id`` and edge stores ``triple_id``, long tensors that every transform of
PyG slices; names live once, in ``data.entity_names`` and ``data.relation_names``, and the graph's
tables in ``data.graph``. So :func:`from_hetero` finds its way back after ``subgraph``,
``to_homogeneous`` and sampling. Edges between entities that are alike come in as edge types of
their own; their ``triple_id`` is the number of triples + the number of their kind.
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
    triples = triples[triples < graph.num_triples]  # the rest is similarity
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
    """All facts of converted data, in the ids of the graph's entities.

    Args:
        data: As :func:`to_hetero` makes it, whole, cut or merged to one type. Edges that
            :func:`add_similarity` made are left out.

    Returns:
        ``edge_index`` long [2, M] and ``edge_type`` long [M].
    """
    edge_index, edge_type, _ = weighted_edges(data)
    facts = edge_type < 2 * data.graph.num_relations
    return edge_index[:, facts], edge_type[facts]


def weighted_edges(data: HeteroData | Data) -> tuple[Tensor, Tensor, Tensor]:
    """All edges of converted data, similarity included, in the ids of the graph's entities.

    Args:
        data: As for :func:`global_edges`.

    Returns:
        ``edge_index`` long [2, M], ``edge_type`` long [M]: R relations, their inverses, then a
        number for each of ``data.similarity_names``; and ``edge_weight`` float [M], 1 for facts.
    """
    count, num_triples = data.graph.num_relations, data.graph.num_triples
    relations = torch.from_numpy(data.graph.triples["relation"].to_numpy().copy())
    indices, types = [torch.zeros(2, 0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    weights = [torch.zeros(0)]
    for store in data.edge_stores:
        ends = store._key[::2] if isinstance(data, HeteroData) else (None, None)
        source, target = (data.entity_id if end is None else data[end].entity_id for end in ends)
        row, column = store.edge_index
        indices.append(torch.stack([source[row], target[column]]))
        # Not edge_type: to_homogeneous() overwrites it with the number of the edge type.
        triple = store.triple_id
        fact = torch.where(triple < 0, -1 - triple, triple)
        alike = fact - num_triples  # of similarity edges the kind, below 0 for facts
        relation = torch.full_like(fact, 2 * count) + alike
        relation[alike < 0] = relations[fact[alike < 0]]
        types.append(torch.where(triple < 0, relation + count, relation))
        weight = getattr(store, "edge_weight", None)
        weights.append(torch.ones(len(fact)) if weight is None else weight)
    return torch.cat(indices, dim=1), torch.cat(types), torch.cat(weights)


def add_similarity(
    data: HeteroData, label: str, edge_index: np.ndarray, similarity: np.ndarray
) -> None:
    """Add edges between entities that are alike, as edge types of their own.

    Such edges carry no fact: :func:`from_hetero` and :func:`global_edges` pass them over, and
    new entities get them as soon as they have a name or a picture.

    Args:
        data: As :func:`to_hetero` makes it, whole or cut. Changed in place: each pair of node
            types that has such edges gets a store, with ``edge_weight``; facts weigh 1.
        label: What the edges say, as "looks like"; once in ``data.similarity_names``.
        edge_index: In the ids of the graph's entities, as
            :func:`~kgclip.similarity.nearest_edges` gives them; edges of entities that the data
            lack are left out. Int64 [2, M].
        similarity: Weight of each edge, at least 0. Float [M].

    Raises:
        GraphError: If the data were not made by :func:`to_hetero`, or the label is there already.
        ValueError: If shapes differ or an entity is not in the graph.
    """
    graph = getattr(data, "graph", None)
    if not isinstance(graph, KnowledgeGraph):
        raise GraphError("data.graph is missing: only what to_hetero made can take similarity")
    names = list(getattr(data, "similarity_names", ()))
    if label in names:
        raise GraphError(f"similarity {label!r} is there already; choose another label")
    edges = torch.as_tensor(edge_index, dtype=torch.long)
    weight = torch.as_tensor(similarity, dtype=torch.float)
    if edges.ndim != 2 or len(edges) != 2 or weight.shape != edges.shape[1:]:
        raise ValueError(
            f"edge_index {list(edges.shape)} and similarity {list(weight.shape)} given, "
            "[2, M] and [M] expected"
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < graph.num_entities:
        raise ValueError(f"edge_index: entities in [0, {graph.num_entities}) expected")
    labels = [text or name for name, text in graph.relations.select("name", "label").iter_rows()]
    key = unique_keys([*labels, *names, label])[-1]
    kind = torch.full((graph.num_entities,), -1)
    place = torch.full((graph.num_entities,), -1)
    for number, node_type in enumerate(data.node_types):
        ids = data[node_type].entity_id
        kind[ids], place[ids] = number, torch.arange(len(ids))
    for store in data.edge_stores:
        if "edge_weight" not in store:
            store.edge_weight = torch.ones(store.num_edges)
    ends = kind[edges]
    for source, target in torch.unique(ends[:, (ends >= 0).all(dim=0)].T, dim=0).tolist():
        mine = (ends[0] == source) & (ends[1] == target)
        store = data[data.node_types[source], key, data.node_types[target]]
        store.edge_index, store.edge_weight = place[edges[:, mine]], weight[mine]
        count = int(mine.sum())
        store.edge_type = torch.full((count,), 2 * graph.num_relations + len(names))
        store.triple_id = torch.full((count,), graph.num_triples + len(names))
    data.similarity_names = [*names, label]


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
