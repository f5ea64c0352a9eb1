"""Features of frozen towers, computed once for each picture and text, and kept on disk.

Pictures go in as paths and texts as token ids; trunk features, tokens or text features come out.
A cache folder is named by what computes its rows (the tower's weights and structure, the
preprocessing) and a row is found by its content (the picture's bytes, the token ids), so it can
never be stale: another picture, text or weight is another row or folder.
"""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from kgclip.nn.clip import evaluating, image_trunk, image_trunk_features
from kgclip.nn.feature_cache import KEY_BYTES, CachedFeatures, FeatureCache
from kgclip.nn.pictures import Box, Picture, read_picture
from kgclip.nn.tokens import encode_text_trimmed, encode_tokens, num_prefix_tokens, text_tower
from kgclip.nn.triples import Tokens, pool_tokens
from kgclip.tables import GraphError

Part = Picture | tuple[str | Path, Any]  # a file and its box, or None
_QUIET_SECONDS = 2.0  # a shorter run shows no progress bar
_Reader = Callable[[nn.Module, Tensor], Tensor]  # of a batch of pictures


def cache_image_features(
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    pictures: Sequence[str | Path | Part],
    *,
    batch_size: int = 16,
    folder: str | Path | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Trunk features of pictures, each distinct picture encoded once.

    In evaluation mode and without gradient; the model's own modes are restored. Equal pictures
    (by content) share a row's computation, and with ``folder`` only pictures that this trunk and
    preprocessing have not seen yet are encoded, also after a kill.

    Args:
        model: An open_clip model; runs on its own device.
        preprocess: The evaluation transform, PIL picture → float [3, H, W]. Its ``repr`` tells
            it from other transforms in the name of its folder.
        pictures: Picture files, or files with a box (x, y, width, height in pixels) or ``None``;
            N of them, in any order, repeats allowed.
        batch_size: Pictures in one forward pass, at least 1. On a CPU small batches are faster
            (the activations stay in cache); give a GPU more.
        folder: Where the rows are written; ``None`` keeps them in memory.
        progress: Show a bar on stderr once it takes over two seconds.

    Returns:
        Features in the order of ``pictures``, as :func:`kgclip.nn.clip.image_trunk_features` gives
        them up to rounding, memory-mapped where there is a folder; ``[:]`` lays them all out.
        Float32 on the CPU, [N, W].

    Raises:
        GraphError: If a picture is missing or cannot be decoded, or a box lies outside; names the
            file.
        ValueError: If ``batch_size`` is below 1.
    """
    return _cached(
        image_trunk_features, "features", model, preprocess, pictures, batch_size, folder, progress
    )


def cache_image_tokens(
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    pictures: Sequence[str | Path | Part],
    *,
    max_tokens: int | None = 16,
    batch_size: int = 16,
    folder: str | Path | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Unpooled tokens of pictures, for the triple encoder; else as :func:`cache_image_features`.

    Args:
        model: An open_clip model whose image trunk is frozen.
        preprocess: The evaluation transform.
        pictures: Picture files, or files with a box; N of them.
        max_tokens: Tokens a picture; more are averaged in runs, after the class token.
            ``None`` = all. 16 tokens of width 1,280 are 80 KiB a picture.
        batch_size: Pictures in one forward pass, at least 1.
        folder: Where the rows are written; ``None`` keeps them in memory.
        progress: Show a bar on stderr once it takes over two seconds.

    Returns:
        Float32 on the CPU, [N, L, W].

    Raises:
        GraphError: If a picture is missing or cannot be decoded, or a box lies outside; names the
            file.
        ValueError: If ``batch_size`` is below 1.
    """

    def read(model: nn.Module, images: Tensor) -> Tensor:
        tokens = Tokens(*encode_tokens(model, image=images))
        return pool_tokens(tokens, max_tokens, num_prefix_tokens(model)).states

    kind = f"tokens-{max_tokens or 'all'}"
    return _cached(read, kind, model, preprocess, pictures, batch_size, folder, progress)


def cache_text_features(
    model: nn.Module,
    tokens: Tensor,
    *,
    batch_size: int = 256,
    folder: str | Path | None = None,
    progress: bool = True,
) -> CachedFeatures:
    """Features of texts, each distinct text encoded once; else as :func:`cache_image_features`.

    Args:
        model: An open_clip model.
        tokens: Token ids, as long as the tokenizer makes them; repeats allowed. Long [N, L].
        batch_size: Texts in one forward pass, at least 1; texts of like length go together.
        folder: Where the rows are written; ``None`` keeps them in memory.
        progress: Show a bar on stderr once it takes over two seconds.

    Returns:
        ``model.encode_text(tokens)`` up to rounding, not normalised. Float32 on the CPU, [N, D].

    Raises:
        ValueError: If ``batch_size`` is below 1.
    """
    device = next(text_tower(model).parameters()).device
    ids = tokens.cpu().contiguous()
    lengths = (ids != ids[:, -1:]).sum(dim=1) if len(ids) else ids  # roughly: padding ends a row
    order = lengths.argsort(stable=True) if len(ids) else torch.arange(0)
    keys = [hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES).digest() for row in ids.numpy()]

    def encode(places: list[int]) -> Tensor:
        return encode_text_trimmed(model, ids[places].to(device))

    cache = FeatureCache(None if folder is None else Path(folder) / f"text-{_text_digest(model)}")
    track = functools.partial(_track, what="texts", progress=progress)
    with evaluating(model), torch.no_grad():
        return cache.rows(keys, encode, batch_size, order.tolist(), track)


