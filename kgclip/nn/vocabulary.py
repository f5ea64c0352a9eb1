"""Train a text tower on the few words that a corpus holds, at the cost of those words alone.

Of 49,408 word pieces a small corpus uses a hundred; their gradients and the optimizer's step
would still cost as much as all. A shrunk tower computes the same features from renumbered
tokens, and can be restored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def shrink_vocabulary(clip: nn.Module, token_ids: Tensor) -> tuple[Tensor, nn.Embedding]:
    """Cut an open_clip ``CLIP``'s word embeddings down to some tokens, in place.

    The order of the tokens is kept, so that the end-of-text token remains the highest.

    Args:
        clip: The model; its text tower must find the end of text as the highest token.
        token_ids: Everything that will be encoded, padding included. Long, any shape.

    Returns:
        The tokens kept, ascending, long [V]: ``torch.searchsorted(kept, tokens)`` renumbers; and
        the old embedding, for :func:`restore_vocabulary`.

    Raises:
        ValueError: If the tower pools otherwise.
    """
    owner: Any = clip
    if getattr(owner, "text_pool_type", None) != "argmax":
        raise ValueError("shrink_vocabulary: expected an open_clip CLIP that pools by argmax")
    kept = torch.unique(token_ids)
    full: nn.Embedding = owner.token_embedding
    weight = full.weight.detach()[kept]
    owner.token_embedding = nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight)
    return kept, full


def restore_vocabulary(clip: nn.Module, kept: Tensor, full: nn.Embedding) -> None:
    """Undo :func:`shrink_vocabulary`, with what the kept tokens have learned.

    Args:
        clip: The shrunk model, changed in place.
        kept: As returned by :func:`shrink_vocabulary`.
        full: Likewise; changed in place.
    """
    owner: Any = clip
    with torch.no_grad():
        full.weight[kept] = owner.token_embedding.weight
    owner.token_embedding = full
