"""From a graph to training batches: image-text pairs, triples and the graph around them.

A :class:`Corpus` holds a graph as tensors; :class:`KnowledgeBatches` makes the batch of any step
from it as a pure function of (seed, step), so that a resumed run sees the same batches.

Leakage rules: a batch's triples leave the message graph together with every other edge between
the same two entities, and only training triples decide what is a false negative.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.graph import KnowledgeGraph
from kgclip.mined_captions import MinedCaptions
from kgclip.negatives import NegativeSampler, group_members
from kgclip.nn.feature_cache import CachedFeatures
from kgclip.nn.features import cache_text_features
from kgclip.nn.model import GraphInputs, TripleInputs
from kgclip.nn.output import Batch, Targets
from kgclip.nn.pictures import DecodedPictures, Rows
from kgclip.nn.teacher import TeacherFeatures
from kgclip.nn.tokens import encode_text_trimmed
from kgclip.sampling import group_by_target, sample_subgraph
from kgclip.tables import GraphError
from kgclip.token_triples import TokenTriples, known_among

PAIR_SPLITS = ("train", "pairs_valid", "pairs_test")


@dataclasses.dataclass(frozen=True)
class CachedTexts:
    """Features of a corpus's texts, by the same rows as its token ids.

    Attributes:
        text: Of the labels. Float [N, D].
        relation_text: Of the relations, then of the inverse ones. Float [2R, D].
        fact_text: Of the facts. Float [F, D].
        caption_text: Of the captions. Float [C, D].
    """

    text: CachedFeatures
    relation_text: CachedFeatures
    fact_text: CachedFeatures
    caption_text: CachedFeatures


class Corpus:
    """A graph as tensors, with its texts tokenised once.

    Triples and pictures without a split count as training material.

    Args:
        graph: With a text for every entity (its label where it has none).
        tokenizer: From texts to token ids [B, L], as open_clip makes it.
        image_features: Trunk features or pictures by row of ``graph.images``, cached or decoded
            when asked for. Float [I, W] or [I, 3, H, W].
        image_tokens: Cached tokens by row of ``graph.images``, for the triple encoder; ``None``
            = there is none. Float [I, L, W'].

    Attributes:
        labels: One text an entity, N in all: its label, else its first caption, else its name.
        relation_labels: One text a relation, R in all.
        text: Tokens of the labels. Long [N, L].
        relation_text: Tokens of the relations, then of the inverse relations. Long [2R, L].
        triples: Head, relation, tail. Long [T, 3].
        triple_split: Split of each triple, ``""`` = in no part. T strings.
        triple_source: Source of each triple, ``""`` = not known. T strings.
        facts: The distinct (relation, tail) pairs. Long [F, 2].
        fact_ids: Fact of each triple. Long [T], each in [0, F).
        fact_text: Tokens of "relation tail". Long [F, L].
        caption_text: Tokens of the captions. Long [C, L].
        caption_entity: Entity that each caption describes. Long [C].
        described: Whether an entity has captions but no label. Bool [N].
        pair_ids: What tells an image-text pair from others: the entity, but for a part of a scene
            the first part that is called the same: no dog is a negative of another. Long [N].
        num_cut: Texts longer than the tower reads, whose end is cut off.
        image_entity: Entity of each picture. Long [I].
        image_split: Split of each picture. I strings.
        same_image: First row with the same box of the same bytes, itself if it is the first. Long
            [I].
        first_image: First picture of each entity, -1 = none. Long [N].
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        tokenizer: Callable[[list[str]], Tensor],
        image_features: Rows,
        image_tokens: Rows | None = None,
    ) -> None:
        if len(image_features) != len(graph.images):
            raise ValueError(
                f"image_features has {len(image_features)} rows; expected one for each of the "
                f"graph's {len(graph.images)} pictures"
            )
        captions = graph.texts.filter(pl.col("kind") == "caption")
        self.caption_entity = torch.from_numpy(captions["entity"].to_numpy().copy())
        self.labels, self.described = _labels(graph, captions)
        self.pair_ids = _pair_ids(graph, self.labels)
        names = zip(graph.relations["label"], graph.relations["name"], strict=True)
        self.relation_labels = [label or name for label, name in names]
        inverse = [f"inverse of {label}" for label in self.relation_labels]
        self.num_cut = 0
        tokenize = functools.partial(self._tokenize, tokenizer)
        self.text = tokenize(self.labels)
        self.relation_text = tokenize(self.relation_labels + inverse)
        self.caption_text = tokenize(captions["text"].to_list())
        columns = graph.triples.select("head", "relation", "tail").to_numpy()
        self.triples = torch.from_numpy(np.array(columns, dtype=np.int64).reshape(-1, 3))
        self.triple_split = _splits(graph, "triples", unsplit="")
        self.facts, self.fact_ids = torch.unique(self.triples[:, 1:], dim=0, return_inverse=True)
        self.triple_source = np.array(graph.triples["source"].fill_null("").to_list(), dtype=str)
        self.fact_text = tokenize(
            [f"{self.relation_labels[r]} {self.labels[t]}" for r, t in self.facts.tolist()]
        )
        self.image_features, self.image_tokens = image_features, image_tokens
        self.image_entity = torch.from_numpy(graph.images["entity"].to_numpy().copy())
        self.image_split = _splits(graph, "images", unsplit="train")
        self.same_image = _first_alike(graph.images)
        self.first_image = torch.full((len(self.labels),), -1)
        backwards = torch.arange(len(self.image_entity)).flip(0)
        self.first_image[self.image_entity[backwards]] = backwards

    def _tokenize(self, tokenizer: Callable[[list[str]], Tensor], texts: list[str]) -> Tensor:
        if not texts:  # open_clip's tokenizers refuse an empty list
            return self.text[:0]
        tokens = tokenizer(texts)
        cut = find_cut(tokenizer, texts, tokens)
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than the {tokens.shape[1]} tokens "
                f"that the text tower reads; their end is cut off: {cut[0][:80]!r} …",
                stacklevel=3,
            )
            self.num_cut += len(cut)
        return tokens

    @property
    def num_entities(self) -> int:
        """Number N of entities."""
        return len(self.labels)

    @property
    def num_relations(self) -> int:
        """Number R of relations, without inverses."""
        return len(self.relation_labels)

    def edges(self, splits: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The message graph of some splits, each triple in both directions.

        Args:
            splits: Splits whose triples carry messages.

        Returns:
            ``edge_index`` long [2, M] and ``edge_type`` long [M]; inverse relations are r + R.
        """
        chosen = self.triples[torch.from_numpy(np.isin(self.triple_split, splits))]
        head, relation, tail = chosen.T
        edge_index = torch.stack([torch.cat([head, tail]), torch.cat([tail, head])])
        return edge_index, torch.cat([relation, relation + self.num_relations])

    def cache_texts(self, clip: nn.Module, folder: str | Path | None = None) -> CachedTexts:
        """Encode all labels, relations, facts and captions, each distinct text once.

        Args:
            clip: The model whose text tower does not train.
            folder: Where the features are kept from run to run; ``None`` = in memory.
        """
        texts = self.text, self.relation_text, self.fact_text, self.caption_text
        return CachedTexts(*(cache_text_features(clip, ids, folder=folder) for ids in texts))

    @torch.no_grad()
    def text_features(
        self, clip: nn.Module, tokens: Tensor | CachedFeatures, chunk: int = 1024
    ) -> Tensor:
        """Unit vectors of tokenised texts, or of their features, without gradient. Float [n, D]."""
        if tokens.dtype.is_floating_point:
            return F.normalize(tokens[:], dim=-1)
        device = next(clip.parameters()).device
        parts = [
            encode_text_trimmed(clip, tokens[start : start + chunk].to(device), normalize=True)
            for start in range(0, len(tokens), chunk)
        ]
        return torch.cat(parts)


def find_cut(
    tokenizer: Callable[[list[str]], Tensor], texts: Sequence[str], tokens: Tensor
) -> list[str]:
    """Texts that a tokenizer cut off.

    Args:
        tokenizer: As open_clip makes it; nothing is found of one that takes no ``context_length``.
        texts: What it was given.
        tokens: What it made of them. Long [n, L].
    """
    padding = tokenizer([""])[0, -1]
    full = torch.nonzero(tokens[:, -1] != padding).flatten().tolist()
    if not full:
        return []
    length = tokens.shape[1]
    try:
        longer = tokenizer([texts[row] for row in full], context_length=2 * length)  # type: ignore[call-arg]  # open_clip's take it
    except TypeError:
        return []
    cut = (longer[:, length:] != padding).any(dim=1).tolist()
    return [texts[row] for row, is_cut in zip(full, cut, strict=True) if is_cut]


def _labels(graph: KnowledgeGraph, captions: pl.DataFrame) -> tuple[list[str], Tensor]:
    labels = graph.labels()
    named = set(graph.texts.filter(pl.col("kind") == "label")["entity"])
    described = torch.zeros(len(labels), dtype=torch.bool)
    for entity, text in captions.select("entity", "text").iter_rows():
        if entity not in named and not described[entity]:
            labels[entity], described[entity] = text, True
    return labels, described


def _pair_ids(graph: KnowledgeGraph, labels: Sequence[str]) -> Tensor:
    first: dict[str, int] = {}
    scenes = zip(labels, graph.entities["scene"], strict=True)
    return torch.tensor(
        [
            entity if scene is None else first.setdefault(label, entity)
            for entity, (label, scene) in enumerate(scenes)
        ],
        dtype=torch.long,
    )


def _first_alike(images: pl.DataFrame) -> Tensor:
    first: dict[tuple[str, str], int] = {}
    rows = images.select("sha256", "box").iter_rows()
    return torch.tensor(
        [row if digest is None else first.setdefault((digest, repr(box)), row)
         for row, (digest, box) in enumerate(rows)],
        dtype=torch.long,
    )  # fmt: skip


def _splits(graph: KnowledgeGraph, table: str, unsplit: str) -> np.ndarray:
    """Splits of a table as strings; a graph without any split is all training material."""
    column = getattr(graph, table)["split"]
    fill = "train" if column.null_count() == len(column) else unsplit
    return np.array(column.fill_null(fill).to_list(), dtype=str)


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """What a batch is made of.

    Attributes:
        num_pairs: Image-text pairs a step.
        num_triples: Triples a step; 0 = none.
        ratios: Share of the triples by their source (the column ``source``, a recipe's ``name`` of
            it), as in ``{ scenes = 0.7, facts = 0.3 }``; empty = whatever the relations' weights
            make of them.
        chunk_size: Pictures and texts that are encoded at once: the gradient of the whole batch
            in the memory of a chunk, for a second forward pass; ``None`` = all.
        num_workers: Threads that decode pictures, where the image tower trains; 0 = none.
        graph: Whether the message graph comes along.
        image_share: Share of triples whose head is read as its picture, where it has one whose
            split is ``"train"``.
        num_neighbors: Messages to draw for each entity, by hop, as ``[15, 10]``; -1 = all. Only
            what is drawn is encoded, so that a step costs the same on a graph of any size. Empty
            = the whole graph at once, for graphs of some thousand entities.
        refresh_every: Without ``num_neighbors``: steps between two encodings of all entities'
            texts, which the message graph starts from.
        negative_kinds: How captions are corrupted, where a loss reads corrupted captions: names
            in :data:`kgclip.negatives.NEGATIVES`, taken in turn.
        num_negatives: Corrupted captions of each picture.
        triple_captions: Share of pictures whose caption says a triple, where a loss reads
            corrupted captions and the entity heads one.
        repeats: How often an epoch holds the pairs of entities of some types.
        seed: Decides the order of pairs, the triples and what is masked.
    """

    num_pairs: int = 128
    num_triples: int = 128
    ratios: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chunk_size: int | None = None
    num_workers: int = 2
    graph: bool = False
    image_share: float = 0.5
    num_neighbors: tuple[int, ...] = ()
    refresh_every: int = 25
    negative_kinds: tuple[str, ...] = ("sibling", "swap", "relation")
    num_negatives: int = 3
    triple_captions: float = 0.5
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_pairs", 0), ("num_triples", 0), ("chunk_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: {value} given, at least {least} expected")


class KnowledgeBatches:
    """The batch of each step.

    An epoch is every image-text pair once (:attr:`epoch_size` pairs), shuffled anew; a picture
    whose entity has captions is paired with one of them, drawn anew. Triples are drawn by relation
    with weight count^-0.5, so that rare relations are learned, within the shares of the sources.
    In the message graph every batch entity is without its own features, and every node drops
    each relation at a rate drawn for the node: at inference a new entity has few relations.

    Args:
        corpus: The graph as tensors.
        entity_types: Type of each entity, for ``options.repeats``. N strings or ``None``.
        options: What a batch is made of.
        clip: The model whose text features the message graph starts from.
        token_triples: Makes triples for the fusion encoder; ``None`` = verbalised triples.
        teacher: The start model's features of all pictures by row of ``graph.images``, and of all
            labels by entity and then all captions, for distillation.
        captions: Draws captions and their corrupted copies; ``None`` = captions are labels.
        texts: What a frozen text tower makes of the corpus's texts; ``None`` = the tower reads
            them in every step.
    """

    def __init__(
        self,
        corpus: Corpus,
        entity_types: Sequence[str | None],
        options: BatchOptions,
        clip: nn.Module,
        *,
        token_triples: TokenTriples | None = None,
        teacher: TeacherFeatures | None = None,
        captions: MinedCaptions | None = None,
        texts: CachedTexts | None = None,
    ) -> None:
        self.corpus, self.options, self.clip = corpus, options, clip
        self.token_triples, self.teacher, self.captions = token_triples, teacher, captions
        self.texts = corpus if texts is None else texts
        usable = np.flatnonzero(np.isin(corpus.image_split, PAIR_SPLITS))
        times = [options.repeats.get(entity_types[e] or "", 1) for e in corpus.image_entity[usable]]
        self.pairs = torch.from_numpy(np.repeat(usable, times))
        if options.num_pairs and not len(self.pairs):
            raise GraphError(
                "no image-text pair to train on: no picture has a training split; num_pairs = 0 "
                "trains on triples alone"
            )
        trained = torch.from_numpy(corpus.triple_split == "train")
        self.triples, self.fact_ids = corpus.triples[trained], corpus.fact_ids[trained]
        if options.num_triples and not len(self.triples):
            raise GraphError(
                "no triple has the split 'train' or null; num_triples = 0 trains on pairs alone"
            )
        count = torch.bincount(self.triples[:, 1], minlength=1).double()
        self.weights = count[self.triples[:, 1]] ** -0.5
        if options.ratios:
            self._share(corpus.triple_source[trained.numpy()], options.ratios)
        self._captions_of = group_members(
            corpus.caption_entity, torch.arange(len(corpus.caption_text)), corpus.num_entities
        )
        self.known = NegativeSampler(self.triples, corpus.num_entities, corpus.num_relations)
        shown = torch.zeros(corpus.num_entities, dtype=torch.bool)
        shown[corpus.image_entity[torch.from_numpy(corpus.image_split == "train")]] = True
        self.shown = shown
        self.edge_index, self.edge_type = corpus.edges(["train"])
        self._in_edges = group_by_target(self.edge_index, corpus.num_entities)
        self._features: tuple[Tensor, Tensor] | None = None

    @property
    def epoch_size(self) -> int:
        """Image-text pairs of an epoch."""
        return len(self.pairs)

    def _share(self, sources: np.ndarray, ratios: Mapping[str, float]) -> None:
        """Scale the weights so that each source has its share."""
        known = sorted(set(sources.tolist()))
        scales = torch.zeros(len(sources), dtype=torch.double)
        for name, ratio in ratios.items():
            if name not in known or ratio <= 0:
                raise GraphError(
                    f"batches.ratios: {name} = {ratio} given; a number above 0 for a source of "
                    f"training triples expected: {', '.join(map(repr, known))}"
                )
            mine = torch.from_numpy(sources == name)
            scales[mine] = ratio / self.weights[mine].sum()
        self.weights = self.weights * scales

    def __call__(self, step: int) -> Batch:
        """Make the batch of a step.

        Args:
            step: 0 or more.

        Returns:
            Keyword arguments of :class:`~kgclip.nn.model.KnowledgeCLIP` and targets.
        """
        corpus, options = self.corpus, self.options
        rows = self._pair_rows(step)
        entities = corpus.image_entity[rows]
        inputs: dict[str, Any] = {}
        targets = Targets()
        if options.num_pairs:
            texts = self._pair_texts(entities, step)
            inputs = {"image": corpus.image_features[rows], "text": self._read(texts)}
            targets.pair_ids = corpus.pair_ids[entities]
            if self.captions is not None:
                generator = torch.Generator().manual_seed(_stream(options.seed, 3, step))
                found = self.captions(entities, generator)
                inputs["text"], inputs["negative_text"], targets.negative_text_mask = found
            if self.teacher is not None:
                inputs["teacher"] = TeacherFeatures(
                    self.teacher.image[rows], self.teacher.text[texts], self.teacher.logit_scale
                )
        if options.num_triples:
            # A stream of its own, so that the order of pairs is the same in every run.
            generator = torch.Generator().manual_seed(_stream(options.seed, 1, step))
            targets = self._add_triples(inputs, targets, generator)
            if options.graph and options.num_neighbors:
                inputs["graph"] = self._sampled_graph(targets, generator, step)
            elif options.graph:
                self._refresh(step)
                inputs["graph"] = self._graph(targets, generator)
        if options.chunk_size is not None:
            inputs["chunk_size"] = options.chunk_size
        if isinstance(corpus.image_features, DecodedPictures):
            corpus.image_features.prefetch(self._pair_rows(step + 1))
        return Batch(inputs, targets, options.num_pairs + options.num_triples)

    def _pair_texts(self, entities: Tensor, step: int) -> Tensor:
        """Text of each pair: the entity's label, or N + row of one of its captions. Long [B]."""
        if not len(self.corpus.caption_entity):
            return entities
        generator = torch.Generator().manual_seed(_stream(self.options.seed, 4, step))
        row = self._captions_of.draw(entities, torch.full_like(entities, -1), generator)
        return torch.where(row >= 0, self.corpus.num_entities + row, entities)

    def _read(self, texts: Tensor) -> Tensor:
        """Token ids or features of labels and captions."""
        is_label = texts < self.corpus.num_entities
        if bool(is_label.all()):
            return self.texts.text[texts]
        captions = self.texts.caption_text[texts[~is_label] - self.corpus.num_entities]
        read = captions.new_empty(len(texts), captions.shape[1])
        read[~is_label], read[is_label] = captions, self.texts.text[texts[is_label]]
        return read

    def _pair_rows(self, step: int) -> Tensor:
        """Rows of the pairs of a step: epochs of shuffled pairs, one after the other."""
        size, total = self.options.num_pairs, len(self.pairs)
        places = torch.arange(step * size, (step + 1) * size)
        rows = torch.empty(size, dtype=torch.long)
        for epoch in torch.unique(places // max(1, total)).tolist():
            generator = torch.Generator().manual_seed(_stream(self.options.seed, 0, epoch))
            order = self.pairs[torch.randperm(total, generator=generator)]
            here = places // total == epoch
            rows[here] = order[places[here] - epoch * total]
        return rows

    def _add_triples(
        self, inputs: dict[str, Any], targets: Targets, generator: torch.Generator
    ) -> Targets:
        count = min(self.options.num_triples, len(self.triples))
        drawn = torch.multinomial(self.weights, count, generator=generator)
        self._drawn = self.triples[drawn]
        if self.token_triples is None:
            self._verbalise(inputs, targets, drawn, generator)
            return targets
        inputs["triples"], found = self.token_triples(self._drawn, self.known, generator)
        return dataclasses.replace(
            found, pair_ids=targets.pair_ids, negative_text_mask=targets.negative_text_mask
        )

    def _verbalise(
        self,
        inputs: dict[str, Any],
        targets: Targets,
        drawn: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Heads as texts or pictures, and facts as texts."""
        corpus, count = self.corpus, len(drawn)
        heads, relations, tails = self.triples[drawn].T
        wanted = torch.rand(count, generator=generator) < self.options.image_share
        image_mask = wanted & self.shown[heads]
        inputs["triples"] = TripleInputs(
            text=self.texts.text[heads],
            fact_text=self.texts.fact_text[self.fact_ids[drawn]],
            image=corpus.image_features[corpus.first_image[heads[image_mask]]],
            image_mask=image_mask,
        )
        targets.entity_ids = heads
        targets.head_rows = torch.arange(count)
        targets.relation_ids = relations
        targets.head_known = known_among(
            self.known, heads[None, :], relations[:, None], tails[:, None]
        )

    def _refresh(self, step: int) -> None:
        if self._features is None or step % self.options.refresh_every == 0:
            corpus = self.corpus
            self._features = (
                corpus.text_features(self.clip, self.texts.text),
                corpus.text_features(self.clip, self.texts.relation_text),
            )

    def _graph(self, targets: Targets, generator: torch.Generator) -> GraphInputs:
        assert self._features is not None
        corpus = self.corpus
        entity_features, relation_features = self._features
        assert targets.entity_ids is not None
        rows = targets.entity_ids
        x = entity_features.clone()
        x[rows] = 0
        keep = ~edges_between(self.edge_index, self._drawn[:, 0], self._drawn[:, 2])
        rate = torch.rand(corpus.num_entities, 1, generator=generator)
        dropped = torch.rand(corpus.num_entities, 2 * corpus.num_relations, generator=generator)
        keep &= (dropped >= rate)[self.edge_index[1], self.edge_type]
        return GraphInputs(
            x, self.edge_index[:, keep], self.edge_type[keep], relation_features, rows
        )

    def _sampled_graph(
        self, targets: Targets, generator: torch.Generator, step: int
    ) -> GraphInputs:
        """The same graph, but of drawn messages alone, its texts encoded now."""
        corpus, options = self.corpus, self.options
        assert targets.entity_ids is not None
        rows = targets.entity_ids
        random = np.random.default_rng(_stream(options.seed, 2, step))
        drawn, places = sample_subgraph(
            self._in_edges, rows.numpy(), list(options.num_neighbors), random
        )
        nodes, edges = torch.from_numpy(drawn), torch.from_numpy(places)
        edge_index, edge_type = self.edge_index[:, edges], self.edge_type[edges]
        keep = ~edges_between(edge_index, self._drawn[:, 0], self._drawn[:, 2])
        edge_index = torch.searchsorted(nodes, edge_index)
        rate = torch.rand(len(nodes), 1, generator=generator)
        dropped = torch.rand(len(nodes), 2 * corpus.num_relations, generator=generator)
        keep &= (dropped >= rate)[edge_index[1], edge_type]
        place = torch.searchsorted(nodes, rows.contiguous())
        x = corpus.text_features(self.clip, self.texts.text[nodes]).clone()
        x[place] = 0
        relations = corpus.text_features(self.clip, self.texts.relation_text)
        return GraphInputs(x, edge_index[:, keep], edge_type[keep], relations, place)


def edges_between(edge_index: Tensor, heads: Tensor, tails: Tensor) -> Tensor:
    """Mark every edge between the two entities of a triple, whatever direction or relation.

    Args:
        edge_index: Long [2, M].
        heads: Long [T].
        tails: Long [T].

    Returns:
        Bool [M].
    """
    both = torch.cat([edge_index, torch.stack([heads, tails])], dim=1)
    low, high = both.min(dim=0).values, both.max(dim=0).values
    keys = low * (high.max() + 1 if len(high) else 1) + high
    edges = edge_index.shape[1]
    return torch.isin(keys[:edges], keys[edges:])


def _stream(seed: int, stream: int, number: int) -> int:
    """A seed for one use of randomness, the same on every machine."""
    return int(np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)[0] >> 1)
