"""Propagation equals the sum over edges, whichever side is multiplied; plans follow their graph."""

import gc

import pytest
import torch

from kgclip.nn import propagation
from kgclip.nn.propagation import PLANS, PlanCache, build_plan, propagate
from kgclip.nn.rgcn import RGCNConv


def graph_of(kind, nodes=40, edges=300, relations=4):
    """Random edges; ``"few senders"`` and ``"few receivers"`` have two on that side."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(nodes, (2, edges), generator=generator)
    if kind != "even":
        ends[0 if kind == "few senders" else 1] %= 2
    return ends, torch.randint(relations, (edges,), generator=generator)


def slow(x, weight, edge_index, edge_type, mean):
    out = [torch.zeros(weight.shape[-1], dtype=x.dtype) for _ in x]
    edges = list(zip(*edge_index.tolist(), edge_type.tolist(), strict=True))
    for source, target, relation in edges:
        alike = sum((t, r) == (target, relation) for _, t, r in edges) if mean else 1
        out[target] = out[target] + x[source] @ weight[relation] / alike
    return torch.stack(out)


@pytest.mark.parametrize("kind", ["even", "few senders", "few receivers"])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("rows", [3, 4096])
def test_equals_the_sum_over_edges(kind, mean, rows, monkeypatch):
    monkeypatch.setattr(propagation, "_ROWS", rows)
    torch.manual_seed(0)
    edge_index, edge_type = graph_of(kind)
    x = torch.randn(40, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 5, 3, dtype=torch.double, requires_grad=True)
    plan = build_plan(edge_index, edge_type, 4, mean, torch.double)
    turned = {"even": 0, "few senders": 1, "few receivers": 0}[kind]
    assert {block.spread is not None for block in plan.forward} == {bool(turned)}
    results = []
    for out in (propagate(x, weight, plan), slow(x, weight, edge_index, edge_type, mean)):
        probe = torch.linspace(-1, 1, out.numel(), dtype=torch.double).view_as(out)
        results.append([out, *torch.autograd.grad((out * probe).sum(), [x, weight])])
    for fast, reference in zip(*results, strict=True):
        assert (fast - reference).abs().max() <= 1e-10 * reference.abs().max()


def test_few_on_one_side_cost_few_products():
    edge_index, edge_type = graph_of("few senders")
    plan = build_plan(edge_index, edge_type, 4, True, torch.float)
    for blocks in (plan.forward, plan.backward):
        assert sum(len(block.sums.nodes) for block in blocks) == 4 * 2


def test_only_what_is_asked_for_is_differentiated():
    plan = build_plan(*graph_of("even"), 4, True, torch.float)
    x, weight = torch.randn(40, 5), torch.randn(4, 5, 3)
    for wanted in (x, weight):
        other = weight if wanted is x else x
        out = propagate(
            *(t.requires_grad_() if t is wanted else t.detach() for t in (x, weight)), plan
        )
        out.sum().backward()
        assert wanted.grad is not None
        assert other.grad is None
        wanted.requires_grad_(False).grad = None
    out = propagate(x.requires_grad_(), weight, plan)
    [grad] = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


class TestPlans:
    def test_layers_share_one_and_notice_changes(self):
        edge_index, edge_type = graph_of("even")
        first, second = (RGCNConv(5, 3, 4) for _ in range(2))
        x, before = torch.randn(40, 5), len(PLANS)
        out = first(x, edge_index, edge_type)
        details = ("rgcn", 40, 4, "mean", torch.float)
        plan = PLANS.find(edge_index, edge_type, *details)
        second(x, edge_index, edge_type)
        assert PLANS.find(edge_index, edge_type, *details) is plan is not None
        assert len(PLANS) == before + 1
        edge_type[:] = 0
        assert PLANS.find(edge_index, edge_type, *details) is None
        assert not torch.allclose(first(x, edge_index, edge_type), out)
        assert len(PLANS) == before + 1, "the plan of what was is gone"

    @pytest.mark.parametrize("first_to_go", [0, 1])
    def test_a_plan_goes_with_its_graph(self, first_to_go):
        cache, graph = PlanCache(), list(graph_of("even"))
        plan = build_plan(*graph, 4, True, torch.float)
        cache.keep(plan, *graph)
        assert cache.find(*graph) is plan
        del graph[first_to_go]
        gc.collect()
        assert len(cache) == 0

    def test_the_number_of_nodes_counts(self):
        conv = RGCNConv(5, 3, 4)
        edge_index, edge_type = graph_of("even")
        conv(torch.randn(40, 5), edge_index, edge_type)
        with pytest.raises(ValueError, match=r"ids 0 to 39 given, \[0, 30\)"):
            conv(torch.randn(30, 5), edge_index, edge_type)

    def test_none_for_inference_tensors(self):
        cache = PlanCache()
        with torch.inference_mode():
            graph = graph_of("even")
            cache.keep(build_plan(*graph, 4, True, torch.float), *graph)
        assert len(cache) == 0
