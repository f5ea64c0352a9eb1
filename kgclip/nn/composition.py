"""Composition of entities with relations, and its sum over neighbours.

Every composition is linear in the entity, so Σ_j c φ(x_j, z_r) over the neighbours j by one
relation is φ(Σ_j c x_j, z_r): as many compositions as there are (relation, receiver) pairs instead
of one an edge, or as (relation, sender) pairs where those are far fewer. The backward pass has
pairs of its own, in the order of the senders, so that a block writes few rows both ways. On the CPU
``"mult"`` and ``"sub"`` are left to :mod:`kgclip.nn.edge_kernels`, which need no pairs.

Memory beside input and output: one block of 4,096 pairs, and the plan, which takes about 180 bytes
an edge and entity at most and lives as long as the graph's tensors. Nothing else is kept for the
backward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kgclip.nn.propagation import Sums, accumulate, full_precision, join

COMPOSITIONS = ("mult", "sub", "corr")
_FACTOR = 2  # so many times more pairs are worth it if a block's sums are then few rows
_ROWS = 4096  # pairs of one block: what is computed of them stays in the cache


def compose(
    heads: Tensor, relations: Tensor, composition: str, share: Tensor | float = 1.0
) -> Tensor:
    """Compose entities with relations.

    Args:
        heads: Float [..., d].
        relations: Float [..., d].
        composition: ``"mult"`` h∘z, ``"sub"`` h - s z, or ``"corr"``, the circular correlation
            Σ_i h_i z_{(i+k) mod d}.
        share: What the heads are a weighted sum of has this total weight s. Float [..., 1].

    Returns:
        Float [..., d].
    """
    if composition == "mult":
        return heads * relations
    if composition == "sub":
        return heads - share * relations
    spectrum = torch.conj(torch.fft.rfft(heads)) * torch.fft.rfft(relations)
    correlated: Tensor = torch.fft.irfft(spectrum, n=heads.shape[-1])
    return correlated


def _compose_backward(
    grad: Tensor, heads: Tensor, relations: Tensor, composition: str, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients to heads and relations, which are overwritten. Float [n, d] both."""
    if composition == "mult":
        return relations.mul_(grad), heads.mul_(grad)
    if composition == "sub":
        return grad, -share * grad
    convolved = torch.fft.irfft(torch.fft.rfft(heads) * torch.fft.rfft(grad), n=heads.shape[-1])
    return compose(grad, relations, "corr"), convolved


@dataclasses.dataclass(frozen=True)
class PairBlock:
    """Some (relation, entity) pairs: what they take from the senders and give to the receivers.

    Attributes:
        relation: Relation of each pair. Long [p].
        taken: Sums of senders, by pair.
        share: Weight that each pair takes. Float [p, 1].
        summed: Sums of pairs: by receiver, in the backward pass by sender.
        given: Sums of receivers, by pair; only for the backward pass, as the next.
        by_relation: Sums of pairs, by relation.
    """

    relation: Tensor
    taken: Sums
    share: Tensor
    summed: Sums
    given: Sums | None = None
    by_relation: Sums | None = None


@dataclasses.dataclass(frozen=True)
class PairPlan:
    """A graph's edges in pairs; serves every layer and step of the same graph.

    Attributes:
        forward: Blocks of pairs, each spread over few receivers.
        backward: The same edges again, each block spread over few senders.
    """

    forward: list[PairBlock]
    backward: list[PairBlock]


def plan_pairs(
    edge_index: Tensor, edge_type: Tensor, weight: Tensor, sizes: tuple[int, int, int]
) -> PairPlan:
    """Group a graph's edges into pairs.

    Args:
        edge_index: Senders and receivers. Long [2, E].
        edge_type: Long [E], each in [0, num_relations).
        weight: Of each edge. Float [E].
        sizes: Number of senders, of receivers and of relations.
    """
    size = int(edge_index.max()) + 1 if edge_index.numel() else 1
    senders, receivers = (
        torch.bincount(
            torch.div(torch.unique(edge_type * size + ends), size, rounding_mode="floor"),
            minlength=sizes[2],
        )
        for ends in edge_index
    )
    forward, backward = (
        _blocks(edge_index, edge_type, weight, few_senders[edge_type], sizes, is_backward)
        for is_backward, few_senders in enumerate(
            (_FACTOR * senders < receivers, senders <= _FACTOR * receivers)
        )
    )
    return PairPlan(forward, backward)


