"""Image features of a frozen trunk, computed once a picture and kept on disk.

Pictures go in as paths, trunk features come out as one matrix. A cache file is named by what
determines its content (the pictures' bytes, the trunk's weights and structure, the
preprocessing), so it can never be stale: another picture or weight is another file.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kgclip.nn.clip import evaluating, image_trunk, image_trunk_features
from kgclip.nn.tokens import encode_tokens, num_prefix_tokens
from kgclip.nn.triples import Tokens, pool_tokens
from kgclip.tables import GraphError

_QUIET_SECONDS = 2.0  # a shorter run shows no progress bar
_Reader = Callable[[nn.Module, Tensor], Tensor]  # of a batch of pictures


def cache_image_features(
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    paths: Sequence[str | Path],
    *,
    batch_size: int = 16,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Tensor:
    """Trunk features of pictures, each distinct picture encoded once.

    In evaluation mode and without gradient; the model's own modes are restored. Equal pictures
    (by content) share a row's computation, and with ``folder`` the next call with the same
    pictures, trunk and preprocessing reads a file instead.

    Args:
        model: An open_clip model; runs on its own device.
        preprocess: The evaluation transform, PIL picture → float [3, H, W]. Its ``repr`` tells
            it from other transforms in the cache's name.
        paths: Picture files, N of them, in any order, repeats allowed.
        batch_size: Pictures in one forward pass, at least 1. On a CPU small batches are faster
            (the activations stay in cache); give a GPU more.
        folder: Where the cache file is written; ``None`` keeps nothing.
        progress: Show a bar on stderr once it takes over two seconds.

    Returns:
        Features in the order of ``paths``, as :func:`kgclip.nn.clip.image_trunk_features` gives
        them up to rounding. Float32 on the CPU, [N, W].

    Raises:
        GraphError: If a picture is missing or cannot be decoded; names the file.
        ValueError: If ``batch_size`` is below 1.
    """
    return _cached(
        image_trunk_features, "features", model, preprocess, paths, batch_size, folder, progress
    )


def cache_image_tokens(
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    paths: Sequence[str | Path],
    *,
    max_tokens: int | None = 16,
    batch_size: int = 16,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Tensor:
    """Unpooled tokens of pictures, for the triple encoder; else as :func:`cache_image_features`.

    Args:
        model: An open_clip model whose image trunk is frozen.
        preprocess: The evaluation transform.
        paths: Picture files, N of them.
        max_tokens: Tokens a picture; more are averaged in runs, after the class token.
            ``None`` = all. 16 tokens of width 1,280 are 80 KiB a picture.
        batch_size: Pictures in one forward pass, at least 1.
        folder: Where the cache file is written; ``None`` keeps nothing.
        progress: Show a bar on stderr once it takes over two seconds.

    Returns:
        Float32 on the CPU, [N, L, W].

    Raises:
        GraphError: If a picture is missing or cannot be decoded; names the file.
        ValueError: If ``batch_size`` is below 1.
    """

    def read(model: nn.Module, images: Tensor) -> Tensor:
        tokens = Tokens(*encode_tokens(model, image=images))
        return pool_tokens(tokens, max_tokens, num_prefix_tokens(model)).states

    kind = f"tokens-{max_tokens or 'all'}"
    return _cached(read, kind, model, preprocess, paths, batch_size, folder, progress)


def _cached(
    read: _Reader,
    kind: str,
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    paths: Sequence[str | Path],
    batch_size: int,
    folder: str | Path | None,
    progress: bool,
) -> Tensor:
    """What ``read`` makes of each picture, from the cache file of that kind where there is one."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    digests = [_picture_digest(Path(path)) for path in paths]
    distinct = {digest: Path(path) for digest, path in zip(digests, paths, strict=True)}
    files = {digest: distinct[digest] for digest in sorted(distinct)}
    cache = None if folder is None else Path(folder) / _cache_name(kind, model, preprocess, files)
    features = None if cache is None else _load_features(cache, len(files))
    if features is None:
        with evaluating(model), torch.no_grad():
            features = _encode(read, model, preprocess, list(files.values()), batch_size, progress)
        if cache is not None:
            _save_features(features, cache)
    rows = {digest: row for row, digest in enumerate(files)}
    return features[torch.tensor([rows[digest] for digest in digests], dtype=torch.long)]


