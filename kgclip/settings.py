"""Settings by dotted key: ``{"splits.seed": 7}`` into nested TOML values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kgclip.tables import GraphError


def override(values: dict[str, Any], overrides: Mapping[str, object] | None) -> None:
    """Set values by dotted key, in place; tables that are missing are made.

    Args:
        values: Nested mapping, as TOML gives it.
        overrides: Value by dotted key; ``None`` = nothing to set.

    Raises:
        GraphError: If a part of a key names a value where a table is expected.
    """
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        table = values
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise GraphError(f"override {key!r}: {parent!r} is a value, not a table")
        table[last] = value
