"""Losses: from the fields of ``KnowledgeOutput`` and ``Targets`` that each names to a scalar.

Every contrastive loss rests on two functions, :func:`info_nce` (several positives a query) and
:func:`masked_info_nce` (one positive, other true answers left out of the denominator). An encoder
that maps everything to one point therefore gets exactly log(number of candidates), and a loss over
no query at all is 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.nn.output import KnowledgeOutput, Targets

SIDES = ("head", "tail")


class Loss(Protocol):
    """What the trainer expects of a loss; any object of this form will do.

    Attributes:
        reads: Fields of the output and of the targets that must not be ``None``.
    """

    reads: tuple[str, ...]

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss, a float scalar connected to what it reads."""


def info_nce(
    queries: Tensor, keys: Tensor, logit_scale: Tensor | float, positives: Tensor
) -> Tensor:
    """InfoNCE with any number of positives a query: the mean of −1/|P| Σ_{p∈P} log softmax_p.

    The softmax runs over all keys, the other positives included.

    Args:
        queries: Unit vectors. Float [Q, D].
        keys: Unit vectors. Float [K, D].
        logit_scale: Inverse temperature. Float scalar.
        positives: True where the key answers the query. Bool [Q, K], at least one True a row.

    Returns:
        Mean over the queries. Float scalar; 0 for no query.

    Raises:
        ValueError: If the shapes do not fit or a query has no positive.

    Reference:
        Khosla et al., Supervised Contrastive Learning (L_out), arXiv 2004.11362.
    """
    logits = _logits(queries, keys, logit_scale)
    _check_mask("positives", positives, logits)
    counts = positives.sum(dim=1)
    if not bool((counts > 0).all()):
        row = int((counts == 0).nonzero()[0])
        raise ValueError(f"positives: query {row} has no positive key; leave such queries out")
    chosen = logits.log_softmax(dim=1).masked_fill(~positives, 0.0).sum(dim=1)
    return -_mean(chosen / counts)


def masked_info_nce(
    queries: Tensor, keys: Tensor, logit_scale: Tensor | float, ignore: Tensor | None = None
) -> Tensor:
    """InfoNCE of query i against key i, where other true answers are no negatives.

    Args:
        queries: Unit vectors. Float [Q, D].
        keys: Unit vectors, the answer to query i in row i. Float [K, D], K >= Q.
        logit_scale: Inverse temperature. Float scalar.
        ignore: True where a key leaves the query's denominator; the own key never does.
            Bool [Q, K].

    Returns:
        Mean over the queries. Float scalar; 0 for no query.

    Raises:
        ValueError: If the shapes do not fit.
    """
    logits = _logits(queries, keys, logit_scale)
    if len(keys) < len(queries):
        raise ValueError(f"keys: {len(keys)} rows for {len(queries)} queries, one each expected")
    own = torch.arange(len(queries), device=logits.device)
    if ignore is not None:
        _check_mask("ignore", ignore, logits)
        logits = logits.masked_fill(ignore.clone().fill_diagonal_(False), -torch.inf)
    return _mean(F.cross_entropy(logits, own, reduction="none"))


def same_entity(pair_ids: Tensor) -> Tensor:
    """Similarity 1 for pairs of the same entity, else 0: Long [B] → Float [B, B]."""
    return (pair_ids[:, None] == pair_ids[None, :]).float()


class ContrastiveLoss:
    """CLIP's loss on image-text pairs, both directions.

    Where the targets carry ``pair_ids``, pairs of the same entity are no negatives of each other;
    without them, or where all differ, this is ``open_clip.loss.ClipLoss``.

    Reference:
        Radford et al., arXiv 2103.00020.
    """

    reads: tuple[str, ...] = ("image_features", "text_features", "logit_scale")

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        image, text, scale = _read(self, output, targets)
        ids = targets.pair_ids
        same = None if ids is None else ids[:, None] == ids[None, :]
        return _both_directions(image, text, scale, same)


