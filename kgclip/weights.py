"""Weights between two models: what fine-tuning gained and what it forgot.

Fine-tuning on one's own data costs zero-shot accuracy elsewhere; a point on the line between the
start weights and the tuned ones often keeps most of both (WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(
    start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """The weights (1 - alpha) * start + alpha * tuned.

    What only the tuned model has (its graph part) is taken as it is. Whole numbers, such as
    batch norm's count of batches, are those of the nearer end.

    Args:
        start: ``state_dict`` of the model that training started from.
        tuned: ``state_dict`` of the trained one; must hold every tensor of ``start``.
        alpha: In [0, 1]; 0 gives ``start`` and 1 gives ``tuned``, bit for bit.

    Returns:
        A new ``state_dict``; its tensors share memory with neither.

    Raises:
        ValueError: If ``alpha`` is out of range, or a tensor is missing or of another shape.

    Reference:
        Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: {alpha} given, a number in [0, 1] expected")
    missing = [name for name in start if name not in tuned]
    if missing:
        raise ValueError(
            f"{len(missing)} tensors of the start model are not in the tuned one ({missing[0]}): "
            "two models of one architecture expected"
        )
    mixed = {}
    for name, end in tuned.items():
        begin = start.get(name, end)
        if begin.shape != end.shape:
            raise ValueError(
                f"{name}: shapes {list(begin.shape)} and {list(end.shape)} given, equal expected"
            )
        if alpha in (0.0, 1.0) or not end.is_floating_point():
            mixed[name] = (end if alpha >= 0.5 else begin).detach().clone()
        else:
            mixed[name] = torch.lerp(begin.detach(), end.detach(), alpha)
    return mixed
