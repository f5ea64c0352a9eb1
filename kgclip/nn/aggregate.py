"""Sums over typed edges: their checks, a plan made once a graph, and a product a relation.

The plan sorts the edges into segments, one for each (relation, target) that occurs, and cuts them
into blocks that stay in the cache. A block is summed first and multiplied afterwards, so that no
matrix grows with relations x nodes or with edges x channels².
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import OrderedDict
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_SEGMENTS = 8192
MAX_PLANS = 16


def check_edges(
    edge_index: Tensor, edge_type: Tensor, num_sources: int, num_targets: int, num_relations: int
) -> None:
    """Check that typed edges fit together and into the graph.

    Args:
        edge_index: Long [2, E], row 0 in [0, num_sources), row 1 in [0, num_targets).
        edge_type: Long [E], each in [0, num_relations).
        num_sources: Number of nodes that messages come from.
        num_targets: Number of nodes that messages go to.
        num_relations: Number of relations.

    Raises:
        ValueError: Names the argument, what was given and what was expected.
    """
    if edge_index.dtype != torch.long or edge_index.ndim != 2 or len(edge_index) != 2:
        raise ValueError(
            f"edge_index is {edge_index.dtype} {tuple(edge_index.shape)}; expected long [2, E]"
        )
    if edge_type.dtype != torch.long or edge_type.shape != edge_index.shape[1:]:
        raise ValueError(
            f"edge_type is {edge_type.dtype} {tuple(edge_type.shape)}; "
            f"expected long [{edge_index.shape[1]}], one relation an edge"
        )
    _check_range("edge_index[0]", edge_index[0], num_sources)
    _check_range("edge_index[1]", edge_index[1], num_targets)
    _check_range("edge_type", edge_type, num_relations)


def _check_range(name: str, ids: Tensor, count: int) -> None:
    if ids.numel():
        low, high = (int(end) for end in torch.aminmax(ids))
        if low < 0 or high >= count:
            raise ValueError(f"{name} has ids in [{low}, {high}]; expected ids in [0, {count})")


@dataclasses.dataclass(frozen=True)
class Block:
    """Some segments of a plan: s of them, with m edges.

    Attributes:
        source: Source of each edge, by segment. Long [m].
        offsets: Where each segment's edges begin, and the end. Long [s + 1].
        scale: What each edge counts, or ``None`` = 1. Float [m].
        target: Target of each segment. Long [s].
        spans: Relation and the segments that belong to it, from and to.
    """

    source: Tensor
    offsets: Tensor
    scale: Tensor | None
    target: Tensor
    spans: list[tuple[int, int, int]]

    def gather(self, x: Tensor) -> Tensor:
        """Sum what each segment receives: float [N, C] to [s, C]."""
        return _bag(self.source, x, self.offsets, self.scale)

    @cached_property
    def _by_source(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """The edges by source: their segments, offsets and scales, and the distinct sources."""
        source, order = torch.sort(self.source, stable=True)
        distinct, counts = torch.unique_consecutive(source, return_counts=True)
        rows = torch.arange(len(self.target), device=source.device)
        segment = torch.repeat_interleave(rows, self.offsets.diff())[order]
        scale = None if self.scale is None else self.scale[order]
        return segment, _offsets(counts), scale, distinct

    def scatter(self, grad: Tensor, into: Tensor) -> None:
        """Add the transpose of :meth:`gather`, float [s, C], to ``into``, float [N, C]."""
        segment, offsets, scale, distinct = self._by_source
        into.index_add_(0, distinct, _bag(segment, grad, offsets, scale))


def _bag(rows: Tensor, x: Tensor, offsets: Tensor, scale: Tensor | None) -> Tensor:
    return F.embedding_bag(
        rows, x, offsets, mode="sum", per_sample_weights=scale, include_last_offset=True
    )


def _offsets(counts: Tensor) -> Tensor:
    return F.pad(counts.cumsum(0), (1, 0))


@dataclasses.dataclass(frozen=True)
class RelationPlan:
    """The edges of a graph in the order in which :func:`relation_matmul` needs them.

    Attributes:
        num_targets: Number of nodes that messages go to.
        blocks: Blocks of at most ``BLOCK_SEGMENTS`` (relation, target) segments.
    """

    num_targets: int
    blocks: list[Block]


_plans: OrderedDict[tuple[Any, ...], tuple[Any, Any, RelationPlan]] = OrderedDict()


def relation_plan(
    edge_index: Tensor,
    edge_type: Tensor,
    num_sources: int,
    num_targets: int,
    num_relations: int,
    *,
    mean: bool,
    dtype: torch.dtype,
) -> RelationPlan:
    """Check and sort the edges of a graph, or return the plan made for the same tensors before.

    A plan lives as long as both tensors and is not used again after a change in place (one that
    torch knows of: not one through ``.numpy()`` or ``.data``).

    Args:
        edge_index: Long [2, E].
        edge_type: Long [E].
        num_sources: Number of nodes that messages come from.
        num_targets: Number of nodes that messages go to.
        num_relations: Number of relations.
        mean: An edge counts 1 / edges of its relation into its target, not 1.
        dtype: Of the features.

    Raises:
        ValueError: As :func:`check_edges`.
    """
    sizes = (num_sources, num_targets, num_relations)
    if edge_index.is_inference() or edge_type.is_inference():  # these do not count versions
        check_edges(edge_index, edge_type, *sizes)
        return _build(edge_index, edge_type, num_targets, mean, dtype)
    versions = (edge_index._version, edge_type._version)
    key = (id(edge_index), id(edge_type), *versions, *sizes, mean, dtype)
    first, second, plan = _plans.get(key, (None, None, None))
    if plan is not None and first() is edge_index and second() is edge_type:
        _plans.move_to_end(key)
        return plan
    check_edges(edge_index, edge_type, *sizes)
    plan = _build(edge_index, edge_type, num_targets, mean, dtype)

    def forget(_: object) -> None:
        _plans.pop(key, None)

    _plans[key] = weakref.ref(edge_index, forget), weakref.ref(edge_type, forget), plan
    while len(_plans) > MAX_PLANS:
        _plans.popitem(last=False)
    return plan


def _build(
    edge_index: Tensor, edge_type: Tensor, num_targets: int, mean: bool, dtype: torch.dtype
) -> RelationPlan:
    keys, order = torch.sort(edge_type * num_targets + edge_index[1], stable=True)
    source = edge_index[0][order]
    segments, counts = torch.unique_consecutive(keys, return_counts=True)
    target = segments % max(1, num_targets)
    relations, sizes = torch.unique_consecutive(
        segments // max(1, num_targets), return_counts=True
    )
    offsets = _offsets(counts)
    scale = torch.repeat_interleave(1 / counts.to(dtype), counts) if mean else None
    ends = sizes.cumsum(0).tolist()
    runs = list(zip(relations.tolist(), [0, *ends[:-1]], ends, strict=True)) if ends else []
    blocks, run = [], 0
    for start in range(0, len(segments), BLOCK_SEGMENTS):
        stop = min(start + BLOCK_SEGMENTS, len(segments))
        spans = []
        while run < len(runs) and runs[run][1] < stop:
            relation, low, high = runs[run]
            spans.append((relation, max(low, start) - start, min(high, stop) - start))
            if high > stop:  # goes on in the next block
                break
            run += 1
        begin, end = int(offsets[start]), int(offsets[stop])
        part = None if scale is None else scale[begin:end]
        edges = offsets[start : stop + 1] - begin
        blocks.append(Block(source[begin:end], edges, part, target[start:stop], spans))
    return RelationPlan(num_targets, blocks)


def relation_matmul(x: Tensor, weight: Tensor, plan: RelationPlan) -> Tensor:
    """Sum over all edges of scale x source features x the weight of the relation.

    Differentiable once, in ``x`` and ``weight``. Memory is O(segments x channels).

    Args:
        x: Features of the sources. Float [N, B * F_in].
        weight: B diagonal blocks for each relation; B = 1 is a full matrix.
            Float [R, B, F_in, F_out].
        plan: The edges.

    Returns:
        Float [num_targets, B * F_out].
    """
    # Under autocast too: sums over thousands of neighbours need the full precision.
    with torch.autocast(x.device.type, enabled=False):
        out: Tensor = _RelationMatmul.apply(x.to(weight.dtype).contiguous(), weight, plan)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return out


class _RelationMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: RelationPlan) -> Tensor:
        out = x.new_zeros(plan.num_targets, weight.shape[1] * weight.shape[3])
        hidden = []
        for block in plan.blocks:
            gathered = block.gather(x)
            moved = x.new_empty(len(block.target), out.shape[1])
            inputs, outputs = _blocks(gathered, weight), _blocks(moved, weight)
            for relation, start, stop in block.spans:
                torch.bmm(inputs[:, start:stop], weight[relation], out=outputs[:, start:stop])
            out.index_add_(0, block.target, moved)
            if ctx.needs_input_grad[1]:
                hidden.append(gathered)
        ctx.plan, ctx.shape = plan, x.shape
        ctx.save_for_backward(weight, *hidden)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]  # torch leaves it untyped
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, *hidden = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        grad_x = grad.new_zeros(ctx.shape) if needs_x else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        for number, block in enumerate(ctx.plan.blocks):
            outputs = _blocks(grad.index_select(0, block.target), weight)
            if grad_weight is not None:
                inputs = _blocks(hidden[number], weight).transpose(1, 2)
                for relation, start, stop in block.spans:
                    grad_weight[relation].baddbmm_(
                        inputs[:, :, start:stop], outputs[:, start:stop]
                    )
            if grad_x is not None:
                back = grad.new_empty(len(block.target), ctx.shape[1])
                moved = _blocks(back, weight)
                for relation, start, stop in block.spans:
                    torch.bmm(
                        outputs[:, start:stop],
                        weight[relation].transpose(1, 2),
                        out=moved[:, start:stop],
                    )
                block.scatter(back, grad_x)
        return grad_x, grad_weight, None


def _blocks(features: Tensor, weight: Tensor) -> Tensor:
    """View [s, B * C] as [B, s, C], the B of the weight."""
    return features.view(len(features), weight.shape[1], -1).transpose(0, 1)