class MultiPositiveLoss:
    """CLIP's loss with soft targets Y = α · P + (1 − α) · I from a similarity of the entities.

    P holds the rows of the similarity, shifted to a minimum of 0 and normalised to sum 1; a row
    without contrast (all entries equal) says nothing and becomes the identity's. α = 0 is
    ``ClipLoss``; α = 1 with :func:`same_entity` is UniCL.

    Args:
        alpha: Share of the similarity in the targets, in [0, 1].
        similarity: From ``pair_ids``, Long [B], to similarities, Float [B, B]: for example
            ``lambda ids: pagerank[ids][:, ids]``.

    Raises:
        ValueError: If ``alpha`` is outside [0, 1].

    Reference:
        Brannon et al., ConGraT, arXiv 2305.14321; Yang et al., UniCL, arXiv 2204.03610.
    """

    reads: tuple[str, ...] = ("image_features", "text_features", "logit_scale", "pair_ids")

    def __init__(
        self, alpha: float = 0.1, similarity: Callable[[Tensor], Tensor] = same_entity
    ) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha: {alpha} given, a number in [0, 1] expected")
        self.alpha = alpha
        self.similarity = similarity

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        image, text, scale, ids = _read(self, output, targets)
        similarity = self.similarity(ids).to(image)
        logits = _logits(image, text, scale)
        _check_shape("similarity", similarity, logits)
        to_text = F.cross_entropy(logits, self._soft_targets(similarity), reduction="none")
        to_image = F.cross_entropy(logits.T, self._soft_targets(similarity.T), reduction="none")
        return (_mean(to_text) + _mean(to_image)) / 2

    def _soft_targets(self, similarity: Tensor) -> Tensor:
        identity = torch.eye(len(similarity)).to(similarity)
        if len(similarity) == 0:
            return identity
        shifted = similarity - similarity.amin(dim=1, keepdim=True)
        total = shifted.sum(dim=1, keepdim=True)
        spread = torch.where(total > 0, shifted / total.clamp(min=1e-12), identity)
        return self.alpha * spread + (1 - self.alpha) * identity


class E2ELoss:
    """Entity from entity: a triple without one end must find that end among the batch's.

    ``tail_query`` f(h, r, ∅) is compared with f(∅, ∅, t), ``head_query`` f(∅, r, t) with
    f(h, ∅, ∅); other ends that are true by the training graph are no negatives.

    Args:
        sides: The ends to ask for, of ``"head"`` and ``"tail"``; their losses are averaged.
        both_directions: Also ask each end for its query (the paper's direction of the softmax).

    Raises:
        ValueError: If ``sides`` is empty or names anything else.

    Reference:
        Pan et al., arXiv 2210.08901, section 3 (E2E).
    """

    reads: tuple[str, ...] = (
        "entity_features", "logit_scale", "head_query", "head_rows", "head_known",
    )  # fmt: skip

    def __init__(self, sides: Sequence[str] = ("head",), both_directions: bool = True) -> None:
        self.sides = (sides,) if isinstance(sides, str) else tuple(sides)
        if not self.sides or set(self.sides) - set(SIDES):
            raise ValueError(f"sides: {sides!r} given, some of {SIDES} expected")
        self.both_directions = both_directions
        fields = [f"{side}_{part}" for side in self.sides for part in ("query", "rows", "known")]
        self.reads = (*type(self).reads[:2], *fields)

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        features, scale, *fields = _read(self, output, targets)
        compare = _both_directions if self.both_directions else masked_info_nce
        losses = [
            compare(query, features[rows], scale, known)
            for query, rows, known in zip(fields[::3], fields[1::3], fields[2::3], strict=True)
        ]
        return torch.stack(losses).mean()


class GraphFactLoss(E2ELoss):
    """The graph's view of an entity must answer the facts asked about it.

    :class:`E2ELoss` with ``graph_features`` as the candidates.
    """

    reads: tuple[str, ...] = (
        "graph_features", "logit_scale", "head_query", "head_rows", "head_known",
    )  # fmt: skip


class FusionLoss(GraphFactLoss):
    """Text and graph of an entity together must answer the facts asked about it.

    Trains the entity gate alone: nothing else gets a gradient, so that switching it on changes
    no other figure.
    """

    reads: tuple[str, ...] = (
        "fused_features", "logit_scale", "head_query", "head_rows", "head_known",
    )  # fmt: skip

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        fixed = {
            name: None if value is None else value.detach()
            for name, value in vars(output).items()
            if name != "fused_features"
        }
        return super().__call__(dataclasses.replace(output, **fixed), targets)


