"""An image tower of ours: a frozen convolutional grid under a small trained transformer.

Pictures of 128 pixels become a grid of features [112, 8, 8] (EfficientNet-Lite0 up to stride 16),
the grid becomes tokens, and the transformer's class token the picture's features. The tower is
registered with timm, so that open_clip builds, saves and loads it by a model config alone; the
grid can be computed once a picture and cached, because it never trains.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import timm
import torch
from open_clip.transformer import Transformer
from timm.models import register_model
from torch import Tensor, nn

_STAGES = 5  # of EfficientNet-Lite0's seven: the last at stride 16
GRID_CHANNELS, GRID_STRIDE = 112, 16


class GridTower(nn.Module):
    """Frozen grid, then a transformer over its cells.

    Args:
        num_classes: Width of the output; 0 = the class token as it is.
        image_size: Height and width of the pictures in pixels, a multiple of 32.
        width: Of the transformer.
        layers: Of the transformer.
        heads: Of each layer.

    Attributes:
        grid: The frozen part; :func:`kgclip.nn.pretrained.load_efficientnet_lite0` fills it.
        num_features: Width of the class token.
        num_prefix_tokens: One, the class token.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        num_classes: int = 0,
        *,
        image_size: int = 128,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        network: Any = timm.create_model("tf_efficientnet_lite0")
        parts = ("conv_stem", "bn1", "blocks")
        self.grid = nn.Sequential(OrderedDict((part, getattr(network, part)) for part in parts))
        self.grid.blocks = network.blocks[:_STAGES]
        self.num_features = width
        self.grid_norm = nn.LayerNorm(GRID_CHANNELS)
        self.cells = nn.Sequential(  # every cell sees its neighbours; half as many remain
            nn.Conv2d(GRID_CHANNELS, 192, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(192, width, 1),
        )
        num_cells = (image_size // (2 * GRID_STRIDE)) ** 2
        # As large as the features: where a cell lies must be read from the first step on.
        self.positions = nn.Parameter(0.2 * torch.randn(1 + num_cells, width))
        self.transformer = Transformer(width, layers, heads)
        self.norm = nn.LayerNorm(width)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the projection, as timm's models do; 0 = none."""
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures: float [B, 3, H, W] to float [B, num_classes], or [B, width] without."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens of pictures, class token first: float [B, 3, H, W] to float [B, 1 + C, width]."""
        return self.encode_grid(self.grid(images))

    def encode_grid(self, grid: Tensor) -> Tensor:
        """Tokens of a grid that was computed before.

        Args:
            grid: Float [B, 112, H / 16, W / 16].

        Returns:
            Float [B, 1 + C, width], C = H / 32 · W / 32 cells.
        """
        normed = self.grid_norm(grid.movedim(1, -1)).movedim(-1, 1)
        cells = self.cells(normed).flatten(2).transpose(1, 2)
        tokens = torch.cat([cells.new_zeros(len(cells), 1, cells.shape[-1]), cells], dim=1)
        states: Tensor = self.norm(self.transformer(tokens + self.positions))
        return states

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Project the class token: float [B, 1 + C, width] to float [B, num_classes]."""
        features: Tensor = tokens[:, 0] if pre_logits else self.head(tokens[:, 0])
        return features


@register_model
def kgclip_grid_tower(pretrained: bool = False, num_classes: int = 0, **options: Any) -> GridTower:
    """Build the tower for timm; what open_clip's model config names.

    Args:
        pretrained: Must be false: the weights of the grid come from a package, not from a hub.
        num_classes: Width of the output.
        **options: Of :class:`GridTower`; timm's own are ignored.
    """
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "global_pool"):
        options.pop(name, None)
    return GridTower(num_classes, **options)
