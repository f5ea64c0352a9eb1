"""What each run of the OpenMoji world answers, and how right it is.

Features of a trained model and a graph come in, ``{key: value}`` goes out, key =
``<split>/<task>/<scoring>/<metric>``. Scorings: *encoder* uses no graph at inference, *linked*
lets the model find the picture's entity among the countries' names, *given* is told it.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.evaluation.link_prediction import rank_answers
from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.evaluation.zero_shot import evaluate_zero_shot
from kgclip.nn.model import KnowledgeCLIP

PARTS = ("valid", "test")
ASKED_KNOWN = ("borders", "capital", "currency", "language", "region", "subregion", "demonym")
ASKED_NEW = ("region", "subregion", "currency", "language")
LINK_SCALE = 100.0  # inverse temperature of "which country is this flag?", CLIP's largest
FACT_TEMPLATES = ("{relation} {tail}", "{tail}")
CLASS_TEMPLATES = ("subgroup {label}", "{label}")


@dataclasses.dataclass
class World:
    """The questions of one split, as rows and columns.

    Attributes:
        countries: Entities with a flag and facts, the candidates. Long [C].
        flags: Picture of each. Long [C].
        is_new: True for *new entities*. Bool [C].
        part: ``"train"``, ``"valid"`` or ``"test"`` of each. C strings.
        true: Whether country c has fact f, in the whole graph. Bool [C, F].
        unheard: True where a fact shares no word stem with the country. Bool [C, F].
        pictures: Rows of the unseen pictures by part.
        classes: Entities that are subgroups. Long [K].
        class_of: Index of its subgroup for each entity, -1 = none. Long [N].
    """

    countries: Tensor
    flags: Tensor
    is_new: Tensor
    part: np.ndarray
    true: Tensor
    unheard: Tensor
    pictures: Mapping[str, Tensor]
    classes: Tensor
    class_of: Tensor


def build_world(corpus: Corpus, entity_types: Iterable[str | None]) -> World:
    """Lay out the questions of a split OpenMoji world.

    Args:
        corpus: Of a graph whose ``split`` columns :func:`split_world` filled.
        entity_types: Type of each entity.
    """
    types = np.array(list(entity_types), dtype=str)
    subgroup = corpus.relation_labels.index("subgroup")
    heads, relations, tails = corpus.triples.T
    telling = heads[relations != subgroup]
    is_country = torch.from_numpy(types == "country")
    countries = torch.unique(telling[is_country[telling]])
    position = torch.full((corpus.num_entities,), -1)
    position[countries] = torch.arange(len(countries))
    mine = position[heads] >= 0
    true = torch.zeros(len(countries), len(corpus.facts), dtype=torch.bool)
    true[position[heads[mine]], corpus.fact_ids[mine]] = True
    flags = corpus.first_image[countries]
    part = np.array([name.removeprefix("pairs_") for name in corpus.image_split[flags]])
    asked = torch.from_numpy(np.isin(corpus.triple_split, PARTS)) & mine
    is_new = torch.zeros(len(countries), dtype=torch.bool)
    is_new[position[heads[asked]]] = True
    in_subgroup = (relations == subgroup) & ~is_country[heads]
    classes = torch.unique(tails[in_subgroup])
    class_of = torch.full((corpus.num_entities,), -1)
    class_of[heads[in_subgroup]] = torch.searchsorted(classes, tails[in_subgroup])
    return World(
        countries,
        flags,
        is_new,
        part,
        true,
        ~_overlap(corpus, countries),
        {name: torch.from_numpy(np.flatnonzero(corpus.image_split == name)) for name in PARTS},
        classes,
        class_of,
    )


def _overlap(corpus: Corpus, countries: Tensor) -> Tensor:
    """Whether a fact's tail shares a word stem with the country's name or demonym. Bool [C, F]."""
    demonym = corpus.relation_labels.index("demonym")
    words: dict[int, set[str]] = {int(c): _stems(corpus.labels[c]) for c in countries}
    for head, relation, tail in corpus.triples.tolist():
        if relation == demonym and head in words:
            words[head] |= _stems(corpus.labels[tail])
    tails = [_stems(corpus.labels[tail]) for tail in corpus.facts[:, 1].tolist()]
    return torch.tensor([[bool(words[int(c)] & tail) for tail in tails] for c in countries])


def _stems(text: str) -> set[str]:
    """First four letters of each word of three letters or more, without accents or case."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return {word[:4] for word in re.findall(r"[a-z]{3,}", plain)} - {"the", "and", "isla"}


