"""Pictures from files, whole or the part that is meant, and batches of them decoded ahead.

What one would not guess: :class:`DecodedPictures` is indexed like the matrix of cached features
that stands in its place while the image tower is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from kgclip.nn.feature_cache import CachedFeatures
from kgclip.tables import GraphError

Box = Sequence[float]  # x, y, width, height in pixels


class Picture(NamedTuple):
    """A picture of something.

    Attributes:
        path: Its file.
        box: The part that is meant, x, y, width and height in pixels; ``None`` = all of it.
        entity: Whose picture it is, for messages.
    """

    path: str | Path
    box: Box | None = None
    entity: str | None = None

    def __str__(self) -> str:
        return f"{self.path}" if self.entity is None else f"{self.path}: picture of {self.entity}"


def read_picture(picture: Picture) -> Image.Image:
    """Read a picture, cut to its box.

    Raises:
        GraphError: If it is missing, Pillow cannot decode it, or the box has no pixel of it; names
            the file and the entity.
    """
    try:
        with Image.open(picture.path) as file:
            file.load()
            whole = file.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GraphError(
            f"{picture}: not a picture that Pillow can decode ({error}); expected PNG, JPEG or the "
            "like: replace the file, or drop its row from the images table"
        ) from error
    if picture.box is None:
        return whole
    x, y, width, height = (float(value) for value in picture.box)
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(whole.width, round(x + width)), min(whole.height, round(y + height))
    if right <= left or bottom <= top:
        raise GraphError(
            f"{picture}: the box {tuple(picture.box)} has no pixel of its {whole.width} x "
            f"{whole.height}; x, y, width and height in pixels expected"
        )
    return whole.crop((left, top, right, bottom))


class DecodedPictures:
    """Pictures as the image tower takes them, decoded by threads when they are asked for.

    Args:
        pictures: In the order of their rows, I of them.
        preprocess: From a PIL picture to float [3, H, W]; its own random numbers, if it draws any,
            differ from run to run.
        num_workers: Threads; 0 = decode in the caller's.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        preprocess: Callable[[Any], Tensor],
        num_workers: int = 2,
    ) -> None:
        self.pictures, self.preprocess = list(pictures), preprocess
        self._pool = ThreadPoolExecutor(num_workers) if num_workers else None
        self._ahead: dict[int, Future[Tensor]] = {}
        self._shape = preprocess(Image.new("RGB", (8, 8))).shape

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Decode the pictures that ids, a mask or a slice name. Float [n, 3, H, W]."""
        wanted = torch.arange(len(self))[rows].tolist()
        self._submit(wanted)
        decoded = [self._ahead[row].result() if self._pool else self._decode(row) for row in wanted]
        for row in wanted:
            self._ahead.pop(row, None)
        return torch.stack(decoded) if decoded else torch.empty(0, *self._shape)

    def prefetch(self, rows: Tensor) -> None:
        """Begin to decode pictures that are asked for soon; what was begun before is kept."""
        self._submit(rows.tolist())

    def _submit(self, rows: Sequence[int]) -> None:
        for row in rows if self._pool else ():
            if row not in self._ahead:
                self._ahead[row] = self._pool.submit(self._decode, row)  # type: ignore[union-attr]  # the loop is empty without a pool

    def _decode(self, row: int) -> Tensor:
        return self.preprocess(read_picture(self.pictures[row]))


# Pictures by their row: what a frozen tower made of them, or they themselves.
Rows = Tensor | CachedFeatures | DecodedPictures
