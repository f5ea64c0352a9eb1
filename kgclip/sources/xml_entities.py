"""Documents in XML whose entities unpack to far more than the document: refused unread.

A few lines can say "a billion copies of this"; pyoxigraph would write them all out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO
from xml.parsers import expat

from kgclip.tables import GraphError

MAX_ENTITY_BYTES = 2**20  # of one entity, the entities in it written out
_REFERENCE = re.compile(r"&([^#;&\s][^;&\s]*);")
_CHUNK_BYTES = 2**16


class _Harmless(Exception):  # noqa: N818 - a way out of the parser, no error
    """The document declares no entity."""


def check_entities(stream: IO[bytes], file: Path | str) -> None:
    """Refuse a document whose entities grow beyond all reason; read no further than needed.

    Args:
        stream: The document.
        file: Its name, for the message.

    Raises:
        GraphError: If an entity, or all of them together, grow too much.
    """
    declared: dict[str, str] = {}
    parser = expat.ParserCreate()

    def declare(name: str, _is_parameter: bool, value: str | None, *_: object) -> None:
        declared.setdefault(name, value or "")

    def start(*_: object) -> None:
        if not declared:
            raise _Harmless
        _check_sizes(declared, file)
        parser.StartElementHandler = None  # the rest is for expat's own limit to watch

    parser.EntityDeclHandler, parser.StartElementHandler = declare, start
    try:
        while chunk := stream.read(_CHUNK_BYTES):
            parser.Parse(chunk, False)
    except _Harmless:
        return
    except expat.ExpatError as error:
        if "amplification" in str(error):
            raise GraphError(_message(file)) from error
        _check_sizes(declared, file)  # any other mistake is the real parser's to name
    except (LookupError, ValueError) as error:
        if isinstance(error, GraphError):
            raise
        raise GraphError(f"{file}: {error}; convert the file to UTF-8") from error


def _check_sizes(declared: dict[str, str], file: Path | str) -> None:
    sizes: dict[str, float] = {}

    def size(name: str) -> float:
        if name not in sizes:
            sizes[name] = float("inf")  # of an entity within itself
            value = declared.get(name, "")
            sizes[name] = len(value.encode()) + sum(map(size, _REFERENCE.findall(value)))
        return sizes[name]

    try:
        too_large = any(size(name) > MAX_ENTITY_BYTES for name in declared)
    except RecursionError:
        too_large = True
    if too_large:
        raise GraphError(_message(file))


def _message(file: Path | str) -> str:
    return (
        f"{file}: its XML entities unpack to far more than the file; expected prefixes and the "
        "like: write the entities out if the file can be trusted"
    )
