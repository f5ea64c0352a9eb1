"""Questions to a trained model: what is like this, what follows, and why?

A model and a graph come in, names with scores go out. An entity is what the model's entity
encoder makes of its label and its neighbours; a fact is the text "relation tail".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from kgclip.graph import KnowledgeGraph
from kgclip.hetero import to_hetero
from kgclip.model_evaluation import encode_pictures, encode_texts
from kgclip.models import OpenedModel
from kgclip.tables import GraphError, build_tables

_EXPLAINED = 20  # neighbours whose absence is tried


@torch.no_grad()
def encode_graph(opened: OpenedModel, graph: KnowledgeGraph) -> Tensor:
    """Encode every entity by its label and its neighbours. Unit vectors, float [N, D].

    Triples of validation and test are no neighbours: they are what is asked.
    """
    if not graph.num_entities:
        return torch.zeros(0, 1)
    return opened.model.encode_entities(
        to_hetero(given_triples(graph)), torch.arange(graph.num_entities)
    )


def search_entities(
    opened: OpenedModel,
    graph: KnowledgeGraph,
    text: str | None = None,
    image: str | Path | None = None,
    k: int = 10,
) -> pl.DataFrame:
    """Entities that are most like a text or a picture, with their facts.

    Args:
        opened: The model.
        graph: Its entities are searched.
        text: What is looked for; or
        image: A picture of it.
        k: Entities to return.

    Returns:
        ``entity`` (name), ``label``, ``score`` (cosine), ``facts`` (list of readable triples),
        best first.

    Raises:
        ValueError: If not exactly one of ``text`` and ``image`` is given, or ``k`` is below 1.
        GraphError: If the picture cannot be read.
    """
    if (text is None) == (image is None):
        raise ValueError("give either a text or a picture to search for")
    _check_k(k)
    query = (
        encode_texts(opened, [text])
        if text is not None
        else encode_pictures(opened, [(Path(str(image)), None)])
    )[0]
    scores = encode_graph(opened, graph) @ query if graph.num_entities else torch.zeros(0)
    top = scores.argsort(descending=True, stable=True)[:k].tolist()
    names, labels = graph.entities["name"], graph.labels()
    return pl.DataFrame(
        {
            "entity": [names[e] for e in top],
            "label": [labels[e] for e in top],
            "score": [float(scores[e]) for e in top],
            "facts": [_facts_of(graph, e, labels) for e in top],
        },
        schema={
            "entity": pl.String, "label": pl.String, "score": pl.Float64,
            "facts": pl.List(pl.String),
        },
    )  # fmt: skip


def add_entity(
    graph: KnowledgeGraph, label: str, facts: Sequence[tuple[str, str]]
) -> KnowledgeGraph:
    """A graph with one more entity, which no training has seen; its id is the last one.

    Args:
        graph: Any graph.
        label: Its label, and its name.
        facts: Relation and tail of each of its triples, by name or label.

    Raises:
        GraphError: If there is an entity of that name or label, or no such relation or tail; names
            the nearest.
    """
    if label in graph.labels() or label in graph.entities["name"]:
        raise GraphError(f"entity {label!r}: is in the graph already; leave its facts out")
    known = [(_relation(graph, relation), _entity(graph, tail)) for relation, tail in facts]
    relations = list(dict.fromkeys(relation for relation, _ in known))
    tails = list(dict.fromkeys(tail for _, tail in known))
    frames: dict[str, dict[str, object]] = {
        "entities": {"name": [*(graph.entities["name"][tail] for tail in tails), label]},
        "texts": {"entity": [len(tails)], "text": [label], "kind": ["label"]},
        "relations": {"name": [graph.relations["name"][relation] for relation in relations]},
        "triples": {
            "head": [len(tails)] * len(known),
            "relation": [relations.index(relation) for relation, _ in known],
            "tail": [tails.index(tail) for _, tail in known],
            "split": ["inference"] * len(known),
        },
    }
    return graph.merge(KnowledgeGraph(build_tables(frames)))


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One answer to (head, relation, ?).

    Attributes:
        tail: Name of the entity.
        label: Its label.
        score: Cosine of head and fact, in [-1, 1].
        known: Whether the graph says so already.
        because: Neighbours of the head by how much the score falls without their facts, largest
            first: (label, fall).
    """

    tail: str
    label: str
    score: float
    known: bool
    because: tuple[tuple[str, float], ...] = ()


