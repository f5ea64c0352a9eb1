"""Training of knowledge graph embeddings, over ids or over any encoder's output.

A question is an anchor, a directed relation and the answer. Its answer competes with all
entities, with negatives that the whole batch shares, or with negatives of its own; the loss is
the cross-entropy over these candidates. Memory is bounded whatever the number of entities: rows
that a batch does not use are not touched, and scores are laid out a few million at a time.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.evaluation.link_prediction import evaluate_link_prediction
from kgclip.evaluation.triple_index import check_triples
from kgclip.nn.embedding import DirectedIds, KnowledgeGraphEmbedding
from kgclip.nn.row_adagrad import RowAdagrad
from kgclip.nn.scoring import build_query, compare, compare_all, score_relations
from kgclip.progress import build_progress

SIDES = ("both", "either")
_MAX_CELLS = 1 << 24  # scores (of rotations: differences) that a step lays out at once


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """How embeddings train.

    Attributes:
        epochs: Passes over the triples, at least 1.
        batch_size: Questions a step, at least 1.
        lr: Of Adagrad, for the vectors of ids and relations.
        negatives: Entities that an answer competes with, drawn anew for each step; ``None`` = all.
        shared: The negatives are drawn once a batch, not for each question.
        sides: ``"both"`` = an epoch asks each triple for its tail and for its head, ``"either"``
            = for one of them, drawn anew.
        n3: Weight of the nuclear 3-norm of the vectors in a question.
        relation_weight: Weight of the auxiliary loss that predicts the directed relation from
            anchor and answer.
        dropout: Of the anchor's vector.
        label_smoothing: Share of the target that goes to all candidates.
        validate_every: Epochs between two validations, where validation triples are given; 0 =
            never.
        patience: Validations without a better MRR before training stops.
        seed: Of batches, negatives and dropout.

    Raises:
        ValueError: If a value is out of range.

    Reference:
        Lacroix et al., arXiv 1806.07297 (N3, one against all); Chen et al., arXiv 2110.02834
        (relation prediction).
    """

    epochs: int = 50
    batch_size: int = 500
    lr: float = 0.1
    negatives: int | None = None
    shared: bool = True
    sides: str = "both"
    n3: float = 0.01
    relation_weight: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    validate_every: int = 5
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"epochs": 1, "batch_size": 1, "validate_every": 0, "patience": 1}
        lowest |= {"lr": 0, "n3": 0, "relation_weight": 0, "dropout": 0, "label_smoothing": 0}
        for name, least in lowest.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: {getattr(self, name)} given, at least {least} expected")
        for name in ("dropout", "label_smoothing"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name}: {getattr(self, name)} given, below 1 expected")
        if self.negatives is not None and self.negatives < 1:
            raise ValueError(f"negatives: {self.negatives} given, at least 1 expected, or None")
        if self.sides not in SIDES:
            raise ValueError(f"sides: {self.sides!r} given, one of {SIDES} expected")


def train_embedding(
    model: KnowledgeGraphEmbedding,
    triples: Tensor,
    *,
    options: EmbeddingOptions | None = None,
    valid: Tensor | None = None,
    known: Tensor | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place; it is left in evaluation mode, with its best validated weights.

    Args:
        model: On the device to train on.
        triples: Head, relation, tail. Long [T, 3].
        options: How long, how fast.
        valid: Triples to validate on. Long [V, 3]. Without a validation all epochs are run and the
            last weights kept.
        known: What else is true: left out of the rankings of a validation, never trained on. Long
            [K, 3].
        optimizer: Of the encoder's parameters; by default Adam with lr 0.001. Learned ids and
            relations have an Adagrad of their own.

    Returns:
        A record an epoch: ``epoch``, ``loss``, ``cpu_seconds`` of training so far and, where it
        was validated, ``valid_mrr``. The same seed and weights give the same model.

    Raises:
        ValueError: If there is no triple, or ids are out of range.
        FloatingPointError: If the loss is not finite.
    """
    options = options or EmbeddingOptions()
    for name, given in (("triples", triples), ("valid", valid), ("known", known)):
        if given is not None:
            check_triples(name, given, model.num_entities, model.num_relations)
            if not len(given) and name != "known":
                raise ValueError(f"{name}: no triple given, at least one expected")
    true = [given for given in (triples, valid, known) if given is not None]
    torch.manual_seed(options.seed)
    fit = _Fit(model, triples, options, optimizer)
    best = _Best(options.patience)
    records: list[dict[str, Any]] = []
    seconds = 0.0
    with build_progress() as progress:
        bar = progress.add_task("training", total=options.epochs, loss="")
        for epoch in range(1, options.epochs + 1):
            began = time.process_time()
            loss = fit.epoch()
            seconds += time.process_time() - began
            if not math.isfinite(loss):
                raise FloatingPointError(f"epoch {epoch}: loss is {loss}; lower lr")
            records.append({"epoch": epoch, "loss": loss, "cpu_seconds": seconds})
            progress.update(bar, advance=1, loss=f"loss {loss:.4f}")
            every = options.validate_every
            due = every and (epoch % every == 0 or epoch == options.epochs)
            if valid is not None and due:
                records[-1]["valid_mrr"] = score = validate(model, valid, torch.cat(true))
                if best.is_over(score, model):
                    break
    best.restore(model)
    model.eval()
    return records


