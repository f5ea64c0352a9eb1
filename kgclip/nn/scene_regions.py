"""Region triples of scenes: two regions of one picture, or their texts, and how they lie.

Boxes come in as shares of the image tower's cells, the fields that E2E, E2R and the loss between
regions and their texts read go out. A region is the mean of the tower's tokens under its box:
tokens know where they lie, which a picture cut out by itself would not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.tokens import encode_with_tokens
from kgclip.nn.triples import Tokens, TripleEncoder


@dataclasses.dataclass
class SceneRegions:
    """Of B pictures one triple each: the entities are the B heads, then the B tails.

    Attributes:
        cells: Share of each of the tower's C cells in each entity's box. Float [2B, C], rows add
            up to 1.
        text: Token ids of what the entities are called. Long [2B, L].
        image_mask: True where an entity is read as its region, else as its text. Bool [2B].
        relation: Relation of each triple, each in [0, R). Long [B].
        relation_text: Token ids of the relations. Long [R, L].
    """

    cells: Tensor
    text: Tensor
    image_mask: Tensor
    relation: Tensor
    relation_text: Tensor


def cell_shares(boxes: Tensor, image_size: int, grid: int) -> Tensor:
    """How much of each box lies in each cell of a grid over the picture.

    Args:
        boxes: x, y, width and height in pixels, inside the picture. Float [..., 4].
        image_size: Height and width of the picture in pixels.
        grid: Cells in a row and in a column, G.

    Returns:
        Shares, row after row of the grid. Float [..., G²], adding up to 1.
    """
    edges = torch.linspace(0, image_size, grid + 1)
    start, size = boxes[..., :2, None], boxes[..., 2:, None]
    overlap = torch.minimum(start + size, edges[1:]) - torch.maximum(start, edges[:-1])
    across, down = (overlap.clamp(min=0) / size).unbind(-2)
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def encode_regions(
    clip: nn.Module, encoder: TripleEncoder, cells: Tensor, regions: SceneRegions
) -> dict[str, Tensor]:
    """Encode the triples and their entities.

    Args:
        clip: An open_clip ``CLIP``.
        encoder: Reads the triples.
        cells: The image tower's tokens of the pictures, without the class token. Float [B, C, W].
        regions: The triples.

    Returns:
        ``region_features`` and ``region_text_features``, unit vectors, float [2B, D], and what
        :class:`TripleEncoder` returns.
    """
    visual: Any = clip.visual
    pairs = regions.cells.view(2, *cells.shape[:2])
    pooled = torch.einsum("ebc,bcw->ebw", pairs, cells).flatten(0, 1)
    features = visual.head(visual.trunk.forward_head(pooled[:, None]))
    texts, states, mask = encode_with_tokens(
        clip, text=torch.cat([regions.text, regions.relation_text])
    )
    count = len(regions.text)
    as_text = ~regions.image_mask
    seen = pooled[regions.image_mask][:, None]
    entities = encoder.embed(
        Tokens(states[:count], mask[:count])[as_text],
        Tokens(seen, torch.ones_like(seen[..., 0], dtype=torch.bool)),
        regions.image_mask,
    )
    heads = torch.arange(len(regions.relation), device=cells.device)
    triples = torch.stack([heads, regions.relation, heads + len(heads)])
    return {
        "region_features": F.normalize(features, dim=-1),
        "region_text_features": F.normalize(texts[:count], dim=-1),
        **encoder(entities, F.normalize(texts[count:], dim=-1), triples),
    }
