"""Entities without a feature of their own take the mean of their neighbours'.

Features and a mask of who has one go in; features for everybody that a path leads to come out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_from_neighbors(
    features: Tensor, present: Tensor, edge_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill the rows that are missing, hop by hop.

    A missing row becomes the mean of the neighbours that have a row already, in the first hop
    those of their own; a row that is present is never changed. No relation, no weight: this is
    what can be said of such an entity before anything is learned.

    Args:
        features: Unit vectors where ``present``. Float [N, D], with gradient.
        present: Who has a feature of its own. Bool [N].
        edge_index: Messages go from row 0 to row 1; give both directions. Long [2, M].

    Returns:
        Unit vectors, zeros where no path leads to a present one, float [N, D]; and how many hops
        away the nearest present one is, 0 = has its own, -1 = none, long [N].
    """
    filled = torch.where(present[:, None], features, torch.zeros_like(features))
    hops = torch.where(present, 0, -1)
    source, target = edge_index
    for hop in range(1, len(features)):
        known = hops >= 0
        new = known[source] & ~known[target]
        if not new.any():
            break
        total = torch.zeros_like(filled).index_add(0, target[new], filled[source[new]])
        reached = torch.zeros_like(known).index_fill(0, target[new], True)
        filled = filled + F.normalize(total, dim=-1)  # total is zero where a row is known
        hops = hops.masked_fill(reached, hop)
    return filled, hops
