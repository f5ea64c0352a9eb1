"""Losses: from the fields of ``KnowledgeOutput`` and ``Targets`` that each names to a scalar."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.nn.info_nce import (
    both_directions,
    check_mask,
    check_shape,
    masked_info_nce,
    mean_over_queries,
    read_fields,
    similarity_logits,
)
from kgclip.nn.negative_losses import (
    GraphAlignmentLoss,
    GraphNegativesLoss,
    MarginLoss,
    NegCLIPLoss,
    TextNegativesLoss,
)
from kgclip.nn.output import KnowledgeOutput, Targets
from kgclip.nn.structure_losses import (
    AngleLoss,
    DistanceLoss,
    GromovWassersteinLoss,
    KernelAlignmentLoss,
    LaplacianLoss,
)

SIDES = ("head", "tail")


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
        image, text, scale = read_fields(self, output, targets)
        ids = targets.pair_ids
        same = None if ids is None else ids[:, None] == ids[None, :]
        return both_directions(image, text, scale, same)


class RegionLoss:
    """Regions of pictures and what they are called: CLIP's loss, both directions.

    Regions that are called the same are no negatives of each other.

    Reference:
        The triples (region, "is image of", text) of Pan et al., arXiv 2210.08901, section 3.
    """

    reads: tuple[str, ...] = (
        "region_features", "region_text_features", "logit_scale", "region_ids",
    )  # fmt: skip

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        region, text, scale, ids = read_fields(self, output, targets)
        return both_directions(region, text, scale, ids[:, None] == ids[None, :])


class SigLIPLoss:
    """Sigmoid loss: every picture-caption cell on its own, −(1/B) Σ_ij log σ(y_ij (s·x_i·y_j + b)).

    y is +1 for pairs of the same entity where the targets carry ``pair_ids``, else for the
    diagonal alone, and −1 elsewhere: several positives come for free.

    Reference:
        Zhai et al., SigLIP, arXiv 2303.15343.
    """

    reads: tuple[str, ...] = ("image_features", "text_features", "logit_scale", "logit_bias")

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        image, text, scale, bias = read_fields(self, output, targets)
        logits = similarity_logits(image, text, scale) + bias
        ids = targets.pair_ids
        signs = 2 * torch.eye(len(image)).to(logits) - 1
        if ids is not None:
            signs = 2 * same_entity(ids).to(logits) - 1
        return -mean_over_queries(F.logsigmoid(signs * logits).sum(dim=1))


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
        image, text, scale, ids = read_fields(self, output, targets)
        similarity = self.similarity(ids).to(image)
        logits = similarity_logits(image, text, scale)
        check_shape("similarity", similarity, logits)
        to_text = F.cross_entropy(logits, self._soft_targets(similarity), reduction="none")
        to_image = F.cross_entropy(logits.T, self._soft_targets(similarity.T), reduction="none")
        return (mean_over_queries(to_text) + mean_over_queries(to_image)) / 2

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
        features, scale, *fields = read_fields(self, output, targets)
        compare = both_directions if self.both_directions else masked_info_nce
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

    Where the targets carry ``relation_known``, other relations that join the same two entities
    are no negatives.

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
        logits, relation_ids = read_fields(self, output, targets)
        if self.adjustment is not None:
            if self.adjustment.shape != logits.shape[1:]:
                raise ValueError(
                    f"relation_logits: {logits.shape[1]} relations, "
                    f"relation_counts has {len(self.adjustment)}"
                )
            logits = logits + self.adjustment.to(logits)
        if targets.relation_known is not None:
            check_mask("relation_known", targets.relation_known, logits)
            own = F.one_hot(relation_ids, logits.shape[1]).bool()
            logits = logits.masked_fill(targets.relation_known & ~own, -torch.inf)
        return mean_over_queries(F.cross_entropy(logits, relation_ids, reduction="none"))


class G2ELoss:
    """Graph to entity: the graph's view of an entity must match the encoder's, both directions.

    Rows of the same entity are no negatives of each other.

    Reference:
        Pan et al., arXiv 2210.08901, section 3 (G2E).
    """

    reads: tuple[str, ...] = ("entity_features", "graph_features", "logit_scale", "entity_ids")

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        entity, graph, scale, ids = read_fields(self, output, targets)
        return both_directions(entity, graph, scale, ids[:, None] == ids[None, :])


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
        image, text, scale, *frozen = read_fields(self, output, targets)
        teacher_image, teacher_text, teacher_scale = (tensor.detach() for tensor in frozen)
        student = similarity_logits(image, text, scale) / self.temperature
        teacher = similarity_logits(teacher_image, teacher_text, teacher_scale) / self.temperature
        check_shape("teacher logits", teacher, student)
        loss = (_divergence(student, teacher) + _divergence(student.T, teacher.T)) / 2
        loss = loss * self.temperature**2
        if self.feature_weight == 0 or not len(image):
            return loss
        check_shape("teacher_image_features", teacher_image, image)
        distance = F.mse_loss(image, teacher_image) + F.mse_loss(text, teacher_text)
        return loss + self.feature_weight * distance


LOSSES: dict[str, type[Any]] = {
    "contrastive": ContrastiveLoss,
    "regions": RegionLoss,
    "multi_positive": MultiPositiveLoss,
    "e2e": E2ELoss,
    "e2r": E2RLoss,
    "g2e": G2ELoss,
    "graph_fact": GraphFactLoss,
    "fusion": FusionLoss,
    "distillation": DistillationLoss,
    "siglip": SigLIPLoss,
    "graph_alignment": GraphAlignmentLoss,
    "graph_negatives": GraphNegativesLoss,
    "text_negatives": TextNegativesLoss,
    "negclip": NegCLIPLoss,
    "margin": MarginLoss,
    "distance": DistanceLoss,
    "angle": AngleLoss,
    "kernel_alignment": KernelAlignmentLoss,
    "laplacian": LaplacianLoss,
    "gromov_wasserstein": GromovWassersteinLoss,
}


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of the rows' softmax, mean over the rows."""
    log_student, log_teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return mean_over_queries(
        F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    )