def _encode(
    read: _Reader,
    model: nn.Module,
    preprocess: Callable[[Any], Tensor],
    files: Sequence[Path],
    batch_size: int,
    progress: bool,
) -> Tensor:
    trunk = image_trunk(model)
    weight = next(
        (m.weight for m in trunk.modules() if isinstance(m, nn.Conv2d)), next(trunk.parameters())
    )  # the stem: its type is what the tower takes, its device where
    if not files:  # the width is still the tower's
        blank = preprocess(Image.new("RGB", (1, 1))).unsqueeze(0)
        return read(model, blank.to(weight.device, weight.dtype))[:0].float().cpu()
    features = []
    for start in track_batches(range(0, len(files), batch_size), len(files), batch_size, progress):
        pictures = [preprocess(read_picture(file)) for file in files[start : start + batch_size]]
        images = torch.stack(pictures).to(weight.device, weight.dtype)
        images = images.contiguous(memory_format=torch.channels_last)  # depthwise: a third faster
        features.append(read(model, images).float().cpu())
    return torch.cat(features)


def track_batches(starts: range, total: int, step: int, progress: bool = True) -> Iterator[int]:
    """Yield the first rows of batches of pictures; a bar appears when it takes long.

    Args:
        starts: First row of each batch.
        total: Pictures in all.
        step: Pictures a batch.
        progress: Whether there may be a bar.
    """
    console = Console(stderr=True)
    shown = progress and console.is_terminal  # a log file would only get blank lines
    bar = Progress(console=console, transient=True, disable=not shown)
    task = bar.add_task("encoding pictures", total=total)
    begin = time.monotonic()
    try:
        for start in starts:
            yield start
            bar.advance(task, step)
            if time.monotonic() - begin > _QUIET_SECONDS:
                bar.start()  # does nothing when it is shown already
    finally:
        bar.stop()


def read_picture(file: Path) -> Image.Image:
    """Read a picture file.

    Raises:
        GraphError: If it is missing or Pillow cannot decode it; names the file.
    """
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GraphError(
            f"{file}: not a picture that Pillow can decode ({error}); expected PNG, JPEG or the "
            "like: replace the file, or drop its row from the images table"
        ) from error


def _picture_digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise GraphError(
            f"{file}: cannot be read ({error.strerror or error}); expected a picture: restore the "
            "file, or drop its row from the images table"
        ) from error


def _cache_name(
    kind: str, model: nn.Module, preprocess: Callable[[Any], Tensor], files: Mapping[str, Path]
) -> str:
    trunk = image_trunk(model)
    size = getattr(model.visual, "image_size", None)
    # A printed function or object holds its address, which differs from run to run.
    recipe = re.sub(r" at 0x[0-9a-f]+", "", f"{trunk!r}\n{preprocess!r}\n{size}\n{list(files)}")
    digest = hashlib.sha256(recipe.encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"image-{kind}-{digest.hexdigest()[:32]}.safetensors"


def _load_features(cache: Path, rows: int) -> Tensor | None:
    if not cache.is_file():
        return None
    try:
        features: Tensor = load_file(cache)["features"]
    except (SafetensorError, KeyError):  # damaged on disk: compute it again
        return None
    return features if len(features) == rows else None


def _save_features(features: Tensor, cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        save_file({"features": features.contiguous()}, partial)
        os.replace(partial, cache)  # a kill never leaves half a file under the real name
    finally:
        partial.unlink(missing_ok=True)
