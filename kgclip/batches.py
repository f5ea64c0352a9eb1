"""From a graph to training batches: image-text pairs, triples and the graph around them.

A :class:`Corpus` holds a graph as tensors; :class:`KnowledgeBatches` makes the batch of any step
from it as a pure function of (seed, step), so that a resumed run sees the same batches.

Leakage rules: a batch's triples leave the message graph together with every other edge between
the same two entities, and only training triples decide what is a false negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.graph import KnowledgeGraph
from kgclip.mined_captions import MinedCaptions
from kgclip.negatives import NegativeSampler
from kgclip.nn.feature_cache import CachedFeatures
from kgclip.nn.features import cache_text_features
from kgclip.nn.model import GraphInputs, TripleInputs
from kgclip.nn.output import Batch, Targets
from kgclip.nn.teacher import TeacherFeatures
from kgclip.nn.tokens import encode_text_trimmed
from kgclip.sampling import group_by_target, sample_subgraph
from kgclip.token_triples import TokenTriples, known_among

PAIR_SPLITS = ("train", "pairs_valid", "pairs_test")


@dataclasses.dataclass(frozen=True)
class CachedTexts:
    """Features of a corpus's texts, by the same rows as its token ids.

    Attributes:
        text: Of the labels. Float [N, D].
        relation_text: Of the relations, then of the inverse ones. Float [2R, D].
        fact_text: Of the facts. Float [F, D].
    """

    text: CachedFeatures
    relation_text: CachedFeatures
    fact_text: CachedFeatures


class Corpus:
    """A graph as tensors, with its texts tokenised once.

    Triples and pictures without a split count as training material.

    Args:
        graph: With a text for every entity (its label where it has none).
        tokenizer: From texts to token ids [B, L], as open_clip makes it.
        image_features: Trunk features (or pictures) by row of ``graph.images``, cached or not.
            Float [I, W].
        image_tokens: Cached tokens by row of ``graph.images``, for the triple encoder; ``None``
            = there is none. Float [I, L, W'].

    Attributes:
        labels: One text an entity, N in all.
        relation_labels: One text a relation, R in all.
        text: Tokens of the labels. Long [N, L].
        relation_text: Tokens of the relations, then of the inverse relations. Long [2R, L].
        triples: Head, relation, tail. Long [T, 3].
        triple_split: Split of each triple, ``""`` = in no part. T strings.
        facts: The distinct (relation, tail) pairs. Long [F, 2].
        fact_ids: Fact of each triple. Long [T], each in [0, F).
        fact_text: Tokens of "relation tail". Long [F, L].
        image_entity: Entity of each picture. Long [I].
        image_split: Split of each picture. I strings.
        same_image: First row with the same bytes, itself if it is the first. Long [I].
        first_image: First picture of each entity, -1 = none. Long [N].
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        tokenizer: Callable[[list[str]], Tensor],
        image_features: Tensor | CachedFeatures,
        image_tokens: Tensor | CachedFeatures | None = None,
    ) -> None:
        if len(image_features) != len(graph.images):
            raise ValueError(
                f"image_features has {len(image_features)} rows; expected one for each of the "
                f"graph's {len(graph.images)} pictures"
            )
        self.labels = graph.labels()
        names = zip(graph.relations["label"], graph.relations["name"], strict=True)
        self.relation_labels = [label or name for label, name in names]
        inverse = [f"inverse of {label}" for label in self.relation_labels]
        self.text = tokenizer(self.labels)
        self.relation_text = tokenizer(self.relation_labels + inverse)
        columns = graph.triples.select("head", "relation", "tail").to_numpy()
        self.triples = torch.from_numpy(np.array(columns, dtype=np.int64).reshape(-1, 3))
        self.triple_split = _splits(graph, "triples", unsplit="")
        self.facts, self.fact_ids = torch.unique(self.triples[:, 1:], dim=0, return_inverse=True)
        self.fact_text = tokenizer(
            [f"{self.relation_labels[r]} {self.labels[t]}" for r, t in self.facts.tolist()]
        )
        self.image_features, self.image_tokens = image_features, image_tokens
        self.image_entity = torch.from_numpy(graph.images["entity"].to_numpy().copy())
        self.image_split = _splits(graph, "images", unsplit="train")
        self.same_image = _first_with_same_bytes(graph.images["sha256"].to_list())
        self.first_image = torch.full((len(self.labels),), -1)
        backwards = torch.arange(len(self.image_entity)).flip(0)
        self.first_image[self.image_entity[backwards]] = backwards

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
        """Encode all labels, relations and facts, each distinct text once.

        Args:
            clip: The model whose text tower does not train.
            folder: Where the features are kept from run to run; ``None`` = in memory.
        """
        texts = self.text, self.relation_text, self.fact_text
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


def _first_with_same_bytes(digests: list[str | None]) -> Tensor:
    first: dict[str, int] = {}
    return torch.tensor(
        [row if key is None else first.setdefault(key, row) for row, key in enumerate(digests)],
        dtype=torch.long,
    )


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
    graph: bool = False
    image_share: float = 0.5
    num_neighbors: tuple[int, ...] = ()
    refresh_every: int = 25
    negative_kinds: tuple[str, ...] = ("sibling", "swap", "relation")
    num_negatives: int = 3
    triple_captions: float = 0.5
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0


class KnowledgeBatches:
    """The batch of each step.

    Triples are drawn by relation with weight count^-0.5, so that rare relations are learned.
    In the message graph every batch entity is without its own features, and every node drops
    each relation at a rate drawn for the node: at inference a new entity has few relations.

    Args:
        corpus: The graph as tensors.
        entity_types: Type of each entity, for ``options.repeats``. N strings or ``None``.
        options: What a batch is made of.
        clip: The model whose text features the message graph starts from.
        token_triples: Makes triples for the fusion encoder; ``None`` = verbalised triples.
        teacher: The start model's features of all pictures by row of ``graph.images`` and of all
            labels by entity, for distillation.
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
            raise ValueError("no image-text pair to train on: no picture has a training split")
        trained = torch.from_numpy(corpus.triple_split == "train")
        self.triples, self.fact_ids = corpus.triples[trained], corpus.fact_ids[trained]
        if options.num_triples and not len(self.triples):
            raise ValueError("num_triples is above 0 but no triple has the split 'train' or null")
        count = torch.bincount(self.triples[:, 1], minlength=1).double()
        self.weights = count[self.triples[:, 1]] ** -0.5
        self.known = NegativeSampler(self.triples, corpus.num_entities, corpus.num_relations)
        shown = torch.zeros(corpus.num_entities, dtype=torch.bool)
        shown[corpus.image_entity[torch.from_numpy(corpus.image_split == "train")]] = True
        self.shown = shown
        self.edge_index, self.edge_type = corpus.edges(["train"])
        self._in_edges = group_by_target(self.edge_index, corpus.num_entities)
        self._features: tuple[Tensor, Tensor] | None = None

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
            inputs = {"image": corpus.image_features[rows], "text": self.texts.text[entities]}
            targets.pair_ids = entities
            if self.captions is not None:
                generator = torch.Generator().manual_seed(_stream(options.seed, 3, step))
                texts = self.captions(entities, generator)
                inputs["text"], inputs["negative_text"], targets.negative_text_mask = texts
            if self.teacher is not None:
                inputs["teacher"] = TeacherFeatures(
                    self.teacher.image[rows], self.teacher.text[entities], self.teacher.logit_scale
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
        return Batch(inputs, targets, options.num_pairs + options.num_triples)

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
