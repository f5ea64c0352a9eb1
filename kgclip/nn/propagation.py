"""Messages along typed edges, W_r for each relation, touching every edge once.

The product with W_r is linear, so it may come after the sum over an entity's neighbours or before
it. A relation's edges are grouped on the side that has fewer entities, and only those are
multiplied: in blocks of one relation, small enough to stay in the cache. The backward pass is the
same on the reversed graph, so nothing is kept for it but the input.

Memory beside input and output: one block (4,096 rows) and the plan, which takes at most
56 bytes an edge and 48 a (relation, entity) pair, and lives as long as the graph's tensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Rows of one block: their features stay in the cache.
_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Sums:
    """Weighted sums of rows of a matrix.

    Attributes:
        nodes: Entity of each sum. Long [s].
        index: Rows to sum, by sum. Long [e].
        start: Where each sum begins. Long [s + 1].
        weight: Float [e].
    """

    nodes: Tensor
    index: Tensor
    start: Tensor
    weight: Tensor

    def of(self, x: Tensor) -> Tensor:
        """Compute them, without gradient. Float [s, d]."""
        # Detached: for a matrix that requires a gradient it would list the bag of every row.
        sums: Tensor = torch.embedding_bag(
            x.detach(), self.index, self.start, mode=0,
            per_sample_weights=self.weight, include_last_offset=True,
        )[0]  # fmt: skip
        return sums

    def part(self, begin: int, end: int) -> Sums:
        """The sums from ``begin`` up to ``end``."""
        edges = slice(int(self.start[begin]), int(self.start[end]))
        start = self.start[begin : end + 1] - self.start[begin]
        return Sums(self.nodes[begin:end], self.index[edges], start, self.weight[edges])

    def turned(self) -> Sums:
        """The same edges the other way: sums of our rows, by what they are sums of."""
        row = torch.arange(len(self.nodes), device=self.nodes.device)
        row = row.repeat_interleave(self.start.diff())
        ordered, order = torch.sort(self.index, stable=True)
        nodes, counts = torch.unique_consecutive(ordered, return_counts=True)
        return Sums(nodes, row[order], F.pad(counts.cumsum(0), (1, 0)), self.weight[order])

    def widened(self, rows: int) -> Sums:
        """With an empty sum for each other node, if at least a quarter has one already."""
        if 4 * len(self.nodes) < rows:
            return self
        counts = self.start.new_zeros(rows)
        counts[self.nodes] = self.start.diff()
        every = torch.arange(rows, device=counts.device)
        return Sums(every, self.index, F.pad(counts.cumsum(0), (1, 0)), self.weight)


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Switch autocast off: sums over thousands of neighbours need the full precision."""
    device = x.device.type
    is_on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if is_on else contextlib.nullcontext()


def join(*parts: Sums) -> Sums:
    """All sums of several, in their order."""
    starts, total = [parts[0].start[:1]], 0
    for part in parts:
        starts.append(part.start[1:] + total)
        total += len(part.index)
    nodes, index, weight = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("nodes", "index", "weight")
    )
    return Sums(nodes, index, torch.cat(starts), weight)


def accumulate(out: Tensor | None, sums: Sums, x: Tensor, rows: int) -> Tensor:
    """Add sums, whose nodes ascend and are distinct, to the rows of ``out``; ``None`` = zeros."""
    found = sums.of(x)
    if len(sums.nodes) == rows:
        return found if out is None else out.add_(found)
    out = found.new_zeros(rows, found.shape[1]) if out is None else out
    return out.index_add_(0, sums.nodes, found)