def _cached(
    read: _Reader,
    kind: str,
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    pictures: Sequence[str | Path | Part],
    batch_size: int,
    folder: str | Path | None,
    progress: bool,
) -> CachedFeatures:
    """What ``read`` makes of each picture, from the shards of that kind where they have it."""
    parts = [Picture(*p) if isinstance(p, tuple) else Picture(p) for p in pictures]
    first = {picture.path: picture for picture in reversed(parts)}
    digests = {path: _file_digest(picture) for path, picture in first.items()}
    keys = [_picture_key(digests[picture.path], picture.box) for picture in parts]
    name = "" if folder is None else f"image-{kind}-{_image_digest(model, preprocess)}"
    cache = FeatureCache(None if folder is None else Path(folder) / name)
    track = functools.partial(_track, what="pictures", progress=progress)
    with evaluating(model), torch.no_grad():
        return cache.rows(
            keys,
            lambda places: _encode(read, model, preprocess, [parts[place] for place in places]),
            batch_size,
            track=track,
        )


def _encode(
    read: _Reader,
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    pictures: Sequence[Picture],
) -> Tensor:
    trunk = image_trunk(model)
    weight = next(
        (m.weight for m in trunk.modules() if isinstance(m, nn.Conv2d)), next(trunk.parameters())
    )  # the stem: its type is what the tower takes, its device where
    if not pictures:  # the width is still the tower's
        blank = preprocess(Image.new("RGB", (1, 1))).unsqueeze(0)
        return read(model, blank.to(weight.device, weight.dtype))[:0]
    images = torch.stack([preprocess(read_picture(picture)) for picture in pictures])
    images = images.to(weight.device, weight.dtype)
    return read(model, images.contiguous(memory_format=torch.channels_last))  # depthwise: faster


def _track(total: int, step: int, what: str, progress: bool) -> Iterator[int]:
    return track_batches(range(0, total, step), total, step, progress, what)


def track_batches(
    starts: range, total: int, step: int, progress: bool = True, what: str = "pictures"
) -> Iterator[int]:
    """Yield the first rows of batches; a bar appears when it takes long.

    Args:
        starts: First row of each batch.
        total: Rows in all.
        step: Rows a batch.
        progress: Whether there may be a bar.
        what: What the rows are, for the bar.
    """
    console = Console(stderr=True)
    shown = progress and console.is_terminal  # a log file would only get blank lines
    bar = Progress(console=console, transient=True, disable=not shown)
    task = bar.add_task(f"encoding {what}", total=total)
    begin = time.monotonic()
    try:
        for start in starts:
            yield start
            bar.advance(task, step)
            if time.monotonic() - begin > _QUIET_SECONDS:
                bar.start()  # does nothing when it is shown already
    finally:
        bar.stop()


def _picture_key(digest: bytes, box: Box | None) -> bytes:
    if box is not None:
        digest = hashlib.sha256(digest + repr([float(value) for value in box]).encode()).digest()
    return digest[:KEY_BYTES]


def _file_digest(picture: Picture) -> bytes:
    try:
        with Path(picture.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise GraphError(
            f"{picture}: cannot be read ({error.strerror or error}); expected a picture: restore "
            "the file, or drop its row from the images table"
        ) from error


def _image_digest(model: nn.Module, preprocess: Callable[[Any], Tensor]) -> str:
    trunk = image_trunk(model)
    size = getattr(model.visual, "image_size", None)
    return _digest(f"{trunk!r}\n{preprocess!r}\n{size}", trunk.state_dict())


def _text_digest(model: nn.Module) -> str:
    """Of what decides the features of token ids; the tower may be the model but for its eyes."""
    tower = text_tower(model)
    parts = [f"{name} {part!r}" for name, part in tower.named_children() if name != "visual"]
    pools = [getattr(tower, name, None) for name in ("text_pool_type", "pool_type", "text_eos_id")]
    parts.append(f"{type(tower)} {pools} {getattr(tower, 'attn_mask', None) is None}")
    state = {k: v for k, v in tower.state_dict().items() if not k.startswith(("visual.", "logit_"))}
    return _digest("\n".join(parts), state)


def _digest(recipe: str, state: dict[str, Tensor]) -> str:
    # A printed function or object holds its address, which differs from run to run.
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", recipe).encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
