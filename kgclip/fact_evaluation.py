"""What does a model know of a graph's facts, by what its entities have: texts, pictures, neither?

A model that :func:`kgclip.models.open_model` opened and a graph come in, a flat dictionary of
figures goes out. A fact is the text "relation tail", an entity is read as its label, its
pictures or both; who has neither is the mean of its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.analysis.modalities import has_modality
from kgclip.evaluation.link_prediction import rank_answers
from kgclip.evaluation.ranking import rank_metrics
from kgclip.graph import KnowledgeGraph
from kgclip.model_evaluation import encode_pictures, encode_texts
from kgclip.models import OpenedModel
from kgclip.nn.missing import fill_from_neighbors
from kgclip.query import encode_graph, given_triples
from kgclip.tables import GraphError

PATTERNS = ("text", "image", "both", "neither")
_KEPT = ("mrr", "hits@1", "hits@10", "count")
_QUERIES_AT_ONCE = 1024
_Found = dict[str, list[tuple[Tensor, Tensor]]]  # ranks and candidates by key


def evaluate_facts(
    opened: OpenedModel, graph: KnowledgeGraph, names: bool = False
) -> dict[str, float]:
    """Rank the facts of an entity and the entities of a fact, as text, as picture and mixed.

    Asked are the triples of the split "test", or all where there is none; other true answers are
    left out of a ranking. Of a relation the candidates are all its tails, or all entities that
    can be read that way.

    Args:
        opened: The model; its text and image tower are asked, not its graph part.
        graph: Texts, pictures and triples.
        names: An entity without a text is read by its name, made readable; else it has none.

    Returns:
        ``mrr``, ``hits@1``, ``hits@10`` and ``count`` under ``<reading>/to_fact/`` and
        ``<reading>/from_fact/``. Readings: ``text``, ``image`` (cross-modal facts), and
        ``mixed``, the mean of what an entity has, of its neighbours if it has nothing. Of
        ``mixed`` also ``pattern/<pattern>/to_fact/`` by what the head has: ``text``, ``image``,
        ``both`` or ``neither``; and ``unreachable``, entities that no path leads to, which score 0.

    Raises:
        GraphError: If the graph has no triple, or no entity with a text or a picture.
    """
    if not graph.num_triples:
        raise GraphError("the graph has no triple; facts are asked")
    readings, patterns, hops = _readings(opened, graph, names)
    known, asked = _known_and_asked(graph)
    found: _Found = defaultdict(list)
    labels, relations = graph.labels(), graph.relations["label"].fill_null(graph.relations["name"])
    for relation in torch.unique(asked[:, 1]).tolist():
        here = known[known[:, 1] == relation]
        questions = asked[asked[:, 1] == relation]
        tails = torch.unique(here[:, 2])
        texts = [f"{relations[relation]} {labels[tail]}" for tail in tails.tolist()]
        facts = encode_texts(opened, texts).cpu()
        for reading, (features, present) in readings.items():
            true, wanted = (rows[present[rows[:, 0]]][:, [0, 2]] for rows in (here, questions))
            heads = present.nonzero().squeeze(1)
            for rows, ranks, left in _ranked(true, wanted, tails, features, facts):
                found[f"{reading}/to_fact"].append((ranks, left))
                if reading == "mixed":
                    for number, pattern in enumerate(PATTERNS):
                        mine = patterns[rows] == number
                        found[f"pattern/{pattern}/to_fact"].append((ranks[mine], left[mine]))
            true, wanted = true.flip(1), wanted.flip(1)
            for _, ranks, left in _ranked(true, wanted, heads, facts, features[heads], tails):
                found[f"{reading}/from_fact"].append((ranks, left))
    return {**_metrics(found), "unreachable": float((hops < 0).sum())}


def _readings(
    opened: OpenedModel, graph: KnowledgeGraph, names: bool
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Features and who has them by reading; number of each entity's pattern; hops to a feature."""
    has_text = torch.from_numpy(has_modality(graph, "text") | names)
    has_image = torch.from_numpy(has_modality(graph, "image"))
    if not bool((has_text | has_image).any()):
        raise GraphError(
            "no entity has a text or a picture; give names=True (--names) if their names are texts"
        )
    text = _from_texts(opened, graph, has_text)
    image = _from_pictures(opened, graph)
    if image is None:
        image = torch.zeros_like(text)
    own = F.normalize(text + image, dim=-1)
    ends = torch.from_numpy(given_triples(graph).triples.select("head", "tail").to_numpy().T.copy())
    mixed, hops = fill_from_neighbors(
        own, has_text | has_image, torch.cat([ends, ends.flip(0)], dim=1)
    )
    readings = {
        "text": (text, has_text),
        "image": (image, has_image),
        "mixed": (mixed, torch.ones_like(has_text)),
    }
    patterns = torch.full_like(hops, PATTERNS.index("neither"))
    patterns[has_text & ~has_image] = PATTERNS.index("text")
    patterns[has_image & ~has_text] = PATTERNS.index("image")
    patterns[has_image & has_text] = PATTERNS.index("both")
    return readings, patterns, hops


