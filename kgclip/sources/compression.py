"""Files as bytes, plain or compressed: .gz, .bz2, .xz and .zst, opened by their suffix.

A small file can unpack to terabytes. What grows more than ``KGCLIP_MAX_EXPANSION``-fold (200 by
default) is refused once it has passed 64 MiB.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from kgclip.tables import GraphError, Origin

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
MAX_EXPANSION = 200.0
_PACKED = 8  # times smaller than what is inside, about
UNSUSPICIOUS_BYTES = 64 * 2**20


@contextlib.contextmanager
def open_binary(file: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked on the way.

    Args:
        file: Plain, or compressed with one of ``COMPRESSIONS``.

    Yields:
        Buffered stream of its bytes.

    Raises:
        GraphError: If the file is missing, no file, damaged, cut off, or grows beyond all reason;
            also while it is read inside the ``with`` block.
    """
    try:
        with open(file, "rb") as packed:
            if file.suffix.lower() not in COMPRESSIONS:
                yield packed
                return
            if not file.stat().st_size:
                raise EOFError("the file is empty")
            limit = _expansion_limit(file)
            with io.BufferedReader(_Limited(_unpack(file, packed), file, limit), 2**20) as stream:
                yield stream
    except FileNotFoundError as error:
        raise GraphError(f"{file}: no such file") from error
    except IsADirectoryError as error:
        raise GraphError(f"{file}: a folder, a file expected") from error
    except PermissionError as error:
        raise GraphError(f"{file}: may not be read; change its permissions") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise GraphError(f"{file}: damaged or cut off ({error}); fetch the file again") from error
    except OSError as error:  # bz2 has no error of its own
        if "data stream" not in str(error):
            raise
        raise GraphError(f"{file}: damaged or cut off ({error}); fetch the file again") from error


def data_suffix(file: Path) -> str:
    """Suffix of what is inside, in lower case: ``facts.NT.gz`` → ``.nt``; "" if there is none."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    inner = [suffix for suffix in suffixes if suffix not in COMPRESSIONS]
    return inner[-1] if inner else ""


def text_size(file: Path) -> int:
    """Bytes that are inside, about; 0 if there is no such file."""
    try:
        size = file.stat().st_size
    except OSError:  # whoever opens it says what is wrong
        return 0
    return size * (_PACKED if file.suffix.lower() in COMPRESSIONS else 1)


def origin_of(file: Path) -> Origin:
    """Name and checksum of a file as it lies on the disk.

    Raises:
        GraphError: If the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return Origin(file.name, hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        raise GraphError(f"{file}: {error.strerror}; a readable file expected") from error


def _unpack(file: Path, packed: IO[bytes]) -> Any:
    match file.suffix.lower():
        case ".gz":
            return gzip.GzipFile(fileobj=packed)
        case ".bz2":
            return bz2.BZ2File(packed)
        case ".xz":
            return lzma.LZMAFile(packed)
        case _:
            return _ZstdFile(packed)


def _expansion_limit(file: Path) -> float:
    setting = os.environ.get("KGCLIP_MAX_EXPANSION", str(MAX_EXPANSION))
    try:
        factor = float(setting)
    except ValueError as error:
        raise GraphError(f"KGCLIP_MAX_EXPANSION={setting!r}: a number expected") from error
    return max(factor * file.stat().st_size, UNSUSPICIOUS_BYTES)


class _ZstdFile(io.RawIOBase):
    """Zstandard frames, one after the other; the library's own reader hides a cut-off frame."""

    def __init__(self, packed: IO[bytes]) -> None:
        self.packed = packed
        self.frame = zstandard.ZstdDecompressor().decompressobj()
        self.within = False
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self.ready:
            chunk = self.frame.unused_data or self.packed.read(2**17)
            if not chunk:
                if self.within:
                    raise EOFError("the last frame has no end")
                return 0
            if self.frame.eof:
                self.frame = zstandard.ZstdDecompressor().decompressobj()
            self.ready = memoryview(self.frame.decompress(chunk))
            self.within = not self.frame.eof
        count = min(len(view), len(self.ready))
        view[:count], self.ready = self.ready[:count], self.ready[count:]
        return count


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than ``limit`` bytes."""

    def __init__(self, stream: Any, file: Path, limit: float) -> None:
        self.stream, self.file, self.limit = stream, file, limit
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.stream.readinto(buffer)
        self.given += count
        if self.given > self.limit:
            raise GraphError(
                f"{self.file}: unpacks to more than {self.limit:,.0f} bytes, too much for its "
                "size; if that is meant, set KGCLIP_MAX_EXPANSION to a larger factor"
            )
        return count
