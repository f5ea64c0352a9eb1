"""``--set splits.seed=7``: from the command line to ``{"splits.seed": 7}``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable

from kgclip.tables import GraphError


def parse_overrides(settings: Iterable[str]) -> dict[str, object]:
    """Read settings; a value is TOML, and a string where it is no TOML value.

    Args:
        settings: ``KEY=VALUE`` each, the key dotted.

    Returns:
        Value by dotted key; the last one counts where a key occurs twice.

    Raises:
        GraphError: If a setting holds no ``=`` or no key.
    """
    overrides: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise GraphError(f"--set {setting!r}: expected KEY=VALUE, as in splits.seed=7")
        overrides[key.strip()] = _parse_value(text.strip())
    return overrides


def _parse_value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in the text could smuggle in a second key.
    return parsed["value"] if list(parsed) == ["value"] else text
