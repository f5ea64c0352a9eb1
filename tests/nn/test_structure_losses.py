"""Losses of geometry against their formulas written out; what they must not see, they do not."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kgclip.nn.output import KnowledgeOutput, Targets, unit_vectors
from kgclip.nn.structure_losses import (
    AngleLoss,
    DistanceLoss,
    GromovWassersteinLoss,
    KernelAlignmentLoss,
    LaplacianLoss,
)
from tests.nn.test_losses import build_case, collapse

COMPARING = [DistanceLoss, AngleLoss, KernelAlignmentLoss]


def case(rows=6, width=4, other=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=g).requires_grad_()
    y = torch.randn(rows, other, generator=g)
    return x, y, KnowledgeOutput(entity_features=x, graph_features=y)


def smooth_l1(a, b):
    gap = abs(a - b)
    return 0.5 * gap**2 if gap < 1 else gap - 0.5


def test_distances_in_units_of_their_mean():
    x, y, output = case()
    x.data[3] = x.data[1]  # two rows that coincide do not count in the mean
    tables = []
    for features in (x.detach(), y):
        table = np.array([[float((a - b).norm()) for a in features] for b in features])
        tables.append(table / table[table > 0].mean())
    expected = np.mean([smooth_l1(a, b) for a, b in zip(*(t.flat for t in tables), strict=True)])
    assert DistanceLoss()(output, Targets()).item() == pytest.approx(expected, rel=1e-5)


def test_angles_of_all_triangles():
    x, y, output = case()
    total = 0.0
    for j, i, k in itertools.product(range(6), repeat=3):
        angles = [
            float(unit_vectors(f[i] - f[j]) @ unit_vectors(f[k] - f[j])) for f in (x.detach(), y)
        ]
        total += smooth_l1(*angles)
    value = AngleLoss()(output, Targets())
    assert value.item() == pytest.approx(total / 6**3, rel=1e-4)
    few = KnowledgeOutput(entity_features=x[:4], graph_features=y[:4])
    assert AngleLoss(max_rows=4)(output, Targets()) == AngleLoss()(few, Targets())


def test_kernel_alignment_by_its_formula():
    x, y, output = case(rows=9)
    a, b = (f - f.mean(0) for f in (x.detach(), y))
    expected = 1 - (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    torch.testing.assert_close(KernelAlignmentLoss()(output, Targets()), expected)


@pytest.mark.parametrize("loss", COMPARING)
def test_the_same_geometry_costs_nothing(loss):
    """A rotation, another scale and another place are the same geometry."""
    x, _, _ = case()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    other = KnowledgeOutput(entity_features=x, graph_features=3 * x.detach() @ rotation + 2)
    value = loss()(other, Targets())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert x.grad.abs().max() < 1e-4


@pytest.mark.parametrize("loss", COMPARING)
def test_a_collapsed_encoder_is_worse_and_can_leave(loss):
    _, y, output = case()
    flat = torch.ones(6, 4).requires_grad_()
    worst = loss()(KnowledgeOutput(entity_features=flat, graph_features=y), Targets())
    worst.backward()
    assert worst > loss()(output, Targets())
    assert flat.grad.isfinite().all()
    assert flat.grad.abs().max() < 1e3, "rows that coincide have an ordinary gradient"


@pytest.mark.parametrize("loss", COMPARING)
def test_any_two_fields_can_be_compared(loss):
    output, targets = build_case()
    named = loss(student="text_features", teacher="teacher_text_features")
    assert named.reads[:2] == ("text_features", "teacher_text_features")
    pair = KnowledgeOutput(
        entity_features=output.text_features, graph_features=output.teacher_text_features
    )
    assert named(output, targets) == loss()(pair, targets)


@pytest.mark.parametrize("loss", [*COMPARING, GromovWassersteinLoss])
def test_one_row_has_no_geometry_and_rows_must_match(loss):
    targets = Targets(head_rows=torch.tensor([0]), tail_rows=torch.tensor([0]))
    x, y, _ = case(rows=1)
    value = loss()(KnowledgeOutput(entity_features=x, graph_features=y), targets)
    value.backward()
    assert value.item() == 0
    with pytest.raises(ValueError, match="expected"):
        loss()(KnowledgeOutput(entity_features=x, graph_features=y[:0]), targets)


def test_laplacian_is_the_trace():
    x, _, output = case()
    head, tail = torch.tensor([0, 1, 0, 4, 2]), torch.tensor([1, 0, 2, 4, 0])  # a loop at 4
    adjacency = torch.zeros(6, 6)
    for i, j in ((0, 1), (0, 2)):
        adjacency[i, j] = adjacency[j, i] = 1
    degree = adjacency.sum(1)
    root = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0.0)
    laplacian = torch.diag((degree > 0).float()) - root[:, None] * adjacency * root[None]
    expected = torch.trace(x.T @ laplacian @ x) / 6
    targets = Targets(head_rows=head, tail_rows=tail, relation_ids=torch.tensor([0, 0, 1, 0, 1]))
    torch.testing.assert_close(LaplacianLoss()(output, targets), expected)
    only = Targets(head_rows=torch.tensor([0]), tail_rows=torch.tensor([1]))
    without = LaplacianLoss(without=[1])(output, targets)
    torch.testing.assert_close(without, LaplacianLoss()(output, only))


def test_a_collapsed_encoder_minimises_the_laplacian_of_a_regular_graph():
    output, targets = build_case()
    targets.head_rows, targets.tail_rows = torch.arange(7), (torch.arange(7) + 1) % 7
    assert LaplacianLoss()(output, targets) > 0.1
    assert LaplacianLoss()(collapse(output), targets).item() == pytest.approx(0, abs=1e-6)


def test_gromov_wasserstein_by_its_formula():
    ot = pytest.importorskip("ot")
    output, targets = build_case()
    entity, graph = output.entity_features.detach().double(), output.graph_features.double()
    hops = np.full((7, 7), 4.0)
    np.fill_diagonal(hops, 0)
    pairs = set(zip(targets.head_rows.tolist(), targets.tail_rows.tolist(), strict=True))
    for middle in range(7):  # Floyd and Warshall
        for i, j in pairs:
            hops[i, j] = hops[j, i] = min(hops[i, j], 1)
        hops = np.minimum(hops, hops[:, [middle]] + hops[[middle], :])
    hops /= 4
    cost = ((1 - graph @ entity.T) / 2).detach().numpy()
    spread = ((1 - entity @ entity.T) / 2).numpy()
    plan = ot.gromov.entropic_fused_gromov_wasserstein(
        cost, hops, spread, alpha=0.3, epsilon=0.1, max_iter=100, tol=1e-6
    )
    expected = 0.7 * (cost * plan).sum()
    for i, j, k, l in itertools.product(range(7), repeat=4):  # noqa: E741
        expected += 0.3 * (hops[i, k] - spread[j, l]) ** 2 * plan[i, j] * plan[k, l]
    loss = GromovWassersteinLoss(alpha=0.3, epsilon=0.1)
    assert loss(output, targets).item() == pytest.approx(expected, rel=1e-4)


def test_gromov_wasserstein_falls_along_its_gradient():
    """The plan is held fixed for the gradient, which is still a way down."""
    output, targets = build_case()
    loss, x = GromovWassersteinLoss(), output.entity_features
    before = loss(output, targets)
    before.backward()
    output.entity_features = F.normalize(x.detach() - 0.5 * x.grad, dim=1)
    assert loss(output, targets) < before


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AngleLoss(max_rows=0), "max_rows: 0"),
        (lambda: GromovWassersteinLoss(alpha=2), "alpha 2"),
        (lambda: GromovWassersteinLoss(epsilon=0), "epsilon 0"),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
