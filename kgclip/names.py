"""Names that people can read, made from IRIs and keys."""

from __future__ import annotations

import re
import urllib.parse


def readable(name: str) -> str:
    """Make an IRI or key readable: ``http://x.org/hasCapital`` becomes ``has capital``."""
    if name.startswith("_:"):  # a blank node has no name to read
        return name
    local = re.split(r"[/#]", urllib.parse.unquote(name).rstrip("/#"))[-1] or name
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", local.replace("_", " "))
    return spaced.lower() if spaced != local.replace("_", " ") else spaced
