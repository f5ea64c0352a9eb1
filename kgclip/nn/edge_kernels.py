"""Sums of composed neighbours in one pass over the edges, compiled for the CPU by numba.

No row of a message is ever written: a receiver's sum stays in the cache while its edges add to it.
So an edge costs the same whatever the number of relations. The gradient to the entities runs over
the edges by sender, and that to the relations along with it.

Memory beside input and output: 40 bytes an edge, and a copy of the relations' gradient for each of
torch's threads.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

COMPOSITIONS = ("mult", "sub")
DTYPES = (torch.float32, torch.float64)
# Sums may be reordered, as in every vectorised sum; infinities and NaN stay what they are.
_compiled: Any = numba.njit(fastmath={"contract", "nsz", "reassoc"}, nogil=True)


@dataclasses.dataclass(frozen=True)
class Runs:
    """Edges in the order of one of their ends, the near one.

    Attributes:
        start: Where each near node's edges begin. Int64 [n + 1].
        far: Node at the other end. Int64 [E].
        relation: Int64 [E].
        weight: Float [E].
    """

    start: np.ndarray
    far: np.ndarray
    relation: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class EdgePlan:
    """A graph's edges by receiver and by sender; serves every layer and step of the same graph."""

    forward: Runs
    backward: Runs


def plan_edges(
    edge_index: Tensor, edge_type: Tensor, weight: Tensor, sizes: tuple[int, int, int]
) -> EdgePlan:
    """Sort a graph's edges.

    Args:
        edge_index: Senders and receivers. Long [2, E], on the CPU.
        edge_type: Long [E].
        weight: Of each edge. Float [E].
        sizes: Number of senders, of receivers and, as pairs need it, of relations.
    """
    senders, receivers = edge_index
    return EdgePlan(
        _runs(receivers, senders, edge_type, weight, sizes[1]),
        _runs(senders, receivers, edge_type, weight, sizes[0]),
    )


def _runs(near: Tensor, far: Tensor, edge_type: Tensor, weight: Tensor, size: int) -> Runs:
    order = torch.argsort(near, stable=True)
    start = F.pad(torch.bincount(near, minlength=size).cumsum(0), (1, 0))
    return Runs(start.numpy(), *(values[order].numpy() for values in (far, edge_type, weight)))


@_compiled
def _product(head, own):  # type: ignore[no-untyped-def]
    return head * own


@_compiled
def _product_back(value, head, own):  # type: ignore[no-untyped-def]
    return value * own, value * head


@_compiled
def _difference(head, own):  # type: ignore[no-untyped-def]
    return head - own


@_compiled
def _difference_back(value, head, own):  # type: ignore[no-untyped-def]
    return value, -value


def _forward_kernel(compose: Any) -> Any:
    @_compiled
    def kernel(first, last, start, far, relation, weight, x, relations, out):  # type: ignore[no-untyped-def]
        for row in range(first, last):
            total = out[row]
            total[:] = 0
            for edge in range(start[row], start[row + 1]):
                head, own, share = x[far[edge]], relations[relation[edge]], weight[edge]
                for k in range(len(total)):
                    total[k] += share * compose(head[k], own[k])

    return kernel


def _backward_kernel(compose_back: Any) -> Any:
    @_compiled
    def kernel(first, last, start, far, relation, weight, grad, x, relations, to_x, to_own):  # type: ignore[no-untyped-def]
        for row in range(first, last):
            total, head = to_x[row], x[row]
            total[:] = 0
            for edge in range(start[row], start[row + 1]):
                given, kind, share = grad[far[edge]], relation[edge], weight[edge]
                own, to_kind = relations[kind], to_own[kind]
                for k in range(len(total)):
                    to_head, to_relation = compose_back(share * given[k], head[k], own[k])
                    total[k] += to_head
                    to_kind[k] += to_relation

    return kernel


_FORWARD = {"mult": _forward_kernel(_product), "sub": _forward_kernel(_difference)}
_BACKWARD = {"mult": _backward_kernel(_product_back), "sub": _backward_kernel(_difference_back)}


def _parts(runs: Runs) -> list[tuple[int, int]]:
    """Rows for each of torch's threads, with about as many edges in each part."""
    count = max(1, min(torch.get_num_threads(), len(runs.far) // 10_000))
    wanted = np.arange(1, count) * len(runs.far) // count
    cuts = np.searchsorted(runs.start, wanted, side="left").tolist()
    ends = [0, *cuts, len(runs.start) - 1]
    return list(itertools.pairwise(ends))


def _each(kernel: Any, runs: Runs, parts: list[tuple[int, int]], arguments: list[Any]) -> None:
    """Run a kernel on every part, in as many threads."""

    def run(part: tuple[int, int], arrays: list[Any]) -> None:
        kernel(*part, runs.start, runs.far, runs.relation, runs.weight, *arrays)

    if len(parts) == 1:
        run(parts[0], arguments[0])
        return
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(run, parts, arguments))  # a list, so that what a thread raises is raised


class _SumOfEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, relations: Tensor, plan: EdgePlan, composition: str) -> Tensor:
        ctx.save_for_backward(x, relations)
        ctx.plan, ctx.composition = plan, composition
        runs = plan.forward
        out = x.new_empty(len(runs.start) - 1, x.shape[1])
        arrays = [tensor.detach().numpy() for tensor in (x, relations, out)]
        parts = _parts(runs)
        _each(_FORWARD[composition], runs, parts, [arrays] * len(parts))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, relations = ctx.saved_tensors
        runs = ctx.plan.backward
        parts = _parts(runs)
        to_x = torch.empty_like(x)
        to_relations = relations.new_zeros(len(parts), *relations.shape)
        arrays = [tensor.detach().numpy() for tensor in (grad.contiguous(), x, relations, to_x)]
        arguments = [[*arrays, own.numpy()] for own in to_relations]
        _each(_BACKWARD[ctx.composition], runs, parts, arguments)
        return to_x, to_relations.sum(0), None, None


def sum_composed_edges(x: Tensor, relations: Tensor, plan: EdgePlan, composition: str) -> Tensor:
    """Sum the composed neighbours: out_i = Σ_{(j, r) → i} c φ(x_j, z_r), differentiable once.

    Args:
        x: Senders, on the CPU. Float [N, d], of one of :data:`DTYPES`.
        relations: Float [R, d], of the same dtype.
        plan: The graph, by :func:`plan_edges`, with weights of that dtype.
        composition: One of :data:`COMPOSITIONS`.

    Returns:
        Float [rows, d].
    """
    out: Tensor = _SumOfEdges.apply(x.contiguous(), relations.contiguous(), plan, composition)
    return out
