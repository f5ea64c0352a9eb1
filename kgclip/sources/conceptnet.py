"""ConceptNet 5 assertions: a file of any size, filtered while it is read.

A line is assertion, relation, start, end and JSON, between tabs. The file is read in pieces; the
filters see relation, start and end first, and the JSON of a line is looked at only if the line
stays. What remains is a triple, its weight and its data set (``triples.source``); the sentence
that it was said in is a description of its start, ``[[...]]`` and all; ``/r/ExternalURL`` fills
``links``. The contributors and the licence of each line are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl

from kgclip.progress import track
from kgclip.sources.bad_lines import BadLines
from kgclip.sources.compression import COMPRESSIONS, open_binary, origin_of
from kgclip.tables import GraphError, Origin, Tables, build_tables

EXTERNAL_URL = "/r/ExternalURL"
# ConceptNet's own list, https://github.com/commonsense/conceptnet5/wiki/Relations
SYMMETRIC = frozenset(
    f"/r/{name}"
    for name in (
        *("Antonym", "DistinctFrom", "EtymologicallyRelatedTo", "LocatedNear", "RelatedTo"),
        *("SimilarTo", "Synonym"),
    )
)
PIECE_BYTES = 2**21  # larger pieces leave the cache of the processor
BATCH_PIECES = 32
_MANY = 2**32  # more lines than a piece has
_FIELDS = ("assertion", "relation", "start", "end", "info")
# What lines say, and the surface texts of those that have some.
_Facts = tuple[pl.DataFrame, pl.DataFrame]
_SURFACES = ("surfaceStart", "surfaceEnd", "surfaceText")

# JSON as ConceptNet writes it, without escapes, in two parts; other lines go to a real parser.
# Many lines have the same first part: it is checked and read once for all of them.
_TEXT = r'[^"\\\x00-\x1f]*'
_PAIR = rf'"[a-z]+": "{_TEXT}"'
_GIVER = rf"\{{{_PAIR}(?:, {_PAIR})*\}}"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_FIRST = rf'^\{{"dataset": "({_TEXT})", "license": "{_TEXT}", "sources": \[{_GIVER}(?:, {_GIVER})*$'
_BETWEEN = "], "
_SECOND = (
    rf'^(?:"surfaceEnd": "{_TEXT}", )?(?:"surfaceStart": "{_TEXT}", )?'
    rf'(?:"surfaceText": "{_TEXT}", )?"weight": {_NUMBER}\}}$'
)


def read_conceptnet(
    path: str | Path,
    *,
    languages: Sequence[str] | str | None = None,
    relations: Sequence[str] | str | None = None,
    min_weight: float | None = None,
    datasets: Sequence[str] | str | None = None,
    senses: str = "keep",
    surfaces: bool = True,
    on_error: str = "raise",
) -> Tables:
    """Read an assertion file of ConceptNet 5.

    Args:
        path: File, plain or compressed (.gz, .bz2, .xz, .zst).
        languages: Codes such as ``"en"``: start and end must be of one of them; ``None`` = all.
        relations: Names such as ``"/r/IsA"`` or ``"IsA"``; links (``"ExternalURL"``) must be
            named too; ``None`` = all.
        min_weight: Lines of less weight go.
        datasets: Names or beginnings of names, such as ``"/d/wiktionary"``; ``None`` = all.
        senses: ``"keep"``: ``/c/en/test/n`` is an entity of its own; ``"fold"``: it is
            ``/c/en/test``.
        surfaces: Keep the words and sentences of the people who said it: as aliases of start and
            end, and as descriptions of the start.
        on_error: ``"raise"``, or ``"skip"``: bad lines are left out, counted and warned of. The
            JSON of lines that no filter keeps is not looked at.

    Returns:
        The tables. Entities are named by their URI, labelled by its term. Peak memory grows with
        what is kept.

    Raises:
        GraphError: If the file is missing, damaged or holds a bad line; says file and line.
    """
    if senses not in ("keep", "fold"):
        raise GraphError(f"senses={senses!r}: expected 'keep' or 'fold'")
    file = Path(path)
    bad = BadLines(file, on_error)
    wanted = _wanted_rows(_listed(languages), _listed(relations))
    heavy = _wanted_facts(min_weight, _listed(datasets))
    collected = _Collected(surfaces)
    pieces = _Pieces(file, counts=bad.skips)
    batch: list[pl.DataFrame] = []
    for number, piece in enumerate(pieces):
        batch.append(_select_rows(piece, number, wanted, bad, pieces))
        if len(batch) == BATCH_PIECES:
            collected.add(_read_info(pl.concat(batch), bad, pieces), heavy)
            batch.clear()
    if not pieces.offsets:
        raise GraphError(f"{file}: empty; expected lines of {', '.join(_FIELDS)} between tabs")
    if batch:
        collected.add(_read_info(pl.concat(batch), bad, pieces), heavy)
    bad.report()
    return build_tables(collected.frames(senses == "fold"), (pieces.origin(),))


def _listed(values: Sequence[str] | str | None) -> list[str] | None:
    return [values] if isinstance(values, str) else None if values is None else list(values)


class _Pieces:
    """Whole lines, about ``PIECE_BYTES`` at a time; knows on which line each piece begins.

    Args:
        file: Plain or compressed.
        counts: Count the lines of every piece; else only where somebody asks for a number.
    """

    def __init__(self, file: Path, counts: bool) -> None:
        self.file, self.counts = file, counts
        self.offsets: list[int] = []  # of each piece, in bytes
        self._end = 0
        self.lines = [1]
        # Numbers of the lines that are left of a piece with lines that are none.
        self.sifted: dict[int, list[int]] = {}
        self._digest = None if file.suffix.lower() in COMPRESSIONS else hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        with open_binary(self.file) as stream:
            for piece in track(_whole_lines(stream), f"reading {self.file.name}", len):
                self._note(piece)
                yield piece

    def _note(self, piece: bytes) -> None:
        self.offsets.append(self._end)
        self._end += len(piece)
        if self._digest is not None:  # what is read is what lies on the disk
            self._digest.update(piece)
        if self.counts:
            self.lines.append(self.lines[-1] + piece.count(b"\n"))

    def origin(self) -> Origin:
        """Name and checksum, once all pieces are read."""
        if self._digest is None:
            return origin_of(self.file)
        return Origin(self.file.name, self._digest.hexdigest())

    def first_line(self, number: int) -> int:
        """Line on which a piece begins, from 1."""
        if self.counts:
            return self.lines[number]
        with open_binary(self.file) as stream:
            return 1 + _count_lines(stream, self.offsets[number])

    def line(self, row: int) -> int:
        """Line of a row as :func:`_select_rows` numbers them."""
        number, within = divmod(row, _MANY)
        if number in self.sifted:
            return self.sifted[number][within]
        return self.first_line(number) + within


def _whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Pieces of a stream that end where a line does; the last one where the stream does.

    Only one object of a piece's size is made for each: two would have the allocator give the
    memory back and fetch it again every time, which costs as much as the parsing.
    """
    buffer = bytearray(PIECE_BYTES)
    filled = 0
    while True:
        count = stream.readinto(memoryview(buffer)[filled:])  # type: ignore[attr-defined]
        filled += count
        end = buffer.rfind(b"\n", 0, filled) + 1
        if not count:
            if filled:
                yield bytes(memoryview(buffer)[:filled])
            return
        if end:
            yield bytes(memoryview(buffer)[:end])
            buffer[: filled - end] = buffer[end:filled]
            filled -= end
        elif filled == len(buffer):  # a line longer than a piece
            buffer += bytes(len(buffer))


