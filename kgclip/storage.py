"""Tables on disk: a folder of Parquet files with a manifest that checks them.

The same tables give the same bytes. A folder is written beside its place and exchanged with what
is there in one step, so that a kill leaves the old graph or the new one. Where the system knows no
such exchange the old graph is set aside for a moment, and taken back by whoever comes next.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, check_tables, is_address

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_HERE = -100  # AT_FDCWD, linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_RENAME_SWAP = 2  # sys/stdio.h of macOS


def save_tables(
    tables: Tables, path: str | Path, *, root: Path | None = None, pictures: Path | None = None
) -> Path:
    """Write tables into a folder.

    Args:
        tables: What to write.
        path: The graph's folder; a graph that is there is replaced, anything else is refused.
        root: Folder that relative picture paths start from; the pictures are copied.
        pictures: Folder of rendered pictures that *moves* into the graph as ``images/``.

    Returns:
        The graph's folder.

    Raises:
        GraphError: If ``path`` is there and is no graph, or a picture of ``root`` is missing.
    """
    folder = Path(path)
    _take_back(folder)
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(tables, partial)
        if pictures is not None:
            shutil.move(str(pictures), partial / "images")
        elif root is not None:
            _copy_pictures(tables, root, partial)
        os.chmod(partial, 0o755)  # mkdtemp's 0700 would hide the graph from others
        _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder / MANIFEST).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise GraphError(f"{folder}: exists and is no graph; choose another folder or delete it")


def _write(tables: Tables, folder: Path) -> None:
    digests = {}
    for name, frame in tables.frames().items():
        file = folder / f"{name}.parquet"
        frame.write_parquet(file, compression="zstd", statistics=False)
        digests[file.name] = _digest(file)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "counts": {name: len(frame) for name, frame in tables.frames().items()},
        "sha256": digests,
        "origins": [{"name": origin.name, "sha256": origin.sha256} for origin in tables.origins],
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _copy_pictures(tables: Tables, root: Path, folder: Path) -> None:
    for path in tables.images["path"].unique(maintain_order=True):
        if Path(path).is_absolute() or is_address(path):
            continue
        target = folder / path
        if not target.resolve().is_relative_to(folder.resolve()):
            raise GraphError(f"image {path}: leaves the graph's folder {root}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, target)
        except OSError as error:
            raise GraphError(
                f"{root / path}: cannot be copied ({error.strerror}); restore the picture or drop "
                "its row of images"
            ) from error


def _swap(partial: Path, folder: Path) -> None:
    """Put ``partial`` in the place of ``folder``; the old graph may be left in ``partial``."""
    if not folder.exists():
        os.replace(partial, folder)
    elif not _exchange(partial, folder):
        shutil.rmtree(_aside(folder), ignore_errors=True)
        os.replace(folder, _aside(folder))
        os.replace(partial, folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _aside(folder: Path) -> Path:
    """Where the old graph is while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the disk cannot."""
    libc: Any = ctypes.CDLL(None) if sys.platform != "win32" else None
    paths = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):  # Linux
        status = libc.renameat2(_HERE, paths[0], _HERE, paths[1], _RENAME_EXCHANGE)
    elif hasattr(libc, "renamex_np"):  # macOS
        status = libc.renamex_np(*paths, _RENAME_SWAP)
    else:
        return False
    return bool(status == 0)


def _take_back(folder: Path) -> None:
    """Put the graph back that a killed :func:`save_tables` had set aside."""
    if not folder.exists() and (_aside(folder) / MANIFEST).is_file():
        os.replace(_aside(folder), folder)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_tables(path: str | Path) -> Tables:
    """Read a folder that :func:`save_tables` wrote, and check it.

    Args:
        path: The graph's folder.

    Returns:
        The tables.

    Raises:
        GraphError: If the folder is no graph, of a newer schema, incomplete or changed.
    """
    folder = Path(path)
    _take_back(folder)
    digests, origins = _read_manifest(folder)
    frames = {}
    for name in SCHEMAS:
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise GraphError(f"{file}: missing; build the graph again")
        if _digest(file) != digests.get(file.name):
            raise GraphError(f"{file}: its bytes are not those of {MANIFEST}; build it again")
        frames[name] = pl.read_parquet(file)
    tables = Tables(**frames, origins=origins)
    check_tables(tables)
    return tables


def _read_manifest(folder: Path) -> tuple[dict[str, str], tuple[Origin, ...]]:
    """Checksums of the files by name, and what the graph was read from."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise GraphError(f"{folder}: no such folder; give one that `kgclip build -o` wrote")
    if not file.is_file():
        raise GraphError(f"{folder}: no graph, {MANIFEST} is missing; build it with `kgclip build`")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if version != SCHEMA_VERSION:
            raise GraphError(
                f"{file}: schema version {version}, this kgclip reads {SCHEMA_VERSION}; "
                "install the version that wrote it, or build the graph again"
            )
        origins = tuple(Origin(**origin) for origin in manifest["origins"])
        return dict(manifest["sha256"]), origins
    except GraphError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GraphError(f"{file}: damaged ({error}); build the graph again") from error