class E2RLoss:
    """Relation from entities: classify f_r(h, ∅, t), with logit adjustment for skewed relations.

    Args:
        relation_counts: Triples of each relation in training, R numbers; ``None`` = no adjustment.
            A relation without triples counts as having one.
        tau: Strength of the adjustment; logits are shifted by τ · log prior in the loss alone.

    Reference:
        Pan et al., arXiv 2210.08901 (E2R); Menon et al., arXiv 2007.07314 (adjustment).
    """

    reads: tuple[str, ...] = ("relation_logits", "relation_ids")

    def __init__(
        self, relation_counts: Sequence[int] | Tensor | None = None, tau: float = 1.0
    ) -> None:
        self.adjustment: Tensor | None = None
        if relation_counts is not None:
            counts = torch.as_tensor(relation_counts, dtype=torch.float64).clamp(min=1)
            self.adjustment = (tau * (counts / counts.sum()).log()).float()

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or R differs."""
        logits, relation_ids = _read(self, output, targets)
        if self.adjustment is not None:
            if self.adjustment.shape != logits.shape[1:]:
                raise ValueError(
                    f"relation_logits: {logits.shape[1]} relations, "
                    f"relation_counts has {len(self.adjustment)}"
                )
            logits = logits + self.adjustment.to(logits)
        return _mean(F.cross_entropy(logits, relation_ids, reduction="none"))


class G2ELoss:
    """Graph to entity: the graph's view of an entity must match the encoder's, both directions.

    Rows of the same entity are no negatives of each other.

    Reference:
        Pan et al., arXiv 2210.08901, section 3 (G2E).
    """

    reads: tuple[str, ...] = ("entity_features", "graph_features", "logit_scale", "entity_ids")

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        entity, graph, scale, ids = _read(self, output, targets)
        return _both_directions(entity, graph, scale, ids[:, None] == ids[None, :])


class DistillationLoss:
    """Stay close to the start model: KL between its image-text logits and ours, both directions.

    L = ½ T² [KL(softmax(S_t/T) ‖ softmax(S_s/T)) + the same of the transposed logits]
    + w · (MSE of image features + MSE of text features). No gradient reaches the teacher.

    Args:
        temperature: T, above 0.
        feature_weight: w; above 0 the two models must have the same width (CLIP-KD: 2000).

    Raises:
        ValueError: If ``temperature`` is not above 0 or ``feature_weight`` is below 0.

    Reference:
        Yang et al., CLIP-KD (CRD and FD), arXiv 2307.12732.
    """

    reads: tuple[str, ...] = (
        "image_features", "text_features", "logit_scale",
        "teacher_image_features", "teacher_text_features", "teacher_logit_scale",
    )  # fmt: skip

    def __init__(self, temperature: float = 1.0, feature_weight: float = 0.0) -> None:
        if temperature <= 0 or feature_weight < 0:
            raise ValueError(
                f"temperature {temperature}, feature_weight {feature_weight}: "
                "above 0 and at least 0 expected"
            )
        self.temperature = temperature
        self.feature_weight = feature_weight

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the shapes differ."""
        image, text, scale, *frozen = _read(self, output, targets)
        teacher_image, teacher_text, teacher_scale = (tensor.detach() for tensor in frozen)
        student = _logits(image, text, scale) / self.temperature
        teacher = _logits(teacher_image, teacher_text, teacher_scale) / self.temperature
        _check_shape("teacher logits", teacher, student)
        loss = (_divergence(student, teacher) + _divergence(student.T, teacher.T)) / 2
        loss = loss * self.temperature**2
        if self.feature_weight == 0 or not len(image):
            return loss
        _check_shape("teacher_image_features", teacher_image, image)
        distance = F.mse_loss(image, teacher_image) + F.mse_loss(text, teacher_text)
        return loss + self.feature_weight * distance


LOSSES: dict[str, type[Any]] = {
    "contrastive": ContrastiveLoss,
    "multi_positive": MultiPositiveLoss,
    "e2e": E2ELoss,
    "e2r": E2RLoss,
    "g2e": G2ELoss,
    "graph_fact": GraphFactLoss,
    "fusion": FusionLoss,
    "distillation": DistillationLoss,
}


def _read(loss: Loss, output: KnowledgeOutput, targets: Targets) -> list[Tensor]:
    """Return the fields that ``loss.reads`` names, in its order."""
    values = []
    for field in loss.reads:
        in_output = hasattr(output, field)
        value = getattr(output if in_output else targets, field, None)
        if value is None:
            owner = "the model's output" if in_output else "the batch's targets"
            raise ValueError(f"{type(loss).__name__} reads {field!r}, which {owner} left out")
        values.append(value)
    return values


def _logits(queries: Tensor, keys: Tensor, logit_scale: Tensor | float) -> Tensor:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries {list(queries.shape)}, keys {list(keys.shape)}: [Q, D] and [K, D] expected"
        )
    return logit_scale * queries @ keys.T


def _both_directions(
    left: Tensor, right: Tensor, logit_scale: Tensor | float, ignore: Tensor | None
) -> Tensor:
    """Mean of left → right and right → left; ``ignore`` is Bool [B, B]."""
    flipped = None if ignore is None else ignore.T
    forward = masked_info_nce(left, right, logit_scale, ignore)
    return (forward + masked_info_nce(right, left, logit_scale, flipped)) / 2


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of the rows' softmax, mean over the rows."""
    log_student, log_teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return _mean(F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1))


def _mean(per_query: Tensor) -> Tensor:
    # Tensor.mean() of no query would be NaN and end the training.
    return per_query.sum() / max(len(per_query), 1)


def _check_mask(name: str, mask: Tensor, logits: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"{name}: {mask.dtype} given, torch.bool expected")
    _check_shape(name, mask, logits)


def _check_shape(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape:
        raise ValueError(f"{name}: {list(tensor.shape)} given, {list(like.shape)} expected")
