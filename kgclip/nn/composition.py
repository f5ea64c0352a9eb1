"""Composition of entities with relations, and its sum over neighbours.

Every composition is linear in the entity, so Σ_j c φ(x_j, z_r) over the neighbours j by one
relation is φ(Σ_j c x_j, z_r): as many compositions as there are (relation, receiver) or (relation,
sender) pairs, whichever are fewer for the relation, instead of one an edge.

Memory beside input and output: one block of 4,096 pairs, and the plan, which takes at most 120
bytes an edge and lives as long as the graph's tensors. Nothing else is kept for the backward pass.
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
    """Gradients to heads and relations. Float [n, d] both."""
    if composition == "mult":
        return grad * relations, grad * heads
    if composition == "sub":
        return grad, -share * grad
    convolved = torch.fft.irfft(torch.fft.rfft(heads) * torch.fft.rfft(grad), n=heads.shape[-1])
    return compose(grad, relations, "corr"), convolved


@dataclasses.dataclass(frozen=True)
class PairBlock:
    """Some (relation, entity) pairs: what they take from the senders and give to the receivers.

    Attributes:
        relation: Relation of each pair. Long [p].
        by_relation: Sums of pairs, by relation.
        taken: Sums of senders, by pair.
        by_sender: The same, the other way.
        given: Receivers of each pair.
        by_receiver: The same, the other way.
        share: Weight that each pair takes. Float [p, 1].
    """

    relation: Tensor
    by_relation: Sums
    taken: Sums
    by_sender: Sums
    given: Sums
    by_receiver: Sums
    share: Tensor


def plan_pairs(
    edge_index: Tensor, edge_type: Tensor, weight: Tensor, sizes: tuple[int, int, int]
) -> list[PairBlock]:
    """Group a graph's edges into pairs; serves every layer and step of the same graph.

    Args:
        edge_index: Senders and receivers. Long [2, E].
        edge_type: Long [E], each in [0, num_relations).
        weight: Of each edge. Float [E].
        sizes: Number of senders, of receivers and of relations.
    """
    size = int(edge_index.max()) + 1 if edge_index.numel() else 1
    numbers = [
        torch.bincount(
            torch.div(torch.unique(edge_type * size + ends), size, rounding_mode="floor"),
            minlength=sizes[2],
        )
        for ends in edge_index
    ]
    few_senders = (numbers[0] < numbers[1])[edge_type]
    kinds, takings, givings = zip(
        *_pairs(edge_index, edge_type, weight, few_senders, sizes[2]), strict=True
    )
    relation, taken, given = torch.cat(kinds), join(*takings), join(*givings)
    many = len(relation) > _ROWS
    return [
        _pair_block(
            relation[begin:end], taken.part(begin, end), given.part(begin, end), sizes, many
        )
        for begin in range(0, len(relation), _ROWS)
        for end in [min(begin + _ROWS, len(relation))]
    ]


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


def _pair_block(
    relation: Tensor, taken: Sums, given: Sums, sizes: tuple[int, int, int], many: bool
) -> PairBlock:
    """A block; one of many has too few nodes of its own to write to all."""
    rows = torch.arange(len(relation) + 1, device=relation.device)
    each = Sums(relation, relation, rows, torch.ones_like(relation, dtype=taken.weight.dtype))
    by_sender, by_receiver, by_relation = (
        sums.turned().widened(size) for sums, size in zip((taken, given, each), sizes, strict=True)
    )
    share = taken.of(taken.weight.new_ones(int(taken.index.max()) + 1, 1))
    return PairBlock(relation, by_relation, taken, by_sender, given, by_receiver, share)


class _ComposeAndSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, relations: Tensor, blocks: list[PairBlock], composition: str, rows: int
    ) -> Tensor:
        ctx.save_for_backward(x, relations)
        ctx.blocks, ctx.composition = blocks, composition
        out: Tensor | None = None
        for block in blocks:
            own = relations.index_select(0, block.relation)
            messages = compose(block.taken.of(x), own, composition, block.share)
            out = accumulate(out, block.by_receiver, messages, rows)
        return x.new_zeros(rows, x.shape[1]) if out is None else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, relations = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x: Tensor | None = None
        grad_relations: Tensor | None = None
        with full_precision(grad):
            for block in ctx.blocks:
                own = relations.index_select(0, block.relation)
                to_heads, to_relations = _compose_backward(
                    block.given.of(grad), block.taken.of(x), own, ctx.composition, block.share
                )
                grad_x = accumulate(grad_x, block.by_sender, to_heads, len(x))
                grad_relations = accumulate(
                    grad_relations, block.by_relation, to_relations, len(relations)
                )
        return grad_x, grad_relations, None, None, None


def compose_and_sum(
    x: Tensor, relations: Tensor, blocks: list[PairBlock], composition: str, rows: int
) -> Tensor:
    """Sum the composed neighbours: out_i = Σ_{(j, r) → i} c φ(x_j, z_r), differentiable once.

    Args:
        x: Senders. Float [N, d].
        relations: Float [R, d], of the same dtype.
        blocks: The graph, by :func:`plan_pairs`.
        composition: One of :data:`COMPOSITIONS`.
        rows: Number of receivers.

    Returns:
        Float [rows, d].
    """
    out: Tensor = _ComposeAndSum.apply(
        x.contiguous(), relations.contiguous(), blocks, composition, rows
    )
    return out