def _count_lines(stream: IO[bytes], num_bytes: int) -> int:
    count = 0
    while num_bytes and (part := stream.read(min(num_bytes, PIECE_BYTES))):
        count, num_bytes = count + part.count(b"\n"), num_bytes - len(part)
    return count


def _wanted_rows(languages: list[str] | None, relations: list[str] | None) -> pl.Expr:
    url = pl.col("relation") == EXTERNAL_URL
    wanted = pl.lit(True)
    if relations is not None:
        names = [name if name.startswith("/r/") else f"/r/{name}" for name in relations]
        wanted &= pl.col("relation").is_in(names)
    if languages is not None:
        of_end = url | _in_languages("end", languages)
        wanted &= _in_languages("start", languages) & of_end
    return wanted


def _in_languages(column: str, languages: list[str]) -> pl.Expr:
    starts = [pl.col(column).str.starts_with(f"/c/{language}/") for language in languages]
    return pl.any_horizontal(starts) if starts else pl.lit(False)


def _wanted_facts(min_weight: float | None, datasets: list[str] | None) -> pl.Expr | None:
    """What the JSON of a line must say for it to stay; ``None`` = anything."""
    wanted = []
    if min_weight is not None:
        wanted.append(pl.col("weight") >= min_weight)
    if datasets is not None:
        # A beginning ends where a part of the name ends: /d/wiktionary is not /d/wiktionaryx.
        parts = "|".join(re.escape(name.rstrip("/")) for name in datasets)
        wanted.append(pl.col("dataset").str.contains(rf"^(?:{parts})(?:/|$)"))
    return pl.all_horizontal(wanted) if wanted else None


