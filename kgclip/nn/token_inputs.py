"""Triples to be read token by token, and what the towers make of them.

Each tower runs once, over the image-text pairs, the relations and the entities together; what
is frozen may come as cached features instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.clip import project_image
from kgclip.nn.tokens import encode_with_tokens
from kgclip.nn.triples import QUERIES, Tokens


@dataclasses.dataclass
class TokenInputs:
    """T triples over E uses of entities, each read token by token as its text or its picture.

    What is frozen comes as cached features instead of what they are computed from.

    Attributes:
        text: Token ids of the entities read as text, in their order; long [E - I, L], or cached
            tokens of the text tower, float [E - I, L, W].
        image: Pictures, float [P, 3, H, W], or cached tokens of the image tower, float
            [P, L, W].
        image_mask: True where the entity is read as its picture; I are. Bool [E].
        relation_text: Token ids of all R relations, long [R, L], or their cached features,
            float [R, D].
        triples: Rows of head, relation and tail, in [0, E), [0, R) and [0, E). Long [3, T].
        image_rows: For each of the I entities the row of its picture: first come the pictures of
            the image-text pairs where they are given as pictures, then ``image``. Long [I];
            ``None`` = ``image`` holds one for each, in their order.
        text_mask: True at real ones among cached tokens of texts; ``None`` = all. Bool [E - I, L].
        image_features: Cached trunk features beside cached tokens of pictures. Float [P, W].
        text_features: Cached features beside cached tokens of texts. Float [E - I, D].
        asked: What to compute, of ``QUERIES``.
    """

    text: Tensor
    image: Tensor
    image_mask: Tensor
    relation_text: Tensor
    triples: Tensor
    image_rows: Tensor | None = None
    text_mask: Tensor | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None
    asked: Sequence[str] = QUERIES


@dataclasses.dataclass
class TowerOutput:
    """What the two towers made of a batch.

    Attributes:
        image_features: Pictures of the pairs, unit vectors. Float [B, D].
        text_features: Captions of the pairs, unit vectors. Float [B, D].
        relation_features: Relations, unit vectors. Float [R, D].
        text: Tokens of the entities read as text; ``None`` = there are none.
        image: Tokens of the entities read as pictures; ``None`` = there are none.
        entity_features: The entities, unit vectors; ``None`` where tokens were cached without
            features. Float [E, D].
    """

    image_features: Tensor | None
    text_features: Tensor | None
    relation_features: Tensor
    text: Tokens | None
    image: Tokens | None
    entity_features: Tensor | None


def run_towers(
    clip: nn.Module, image: Tensor | None, text: Tensor | None, inputs: TokenInputs
) -> TowerOutput:
    """Encode pairs, relations and entities, each tower in one pass; cached features pass by.

    Args:
        clip: An open_clip model.
        image: Pictures of the pairs, float [B, 3, H, W], or cached trunk features, float [B, W].
        text: Tokens of their captions, long [B, L], or cached features, float [B, D].
        inputs: The triples and their entities.
    """
    image_features, pictures, of_pictures = _run_image_tower(clip, image, inputs)
    read = _run_text_tower(
        clip, {"pairs": text, "relations": inputs.relation_text, "entities": inputs.text}
    )
    text_features, _ = read.get("pairs", (text, None))
    relations, _ = read.get("relations", (inputs.relation_text, None))
    of_texts, texts = read.get(
        "entities", (inputs.text_features, Tokens(inputs.text, _mask(inputs)))
    )
    assert relations is not None  # never missing
    return TowerOutput(
        None if image_features is None else F.normalize(image_features, dim=-1),
        None if text_features is None else F.normalize(text_features, dim=-1),
        F.normalize(relations, dim=-1),
        texts if len(inputs.text) else None,
        pictures,
        _by_entity(inputs.image_mask, of_texts, of_pictures),
    )


def _by_entity(
    image_mask: Tensor, of_texts: Tensor | None, of_pictures: Tensor | None
) -> Tensor | None:
    """Features of texts and pictures, in the order of the entities, normalised. [E, D]."""
    masks = ~image_mask, image_mask
    parts = [(mask, part) for mask, part in zip(masks, (of_texts, of_pictures), strict=True)
             if mask.any()]  # fmt: skip
    given = [part for _, part in parts if part is not None]
    if not given or len(given) < len(parts):
        return None
    features = given[0].new_zeros(len(image_mask), given[0].shape[1])
    for (mask, _), part in zip(parts, given, strict=True):
        features = features.index_put((mask,), part.to(features.dtype))
    return F.normalize(features, dim=-1)


def _run_image_tower(
    clip: nn.Module, image: Tensor | None, inputs: TokenInputs
) -> tuple[Tensor | None, Tokens | None, Tensor | None]:
    """Features of the pairs; tokens and features of the entities read as pictures."""
    pictures, rows, pairs = inputs.image, inputs.image_rows, 0
    features = None
    if image is not None and image.ndim == pictures.ndim == 4:
        pairs, pictures = len(image), torch.cat([image, pictures])
    elif image is not None:
        features = project_image(clip, image)
    if not len(pictures):
        return features, None, None
    joint: Tensor | None = None
    if pictures.ndim == 3:
        if inputs.image_features is not None:
            joint = project_image(clip, inputs.image_features)
        tokens = Tokens(pictures, torch.ones_like(pictures[:, :, 0], dtype=torch.bool))
    else:
        joint, states, mask = encode_with_tokens(clip, image=pictures)
        features = joint[:pairs] if pairs else features
        tokens = Tokens(states, mask)
    if rows is None:
        rows = torch.arange(pairs, len(pictures), device=pictures.device)
    if not len(rows):
        return features, None, None
    return features, tokens[rows], None if joint is None else joint[rows]


def _run_text_tower(
    clip: nn.Module, groups: Mapping[str, Tensor | None]
) -> dict[str, tuple[Tensor | None, Tokens]]:
    """Features and tokens of the groups that are token ids, in one pass."""
    ids = {name: group for name, group in groups.items()
           if group is not None and not group.is_floating_point()}  # fmt: skip
    if not ids:
        return {}
    sizes = [len(group) for group in ids.values()]
    parts = encode_with_tokens(clip, text=torch.cat(list(ids.values())))
    columns = zip(*(torch.split(part, sizes) for part in parts), strict=True)
    return {
        name: (features, Tokens(states, mask))
        for name, (features, states, mask) in zip(ids, columns, strict=True)
    }


def _mask(inputs: TokenInputs) -> Tensor:
    """Real ones among cached tokens of texts."""
    if inputs.text_mask is not None:
        return inputs.text_mask
    return torch.ones(inputs.text.shape[:2], dtype=torch.bool, device=inputs.text.device)