def validate(model: KnowledgeGraphEmbedding, valid: Tensor, known: Tensor) -> float:
    """Filtered MRR on validation triples, both sides, in evaluation mode."""
    was_training = model.training
    model.eval()
    bare = model.with_encoded_entities()
    figures = evaluate_link_prediction(bare, valid, known, model.num_entities)
    model.train(was_training)
    return figures["both/mrr"]


class _Best:
    """The best weights so far, and whether to go on."""

    def __init__(self, patience: int) -> None:
        self.patience, self.left = patience, patience
        self.score = -math.inf
        self.state: dict[str, Tensor] | None = None

    def is_over(self, score: float, model: nn.Module) -> bool:
        if score > self.score:
            self.score, self.left = score, self.patience
            self.state = copy.deepcopy(model.state_dict())
        else:
            self.left -= 1
        return self.left == 0

    def restore(self, model: nn.Module) -> None:
        if self.state is not None:
            model.load_state_dict(self.state)


@dataclasses.dataclass
class _Batch:
    """Questions of a step; entities as places in a list of the ids that it uses."""

    ids: Tensor | None  # [U] the entities it uses; None = all N in order
    anchors: Tensor  # [B]
    directed: DirectedIds  # [B]
    answers: Tensor  # [B]
    negatives: Tensor | None  # [K] shared, [B, K] of their own, or None = all entities


