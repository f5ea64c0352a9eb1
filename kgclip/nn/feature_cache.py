"""Rows that are computed once: memory-mapped shards on disk, each row found by its content.

Keys go in, one for each row that is wanted, and a function that computes rows; what comes out is
indexed like a tensor but read from disk where it is looked at. A folder belongs to one way of
computing rows (weights, preprocessing): whoever opens it names it by that, so that no row can be
stale. A shard is written beside its place and renamed, so that a kill loses the rows of one shard
at most, and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEY_BYTES = 16
_SHARD_BYTES = 1 << 26
_SHARD_SECONDS = 20.0  # of computing that a kill may lose


class CachedFeatures:
    """Rows of one or more shards, in an order of their own; indexed like a tensor.

    Args:
        shards: Float [n, ...] each, memory-mapped or not.
        rows: Where each row lies, counted through all shards. Long [N].
    """

    def __init__(self, shards: Sequence[Tensor], rows: Tensor) -> None:
        self._shards, self._rows = list(shards), rows
        self._starts = torch.tensor([0, *(len(shard) for shard in shards)]).cumsum(0)

    @property
    def shape(self) -> torch.Size:
        """[N, ...]."""
        return torch.Size((len(self._rows), *self._shards[0].shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self._shards[0].dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Copy of the rows that a tensor of ids, a mask or a slice names. Float [n, ...]."""
        wanted = self._rows[rows]
        owner = torch.bucketize(wanted, self._starts, right=True) - 1
        out = torch.empty(len(wanted), *self.shape[1:], dtype=self.dtype)
        for one in torch.unique(owner).tolist():
            here = owner == one
            out[here] = self._shards[one][wanted[here] - self._starts[one]]
        return out


class FeatureCache:
    """The shards of a folder.

    Args:
        folder: Made with the first shard; ``None`` = keep the rows in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._shards: list[Tensor] = []
        self._places: dict[bytes, int] = {}  # through all shards
        for file in sorted(folder.glob("*.safetensors")) if folder else ():
            self._open(file)

    def rows(
        self,
        keys: Sequence[bytes],
        encode: Callable[[list[int]], Tensor],
        batch_size: int,
        order: Sequence[int] | None = None,
        track: Callable[[int, int], Iterable[int]] | None = None,
    ) -> CachedFeatures:
        """Rows of some keys; those that no shard holds are computed, each once.

        Args:
            keys: One for each wanted row, repeats allowed. ``KEY_BYTES`` bytes each.
            encode: From places in ``keys`` to rows, also from none. Float [n, ...].
            batch_size: Rows that are computed at once, at least 1.
            order: Places in the order in which they are computed; the default is their own.
            track: From total and step to the first row of each batch, to watch the progress.

        Raises:
            ValueError: If ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        order = range(len(keys)) if order is None else order
        first = {keys[place]: place for place in reversed(order)}
        missing = [p for p in order if first[keys[p]] == p and keys[p] not in self._places]
        done: list[Tensor] = []
        began, written = time.monotonic(), 0
        starts = range(0, len(missing), batch_size)
        for start in track(len(missing), batch_size) if track else starts:
            done.append(encode(missing[start : start + batch_size]).float().cpu())
            end = min(start + batch_size, len(missing))
            full = done[0].nbytes * len(done) >= _SHARD_BYTES
            if end == len(missing) or full or time.monotonic() - began > _SHARD_SECONDS:
                self._add([keys[place] for place in missing[written:end]], torch.cat(done))
                done, written, began = [], end, time.monotonic()
        shards = self._shards or [encode([]).float().cpu()]  # no row still has a width
        rows = torch.tensor([self._places[key] for key in keys], dtype=torch.long)
        return CachedFeatures(shards, rows)

    def _add(self, keys: Sequence[bytes], features: Tensor) -> None:
        joined = b"".join(keys)
        if self.folder is None:
            self._register(joined, features)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{hashlib.sha256(joined).hexdigest()[:16]}.safetensors"
        partial = self.folder / f".{name}.{os.getpid()}"
        # A copy, because frombuffer would share the bytes, which may not be written.
        table = torch.frombuffer(bytearray(joined), dtype=torch.uint8).view(-1, KEY_BYTES)
        try:
            save_file({"keys": table, "features": features.contiguous()}, partial)
            os.replace(partial, self.folder / name)
        finally:
            partial.unlink(missing_ok=True)
        self._open(self.folder / name)

    def _open(self, file: Path) -> None:
        try:
            with safe_open(file, "pt") as shard:  # maps the file: nothing is read yet
                keys, features = shard.get_tensor("keys"), shard.get_tensor("features")
        except (SafetensorError, OSError):  # damaged on disk: compute it again
            return
        if len(keys) == len(features) and keys.shape[1:] == (KEY_BYTES,):
            self._register(keys.numpy().tobytes(), features)

    def _register(self, joined: bytes, features: Tensor) -> None:
        start = sum(len(shard) for shard in self._shards)
        self._shards.append(features)
        for row in range(len(features)):
            key = joined[KEY_BYTES * row : KEY_BYTES * (row + 1)]
            self._places.setdefault(key, start + row)
