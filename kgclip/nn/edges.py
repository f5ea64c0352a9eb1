"""What every convolution asks of its features and edges."""

from __future__ import annotations

import torch
from torch import Tensor


def check_features(x: Tensor, channels: int, name: str = "x") -> None:
    """Check features.

    Args:
        x: Expected float [N, channels] without NaN.
        channels: Their width.
        name: What the message calls them.

    Raises:
        ValueError: Says what was given and what was expected.
    """
    if not x.is_floating_point() or x.ndim != 2 or x.shape[1] != channels:
        raise ValueError(f"{name}: {x.dtype} {list(x.shape)} given, float [N, {channels}] expected")
    # The sum is NaN if one of them is; it is cheap, and seldom NaN for another reason.
    if x.sum().isnan() and x.isnan().any():
        rows = x.isnan().any(dim=1).nonzero().squeeze(1)
        raise ValueError(
            f"{name}: NaN in {len(rows)} of {len(x)} rows, the first is row {int(rows[0])}; "
            "numbers expected"
        )


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


def softmax_by_target(logits: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    """Softmax over the edges that enter each node.

    Args:
        logits: Float [E, H].
        target: Node that each edge enters. Long [E], each in [0, num_nodes).
        num_nodes: Number of nodes.

    Returns:
        Float [E, H].
    """
    index = target[:, None].expand_as(logits)
    highest = logits.new_full((num_nodes, logits.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
    raised = (logits - highest[target]).exp()
    total = logits.new_zeros(num_nodes, logits.shape[1]).index_add(0, target, raised)
    return raised / total[target]