class _Fit:
    """The state of a training: questions, optimizers, randomness."""

    def __init__(
        self,
        model: KnowledgeGraphEmbedding,
        triples: Tensor,
        options: EmbeddingOptions,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self.model, self.options = model.train(), options
        self.device = triples.device
        self.generator = torch.Generator().manual_seed(options.seed)
        heads, relations, tails = triples.T.contiguous()
        self.sides = tuple(
            (anchors, model.direct(relations, side), answers)
            for side, anchors, answers in (("tail", heads, tails), ("head", tails, heads))
        )
        self.relations = RowAdagrad(model.relations.weight, options.lr)
        self.rows: RowAdagrad | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        if isinstance(model.entities, nn.Embedding):
            self.rows = RowAdagrad(model.entities.weight, options.lr)
        else:
            trained = [value for value in model.entities.parameters() if value.requires_grad]
            if optimizer is not None or trained:
                self.optimizer = optimizer or torch.optim.Adam(trained, lr=1e-3)

    def epoch(self) -> float:
        """Pass over the triples once; returns the mean loss."""
        total = torch.zeros((), device=self.device)
        count = 0
        for batch in self._batches():
            total += self._step(batch) * len(batch.answers)
            count += len(batch.answers)
        return float(total) / count

    def _batches(self) -> Iterator[_Batch]:
        """Draw the questions of an epoch, in random order."""
        tails, heads = self.sides
        if self.options.sides == "both":
            columns = [torch.cat(pair) for pair in zip(tails, heads, strict=True)]
        else:
            asks_tail = torch.rand(len(tails[0]), generator=self.generator) < 0.5
            asks_tail = asks_tail.to(self.device)
            columns = [torch.where(asks_tail, *pair) for pair in zip(tails, heads, strict=True)]
        order = torch.randperm(len(columns[0]), generator=self.generator).to(self.device)
        shuffled = (torch.split(column[order], self.options.batch_size) for column in columns)
        for anchors, directed, answers in zip(*shuffled, strict=True):
            yield self._batch(anchors, DirectedIds(directed), answers)

    def _batch(self, anchors: Tensor, directed: DirectedIds, answers: Tensor) -> _Batch:
        count, num_entities = self.options.negatives, self.model.num_entities
        if count is None:
            return _Batch(None, anchors, directed, answers, None)
        shape = (count,) if self.options.shared else (len(anchors), count)
        negatives = torch.randint(num_entities, shape, generator=self.generator).to(self.device)
        if 2 * len(anchors) + negatives.numel() >= num_entities:  # nearly all are used: take all
            return _Batch(None, anchors, directed, answers, negatives)
        used = torch.cat([anchors, answers, negatives.flatten()])
        ids, places = torch.unique(used, return_inverse=True)
        sizes = [len(anchors), len(answers), negatives.numel()]
        anchors, answers, rest = torch.split(places, sizes)
        return _Batch(ids, anchors, directed, answers, rest.view(shape))

    def _step(self, batch: _Batch) -> Tensor:
        """One update; returns the loss."""
        entities = self._entities(batch.ids)
        self.model.relations.weight.grad = None
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        # Parts of a batch go through the scores one after the other where it is large; the
        # vectors are a leaf, so that an encoder is gone through once, whatever the parts.
        leaf = entities.detach().requires_grad_()
        rows = self._rows_at_once(batch, leaf)
        total = torch.zeros((), device=self.device)
        for first in range(0, len(batch.answers), rows):
            part = slice(first, first + rows)
            loss = self._loss(batch, part, leaf)
            loss = loss * (len(batch.answers[part]) / len(batch.answers))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            total += loss.detach()
        self._update(entities, leaf.grad, batch.ids)
        return total

    def _update(self, entities: Tensor, grad: Tensor | None, ids: Tensor | None) -> None:
        relation_grad = self.model.relations.weight.grad
        assert grad is not None
        assert relation_grad is not None
        if self.rows is not None:
            self.rows.step(grad, ids)
        elif self.optimizer is not None:
            entities.backward(grad)  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.relations.step(relation_grad)

    def _entities(self, ids: Tensor | None) -> Tensor:
        """Vectors of the entities that a step uses."""
        model = self.model
        if isinstance(model.entities, nn.Embedding):
            weight = model.entities.weight.detach()
            return weight if ids is None else weight.index_select(0, ids)
        return model.encode_entities() if ids is None else model.encode(ids)

    def _rows_at_once(self, batch: _Batch, entities: Tensor) -> int:
        if batch.negatives is None:
            candidates = len(entities)
        else:
            candidates = batch.negatives.shape[-1]
        wide = self.model.scoring == "rotate" or not self.options.shared
        cells = candidates * (entities.shape[1] if wide else 1)
        return max(1, _MAX_CELLS // max(1, cells))

    def _loss(self, batch: _Batch, part: slice, entities: Tensor) -> Tensor:
        """Mean loss of some questions of a batch."""
        options, scoring = self.options, self.model.scoring
        answers = batch.answers[part]
        anchor = F.embedding(batch.anchors[part], entities)
        answer = F.embedding(answers, entities)
        directed = self.model.directed_vectors()
        relation = F.embedding(batch.directed[part], directed)
        query = build_query(F.dropout(anchor, options.dropout), relation, scoring)
        if batch.negatives is None:
            scores, target = compare_all(query, entities, scoring), answers
        else:
            scores = self._sampled_scores(batch.negatives, part, query, answer, answers, entities)
            target = torch.zeros_like(answers)
        loss = F.cross_entropy(scores, target, label_smoothing=options.label_smoothing)
        if options.relation_weight:
            kinds = score_relations(anchor, answer, directed, scoring)
            loss = loss + options.relation_weight * F.cross_entropy(kinds, batch.directed[part])
        if options.n3:
            for vectors in (anchor, relation, answer):
                loss = loss + options.n3 * _cubes(vectors, scoring)
        return loss

    def _sampled_scores(
        self,
        negatives: Tensor,
        part: slice,
        query: Tensor,
        answer: Tensor,
        answers: Tensor,
        entities: Tensor,
    ) -> Tensor:
        """Scores of the answer, then of the negatives. Float [b, 1 + K]."""
        scoring = self.model.scoring
        if negatives.ndim == 1:
            scores = compare_all(query, F.embedding(negatives, entities), scoring)
        else:
            negatives = negatives[part]
            scores = compare(query[:, None], F.embedding(negatives, entities), scoring)
        scores = scores.masked_fill(negatives == answers[:, None], -math.inf)
        return torch.cat([compare(query, answer, scoring)[:, None], scores], dim=1)


def _cubes(vectors: Tensor, scoring: str) -> Tensor:
    """Sum of the cubed absolute values, mean over the batch."""
    if scoring in ("complex", "rotate"):
        real, imaginary = vectors.chunk(2, dim=1)
        squares = real.square() + imaginary.square() + 1e-12
    else:
        squares = vectors.square() + 1e-12
    return squares.pow(1.5).sum() / len(vectors)