@dataclasses.dataclass
class Features:
    """What a trained model makes of everything that is asked. All unit vectors of width D.

    Attributes:
        entities: By the entity's text. Float [N, D].
        images: Float [I, D].
        facts: By template of ``FACT_TEMPLATES``. Float [F, D] each.
        classes: By template of ``CLASS_TEMPLATES``. Float [K, D] each.
        relations: Relations, then their inverses. Float [2R, D].
        edge_index: Message graph at inference. Long [2, M].
        edge_type: Long [M].
    """

    entities: Tensor
    images: Tensor
    facts: Mapping[str, Tensor]
    classes: Mapping[str, Tensor]
    relations: Tensor
    edge_index: Tensor
    edge_type: Tensor


@torch.no_grad()
def encode_world(model: KnowledgeCLIP, corpus: Corpus, world: World, tokenizer: object) -> Features:
    """Encode everything that is asked, in evaluation mode."""
    model.eval()
    assert callable(tokenizer)
    tails = [corpus.labels[tail] for tail in corpus.facts[:, 1].tolist()]
    relations = [corpus.relation_labels[relation] for relation in corpus.facts[:, 0].tolist()]
    pairs = list(zip(relations, tails, strict=True))
    labels = [corpus.labels[entity] for entity in world.classes.tolist()]
    texts = {
        name: tokenizer([name.format(relation=relation, tail=tail) for relation, tail in pairs])
        for name in FACT_TEMPLATES
    }
    classes = {
        name: tokenizer([name.format(label=label) for label in labels]) for name in CLASS_TEMPLATES
    }
    edge_index, edge_type = corpus.edges(["train", "inference"])
    encode = corpus.text_features
    return Features(
        entities=encode(model.clip, corpus.text),
        images=F.normalize(model.project_image(corpus.image_features[:]), dim=-1),
        facts={name: encode(model.clip, tokens) for name, tokens in texts.items()},
        classes={name: encode(model.clip, tokens) for name, tokens in classes.items()},
        relations=encode(model.clip, corpus.relation_text),
        edge_index=edge_index,
        edge_type=edge_type,
    )


def link_flags(features: Features, world: World) -> Tensor:
    """Which country is this flag? Probabilities, flags by countries. Float [C, C]."""
    names = features.entities[world.countries]
    return (LINK_SCALE * features.images[world.flags] @ names.T).softmax(dim=1)


def score_facts(features: Features, vectors: Tensor, template: str = FACT_TEMPLATES[0]) -> Tensor:
    """Cosine of each country's vector with each fact. Float [C, F]."""
    return F.normalize(vectors, dim=-1) @ features.facts[template].T


def neighbor_mean(features: Features) -> Tensor:
    """Mean of the neighbours' text features, untrained: unit vectors, zeros if none. [N, D]."""
    source, target = features.edge_index
    total = torch.zeros_like(features.entities)
    total.index_add_(0, target, features.entities[source])
    return F.normalize(total, dim=-1)


@torch.no_grad()
def encode_graph(
    model: KnowledgeCLIP, features: Features, rewire_seed: int | None = None
) -> Tensor:
    """The graph encoder's view of every entity. Float [N, D].

    Args:
        model: With a graph encoder.
        features: Of the same model.
        rewire_seed: If given, every edge starts at a random other edge's start: the same
            degrees and relations, but no true fact.
    """
    assert model.graph_encoder is not None
    edge_index = features.edge_index
    if rewire_seed is not None:
        generator = torch.Generator().manual_seed(rewire_seed)
        order = torch.randperm(edge_index.shape[1], generator=generator)
        edge_index = torch.stack([edge_index[0][order], edge_index[1]])
    encoded: Tensor = model.graph_encoder(
        features.entities, edge_index, features.edge_type, features.relations
    )
    return encoded