def _blocks(
    edge_index: Tensor,
    edge_type: Tensor,
    weight: Tensor,
    few_senders: Tensor,
    sizes: tuple[int, int, int],
    is_backward: int,
) -> list[PairBlock]:
    kinds, takings, givings = zip(
        *_pairs(edge_index, edge_type, weight, few_senders, sizes[2]), strict=True
    )
    relation, taken, given = torch.cat(kinds), join(*takings), join(*givings)
    blocks = []
    for begin in range(0, len(relation), _ROWS):
        end = min(begin + _ROWS, len(relation))
        kind, takes, gives = relation[begin:end], taken.part(begin, end), given.part(begin, end)
        rows = torch.arange(len(kind) + 1, device=kind.device)
        each = Sums(kind, kind, rows, torch.ones_like(kind, dtype=weight.dtype))
        share = takes.of(weight.new_ones(int(takes.index.max()) + 1, 1))
        summed = (takes if is_backward else gives).turned().widened(sizes[1 - is_backward])
        more = (gives, each.turned().widened(sizes[2])) if is_backward else ()
        blocks.append(PairBlock(kind, takes, share, summed, *more))
    return blocks


def _pairs(
    edge_index: Tensor, edge_type: Tensor, weight: Tensor, few_senders: Tensor, num_relations: int
) -> Iterator[tuple[Tensor, Sums, Sums]]:
    """Relation, taken and given of the pairs with the receivers, then of those with senders."""
    for chosen, near in ((~few_senders, 1), (few_senders, 0)):
        # By node, then by relation: a block's pairs are spread over few nodes.
        key = edge_index[near, chosen] * num_relations + edge_type[chosen]
        key, order = torch.sort(key, stable=True)
        pairs, counts = torch.unique_consecutive(key, return_counts=True)
        node = torch.div(pairs, num_relations, rounding_mode="floor")
        relation = pairs - node * num_relations
        rows = torch.arange(len(pairs) + 1, device=pairs.device)
        start = F.pad(counts.cumsum(0), (1, 0))
        many = Sums(node, edge_index[1 - near, chosen][order], start, weight[chosen][order])
        one = Sums(node, node, rows, torch.ones_like(node, dtype=weight.dtype))
        yield (relation, many, one) if near else (relation, one, many)


class _ComposeAndSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, relations: Tensor, plan: PairPlan, composition: str, rows: int
    ) -> Tensor:
        ctx.save_for_backward(x, relations)
        ctx.plan, ctx.composition = plan, composition
        out: Tensor | None = None
        for block in plan.forward:
            own, heads = relations.index_select(0, block.relation), block.taken.of(x)
            messages = (
                own.mul_(heads)  # no new memory: it stays in the cache
                if composition == "mult"
                else compose(heads, own, composition, block.share)
            )
            out = accumulate(out, block.summed, messages, rows)
        return x.new_zeros(rows, x.shape[1]) if out is None else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, relations = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x: Tensor | None = None
        grad_relations: Tensor | None = None
        with full_precision(grad):
            for block in ctx.plan.backward:
                assert block.given is not None
                assert block.by_relation is not None
                own = relations.index_select(0, block.relation)
                to_heads, to_relations = _compose_backward(
                    block.given.of(grad), block.taken.of(x), own, ctx.composition, block.share
                )
                grad_x = accumulate(grad_x, block.summed, to_heads, len(x))
                grad_relations = accumulate(
                    grad_relations, block.by_relation, to_relations, len(relations)
                )
        return grad_x, grad_relations, None, None, None


def compose_and_sum(
    x: Tensor, relations: Tensor, plan: PairPlan, composition: str, rows: int
) -> Tensor:
    """Sum the composed neighbours: out_i = Σ_{(j, r) → i} c φ(x_j, z_r), differentiable once.

    Args:
        x: Senders. Float [N, d].
        relations: Float [R, d], of the same dtype.
        plan: The graph, by :func:`plan_pairs`.
        composition: One of :data:`COMPOSITIONS`.
        rows: Number of receivers.

    Returns:
        Float [rows, d].
    """
    out: Tensor = _ComposeAndSum.apply(
        x.contiguous(), relations.contiguous(), plan, composition, rows
    )
    return out
