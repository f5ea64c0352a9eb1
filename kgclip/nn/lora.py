"""LoRA on open_clip's towers: few trained numbers, and little to forget.

A model goes in and is changed in place. open_clip keeps queries, keys and values in one weight of
``nn.MultiheadAttention``; a parametrization of the weight itself adapts that like any other, the
frozen weight is never written (adapters that merge and unmerge around each forward pass drift),
and after :func:`merge_lora` the model has its own modules and names again.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)
_WEIGHTS: dict[type[nn.Module], str] = {
    nn.Linear: "weight",
    nn.MultiheadAttention: "in_proj_weight",
}


class LowRank(nn.Module):
    """W + (alpha / rank) B A; B is zero at the start.

    Args:
        weight: W, whose shape, type and device the adapter takes. Float [O, I].
        rank: Rows of A, at least 1.
        alpha: Strength.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.lora_b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight. Float [O, I]."""
        return torch.addmm(weight, self.lora_b, self.lora_a, alpha=self.scale)


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    target_modules: list[str] | None = None,
    tower: str | None = None,
) -> nn.Module:
    """Freeze a model and let a low-rank matrix learn beside its linear layers.

    Args:
        model: An open_clip model, or one of its towers; changed in place.
        rank: Of the learned matrices, at least 1.
        alpha: Their strength.
        target_modules: Names, or ends of names, of linear layers and attentions to adapt;
            ``None`` = all that stand inside a transformer's blocks.
        tower: ``"image"`` or ``"text"``: the only tower of an open_clip model that is adapted;
            ``None`` = both.

    Returns:
        The model, which computes bit for bit the same until it is trained; only ``lora_a`` and
        ``lora_b`` have gradients.

    Raises:
        ValueError: If ``rank`` is below 1, there is no such tower, or no module is named so.

    Reference:
        Hu et al., LoRA, ICLR 2022.
    """
    if rank < 1:
        raise ValueError(f"rank: {rank} given, 1 or more expected")
    if tower not in (None, "image", "text"):
        raise ValueError(f"tower: {tower!r} given, 'image', 'text' or None expected")
    layers: dict[str, tuple[nn.Module, str]] = {
        name: (part, weight)
        for name, part in model.named_modules()
        for kind, weight in _WEIGHTS.items()
        # An attention whose widths differ has three weights; open_clip has none such.
        if isinstance(part, kind) and isinstance(getattr(part, weight), nn.Parameter)
        if tower is None or name.startswith("visual.") == (tower == "image")
    }
    chosen = [name for name in layers if _is_target(name, target_modules)]
    if not chosen:
        wanted = "inside a block" if target_modules is None else f"named {target_modules}"
        raise ValueError(f"no linear layer or attention {wanted}; known: {', '.join(layers)}")
    model.requires_grad_(False)
    for name in chosen:
        layer, weight = layers[name]
        adapter = LowRank(getattr(layer, weight), rank, alpha)
        parametrize.register_parametrization(layer, weight, adapter)
    return model


def merge_lora(model: M) -> M:
    """Add what the adapters learned to the weights, and take the adapters out.

    Args:
        model: After :func:`add_lora`; changed in place.

    Returns:
        The model, with the modules and tensor names that it had before, all with gradients.
    """
    for layer in list(model.modules()):
        adapted: Any = getattr(layer, "parametrizations", {})
        for weight in list(adapted):
            if isinstance(adapted[weight][0], LowRank):
                parametrize.remove_parametrizations(layer, weight, leave_parametrized=True)
    return model.requires_grad_(True)


def _is_target(name: str, targets: list[str] | None) -> bool:
    if targets is None:
        return any(part.isdecimal() for part in name.split("."))
    return any(name == target or name.endswith(f".{target}") for target in targets)
