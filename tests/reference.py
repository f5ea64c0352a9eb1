"""Slow and obvious versions of what the package does fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sample_neighbors(
    edge_index: np.ndarray,
    seeds: np.ndarray,
    num_neighbors: Sequence[int],
    generator: np.random.Generator,
    entering: dict[int, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and edges around some seeds, node by node; -1 = all neighbours of a hop.

    ``entering``, if given, holds the edges that enter each node, so that they are found once.
    """
    entering = edges_by_target(edge_index) if entering is None else entering
    nodes = dict.fromkeys(seeds.tolist())
    frontier, edges = list(nodes), []
    for k in num_neighbors:
        before = len(nodes)
        for node in frontier:
            near = entering.get(node, np.zeros(0, dtype=np.int64))
            if 0 <= k < len(near):
                near = generator.choice(near, k, replace=False)
            edges.append(near)
            for source in edge_index[0, near].tolist():
                nodes.setdefault(source)
        frontier = list(nodes)[before:]
    found = np.concatenate([np.zeros(0, dtype=np.int64), *edges])
    return np.array(list(nodes), dtype=np.int64), found


def edges_by_target(edge_index: np.ndarray) -> dict[int, np.ndarray]:
    """Numbers of the edges that enter each node."""
    order = np.argsort(edge_index[1], kind="stable")
    nodes, first = np.unique(edge_index[1, order], return_index=True)
    return dict(zip(nodes.tolist(), np.split(order, first[1:]), strict=True))
