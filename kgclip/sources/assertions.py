"""Assertions of ConceptNet 5, read line by line: plain Python, which takes everything.

Small files and unusual lines come here; of a large file ``kgclip.sources.assertion_kernels`` takes
what it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from kgclip.sources.bad_lines import BadLines

EXTERNAL_URL = "/r/ExternalURL"
FIELDS = ("assertion", "relation", "start", "end", "info")
SURFACES = ("surfaceStart", "surfaceEnd", "surfaceText")
KINDS = ("alias", "alias", "description")  # of texts, and whose they are
OWNERS = ("head", "tail", "head")

TRIPLES = {
    "line": pl.Int64, "head": pl.Int32, "relation": pl.Int32, "tail": pl.Int32,
    "weight": pl.Float64, "source": pl.Int32,
}  # fmt: skip
LINKS = {"line": pl.Int64, "entity": pl.Int32, "url": pl.Int32}
SAID = {"line": pl.Int64, "entity": pl.Int32, "text": pl.Int32, "surface": pl.Int8}


class Assertions(NamedTuple):
    """What is kept of a file, names as codes.

    Attributes:
        names: Of the codes of entities, relations, sources and texts, also some that nothing uses.
        triples: Line, head, relation, tail, weight and source, which may be null.
        links: Line, entity, and address, a text.
        said: Line, entity, text and number of the surface.
        is_ordered: Whether entities were numbered as they are met, and each is used.
    """

    names: tuple[pl.Series, ...]
    triples: pl.DataFrame
    links: pl.DataFrame
    said: pl.DataFrame
    is_ordered: bool


class Wanted:
    """Which assertions stay.

    Args:
        languages, relations, min_weight, datasets: As of ``read_conceptnet``; ``None`` = all.
    """

    def __init__(
        self,
        languages: Sequence[str] | None,
        relations: Sequence[str] | None,
        min_weight: float | None,
        datasets: Sequence[str] | None,
    ) -> None:
        # What start and end, and relation and a tab, begin with; everything begins with "".
        self.languages: tuple[str, ...] = ("",)
        self.relations: tuple[str, ...] = ("",)
        if languages is not None:
            self.languages = tuple(f"/c/{name}/" for name in _within_a_field(languages))
        if relations is not None:
            names = _within_a_field(relations)
            names = [name if name.startswith("/r/") else f"/r/{name}" for name in names]
            self.relations = tuple(f"{name}\t" for name in names)
        self.min_weight = float("-inf") if min_weight is None else min_weight
        # A beginning ends where a part of the name ends: /d/wiktionary is not /d/wiktionaryx.
        parts = [re.escape(name.rstrip("/")) for name in datasets or ()]
        self._dataset = None if datasets is None else re.compile(rf"(?:{'|'.join(parts)})(?:/|$)")

    def has_dataset(self, name: str | None) -> bool:
        """Whether assertions of a data set stay."""
        return self._dataset is None or (name is not None and self._dataset.match(name) is not None)

    def has_names(self, relation: str, start: str, end: str) -> bool:
        """Whether an assertion stays as far as its names tell; a link's end has no language."""
        return (
            f"{relation}\t".startswith(self.relations)
            and start.startswith(self.languages)
            and (relation == EXTERNAL_URL or end.startswith(self.languages))
        )


def _within_a_field(names: Sequence[str]) -> list[str]:
    return [name for name in names if set(name).isdisjoint("\t\n")]


class AssertionReader:
    """Takes lines one by one.

    Args:
        wanted: Which stay.
        surfaces: Keep what people said.
        bad: Where bad lines go.
    """

    def __init__(self, wanted: Wanted, surfaces: bool, bad: BadLines) -> None:
        self.wanted, self.surfaces, self.bad = wanted, surfaces, bad
        self.entities, self.relations, self.sources, self.texts = (_Codes() for _ in range(4))
        self.triples: list[tuple[Any, ...]] = []
        self.links: list[tuple[int, int, int]] = []
        self.said: list[tuple[int, int, int, int]] = []

    def add(self, number: int, line: bytes) -> None:
        """Take a line.

        Args:
            number: Of the line, from 1.
            line: Without its newline.

        Raises:
            GraphError: If it is no assertion, and bad lines are not skipped. The JSON of lines that
                no filter keeps is not looked at.
        """
        fields = line.removesuffix(b"\r").split(b"\t")
        if fields == [b""]:
            return
        if len(fields) != len(FIELDS) or not all(fields[1:]):
            found = sum(map(bool, fields))
            expected = f"{found} fields, expected 5 ({', '.join(FIELDS)}) between tabs"
            self.bad.add(number, "wrong number of fields", expected)
            return
        try:
            _, relation, start, end, info = line.decode().split("\t")
        except UnicodeDecodeError as error:
            self.bad.add(number, "not UTF-8", f"not UTF-8 ({error.reason}); convert the file")
            return
        if not self.wanted.has_names(relation, start, end):
            return
        try:
            weight, source, surfaces = _parse_info(info)
        except (ValueError, TypeError, KeyError) as error:
            reason = "no weight" if isinstance(error, KeyError) else str(error)
            expected = f"bad JSON ({reason}); an object with a weight expected in field 5"
            self.bad.add(number, "bad JSON", expected)
            return
        if weight < self.wanted.min_weight or not self.wanted.has_dataset(source):
            return
        head = self.entities[start]
        if relation == EXTERNAL_URL:
            self.links.append((number, head, self.texts[end]))
            return
        tail = self.entities[end]
        code = None if source is None else self.sources[source]
        self.triples.append((number, head, self.relations[relation], tail, weight, code))
        if self.surfaces:
            for surface, text in enumerate(surfaces):
                if text is not None:
                    owner = tail if OWNERS[surface] == "tail" else head
                    self.said.append((number, owner, self.texts[text], surface))

    def assertions(self) -> Assertions:
        """What was kept so far."""
        names = (self.entities, self.relations, self.sources, self.texts)
        return Assertions(
            tuple(pl.Series(list(codes), dtype=pl.String()) for codes in names),
            pl.DataFrame(self.triples, TRIPLES, orient="row"),
            pl.DataFrame(self.links, LINKS, orient="row"),
            pl.DataFrame(self.said, SAID, orient="row"),
            is_ordered=True,
        )


class _Codes(dict[str, int]):
    """Numbers strings as they are met."""

    def __missing__(self, name: str) -> int:
        self[name] = code = len(self)
        return code


def _parse_info(text: str) -> tuple[float, str | None, list[str | None]]:
    """Weight, data set and surface texts of a line's JSON."""
    about = json.loads(text)
    if not isinstance(about, dict):
        raise TypeError(f"{text[:20]!r} is no object")
    dataset, *texts = (about.get(name) for name in ("dataset", *SURFACES))
    if not all(value is None or isinstance(value, str) for value in (dataset, *texts)):
        raise TypeError("dataset and surface texts must be strings")
    if any("\ud800" <= letter <= "\udfff" for value in (dataset, *texts) for letter in value or ""):
        raise ValueError("half of a pair of surrogates")
    return float(about["weight"]), dataset, texts
