"""Losses that ask for the same geometry rather than the same vectors.

A student's batch of features is compared with another view of the same rows: the graph
encoder's, or the start model's. The widths of the two may differ, and the other view is fixed:
no gradient reaches it. A batch too small to have a geometry costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse.csgraph
import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.nn.info_nce import read_fields
from kgclip.nn.output import KnowledgeOutput, Targets, unit_vectors

_TINY = 1e-12


class StructureLoss:
    """What the losses of this module share: whose geometry is compared with whose.

    Args:
        student: Field of the output that learns. Float [n, D].
        teacher: Field that it is compared with. Float [n, D'].
    """

    reads: tuple[str, ...] = ("entity_features", "graph_features")

    def __init__(self, student: str = "entity_features", teacher: str = "graph_features") -> None:
        self.reads = (student, teacher, *type(self).reads[2:])
        self.teacher = teacher

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing or the rows differ."""
        student, teacher = read_fields(self, output, targets)
        _check_rows(student, teacher)
        return self.compare(student, teacher.detach())

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features [n, D] against features [n, D']."""
        raise NotImplementedError


class DistanceLoss(StructureLoss):
    """RKD-D: distances between rows, in units of their mean, by the smooth L1 norm.

    Reference:
        Park et al., Relational Knowledge Distillation, arXiv 1904.05068.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features [n, D] against features [n, D']."""
        return _zero(student) + F.smooth_l1_loss(
            _relative_distances(student), _relative_distances(teacher), reduction="sum"
        ) / max(len(student) ** 2, 1)


class AngleLoss(StructureLoss):
    """RKD-A: the angles of all triangles of rows, by the smooth L1 norm of their cosines.

    Args:
        student: Field of the output that learns. Float [n, D].
        teacher: Field that it is compared with. Float [n, D'].
        max_rows: The first rows of the batch that are compared; time and memory are cubic in
            their number.

    Raises:
        ValueError: If ``max_rows`` is below 1.

    Reference:
        Park et al., arXiv 1904.05068; weight 2 beside weight 1 for RKD-D there.
    """

    def __init__(
        self,
        student: str = "entity_features",
        teacher: str = "graph_features",
        max_rows: int = 128,
    ) -> None:
        super().__init__(student, teacher)
        self.max_rows = _at_least_one(max_rows)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features [n, D] against features [n, D']."""
        student, teacher = student[: self.max_rows], teacher[: self.max_rows]
        return _zero(student) + F.smooth_l1_loss(
            _angles(student), _angles(teacher), reduction="sum"
        ) / max(len(student) ** 3, 1)


class KernelAlignmentLoss(StructureLoss):
    """1 − linear CKA: how far the two matrices of inner products are from proportional.

    With X, Y centred by column: 1 − ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), in [0, 1]. Biased towards 0 where the
    batch has fewer rows than the features have columns: use large batches.

    Reference:
        Kornblith et al., arXiv 1905.00414.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of features [n, D] against features [n, D']."""
        if len(student) < 2:
            return _zero(student)
        x, y = (features - features.mean(dim=0) for features in (student, teacher))
        mine, theirs = x @ x.T, y @ y.T
        scale = mine.square().sum().clamp(min=_TINY).sqrt() * theirs.norm().clamp(min=_TINY)
        loss: Tensor = 1 - (mine * theirs).sum() / scale
        return loss


class LaplacianLoss:
    """Entities that a triple of the batch joins shall be near: tr(Xᵀ L X) / n.

    L = I − D^(−½) A D^(−½) of the batch's triples, without direction, duplicates or loops, so
    that the loss is Σ ‖x_i/√d_i − x_j/√d_j‖² / n over the joined pairs. It is smallest for an
    encoder that maps all to one point: weight 0.1 at most, beside a contrastive loss.

    Args:
        without: Relations that join what differs (antonym, distinct from): their triples are
            left out.

    Reference:
        Belkin and Niyogi, Laplacian Eigenmaps, 2003.
    """

    reads: tuple[str, ...] = ("entity_features", "head_rows", "tail_rows")

    def __init__(self, without: Sequence[int] = ()) -> None:
        self.without = tuple(without)
        self.reads = (*type(self).reads, *(["relation_ids"] if self.without else []))

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss. Raises ValueError where a field is missing."""
        features, head, tail, *relation = read_fields(self, output, targets)
        if relation:
            kept = ~torch.isin(relation[0], relation[0].new_tensor(self.without))
            head, tail = head[kept], tail[kept]
        low, high = _joined_pairs(head, tail)
        degree = torch.bincount(torch.cat([low, high]), minlength=len(features)).clamp(min=1)
        scaled = features / degree.sqrt().unsqueeze(1).to(features)
        return (scaled[low] - scaled[high]).square().sum() / max(len(features), 1)


class GromovWassersteinLoss:
    """Fused Gromov-Wasserstein: the graph and the features of its entities as metric spaces.

    (1 − α) Σ c_ij π_ij + α Σ |A_ik − B_jl|² π_ij π_kl, with c the cosine distance of graph
    features and entity features, A the distance in hops by the batch's triples, B the cosine
    distance of entity features, all in [0, 1], and π the entropic plan of POT's solver, held
    fixed for the gradient. Needs the extra ``ot``. Where the pairing is known, as here, RKD and
    CKA say the same for less.

    Args:
        alpha: Share of the structure, in [0, 1].
        epsilon: Strength of the entropy in the solver, above 0.
        max_hops: Entities further apart count as one hop more.
        max_rows: The first entities of the batch that are compared.

    Raises:
        ValueError: If a value is out of range.

    Reference:
        Vayer et al., arXiv 1805.09114; Flamary et al., POT, JMLR 2021.
    """

    reads: tuple[str, ...] = ("entity_features", "graph_features", "head_rows", "tail_rows")
    teacher = "graph_features"

    def __init__(
        self, alpha: float = 0.5, epsilon: float = 0.05, max_hops: int = 3, max_rows: int = 64
    ) -> None:
        if not 0 <= alpha <= 1 or epsilon <= 0 or max_hops < 1:
            raise ValueError(
                f"alpha {alpha}, epsilon {epsilon}, max_hops {max_hops}: [0, 1], above 0 and at "
                "least 1 expected"
            )
        self.alpha, self.epsilon, self.max_hops = alpha, epsilon, max_hops
        self.max_rows = _at_least_one(max_rows)

    def __call__(self, output: KnowledgeOutput, targets: Targets) -> Tensor:
        """Return the loss.

        Raises:
            ValueError: If a field is missing or the rows differ.
            ModuleNotFoundError: If POT is not installed.
        """
        entity, graph, head, tail = read_fields(self, output, targets)
        _check_rows(entity, graph)
        size = min(len(entity), self.max_rows)
        if size < 2:
            return _zero(entity)
        entity, graph = (F.normalize(x[:size], dim=-1) for x in (entity, graph.detach()))
        cost = (1 - graph @ entity.T) / 2
        hops = _hops(head, tail, size, self.max_hops).to(entity)
        spread = (1 - entity @ entity.T) / 2
        plan = _solve(cost, hops, spread, self.alpha, self.epsilon).to(entity)
        rows, columns = plan.sum(dim=1), plan.sum(dim=0)
        structure = rows @ hops.square() @ rows + columns @ spread.square() @ columns
        structure = structure - 2 * ((hops @ plan @ spread) * plan).sum()
        return (1 - self.alpha) * (cost * plan).sum() + self.alpha * structure


def _relative_distances(x: Tensor) -> Tensor:
    """Distances in units of their mean over rows that differ. Float [n, n]."""
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    count = (distances > 0).sum().clamp(min=1)
    return distances / (distances.sum() / count).clamp(min=_TINY)


def _angles(x: Tensor) -> Tensor:
    """Cosine of the angle at j between i and k; 0 where two of them coincide. [n, n, n]."""
    directions = unit_vectors(x.unsqueeze(0) - x.unsqueeze(1))
    return directions @ directions.transpose(1, 2)


def _joined_pairs(head: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct pairs of different rows, without direction."""
    pairs = torch.stack([torch.minimum(head, tail), torch.maximum(head, tail)])
    low, high = torch.unique(pairs[:, head != tail], dim=1)
    return low, high


def _hops(head: Tensor, tail: Tensor, size: int, max_hops: int) -> Tensor:
    """Distance of the first rows by the batch's triples, as a share of the largest. [n, n]."""
    inside = (head < size) & (tail < size)
    ends = head[inside].cpu().numpy(), tail[inside].cpu().numpy()
    edges = scipy.sparse.coo_array((np.ones(len(ends[0])), ends), shape=(size, size))
    found = scipy.sparse.csgraph.shortest_path(edges.tocsr(), directed=False, unweighted=True)
    return torch.from_numpy(np.minimum(found, max_hops + 1) / (max_hops + 1))


def _solve(cost: Tensor, left: Tensor, right: Tensor, alpha: float, epsilon: float) -> Tensor:
    """Entropic plan between two metric spaces with evenly spread mass. Float64 [n, n]."""
    import ot  # only this loss needs it

    spaces = [x.detach().cpu().double().numpy() for x in (cost, left, right)]
    plan = ot.gromov.entropic_fused_gromov_wasserstein(
        *spaces, loss_fun="square_loss", alpha=alpha, epsilon=epsilon, max_iter=100, tol=1e-6
    )
    return torch.from_numpy(plan)


def _zero(features: Tensor) -> Tensor:
    """Nothing, but connected to the features, so that an empty batch can go backward."""
    return 0 * features.sum()


def _check_rows(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ValueError(
            f"student {list(student.shape)}, teacher {list(teacher.shape)}: [n, D] and [n, D'] "
            "expected"
        )


def _at_least_one(max_rows: int) -> int:
    if max_rows < 1:
        raise ValueError(f"max_rows: {max_rows} given, at least 1 expected")
    return max_rows