def evaluate_facts(
    world: World, corpus: Corpus, scores: Tensor, scoring: str, part: str
) -> dict[str, float]:
    """Flag to fact and fact to flag, filtered, macro over relations.

    Args:
        world: The questions.
        corpus: Names the relations.
        scores: Higher is better; the flag's row, the fact's column. Float [C, F].
        scoring: ``"encoder"``, ``"linked"`` or ``"given"``, for the key.
        part: ``"valid"`` or ``"test"``.
    """
    return average_ranks(rank_facts(world, corpus, scores, part), scoring)


def rank_facts(world: World, corpus: Corpus, scores: Tensor, part: str) -> pl.DataFrame:
    """Filtered rank of every fact that is asked, both ways.

    Returns:
        ``split``, ``task``, ``group`` (the relation), ``query`` (entities of country and tail)
        and ``rank``, a row for each answer.
    """
    here = torch.from_numpy(world.part == part)
    tables = []
    for split, rows, cells, relations in (
        ("known_facts", here & ~world.is_new, None, ASKED_KNOWN),
        ("new_entities", here & world.is_new, None, ASKED_NEW),
        ("new_entities_no_overlap", here & world.is_new, world.unheard, ASKED_NEW),
    ):
        asked = world.true & rows[:, None]
        if cells is not None:
            asked &= cells
        for relation in relations:
            for task, table in _rank_relation(world, corpus, asked, scores, relation).items():
                names = {"split": split, "task": task, "group": relation}
                tables.append(table.select(*(pl.lit(v).alias(k) for k, v in names.items()), "*"))
    return pl.concat(tables)


def _rank_relation(
    world: World, corpus: Corpus, asked: Tensor, scores: Tensor, relation: str
) -> dict[str, pl.DataFrame]:
    """A tail competes with the tails of its own relation only."""
    number = corpus.relation_labels.index(relation)
    columns = torch.nonzero(corpus.facts[:, 0] == number).squeeze(1)
    columns = columns[world.true[:, columns].any(dim=0)]
    block, right, wanted = scores[:, columns], world.true[:, columns], asked[:, columns]
    tails = corpus.facts[columns, 1]
    found = {}
    for task, turned in (("image_to_fact", False), ("fact_to_image", True)):
        parts = [part.T if turned else part for part in (block, right, wanted)]
        query, answer, ranks = rank_answers(*parts)
        row, column = (answer, query) if turned else (query, answer)
        pairs = zip(world.countries[row].tolist(), tails[column].tolist(), strict=True)
        found[task] = pl.DataFrame(
            {"query": [f"{country} {tail}" for country, tail in pairs], "rank": ranks.numpy()},
            schema={"query": pl.String, "rank": pl.Float64},
        )
    return found


def average_ranks(ranks: pl.DataFrame, scoring: str) -> dict[str, float]:
    """Figures by key, macro over the groups, from columns as :func:`rank_facts` gives them."""
    metrics = {
        "mrr": (1 / pl.col("rank")).mean(),
        "hits@1": (pl.col("rank") <= 1).mean(),
        "hits@10": (pl.col("rank") <= 10).mean(),
    }
    by_group = ranks.group_by("split", "task", "group", maintain_order=True)
    means = by_group.agg(figure.alias(name) for name, figure in metrics.items())
    macro = means.group_by("split", "task", maintain_order=True).agg(pl.col(*metrics).mean())
    return {
        f"{row['split']}/{row['task']}/{scoring}/{name}": row[name]
        for row in macro.iter_rows(named=True)
        for name in metrics
    }


