"""Large batches in little memory: encode in chunks, keep only the features.

A contrastive loss needs the features of the whole batch at once, not the activations behind them.
Each chunk is encoded without keeping any, and once more when its gradient is due: the gradient of
the whole batch, exactly, for a second forward pass. This is what GradCache does; torch's
checkpointing does it inside autograd, so that every loss and every encoder (picture, text, graph)
works unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk_size: int | None
) -> Tensor:
    """Encode a batch chunk by chunk.

    Random numbers (dropout) are the same in both passes. A module that changes itself in its
    forward pass, as batch norm in training mode does, sees each chunk twice, and never the
    whole batch: freeze it.

    Args:
        encode: Maps n rows to n rows, each from its own input row alone.
        inputs: [B, ...].
        chunk_size: Rows in memory at once, at least 1; ``None`` = all of them, in one ordinary
            pass.

    Returns:
        ``encode(inputs)`` up to rounding. [B, ...], with gradient.

    Raises:
        ValueError: If ``chunk_size`` is below 1.

    Reference:
        Gao et al., Scaling deep contrastive learning batch size under memory limited setup,
        arXiv 2101.06983.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: {chunk_size} given, 1 or more expected")
    if chunk_size is None or len(inputs) <= chunk_size or not torch.is_grad_enabled():
        chunks = (inputs,) if chunk_size is None else torch.split(inputs, chunk_size)
        return torch.cat([encode(chunk) for chunk in chunks])
    parts: list[Tensor] = [
        checkpoint(encode, chunk, use_reentrant=False) for chunk in torch.split(inputs, chunk_size)
    ]
    return torch.cat(parts)
