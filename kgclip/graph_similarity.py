"""How alike entities are by the graph: what soft targets of image-text pairs are made of.

Edges come in once; entity ids of a batch go in, a matrix of similarities comes out.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor


class SharedNeighbors:
    """Cosine of the entities' sets of neighbours: |N(i) ∩ N(j)| / √(|N(i)| |N(j)|).

    An entity without neighbours is like itself alone.

    Args:
        edge_index: Edges in both directions; duplicates count once. Long [2, M].
        num_entities: Number N of entities.
    """

    def __init__(self, edge_index: Tensor, num_entities: int) -> None:
        self.adjacency = _adjacency(edge_index, num_entities)
        degree = np.diff(self.adjacency.indptr)
        self.scale = 1 / np.sqrt(np.maximum(degree, 1))

    def __call__(self, ids: Tensor) -> Tensor:
        """Compare entities with each other.

        Args:
            ids: Long [B].

        Returns:
            Float [B, B], each in [0, 1]; 1 between equal ids.
        """
        chosen = ids.cpu().numpy()
        rows, scale = self.adjacency[chosen], self.scale[chosen]
        shared = (rows @ rows.T).toarray() * scale[:, None] * scale[None, :]
        shared[chosen[:, None] == chosen[None, :]] = 1.0
        return torch.from_numpy(shared).float().to(ids.device)


class PersonalizedPageRank:
    """Where a random walk from one entity that often starts anew is found.

    Not symmetric: a well-connected entity is near to many. Memory O(B · N) a call.

    Args:
        edge_index: Edges in both directions; duplicates count once. Long [2, M].
        num_entities: Number N of entities.
        restart: Probability of starting anew before each step, in (0, 1].
        steps: Steps of the iteration; the error is below (1 − ``restart``) to this power.

    Raises:
        ValueError: If ``restart`` is out of range.

    Reference:
        Page et al., 1999; as soft targets: Brannon et al., ConGraT, arXiv 2305.14321.
    """

    def __init__(
        self, edge_index: Tensor, num_entities: int, restart: float = 0.15, steps: int = 20
    ) -> None:
        if not 0 < restart <= 1:
            raise ValueError(f"restart: {restart} given, a probability in (0, 1] expected")
        adjacency = _adjacency(edge_index, num_entities)
        degree = np.maximum(np.diff(adjacency.indptr), 1)
        self.walk = (scipy.sparse.diags_array(1.0 / degree) @ adjacency).T.tocsr()
        self.restart, self.steps = restart, steps

    def __call__(self, ids: Tensor) -> Tensor:
        """Compare entities with each other.

        Args:
            ids: Long [B].

        Returns:
            Row i: the walk from ``ids[i]``; what ends in an entity without neighbours is lost.
            Float [B, B], each in [0, 1].
        """
        chosen = ids.cpu().numpy()
        distinct, place = np.unique(chosen, return_inverse=True)
        start = np.zeros((self.walk.shape[0], len(distinct)), dtype=np.float32)
        start[distinct, np.arange(len(distinct))] = self.restart
        found = start
        for _ in range(self.steps):
            found = start + (1 - self.restart) * (self.walk @ found)
        table = found[distinct].T  # from each to each
        return torch.from_numpy(table[np.ix_(place, place)]).float().to(ids.device)


def _adjacency(edge_index: Tensor, num_entities: int) -> scipy.sparse.csr_array:
    source, target = edge_index.cpu().numpy()
    ones = np.ones(len(source), dtype=np.float32)
    matrix = scipy.sparse.csr_array((ones, (source, target)), shape=(num_entities, num_entities))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
