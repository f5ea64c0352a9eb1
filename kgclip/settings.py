"""Settings from TOML: read, changed by dotted key as ``{"splits.seed": 7}``, and checked."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from kgclip.tables import GraphError


class Settings(pydantic.BaseModel):
    """A table of settings: unknown keys are refused, values do not change."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_settings(
    path: str | Path, overrides: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Read a TOML file and change values.

    Args:
        path: TOML file.
        overrides: Values by dotted key, as in ``{"trainer.steps": 100}``.

    Raises:
        GraphError: If the file is missing or no TOML, or a key does not fit.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GraphError(f"{file}: no such config; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GraphError(f"{file}: not a TOML file: {error}") from error
    override(values, overrides)
    return values


def check_settings(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Check values against a table of settings.

    Args:
        kind: What is expected.
        values: Nested mapping, as TOML gives it.
        where: What the values were read from, for the message.

    Raises:
        GraphError: Names the key, what was given and the nearest known key.
    """
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        problems = [_explain(kind, where, found) for found in error.errors()]
        raise GraphError("; ".join(problems)) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0)
    return f"did you mean {close[0]!r}? known: {', '.join(known)}"


def _explain(kind: type[Settings], where: str, found: Any) -> str:
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(kind, found["loc"][:-1])
        return f"{where}: unknown key {key!r}; {nearest(str(found['loc'][-1]), known)}"
    if isinstance(found.get("input"), dict):  # of a whole table: the message says what of it
        return f"{where}: {key}{': ' if key else ''}{found['msg'].removeprefix('Value error, ')}"
    return f"{where}: {key}: {found['msg']}, given: {found.get('input')!r}"


def _known_keys(owner: Any, parents: Iterable[Any]) -> list[str]:
    """Keys of the table that a path of keys leads to."""
    for part in parents:
        if typing.get_origin(owner) is dict:  # any key, one kind of value
            owner = typing.get_args(owner)[1]
        elif dataclasses.is_dataclass(owner):
            owner = typing.get_type_hints(owner)[part]
        else:
            owner = owner.model_fields[part].annotation
        if isinstance(owner, types.UnionType):  # a table that may be left out
            owner = next(one for one in typing.get_args(owner) if one is not type(None))
    if dataclasses.is_dataclass(owner):
        return [field.name for field in dataclasses.fields(owner)]
    return list(owner.model_fields)


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