def _from_texts(opened: OpenedModel, graph: KnowledgeGraph, has_text: Tensor) -> Tensor:
    """Label of each entity; the first other text where it has no label. Unit vectors or zeros."""
    texts = graph.labels()
    labelled = set(graph.texts.filter(kind="label")["entity"])
    for entity, text in graph.texts.select("entity", "text").reverse().iter_rows():
        if entity not in labelled:
            texts[entity] = text
    rows = has_text.nonzero().squeeze(1)
    features = encode_texts(opened, [texts[row] for row in rows.tolist()] or [""]).cpu()
    out = features.new_zeros(graph.num_entities, features.shape[1])
    out[rows] = features[: len(rows)]
    return out


def _from_pictures(opened: OpenedModel, graph: KnowledgeGraph) -> Tensor | None:
    """Mean of each entity's pictures. Unit vectors or zeros; ``None`` = there is no picture."""
    if not len(graph.images):
        return None
    pictures = [(graph.image_path(row), box) for row, box in enumerate(graph.images["box"])]
    features = encode_pictures(opened, pictures).cpu()
    owner = torch.from_numpy(graph.images["entity"].to_numpy().copy())
    total = features.new_zeros(graph.num_entities, features.shape[1])
    return F.normalize(total.index_add(0, owner, features), dim=-1)


def _known_and_asked(graph: KnowledgeGraph) -> tuple[Tensor, Tensor]:
    triples = graph.triples.unique(["head", "relation", "tail"], maintain_order=True)
    test = graph.triples.filter(pl.col("split") == "test")
    asked = test.unique(["head", "relation", "tail"], maintain_order=True) if len(test) else triples
    known, questions = (
        torch.from_numpy(
            np.array(rows.select("head", "relation", "tail").to_numpy(), dtype=np.int64)
        )
        for rows in (triples, asked)
    )
    return known, questions


def _ranked(
    known: Tensor,
    asked: Tensor,
    candidates: Tensor,
    anchors: Tensor,
    answers: Tensor,
    anchor_ids: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Anchor ids, filtered ranks and numbers of candidates of the asked (anchor, answer) pairs.

    ``candidates`` are sorted ids, ``answers`` their features; ``anchors`` are features by id, or
    by place in the sorted ``anchor_ids``.
    """
    ids = torch.unique(asked[:, 0])
    for part in torch.split(ids, _QUERIES_AT_ONCE):
        places = part if anchor_ids is None else torch.searchsorted(anchor_ids, part)
        scores = anchors[places] @ answers.T
        relevant, wanted = (
            _mask(pairs, part, candidates, scores.shape) for pairs in (known, asked)
        )
        rows, _, ranks = rank_answers(scores, relevant, wanted)
        left = len(candidates) - relevant.sum(dim=1) + 1
        yield part[rows], ranks, left[rows]


def _mask(pairs: Tensor, ids: Tensor, candidates: Tensor, shape: torch.Size) -> Tensor:
    """True at the pairs of these anchors. Bool [Q, C]."""
    pairs = pairs[torch.isin(pairs[:, 0], ids)]
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[torch.searchsorted(ids, pairs[:, 0]), torch.searchsorted(candidates, pairs[:, 1])] = True
    return mask


def _metrics(found: _Found) -> dict[str, float]:
    results: dict[str, float] = {}
    for key, parts in found.items():
        ranks, left = (torch.cat(columns) for columns in zip(*parts, strict=True))
        if len(ranks):
            figures = rank_metrics(ranks, left)
            results |= {f"{key}/{name}": figures[name] for name in _KEPT}
    return results


def evaluate_linking(opened: OpenedModel, graph: KnowledgeGraph) -> dict[str, float]:
    """Which entity is meant, by a text that is not its label and by its picture?

    Candidates are all entities, each as what the model makes of its label and its neighbours.
    Texts are aliases, descriptions and captions; pictures those of the split "test", all where
    there is none. What several entities are called, or show, is right for each of them.

    Args:
        opened: The model.
        graph: Texts, pictures and triples.

    Returns:
        ``mrr``, ``hits@1``, ``hits@10`` and ``count`` under ``alias/``, ``description/``,
        ``caption/`` and ``image/``, where the graph has them.

    Raises:
        GraphError: If it has none, or a picture cannot be read.
    """
    found: _Found = defaultdict(list)
    entities = encode_graph(opened, graph).cpu()
    every = torch.arange(graph.num_entities)
    for (kind,), texts in graph.texts.filter(pl.col("kind") != "label").group_by(
        "kind", maintain_order=True
    ):
        words = texts["text"].unique(maintain_order=True).to_list()
        number = {word: place for place, word in enumerate(words)}
        pairs = [(number[text], entity) for entity, text in texts["entity", "text"].iter_rows()]
        features = encode_texts(opened, words).cpu()
        _link(found, str(kind), torch.tensor(pairs), features, entities, every)
    images = graph.images.with_row_index("row")
    held_out = images.filter(pl.col("split") == "test")
    images = held_out if len(held_out) else images
    if len(images):
        shown = [(graph.image_path(row), box) for row, box in images["row", "box"].iter_rows()]
        pairs = list(enumerate(images["entity"].to_list()))
        _link(found, "image", torch.tensor(pairs), encode_pictures(opened, shown).cpu(), entities,
              every)  # fmt: skip
    if not found:
        raise GraphError("the graph has neither pictures nor texts beside labels: nothing to link")
    return _metrics(found)


def _link(
    found: _Found, key: str, pairs: Tensor, queries: Tensor, entities: Tensor, every: Tensor
) -> None:
    for _, ranks, left in _ranked(pairs, pairs, every, queries, entities):
        found[key].append((ranks, left))
