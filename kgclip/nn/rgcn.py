"""RGCN at a cost that does not grow with the number of relations.

PyG's layer loops over the relations and keeps a dense [N, d] tensor for each. Here each edge is
touched once: messages are averaged for every (relation, target) that exists, in blocks of one
relation, multiplied by the relation's matrix and added to their targets.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (relation, target) pairs in one block: their features stay in the cache. On a large graph the
# sources' features compete for it, and half as many measured faster.
_BLOCK, _BLOCK_OF_LARGE, _LARGE = 8192, 4096, 50_000


@dataclasses.dataclass
class _Block:
    """Edges of one relation, grouped by target, and the same edges grouped by source."""

    relation: int
    target: Tensor  # [s] target of each pair
    source: Tensor  # [e] source of each edge, by pair
    start: Tensor  # [s + 1] where each pair's edges begin
    weight: Tensor  # [e] 1 / edges of the pair, or 1
    sender: Tensor  # [u] distinct sources
    sender_start: Tensor  # [u + 1]
    sender_pair: Tensor  # [e] pair of each edge, by source
    sender_weight: Tensor  # [e]


def plan_blocks(
    edge_index: Tensor, edge_type: Tensor, num_relations: int, mean: bool, dtype: torch.dtype
) -> list[_Block]:
    """Sort the edges once; a plan serves every layer and step of the same graph.

    Args:
        edge_index: Messages go from row 0 to row 1. Long [2, E].
        edge_type: Long [E], each in [0, num_relations).
        num_relations: Number R of relations.
        mean: Average the messages of a pair instead of adding them.
        dtype: Of the features.
    """
    source, target = edge_index
    num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
    key, order = torch.sort(edge_type * num_nodes + target, stable=True)
    pairs, counts = torch.unique_consecutive(key, return_counts=True)
    source = source[order]
    weight = (1.0 / counts.to(dtype)).repeat_interleave(counts) if mean else None
    start = F.pad(counts.cumsum(0), (1, 0))
    relation = torch.div(pairs, max(1, num_nodes), rounding_mode="floor")
    sizes = torch.bincount(relation, minlength=num_relations).tolist()
    block = _BLOCK if num_nodes < _LARGE else _BLOCK_OF_LARGE
    blocks, first = [], 0
    for number, size in enumerate(sizes):
        for begin in range(first, first + size, block):
            end = min(begin + block, first + size)
            edges = slice(int(start[begin]), int(start[end]))
            blocks.append(
                _block(
                    number,
                    pairs[begin:end] - number * num_nodes,
                    source[edges],
                    start[begin : end + 1] - start[begin],
                    torch.ones_like(source[edges], dtype=dtype)
                    if weight is None
                    else weight[edges],
                )
            )
        first += size
    return blocks


def _block(relation: int, target: Tensor, source: Tensor, start: Tensor, weight: Tensor) -> _Block:
    pair = torch.arange(len(target), device=target.device).repeat_interleave(start.diff())
    ordered, order = torch.sort(source, stable=True)
    sender, counts = torch.unique_consecutive(ordered, return_counts=True)
    sender_start = F.pad(counts.cumsum(0), (1, 0))
    return _Block(
        relation, target, source, start, weight,
        sender, sender_start, pair[order], weight[order],
    )  # fmt: skip


def _bag(x: Tensor, index: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows of x. [len(start) - 1, d]."""
    return F.embedding_bag(
        index, x, start, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


class _Propagate(torch.autograd.Function):
    """Sum over the blocks; the backward pass makes the averages anew instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, blocks: list[_Block]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.blocks = blocks
        out = x.new_zeros(len(x), weight.shape[-1])
        for block in blocks:
            averages = _bag(x, block.source, block.start, block.weight)
            out.index_add_(0, block.target, averages @ weight[block.relation])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return _Propagate._grads(ctx, grad, x, weight)

    @staticmethod
    def _grads(
        ctx: Any, grad: Tensor, x: Tensor, weight: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        wants_x, wants_weight, _ = ctx.needs_input_grad
        grad_x = torch.zeros_like(x) if wants_x else None
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        for block in ctx.blocks:
            part = grad[block.target]
            if grad_weight is not None:
                averages = _bag(x, block.source, block.start, block.weight)
                grad_weight[block.relation].addmm_(averages.T, part)
            if grad_x is not None:
                back = part @ weight[block.relation].T
                moved = _bag(back, block.sender_pair, block.sender_start, block.sender_weight)
                grad_x.index_add_(0, block.sender, moved)
        return grad_x, grad_weight, None


class RGCNConv(nn.Module):
    r"""Relational graph convolution; PyG's layer in signature, parameters and output.

    .. math::
        x'_i = \Theta_{root} x_i + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} \Theta_r x_j + b

    The plan of the last graph is kept: the same ``edge_index`` and ``edge_type`` tensors,
    unchanged, are sorted once.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        num_relations: Number R of relations.
        num_bases: Θ_r is a mixture of so many matrices.
        num_blocks: Θ_r is block-diagonal with so many blocks.
        aggr: ``"mean"`` (per relation) or ``"add"``.
        root_weight: Whether an entity sees itself.
        bias: Whether to add a bias.

    Raises:
        ValueError: If both decompositions are given, a width is not divisible by ``num_blocks``,
            or ``aggr`` is another word.

    Reference:
        Schlichtkrull et al., arXiv 1703.06103.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        aggr: str = "mean",
        root_weight: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_bases is not None and num_blocks is not None:
            raise ValueError("num_bases and num_blocks are both given; choose one of them")
        if num_blocks is not None and (in_channels % num_blocks or out_channels % num_blocks):
            raise ValueError(
                f"widths {in_channels} and {out_channels} given, expected multiples of "
                f"num_blocks={num_blocks}"
            )
        if aggr not in ("mean", "add"):
            raise ValueError(f"aggr: {aggr!r} given, 'mean' or 'add' expected")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_relations, self.num_bases, self.num_blocks = num_relations, num_bases, num_blocks
        self.aggr = aggr
        if num_blocks is not None:
            shape = (
                num_relations,
                num_blocks,
                in_channels // num_blocks,
                out_channels // num_blocks,
            )
            self.weight = nn.Parameter(torch.empty(shape))
        else:
            count = num_relations if num_bases is None else num_bases
            self.weight = nn.Parameter(torch.empty(count, in_channels, out_channels))
        self.comp = nn.Parameter(torch.empty(num_relations, num_bases)) if num_bases else None
        self.root = nn.Parameter(torch.empty(in_channels, out_channels)) if root_weight else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self._plan: tuple[Any, ...] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, Glorot's as PyG's."""
        for parameter in (self.weight, self.comp, self.root):
            if parameter is not None:
                bound = math.sqrt(6.0 / (parameter.shape[-2] + parameter.shape[-1]))
                nn.init.uniform_(parameter, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: Float [N, in_channels].
            edge_index: Messages go from row 0 to row 1. Long [2, E], each in [0, N).
            edge_type: Long [E], each in [0, num_relations).

        Returns:
            Float [N, out_channels].

        Raises:
            ValueError: If features or edges are of the wrong kind, shape or range.
        """
        check_features(x, self.in_channels)
        x = x.to(self.weight.dtype)
        # Under autocast too: sums over thousands of neighbours need the full precision.
        with torch.autocast(x.device.type, enabled=False):
            blocks = self._blocks(x, edge_index, edge_type)
            out: Tensor = _Propagate.apply(x, self._matrices(), blocks)
        if self.root is not None:
            out = out + x @ self.root
        return out if self.bias is None else out + self.bias

    def _matrices(self) -> Tensor:
        """Θ of every relation. Float [R, in_channels, out_channels]."""
        if self.comp is not None:
            return torch.einsum("rb,bio->rio", self.comp, self.weight)
        if self.num_blocks is None:
            return self.weight
        dense = self.weight.new_zeros(
            self.num_relations, self.num_blocks, self.in_channels // self.num_blocks,
            self.num_blocks, self.out_channels // self.num_blocks,
        )  # fmt: skip
        block = torch.arange(self.num_blocks, device=self.weight.device)
        dense[:, block, :, block] = self.weight.transpose(0, 1)
        return dense.reshape(self.num_relations, self.in_channels, self.out_channels)

    def _blocks(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> list[_Block]:
        tensors = (edge_index, edge_type)
        counted = not any(tensor.is_inference() for tensor in tensors)
        versions = tuple(tensor._version for tensor in tensors) if counted else ()
        if self._plan is not None and counted:
            known, known_versions, size, dtype, blocks = self._plan
            same = all(ref() is tensor for ref, tensor in zip(known, tensors, strict=True))
            if same and known_versions == versions and (size, dtype) == (len(x), x.dtype):
                return blocks  # type: ignore[no-any-return]  # stored below
        check_edges(edge_index, edge_type, len(x), self.num_relations)
        mean = self.aggr == "mean"
        blocks = plan_blocks(edge_index, edge_type, self.num_relations, mean, x.dtype)
        if counted:  # changes of other tensors cannot be noticed
            self._plan = (tuple(map(weakref.ref, tensors)), versions, len(x), x.dtype, blocks)
        return blocks

    def __getstate__(self) -> dict[str, Any]:
        """All but the plan, which belongs to tensors of this process."""
        return {**self.__dict__, "_plan": None}


def check_features(x: Tensor, channels: int, name: str = "x") -> None:
    """Check features.

    Args:
        x: Expected float [N, channels].
        channels: Their width.
        name: What the message calls them.

    Raises:
        ValueError: Says what was given and what was expected.
    """
    if not x.is_floating_point() or x.ndim != 2 or x.shape[1] != channels:
        raise ValueError(f"{name}: {x.dtype} {list(x.shape)} given, float [N, {channels}] expected")


def check_edges(edge_index: Tensor, edge_type: Tensor, num_nodes: int, num_relations: int) -> None:
    """Check typed edges.

    Args:
        edge_index: Expected long [2, E], each in [0, num_nodes).
        edge_type: Expected long [E], each in [0, num_relations).
        num_nodes: Number of nodes.
        num_relations: Number of relations.

    Raises:
        ValueError: Says what was given and what was expected.
    """
    if edge_index.dtype != torch.long or edge_index.ndim != 2 or len(edge_index) != 2:
        raise ValueError(
            f"edge_index: {edge_index.dtype} {list(edge_index.shape)} given, long [2, E] expected"
        )
    if edge_type.dtype != torch.long or edge_type.shape != edge_index.shape[1:]:
        raise ValueError(
            f"edge_type: {edge_type.dtype} {list(edge_type.shape)} given, "
            f"long [{edge_index.shape[1]}] expected"
        )
    for name, ids, count in (
        ("edge_index", edge_index, num_nodes),
        ("edge_type", edge_type, num_relations),
    ):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
            raise ValueError(
                f"{name}: ids {int(ids.min())} to {int(ids.max())} given, [0, {count}) expected"
            )
