"""What open_clip towers know before they pool: tokens of pictures and texts.

Pictures or token ids go in, ``tokens [B, L, W]`` and ``mask [B, L]`` come out. They are the
states from which the tower itself only selects or averages, so pooling and projecting them its
own way gives ``encode_image`` or ``encode_text``. W is the tower's width, not the joint one, and
differs between the towers.

Also here: :func:`encode_text_trimmed`, ``encode_text`` without the work on padding, and
:func:`encode_with_tokens`, features and tokens from one pass.
"""

from __future__ import annotations

import logging
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from kgclip.nn.clip import evaluating

_logger = logging.getLogger(__name__)
_END_POOLS = ("argmax", "eos")  # the end-of-text token is what is pooled
_TRIM_IS_EXACT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def encode_tokens(
    model: nn.Module,
    image: Tensor | None = None,
    text: Tensor | None = None,
    *,
    trim: bool = False,
) -> tuple[Tensor, Tensor]:
    """Encode pictures or texts into one vector a patch or word piece.

    ======================== ==========================================================
    image tower              tokens, in the order of the picture's rows
    ======================== ==========================================================
    open_clip ViT            class token first, then patches, after the final norm (before
                             it where the tower normalises after pooling); with an attention
                             pooler its queries
    timm                     ``trunk.forward_features``: NCHW and NHWC maps flattened to
                             H·W, a transformer's sequence with its prefix tokens first
    ModifiedResNet           the map that the attention pool reads
    anything else            what its method ``forward_tokens(image)`` returns
    ======================== ==========================================================

    The class token is kept because most ViTs pool it and nothing else;
    :func:`num_prefix_tokens` says how many to drop. Texts: the states after the final norm; the
    mask ends with the end-of-text token, and always holds the position that the tower pools
    (CoCa: the class token, last; SigLIP: the last position). Hugging Face towers: the last hidden
    state and their own padding mask. Another text tower: ``forward_tokens(text)``.

    Args:
        model: An open_clip model.
        image: Preprocessed pictures. Float [B, 3, H, W].
        text: Token ids, as long as the tokenizer makes them. Long [B, L].
        trim: Drop the last text positions that no text of the batch uses; their computation is
            saved where that is exact.

    Returns:
        Tokens, float [B, L, W] with gradient, and the mask of real ones, bool [B, L].

    Raises:
        ValueError: If not exactly one of ``image`` and ``text`` is given, or the tower is of no
            known kind and has no ``forward_tokens``.
    """
    if (image is None) == (text is None):
        raise ValueError("encode_tokens takes either image or text")
    if image is not None:
        return _image_states(model.visual, image, pooled=False)[1:]
    assert text is not None  # one of the two is, says the check above
    if not trim:
        return _text_tokens(text_tower(model), text)
    tokens, mask = _text_tokens(text_tower(model), text[:, : _trimmed_length(model, text)])
    used = mask.any(dim=0).nonzero()
    length = int(used.max()) + 1 if len(used) else 0
    return tokens[:, :length], mask[:, :length]


