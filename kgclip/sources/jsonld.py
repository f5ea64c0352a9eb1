"""JSON-LD whose contexts lie elsewhere: nothing is fetched, the reader is given them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kgclip.tables import GraphError

ADVICE = (
    "its context is an address, and nothing is fetched; fetch it yourself and give "
    'contexts={"https://the.address": "context.jsonld"}, or write the context into the file'
)


def with_contexts(data: bytes, contexts: Mapping[str, str | Path], file: Path | str) -> bytes:
    """Replace the addresses of contexts by what they stand for.

    Args:
        data: A JSON-LD document.
        contexts: Address to the file of its context.
        file: Name of the document, for messages.

    Returns:
        The document with its contexts inside.

    Raises:
        GraphError: If the document or a context is no JSON, or a context's file is missing.
    """
    loaded = {address: _context(Path(place)) for address, place in contexts.items()}
    return json.dumps(_replaced(_json(data, file), loaded)).encode()


def _context(place: Path) -> Any:
    try:
        document = _json(place.read_bytes(), place)
    except OSError as error:
        raise GraphError(f"{place}: {error.strerror}; expected a file with a context") from error
    return document.get("@context", document) if isinstance(document, dict) else document


def _json(data: bytes, file: Path | str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise GraphError(f"{file}:{error.lineno}: {error.msg}; expected JSON") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise GraphError(f"{file}: {error}; expected JSON in UTF-8") from error


def _replaced(value: Any, contexts: Mapping[str, Any], key: str = "") -> Any:
    if isinstance(value, str):
        return contexts.get(value, value) if key == "@context" else value
    if isinstance(value, list):
        return [_replaced(item, contexts, key) for item in value]
    if isinstance(value, dict):
        return {name: _replaced(item, contexts, name) for name, item in value.items()}
    return value
