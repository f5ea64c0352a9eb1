"""The relation-aware convolutions by name: one ``forward(x, edge_index, edge_type)``."""

from typing import Any

import torch
from torch import Tensor, nn

from kgclip.nn.compgcn import CompGCNConv
from kgclip.nn.hgt import HGTConv
from kgclip.nn.rgat import RGATConv
from kgclip.nn.rgcn import RGCNConv

CONVS: dict[str, type[nn.Module]] = {
    "rgcn": RGCNConv,
    "compgcn": CompGCNConv,
    "rgat": RGATConv,
    "hgt": HGTConv,
}


class GatedResidual(nn.Module):
    r"""Any convolution behind a gate that is closed at the start: x' = x + tanh(a) conv(x).

    a = 0 at step 0, so that the output equals the input exactly, and the model beside the graph
    is untouched until training opens the gate.

    Args:
        conv: Any module from [N, C] to [N, C].
        gate: Where a starts.
    """

    def __init__(self, conv: nn.Module, gate: float = 0.0) -> None:
        super().__init__()
        self.conv = conv
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Convolve and add.

        Args:
            x: Float [N, C].
            *args: Everything else that the convolution takes.
            **kwargs: As ``args``.

        Returns:
            Float [N, C].

        Raises:
            ValueError: If the convolution changes the shape of ``x``.
        """
        change: Tensor = self.conv(x, *args, **kwargs)
        if change.shape != x.shape:
            raise ValueError(
                f"x: {list(x.shape)} given, the convolution makes {list(change.shape)}; equal "
                "shapes expected"
            )
        return x + torch.tanh(self.gate) * change
