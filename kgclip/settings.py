"""Settings by dotted key: ``{"splits.seed": 7}`` into nested TOML values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kgclip.tables import GraphError


def override(values: dict[str, Any], overrides: Mapping[str, object] | None) -> None:
    """Set values by dotted key, in place; tables that are missing are made.

    Args:
        values: Nested mapping, as TOML gives it.
        overrides: Value by dotted key, a list's parts by their number, from 0 on: as in
            ``"sources.0.options.seed"``; ``None`` = nothing to set.

    Raises:
        GraphError: If a part of a key names a value, or no part of a list, where a table is
            expected.
    """
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        table: Any = values
        for parent in parents:
            table = _enter(table, parent)
        if not isinstance(table, dict):
            raise GraphError(f"override {key!r}: {'.'.join(parents)!r} is a value, not a table")
        table[last] = value


def _enter(table: Any, name: str) -> Any:
    """The part of a table or list with this name or number; ``None`` if there can be none."""
    if isinstance(table, dict):
        return table.setdefault(name, {})
    if isinstance(table, list) and name.isdigit() and int(name) < len(table):
        return table[int(name)]
    return None