@torch.no_grad()
def predict_tails(
    opened: OpenedModel,
    graph: KnowledgeGraph,
    head: str,
    relation: str,
    k: int = 10,
    explain: bool = True,
) -> list[Prediction]:
    """Rank the tails of a relation for a head.

    Args:
        opened: The model.
        graph: Candidates are the relation's tails in it, all entities if it has none.
        head: Name or label of an entity.
        relation: Name or label of a relation.
        k: Tails to return.
        explain: Leave out one neighbour of the head after the other, and say what that changes.

    Returns:
        The best tails, best first.

    Raises:
        GraphError: If head or relation does not exist; names the nearest.
        ValueError: If ``k`` is below 1.
    """
    _check_k(k)
    head_id, relation_id = _entity(graph, head), _relation(graph, relation)
    labels = graph.labels()
    names = graph.relations["label"].fill_null(graph.relations["name"])
    seen = graph.triples.filter(relation=relation_id)["tail"].unique().sort().to_list()
    tails = seen or list(range(graph.num_entities))
    facts = encode_texts(opened, [f"{names[relation_id]} {labels[tail]}" for tail in tails])
    ego, place = _ego(opened, given_triples(graph), head_id)
    scores = facts @ encode_graph(opened, ego)[place]
    top = scores.argsort(descending=True, stable=True)[:k].tolist()
    falls = _falls(opened, ego, place, facts[top], scores[top]) if explain else {}
    true = set(graph.triples.filter(head=head_id, relation=relation_id)["tail"].to_list())
    return [
        Prediction(
            tail=graph.entities["name"][tails[row]],
            label=labels[tails[row]],
            score=float(scores[row]),
            known=tails[row] in true,
            because=_because(falls, number),
        )
        for number, row in enumerate(top)
    ]


def _falls(
    opened: OpenedModel, ego: KnowledgeGraph, place: int, facts: Tensor, scores: Tensor
) -> dict[str, Tensor]:
    """Fall of each top score without the facts between the head and one neighbour."""
    ends = ego.triples.select("head", "tail")
    around = [t if h == place else h for h, t in ends.iter_rows() if place in (h, t)]
    labels, falls = ego.labels(), {}
    for neighbor in list(dict.fromkeys(around))[:_EXPLAINED]:
        between = (pl.col("head") == place) & (pl.col("tail") == neighbor)
        between |= (pl.col("head") == neighbor) & (pl.col("tail") == place)
        seen = encode_graph(opened, _keep_triples(ego, ~between))[place]
        falls[labels[neighbor]] = scores - facts @ seen
    return falls


def _because(falls: dict[str, Tensor], number: int) -> tuple[tuple[str, float], ...]:
    ranked = sorted((-float(fall[number]), label) for label, fall in falls.items())
    return tuple((label, -minus) for minus, label in ranked[:3])


def _ego(opened: OpenedModel, graph: KnowledgeGraph, head: int) -> tuple[KnowledgeGraph, int]:
    """What the model can see from the head, and the head's id in it."""
    name = graph.entities["name"][head]
    encoder = opened.model.graph_encoder
    hops = len(getattr(encoder, "convs", ())) if encoder is not None else 0
    ego = graph.select(seeds=[name], hops=hops)
    return ego, ego.entity_id(name)


def given_triples(graph: KnowledgeGraph) -> KnowledgeGraph:
    """The graph without the triples that validation and test ask for."""
    return _keep_triples(graph, pl.col("split").fill_null("train").is_in(["train", "inference"]))


def _keep_triples(graph: KnowledgeGraph, kept: pl.Expr) -> KnowledgeGraph:
    tables = dataclasses.replace(graph.tables, triples=graph.triples.filter(kept))
    return KnowledgeGraph(tables, graph.root)


def _facts_of(graph: KnowledgeGraph, entity: int, labels: Sequence[str]) -> list[str]:
    names = graph.relations["label"].fill_null(graph.relations["name"])
    rows = graph.triples.filter((pl.col("head") == entity) | (pl.col("tail") == entity)).head(5)
    return [
        f"{labels[h]} {names[r]} {labels[t]}"
        for h, r, t in rows.select("head", "relation", "tail").iter_rows()
    ]


def _entity(graph: KnowledgeGraph, name: str) -> int:
    labels = graph.labels()
    return labels.index(name) if name in labels else graph.entity_id(name)


def _relation(graph: KnowledgeGraph, name: str) -> int:
    labels = graph.relations["label"].to_list()
    return labels.index(name) if name in labels else graph.relation_id(name)


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k: {k} given, 1 or more expected")