@dataclasses.dataclass(frozen=True)
class Block:
    """Edges of one relation.

    Attributes:
        relation: Which one.
        sums: Its edges by the side that is multiplied by the relation's matrix.
        spread: ``None`` if that is the receiving side. Else from there to the receivers.
    """

    relation: int
    sums: Sums
    spread: Sums | None

    def send(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        """Add this block's messages to ``out``. Float [N, d'], weight [d, d']."""
        if self.spread is None:
            out.index_add_(0, self.sums.nodes, self.sums.of(x) @ weight)
        else:
            sent = x.index_select(0, self.sums.nodes) @ weight
            out.index_add_(0, self.spread.nodes, self.spread.of(sent))

    def send_back(
        self, grad: Tensor, x: Tensor, weight: Tensor, grad_x: Tensor | None, out: Tensor | None
    ) -> None:
        """Add to the gradients of the input, float [N, d], and of the weight, float [d, d']."""
        if self.spread is None:  # multiplied where the messages came from
            received = self.sums.of(grad)
            if grad_x is not None:
                grad_x.index_add_(0, self.sums.nodes, received @ weight.T)
            if out is not None:
                out.addmm_(x.index_select(0, self.sums.nodes).T, received)
        else:
            received = grad.index_select(0, self.sums.nodes)
            if grad_x is not None:
                grad_x.index_add_(0, self.spread.nodes, self.spread.of(received @ weight.T))
            if out is not None:
                out.addmm_(self.sums.of(x).T, received)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A graph sorted for message passing; serves every layer and step of the same graph.

    Attributes:
        forward: Blocks that send from row 0 of ``edge_index`` to row 1.
        backward: Blocks that send the other way.
    """

    forward: list[Block]
    backward: list[Block]


def build_plan(
    edge_index: Tensor, edge_type: Tensor, num_relations: int, mean: bool, dtype: torch.dtype
) -> Plan:
    """Sort the edges.

    Args:
        edge_index: Messages go from row 0 to row 1. Long [2, E].
        edge_type: Long [E], each in [0, num_relations).
        num_relations: Number R of relations.
        mean: Average the messages of a relation at an entity instead of adding them.
        dtype: Of the features.
    """
    source, target = edge_index
    size = int(edge_index.max()) + 1 if edge_index.numel() else 1
    weight = torch.ones(len(source), dtype=dtype, device=source.device)
    if mean:
        _, row, counts = torch.unique(
            edge_type * size + target, return_inverse=True, return_counts=True
        )
        weight = counts[row].to(dtype).reciprocal()
    by_target = _group(edge_type, target, source, weight, size)
    by_source = _group(edge_type, source, target, weight, size)
    sizes = [
        torch.bincount(relation, minlength=num_relations).tolist()
        for relation, _ in (by_target, by_source)
    ]
    receiving, sending = by_target[1], by_source[1]
    return Plan(
        _cut(receiving, sizes[0], sending, sizes[1]), _cut(sending, sizes[1], receiving, sizes[0])
    )


def _group(
    edge_type: Tensor, near: Tensor, far: Tensor, weight: Tensor, size: int
) -> tuple[Tensor, Sums]:
    """Sums by (relation, near end) over the far ends, and the relation of each sum."""
    key, order = torch.sort(edge_type * size + near, stable=True)
    pairs, counts = torch.unique_consecutive(key, return_counts=True)
    relation = torch.div(pairs, size, rounding_mode="floor")
    start = F.pad(counts.cumsum(0), (1, 0))
    return relation, Sums(pairs - relation * size, far[order], start, weight[order])


def _cut(receiving: Sums, receivers: list[int], sending: Sums, senders: list[int]) -> list[Block]:
    """Blocks of each relation, from the numbers of its receivers and senders."""
    blocks, end_receiving, end_sending = [], 0, 0
    for relation, (num_receivers, num_senders) in enumerate(zip(receivers, senders, strict=True)):
        first_receiving, end_receiving = end_receiving, end_receiving + num_receivers
        first_sending, end_sending = end_sending, end_sending + num_senders
        # Multiplying the senders costs one more pass over the rows.
        few_senders = 2 * num_senders < num_receivers
        sums, first, end = (
            (sending, first_sending, end_sending)
            if few_senders
            else (receiving, first_receiving, end_receiving)
        )
        for begin in range(first, end, _ROWS):
            part = sums.part(begin, min(begin + _ROWS, end))
            blocks.append(Block(relation, part, part.turned() if few_senders else None))
    return blocks


class _Propagate(torch.autograd.Function):
    """Sum over the blocks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.plan = plan
        out = x.new_zeros(len(x), weight.shape[-1])
        matrices = weight.unbind(0)
        for block in plan.forward:
            block.send(x, matrices[block.relation], out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        grad_x = torch.zeros_like(x) if wants_x else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        grad, matrices = grad.contiguous(), weight.unbind(0)
        grads = [None] * len(weight) if grad_weight is None else grad_weight.unbind(0)
        with full_precision(grad):
            for block in ctx.plan.backward:
                number = block.relation
                block.send_back(grad, x, matrices[number], grad_x, grads[number])
        return grad_x, grad_weight, None


def propagate(x: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """Send messages: out_i = Σ_r Σ_{j→i} c W_rᵀ x_j, differentiable once.

    Args:
        x: Float [N, d], contiguous or not.
        weight: Float [R, d, d'], of the same dtype.
        plan: Of the same graph and dtype.

    Returns:
        Float [N, d'].
    """
    out: Tensor = _Propagate.apply(x.contiguous(), weight, plan)
    return out


class PlanCache:
    """Plans of the graphs that are alive, shared by all layers.

    A plan belongs to the two tensors of a graph and goes when either does. Changes in place are
    noticed by the tensors' version counters.
    """

    def __init__(self) -> None:
        # The weak references are kept only so that they report when a tensor goes.
        self._plans: dict[tuple[int, int], tuple[Any, dict[tuple[Any, ...], Any]]] = {}

    def __len__(self) -> int:
        """Number of graphs that have a plan."""
        return len(self._plans)

    def find(self, edge_index: Tensor, edge_type: Tensor, *details: Any) -> Any:
        """The plan of a graph, ``None`` if it has none.

        Args:
            edge_index: Long [2, E].
            edge_type: Long [E].
            *details: Whatever else the plan depends on: no two kinds of plan have the same.
        """
        _, known = self._plans.get((id(edge_index), id(edge_type)), (None, {}))
        return known.get((_versions(edge_index, edge_type), *details))

    def keep(self, plan: Any, edge_index: Tensor, edge_type: Tensor, *details: Any) -> None:
        """Keep a plan; not for inference tensors, whose changes cannot be noticed."""
        versions = _versions(edge_index, edge_type)
        if versions is None:
            return
        key = (id(edge_index), id(edge_type))
        if key not in self._plans:
            graph = (edge_index, edge_type)
            refs = [weakref.ref(tensor, lambda _: self._plans.pop(key, None)) for tensor in graph]
            self._plans[key] = refs, {}
        _, known = self._plans[key]
        for stale in [details for details in known if details[0] != versions]:
            del known[stale]
        known[versions, *details] = plan


def _versions(*tensors: Tensor) -> tuple[int, ...] | None:
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return tuple(tensor._version for tensor in tensors)


PLANS = PlanCache()