def evaluate_pictures(
    world: World, corpus: Corpus, features: Features, part: str, template: str
) -> dict[str, float]:
    """Retrieval and zero-shot subgroup of unseen pictures; retrieval and linking of flags."""
    rows = world.pictures[part]
    entities = corpus.image_entity[rows]
    results = {}
    for split, pictures in (("unseen_pictures", rows), ("flags", world.flags)):
        metrics = _retrieve(corpus, features, pictures)
        for metric in ("recall@1", "recall@10"):
            both = [metrics[f"{way}/{metric}"] for way in ("image_to_text", "text_to_image")]
            results[f"{split}/retrieval/encoder/{metric}"] = float(np.mean(both))
    results["flags/link/encoder/top1"] = metrics["image_to_text/recall@1"]
    top = evaluate_zero_shot(
        features.images[rows], features.classes[template], world.class_of[entities]
    )
    results["unseen_pictures/subgroup/encoder/top1"] = top["top1"]
    return results


def _retrieve(corpus: Corpus, features: Features, rows: Tensor) -> dict[str, float]:
    """Names and pictures; one picture may have two names: Norway's flag is Svalbard's too."""
    pictures, place = torch.unique(corpus.same_image[rows], return_inverse=True)
    names = features.entities[corpus.image_entity[rows]]
    return evaluate_retrieval(features.images[pictures], names, text_to_image=place)


def known_scores(world: World, corpus: Corpus, edges: tuple[Tensor, Tensor]) -> Tensor:
    """Symbolic answers: look the fact up, else let the neighbours over land vote. Float [C, F].

    A known fact scores 1 + its vote, another the share of bordering countries that are known to
    have it; how common it is among the known countries decides ties.
    """
    known = _known_facts(world, corpus)
    (source, target), relation = edges
    number = corpus.relation_labels.index("borders")
    land = (relation == number) | (relation == number + corpus.num_relations)
    position = torch.full((corpus.num_entities,), -1)
    position[world.countries] = torch.arange(len(world.countries))
    source, target = position[source[land]], position[target[land]]
    inside = (source >= 0) & (target >= 0)
    adjacency = torch.zeros(len(known), len(known))
    adjacency[target[inside], source[inside]] = 1
    vote = adjacency @ known / adjacency.sum(dim=1, keepdim=True).clamp(min=1)
    return known + vote + 1e-3 * known.mean(dim=0)


def _known_facts(world: World, corpus: Corpus) -> Tensor:
    """Facts in the inference graph. Float [C, F] of 0 and 1."""
    given = torch.from_numpy(np.isin(corpus.triple_split, ["train", "inference"]))
    position = torch.full((corpus.num_entities,), -1)
    position[world.countries] = torch.arange(len(world.countries))
    rows = position[corpus.triples[given, 0]]
    known = torch.zeros(len(world.countries), len(corpus.facts))
    known[rows[rows >= 0], corpus.fact_ids[given][rows >= 0]] = 1
    return known


def lexical_scores(world: World, corpus: Corpus) -> Tensor:
    """Word overlap alone: cosine of letter-trigram TF-IDF of country and tail. Float [C, F]."""
    tails = corpus.facts[:, 1].tolist()
    texts = [corpus.labels[entity] for entity in [*world.countries.tolist(), *tails]]
    grams = [_trigrams(text) for text in texts]
    vocabulary = {gram: i for i, gram in enumerate(sorted({g for one in grams for g in one}))}
    counts = torch.zeros(len(texts), len(vocabulary))
    for row, one in enumerate(grams):
        for gram in one:
            counts[row, vocabulary[gram]] += 1
    weighted = F.normalize(counts * (len(texts) / (counts > 0).sum(dim=0)).log(), dim=-1)
    return weighted[: len(world.countries)] @ weighted[len(world.countries) :].T


def _trigrams(text: str) -> list[str]:
    marked = " ".join(f"<{word}>" for word in re.findall(r"\w+", text.casefold()))
    return [marked[start : start + 3] for start in range(len(marked) - 2)]