def encode_with_tokens(
    model: nn.Module, image: Tensor | None = None, text: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features and tokens of pictures or texts, from one pass of the tower where it is known.

    Equal texts are encoded once and padding is cut off, as by :func:`encode_text_trimmed` and
    ``encode_tokens(trim=True)``. Towers with a ``forward_tokens`` of their own, and text towers
    that do not pool the end of the text or may not be trimmed, run twice.

    Args:
        model: An open_clip model.
        image: Preprocessed pictures. Float [B, 3, H, W].
        text: Token ids, as long as the tokenizer makes them. Long [B, L].

    Returns:
        Features as ``encode_image`` or ``encode_text`` gives them, not normalised, float [B, D];
        tokens, float [B, L', W]; the mask of real ones, bool [B, L']. All with gradient.

    Raises:
        ValueError: As :func:`encode_tokens`.
    """
    if (image is None) == (text is None):
        raise ValueError("encode_with_tokens takes either image or text")
    if image is not None:
        features, tokens, mask = _image_states(model.visual, image, pooled=True)
        assert features is not None  # asked for
        return features, tokens, mask
    assert text is not None  # one of the two is, says the check above
    if not len(text):  # unique refuses a tensor without rows
        return _full_text_features(model, text), *encode_tokens(model, text=text)
    distinct, inverse = torch.unique(text, dim=0, return_inverse=True)
    tokens, mask = encode_tokens(model, text=distinct, trim=True)
    if _pools_the_end(model, distinct):
        features = _pool_text(text_tower(model), tokens, distinct)
    else:
        features = encode_text_trimmed(model, distinct)
    return features[inverse], tokens[inverse], mask[inverse]


def num_prefix_tokens(model: nn.Module) -> int:
    """How many of a picture's tokens come before its patches (class token, registers)."""
    visual: Any = model.visual
    if isinstance(visual, VisionTransformer):
        return int(visual.attn_pool is None or visual.pool_type != "none")
    owner = visual.trunk if isinstance(visual, TimmModel) else visual
    return int(getattr(owner, "num_prefix_tokens", 0))


def text_tower(model: nn.Module) -> nn.Module:
    """The module that encodes texts: ``model.text``, or the model itself (open_clip's CLIP)."""
    tower: Any = model if isinstance(model, CLIP) else model.text
    return cast(nn.Module, tower)


def encode_text_trimmed(model: nn.Module, tokens: Tensor, normalize: bool = False) -> Tensor:
    """``model.encode_text`` at a fraction of the cost for short or repeated texts.

    Equal rows are encoded once, and columns that cannot reach the result are left out: behind
    the longest end-of-text token where attention is causal and that token is pooled, behind the
    longest text where a Hugging Face tower masks its padding. The first batch of each model is
    also encoded at full length for two texts, and a model that differs is never trimmed; other
    towers (SigLIP, CoCa) are not either. With dropout, equal rows share their noise.

    Args:
        model: An open_clip model.
        tokens: Token ids, as long as the tokenizer makes them. Long [B, L].
        normalize: Whether to return unit vectors.

    Returns:
        ``model.encode_text(tokens, normalize)`` up to rounding. Float [B, D], with gradient.

    Raises:
        ValueError: If ``tokens`` is not 2-D.
    """
    if tokens.dim() != 2:
        raise ValueError(f"tokens must be [B, L], not {tuple(tokens.shape)}")
    if not len(tokens):  # unique refuses a tensor without rows
        return _full_text_features(model, tokens)
    distinct, inverse = torch.unique(tokens, dim=0, return_inverse=True)
    length = _trimmed_length(model, distinct)
    if length < tokens.shape[1]:
        features = _short_text_features(model, distinct[:, :length])
    else:
        features = _full_text_features(model, distinct)
    features = features.index_select(0, inverse)
    return F.normalize(features, dim=-1) if normalize else features


def _image_states(
    visual: Any, images: Tensor, *, pooled: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Features (``None`` unless ``pooled``), tokens and mask."""
    features = None
    if hasattr(visual, "forward_tokens"):
        tokens, mask = visual.forward_tokens(images)
        return visual(images) if pooled else None, tokens, mask
    if isinstance(visual, VisionTransformer):
        features, tokens = _vit_states(visual, images, pooled=pooled)
    elif isinstance(visual, TimmModel):
        states = visual.trunk.forward_features(images)
        # Swin and its like say where their channels are; all other maps have them second.
        last = str(getattr(visual.trunk, "output_fmt", "NCHW")).endswith("NHWC")
        tokens = _flat(states, channels_last=last)
        features = visual.head(visual.trunk.forward_head(states)) if pooled else None
    elif isinstance(visual, ModifiedResNet):
        output = visual.forward_intermediates(images, indices=1, intermediates_only=True)
        states = output["image_intermediates"][-1]
        tokens = _flat(states, channels_last=False)
        features = visual.attnpool(states) if pooled else None
    else:
        raise ValueError(
            f"an image tower of type {type(visual).__name__} has no tokens: give it a method "
            "forward_tokens(image) that returns (tokens, mask)"
        )
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return features, tokens, mask


def _vit_states(visual: Any, images: Tensor, *, pooled: bool) -> tuple[Tensor | None, Tensor]:
    output = visual.forward_intermediates(
        images,
        indices=1,
        intermediates_only=not pooled,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    parts = output["image_intermediates_prefix"][-1], output["image_intermediates"][-1]
    states: Tensor = torch.cat(parts, dim=1)
    if visual.attn_pool is None:
        tokens = states if visual.final_ln_after_pool else visual.ln_post(states)
    elif visual.attn_pool_contrastive is None:  # CoCa: one of the queries is the pooled one
        tokens = visual.ln_post(visual.attn_pool(states))
    else:
        tokens = visual.attn_pool(visual.ln_post(states))
    return output.get("image_features"), cast(Tensor, tokens)


def _flat(states: Tensor, *, channels_last: bool) -> Tensor:
    if states.dim() == 3:
        return states
    return states.flatten(1, 2) if channels_last else states.flatten(2).transpose(1, 2)


def _text_tokens(tower: Any, text: Tensor) -> tuple[Tensor, Tensor]:
    if hasattr(tower, "forward_tokens"):
        return cast(tuple[Tensor, Tensor], tower.forward_tokens(text))
    if isinstance(tower, HFTextEncoder):
        mask = text != tower.config.pad_token_id
        return tower.transformer(input_ids=text, attention_mask=mask.long()).last_hidden_state, mask
    if not isinstance(tower, CLIP | TextTransformer):
        raise ValueError(
            f"a text tower of type {type(tower).__name__} has no tokens: give it a method "
            "forward_tokens(text) that returns (tokens, mask)"
        )
    if _is_plain(tower):
        return _plain_states(tower, text), _real_tokens(tower, text)
    output = tower.forward_intermediates(
        text,
        indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    parts = output["text_intermediates"][-1:] + output.get("text_intermediates_suffix", [])[-1:]
    mask = F.pad(_real_tokens(tower, text), (0, len(parts) - 1), value=True)  # the class token
    return torch.cat(parts, dim=1), mask


def _is_plain(tower: Any) -> bool:
    """Whether a native text tower is embedding, blocks and norm alone."""
    return getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)


def _plain_states(tower: Any, text: Tensor) -> Tensor:
    """Final states of a native text tower, at any length up to its context length.

    open_clip's own forward insists on the full length.
    """
    length = text.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    states = tower.token_embedding(text).to(dtype) + tower.positional_embedding[:length].to(dtype)
    causal = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
    return cast(Tensor, tower.ln_final(tower.transformer(states, attn_mask=causal)))


def _pool_kind(tower: Any) -> str:
    return cast(str, tower.text_pool_type if isinstance(tower, CLIP) else tower.pool_type)


def _pooled_position(tower: Any, text: Tensor) -> Tensor | None:
    """Where a native text tower pools, long [B]; ``None`` if it pools no single position."""
    kind = _pool_kind(tower)
    if kind == "argmax":
        return text.argmax(dim=-1)
    if kind == "eos":
        eos = tower.text_eos_id if isinstance(tower, CLIP) else tower.eos_id
        return text.eq(eos).int().argmax(dim=-1)
    edge = {"first": 0, "last": text.shape[1] - 1}.get(kind)
    return None if edge is None else torch.full_like(text[:, 0], edge)


def _real_tokens(tower: Any, text: Tensor) -> Tensor:
    columns = torch.arange(text.shape[1], device=text.device)
    pooled = _pooled_position(tower, text)
    if pooled is not None and _pool_kind(tower) in _END_POOLS:
        return columns <= pooled.unsqueeze(1)
    mask = text != getattr(tower, "pad_id", 0)
    return mask if pooled is None else mask | (columns == pooled.unsqueeze(1))


def _trimmed_length(model: nn.Module, text: Tensor) -> int:
    """How many columns give every text the features that all columns give it."""
    lengths = _needed_lengths(text_tower(model), text)
    if lengths is None or not len(lengths):
        return text.shape[1]
    length = int(lengths.max())
    return length if length == text.shape[1] or _is_exact(model, text, lengths) else text.shape[1]


def _is_exact(model: nn.Module, text: Tensor, lengths: Tensor) -> bool:
    """Whether the tower does what its structure says; looked at once a model."""
    if model not in _TRIM_IS_EXACT:
        probe = text[lengths.argsort()[:2]]
        _TRIM_IS_EXACT[model] = _verify_trim(model, probe, int(lengths.max()))
    return _TRIM_IS_EXACT[model]


def _pools_the_end(model: nn.Module, text: Tensor) -> bool:
    """Whether a text tower's features are those of the final state at the end of the text."""
    tower = text_tower(model)
    lengths = _needed_lengths(tower, text)
    return (
        lengths is not None
        and not isinstance(tower, HFTextEncoder)
        and _is_exact(model, text, lengths)
    )


def _needed_lengths(tower: Any, text: Tensor) -> Tensor | None:
    """Columns that reach each text's features, judged by the tower's structure. Long [B]."""
    if isinstance(tower, HFTextEncoder):
        columns = torch.arange(1, text.shape[1] + 1, device=text.device)
        real = text != tower.config.pad_token_id
        return torch.where(real, columns, 1).amax(dim=1)
    if not isinstance(tower, CLIP | TextTransformer) or not _is_plain(tower):
        return None
    if tower.attn_mask is None or _pool_kind(tower) not in _END_POOLS:
        return None
    pooled = _pooled_position(tower, text)
    return None if pooled is None else pooled + 1


def _short_text_features(model: nn.Module, text: Tensor) -> Tensor:
    tower: Any = text_tower(model)
    if isinstance(tower, HFTextEncoder):
        return _full_text_features(model, text)
    return _pool_text(tower, _plain_states(tower, text), text)


def _pool_text(tower: Any, states: Tensor, text: Tensor) -> Tensor:
    """From the final states of a plain text tower to its features."""
    position = _pooled_position(tower, text)
    pooled = states[torch.arange(len(states), device=states.device), position]
    projection = tower.text_projection
    if projection is None:
        return pooled
    return cast(
        Tensor, projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    )


def _full_text_features(model: Any, text: Tensor) -> Tensor:
    return cast(Tensor, model.encode_text(text, normalize=False))


def _verify_trim(model: nn.Module, probe: Tensor, length: int) -> bool:
    """Encode a few texts both ways; a subclass may do what its structure does not show."""
    with evaluating(model), torch.no_grad(), torch.autocast(probe.device.type, enabled=False):
        full = _full_text_features(model, probe)
        short = _short_text_features(model, probe[:, :length])
    tolerance = 1e-5 if full.dtype == torch.float32 else 3e-2
    exact = bool((full - short).abs().max() <= tolerance * full.abs().max())
    if not exact:
        _logger.warning("%s is not trimmed: its features change", type(model).__name__)
    return exact
