"""Pictures that show the same: by their bytes, and by how they look.

The hash of a picture says where it gets brighter from left to right on a grid of 8 by 8, so that
size, format and compression hardly change it. It does not see colours: two flags of the same
pattern are near duplicates to it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, UnidentifiedImageError

from kgclip.graph import KnowledgeGraph
from kgclip.progress import track
from kgclip.tables import GraphError

HASH_SIZE = 8
_CHUNK = 1024  # rows compared at a time


def hash_pictures(graph: KnowledgeGraph) -> pl.DataFrame:
    """Hash every picture of a graph, cut to its box where it has one.

    Returns:
        ``image`` (row of ``graph.images``), ``entity``, ``sha256`` of the file and ``hash``, 64
        bits; both null where the file is missing or no picture.

    Reference:
        Krawetz, "Kind of like that", 2013 (the difference hash).
    """
    rows = []
    images = graph.images.select("entity", "box").rows()
    for row, (entity, box) in enumerate(track(images, "hashing pictures")):
        rows.append((row, entity, *_hash_picture(graph.image_path(row), box)))
    schema = {"image": pl.Int64(), "entity": pl.Int64(), "sha256": pl.String(), "hash": pl.UInt64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _hash_picture(file: Path, box: list[float] | None) -> tuple[str | None, int | None]:
    try:
        data = file.read_bytes()
        with Image.open(file) as opened:
            picture = opened.convert("RGBA")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None, None
    if box is not None:
        left, top, width, height = box
        picture = picture.crop((round(left), round(top), round(left + width), round(top + height)))
    paper = Image.new("RGBA", picture.size, "white")  # what is transparent shows white
    grey = Image.alpha_composite(paper, picture).convert("L").resize((HASH_SIZE + 1, HASH_SIZE))
    values = np.asarray(grey, dtype=np.int16)
    bits = np.packbits(values[:, 1:] > values[:, :-1])
    return hashlib.sha256(data).hexdigest(), int.from_bytes(bits.tobytes(), "big")


def duplicate_pictures(hashes: pl.DataFrame, max_distance: int = 2) -> pl.DataFrame:
    """Pairs of pictures that are the same or look alike.

    Args:
        hashes: From :func:`hash_pictures`; any frame with ``image``, ``entity``, ``sha256`` and
            ``hash`` will do.
        max_distance: Bits of 64 that may differ. In [0, 64].

    Returns:
        ``image`` and ``other`` (the smaller row first), ``entity``, ``other_entity``, ``same``
        (byte for byte) and ``distance`` in bits, nearest first.

    Raises:
        GraphError: If the distance is outside its range.
    """
    if not 0 <= max_distance <= 64:
        raise GraphError(f"max_distance {max_distance}: expected a number of bits in [0, 64]")
    known = hashes.drop_nulls("hash")
    packed = known["hash"].to_numpy().astype(">u8").view(np.uint8).reshape(-1, 8)
    bits = np.unpackbits(packed, axis=1).astype(np.float32)
    firsts, seconds, distances = [], [], []
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK]
        differing = part @ (1 - bits.T) + (1 - part) @ bits.T
        first, second = np.nonzero(differing <= max_distance)
        later = first + start < second
        firsts.append(first[later] + start)
        seconds.append(second[later])
        distances.append(differing[first[later], second[later]])
    first, second, distance = (
        np.concatenate([np.zeros(0, dtype=np.int64), *found]).astype(np.int64)
        for found in (firsts, seconds, distances)
    )
    return pl.DataFrame(
        {
            "image": known["image"].gather(first),
            "other": known["image"].gather(second),
            "entity": known["entity"].gather(first),
            "other_entity": known["entity"].gather(second),
            "same": known["sha256"].gather(first) == known["sha256"].gather(second),
            "distance": distance,
        }
    ).sort("distance", "image", "other")