def _select_rows(
    piece: bytes, number: int, wanted: pl.Expr, bad: BadLines, pieces: _Pieces
) -> pl.DataFrame:
    """Row number, relation, start, end and JSON of the lines that stay."""
    rows = _scan(piece, wanted)
    if rows is None:  # a line among them is no assertion
        first_line = pieces.first_line(number)
        piece, pieces.sifted[number] = _sift(piece, first_line, bad)
        rows = _scan(piece, wanted)
        if rows is None:
            raise GraphError(f"{bad.file}: something after line {first_line} cannot be read")
    return rows.with_columns(pl.col("row").cast(pl.Int64()) + number * _MANY)


def _scan(piece: bytes, wanted: pl.Expr) -> pl.DataFrame | None:
    """The rows that stay; ``None`` if a line has not five fields or is no UTF-8."""
    schema = dict.fromkeys((*_FIELDS, "more"), pl.String())
    if not piece:
        return pl.DataFrame(schema={"row": pl.UInt32(), **schema}).drop("assertion", "more")
    try:
        rows = (
            pl.scan_csv(
                piece, separator="\t", quote_char=None, has_header=False, schema=schema,
                missing_columns="insert", glob=False, row_index_name="row",
            )
            .select("row", *_FIELDS[1:], odd=_odd())
            .filter(wanted | pl.col("odd"))
            .collect()
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return None
    return None if rows["odd"].any() else rows.drop("odd")


def _odd() -> pl.Expr:
    """Lines with too many fields, too few, or an empty one among those that are read."""
    empty = [pl.col(name).is_null() for name in _FIELDS[1:]]
    return pl.any_horizontal(pl.col("more").is_not_null(), *empty)


def _sift(piece: bytes, first_line: int, bad: BadLines) -> tuple[bytes, list[int]]:
    """Leave bad and blank lines out, one by one; returns the rest and its line numbers."""
    kept, numbers = [], []
    for number, line in enumerate(piece.splitlines(keepends=True), start=first_line):
        fields = line.rstrip(b"\r\n").split(b"\t")
        if fields == [b""]:
            continue
        if len(fields) != len(_FIELDS) or not all(fields[1:]):
            found = sum(map(bool, fields))
            expected = f"{found} fields, expected 5 ({', '.join(_FIELDS)}) between tabs"
            bad.add(number, "wrong number of fields", expected)
            continue
        try:
            line.decode()
        except UnicodeDecodeError as error:
            bad.add(number, "not UTF-8", f"not UTF-8 ({error.reason}); convert the file")
            continue
        kept.append(line)
        numbers.append(number)
    return b"".join(kept), numbers


def _read_info(rows: pl.DataFrame, bad: BadLines, pieces: _Pieces) -> list[_Facts]:
    """Weight and data set of all rows, and the surface texts of the rows that have some."""
    # The cut counts bytes, head and slice count letters: a line where that differs is unusual.
    parts = rows.with_columns(cut=pl.col("info").str.find(_BETWEEN, literal=True)).select(
        "row", "relation", "start", "end",
        first=pl.col("info").str.head("cut"),
        second=pl.col("info").str.slice(pl.col("cut") + len(_BETWEEN)),
    )  # fmt: skip
    parts = parts.with_columns(dataset=_datasets(parts["first"])).drop("first")
    second = pl.col("second").str
    usual = parts.select(second.contains(_SECOND) & pl.col("dataset").is_not_null()).to_series()
    usual = usual.fill_null(False)
    fast = parts if usual.all() else parts.filter(usual)
    surface = (second.extract(rf'"{name}": "({_TEXT})"').alias(name) for name in _SURFACES)
    weight = second.extract(rf'"weight": ({_NUMBER})\}}$').cast(pl.Float64())
    facts = fast.select("row", "relation", "start", "end", "dataset", weight=weight)
    speaks = second.starts_with('"s') & (pl.col("relation") != EXTERNAL_URL)
    said = fast.filter(speaks).select("row", "start", "end", *surface)
    if fast is parts:
        return [(facts, said)]
    slow_facts, slow_said = [], []
    for row, relation, start, end, text in rows.filter(~usual).iter_rows():
        try:
            heaviness, dataset, *texts = _parse_info(text)
        except (ValueError, TypeError, KeyError) as error:
            reason = "no weight" if isinstance(error, KeyError) else str(error)
            expected = f"bad JSON ({reason}); an object with a weight expected in field 5"
            bad.add(pieces.line(row), "bad JSON", expected)
        else:
            slow_facts.append((row, relation, start, end, dataset, heaviness))
            slow_said += [(row, start, end, *texts)] * (relation != EXTERNAL_URL)
    return [(facts, said), (_like(facts, slow_facts), _like(said, slow_said))]


def _like(frame: pl.DataFrame, rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=frame.schema, orient="row")


def _datasets(first: pl.Series) -> pl.Series:
    """Data set of each row, null where the first part is not the usual one; parsed once a text."""
    coded = first.cast(pl.Categorical(pl.Categories.random()))
    distinct = coded.unique()
    found = distinct.cast(pl.String()).str.extract(_FIRST)
    return coded.replace_strict(distinct, found, return_dtype=pl.String())


def _parse_info(text: str) -> tuple[float | str | None, ...]:
    """Weight, data set and surface texts of a line's JSON."""
    about = json.loads(text)
    if not isinstance(about, dict):
        raise TypeError(f"{text[:20]!r} is no object")
    texts = [about.get(name) for name in ("dataset", *_SURFACES)]
    if not all(value is None or isinstance(value, str) for value in texts):
        raise TypeError("dataset and surface texts must be strings")
    return float(about["weight"]), *texts


class _Collected:
    """Gathers what stays of each piece, names as numbers, so that no piece is held."""

    def __init__(self, surfaces: bool) -> None:
        self.surfaces = surfaces
        self.names = {
            name: pl.Categorical(pl.Categories.random())
            for name in ("entity", "relation", "source")
        }
        self.triples: list[pl.DataFrame] = []
        self.links: list[pl.DataFrame] = []
        self.texts: list[pl.DataFrame] = []

    def add(self, found: list[_Facts], wanted: pl.Expr | None) -> None:
        """Take the facts of a piece that are wanted, in the order of their lines."""
        triples = []
        for rows, said in found:
            kept = rows if wanted is None else rows.filter(wanted)
            triples.append(self._add_rows(kept))
            if self.surfaces and len(said):
                self._add_texts(said if wanted is None else said.join(kept, on="row", how="semi"))
        joined = triples[0] if len(triples) == 1 else pl.concat(triples).sort("row")
        self.triples.append(joined.drop("row"))

    def _add_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        entity = self.names["entity"]
        is_link = rows["relation"] == EXTERNAL_URL
        if is_link.any():
            links = rows.filter(is_link)
            self.links.append(links.select(entity=pl.col("start").cast(entity), url="end"))
            rows = rows.filter(~is_link)
        return rows.select(
            "row",
            pl.col("start", "end").cast(entity),
            pl.col("relation").cast(self.names["relation"]),
            "weight",
            source=pl.col("dataset").cast(self.names["source"]),
        )

    def _add_texts(self, said: pl.DataFrame) -> None:
        entity = self.names["entity"]
        for column, owner, kind in (
            ("surfaceStart", "start", "alias"),
            ("surfaceEnd", "end", "alias"),
            ("surfaceText", "start", "description"),
        ):
            texts = said.select(entity=pl.col(owner).cast(entity), text=column, kind=pl.lit(kind))
            self.texts.append(texts.drop_nulls("text"))

    def frames(self, fold: bool) -> dict[str, pl.DataFrame]:
        """The tables' columns; entities and relations are numbered as they are first met."""
        triples = pl.concat(self.triples)
        links = pl.concat(self.links) if self.links else None
        columns = [
            triples["start"],
            triples["end"],
            *([links["entity"]] if links is not None else []),
        ]
        names, number = _numbered(columns, fold)
        entities = pl.DataFrame({"name": names})
        relations, relation_number = _numbered([triples["relation"]], False)
        frames = {
            "entities": entities,
            "relations": _relation_frame(relations),
            "triples": triples.select(
                head=_renumber(triples["start"], number),
                relation=_renumber(triples["relation"], relation_number),
                tail=_renumber(triples["end"], number),
                weight="weight",
                source=pl.col("source").cast(pl.String()),
            ),
            "texts": self._texts(names, number),
        }
        if links is not None:
            frames["links"] = links.select(entity=_renumber(links["entity"], number), url="url")
        return frames

    def _texts(self, names: pl.Series, number: np.ndarray) -> pl.DataFrame:
        parts = names.str.splitn("/", 5).struct  # "", "c", language, term, sense
        spoken, term = parts.field("field_2"), parts.field("field_3")
        labels = pl.DataFrame(
            {
                "entity": pl.int_range(len(names), eager=True),
                "text": term.str.replace_all("_", " ", literal=True).fill_null(names),
                "kind": pl.repeat("label", len(names), eager=True),
            }
        )
        texts = [labels]
        if self.texts:
            said = pl.concat(self.texts)
            said = said.with_columns(entity=_renumber(said["entity"], number))
            said = said.unique(maintain_order=True)  # people say the same again and again
            same = said["text"] == labels["text"].gather(said["entity"])
            texts.append(said.filter(~(same & (said["kind"] == "alias"))))
        found = pl.concat(texts)
        return found.with_columns(language=spoken.gather(found["entity"]))


def _numbered(columns: list[pl.Series], fold: bool) -> tuple[pl.Series, np.ndarray]:
    """Distinct names in the order in which they are met, and the number of each code."""
    codes = np.concatenate([column.to_physical().to_numpy() for column in columns])
    count = int(codes.max()) + 1 if len(codes) else 0
    first = np.full(count, len(codes), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last write wins: the first meeting
    order = np.argsort(first, kind="stable")[: int((first < len(codes)).sum())]
    number = np.full(count, -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    every = pl.concat(columns)
    names = every.gather(first[order]).cast(pl.String())
    if fold:
        folded = names.str.extract(r"^(/c/[^/]+/[^/]+)").fill_null(names)
        names = folded.unique(maintain_order=True)
        merged = (
            folded.to_frame("name")
            .join(names.to_frame("name").with_row_index("id"), on="name", maintain_order="left")[
                "id"
            ]
            .to_numpy()
        )
        number[order] = merged
    return names, number


def _renumber(column: pl.Series, number: np.ndarray) -> pl.Series:
    return pl.Series(column.name, number[column.to_physical().to_numpy()])


def _relation_frame(names: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "name": names,
            "label": pl.Series([relation_label(name) for name in names], dtype=pl.String()),
            "symmetric": pl.Series(
                [True if name in SYMMETRIC else None for name in names], dtype=pl.Boolean()
            ),
        }
    )


def relation_label(name: str) -> str:
    """Make a relation's name readable: ``/r/HasFirstSubevent`` → ``has first subevent``."""
    local = name.rstrip("/").rsplit("/", 1)[-1].replace("_", " ")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", local).lower()
