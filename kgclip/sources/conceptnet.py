"""ConceptNet 5 assertions: a file of any size, filtered while it is read.

A line is assertion, relation, start, end and JSON, between tabs. The file is read in pieces; numpy
finds the fields and compares their beginnings, and only what stays of a line goes to polars. JSON
that many lines share is read once. What remains is a triple, its weight and its data set
(``triples.source``); the sentence that it was said in is a description of its start, ``[[...]]``
and all; ``/r/ExternalURL`` fills ``links``. The contributors and the licence of each line are left
out.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

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
PIECE_BYTES = 2**21
BATCH_LINES = 2**16  # that stay
_BLOCK = 2**17  # bytes that stay in the processor's cache
_MANY = 2**32  # more lines than a piece has
_FIELDS = ("assertion", "relation", "start", "end", "info")
MANY_TEXTS = 2**18  # more are forgotten and read again
_SURFACES = ("surfaceStart", "surfaceEnd", "surfaceText")
_SPOKEN = pl.Struct({**dict.fromkeys(_SURFACES, pl.String()), "weight": pl.Float64()})
_WORD = 8  # bytes
_TAB, _NEWLINE = b"\t\n"

# JSON as ConceptNet writes it, in two parts; other lines go to a real parser. Many lines have the
# same first part, without escapes: it is checked and read once for all of them.
_TEXT = r'[^"\\\x00-\x1f]*'
# Escapes that every parser reads alike: half a character of two halves is not among them.
_ESCAPE = r'\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))'
_SAID = rf"{_TEXT}(?:{_ESCAPE}{_TEXT})*"
_PAIR = rf'"[a-z]+": "{_TEXT}"'
_GIVER = rf"\{{{_PAIR}(?:, {_PAIR})*\}}"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_FIRST = rf'^\{{"dataset": "({_TEXT})", "license": "{_TEXT}", "sources": \[{_GIVER}(?:, {_GIVER})*$'
_BETWEEN = "], "
_SECOND = (
    rf'^(?:"surfaceEnd": "{_SAID}", )?(?:"surfaceStart": "{_SAID}", )?'
    rf'(?:"surfaceText": "{_SAID}", )?"weight": {_NUMBER}\}}$'
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
    wanted = _Wanted(_listed(languages), _listed(relations))
    heavy = _wanted_facts(min_weight, _listed(datasets))
    pieces = _Pieces(file, counts=bad.skips)
    infos = _Infos(bad, pieces)
    collected = _Collected(surfaces, infos.sources)
    batch = _Batch()
    for number, piece in enumerate(pieces):
        _select_rows(piece, number, wanted, batch, bad, pieces)
        if len(batch.lines) >= BATCH_LINES:
            collected.add(infos.read(batch.frame()), heavy)
            batch = _Batch()
    if not pieces.offsets:
        raise GraphError(f"{file}: empty; expected lines of {', '.join(_FIELDS)} between tabs")
    if batch.rows:
        collected.add(infos.read(batch.frame()), heavy)
    bad.report()
    return build_tables(collected.frames(senses == "fold"), (pieces.origin(),))


def _listed(values: Sequence[str] | str | None) -> list[str] | None:
    return [values] if isinstance(values, str) else None if values is None else list(values)


class _Piece(NamedTuple):
    """Whole lines; valid until the next piece is read.

    Attributes:
        data: Their bytes; the last one is a newline. Uint8 [B].
        words: The eight bytes from each place on, of which the last ones mean nothing. Uint64 [B].
    """

    data: np.ndarray
    words: np.ndarray


def _piece(buffer: bytearray | bytes, end: int) -> _Piece:
    """The bytes of a buffer up to ``end``; it is 8 bytes longer."""
    data = np.frombuffer(buffer, np.uint8, end)
    return _Piece(data, np.ndarray((end,), "<u8", buffer, strides=(1,)))


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

    def __iter__(self) -> Iterator[_Piece]:
        with open_binary(self.file) as stream:
            found = self._whole_lines(stream)
            yield from track(found, f"reading {self.file.name}", lambda piece: len(piece.data))

    def _whole_lines(self, stream: IO[bytes]) -> Iterator[_Piece]:
        buffer = bytearray(PIECE_BYTES + _WORD)
        filled, count = 0, 1
        while count:
            view = memoryview(buffer)[filled:-_WORD]
            count = stream.readinto(view)  # type: ignore[attr-defined]
            if self._digest is not None:  # what is read is what lies on the disk
                self._digest.update(view[:count])
            filled += count
            end = buffer.rfind(b"\n", 0, filled) + 1
            if not count and filled:  # the last line has no newline
                buffer[filled] = _NEWLINE
                end = filled = filled + 1
            if end:
                self.offsets.append(self._end)
                self._end += end
                if self.counts:
                    self.lines.append(self.lines[-1] + buffer.count(b"\n", 0, end))
                yield _piece(buffer, end)
                buffer[: filled - end] = buffer[end:filled]
                filled -= end
            elif filled == len(buffer) - _WORD:  # a line longer than a piece
                short, buffer = buffer, bytearray(2 * len(buffer))
                buffer[:filled] = short[:filled]

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


def _count_lines(stream: IO[bytes], num_bytes: int) -> int:
    count = 0
    while num_bytes and (part := stream.read(min(num_bytes, PIECE_BYTES))):
        count, num_bytes = count + part.count(b"\n"), num_bytes - len(part)
    return count


class _Wanted:
    """Which lines stay, as far as relation, start and end tell."""

    def __init__(self, languages: list[str] | None, relations: list[str] | None) -> None:
        self.languages = self.relations = None
        if languages is not None:
            inside = [name for name in languages if set(name).isdisjoint("\t\n")]  # of a field
            self.languages = [f"/c/{name}/" for name in inside]
        if relations is not None:
            names = [name if name.startswith("/r/") else f"/r/{name}" for name in relations]
            self.relations = [f"{name}\t" for name in names]

    def rows(self, words: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Lines whose start and end are of a wanted language; the end of a link is of none.

        Args:
            words: Of the piece.
            ends: Of the fields of each line. [lines, 5]
        """
        rows = np.arange(len(ends))
        if self.languages is not None:
            rows = rows[_begin(words, ends[:, 1] + 1, self.languages)]
            is_link = _begin(words, ends[rows, 0] + 1, [f"{EXTERNAL_URL}\t"])
            rows = rows[is_link | _begin(words, ends[rows, 2] + 1, self.languages)]
        if self.relations is not None:
            rows = rows[_begin(words, ends[rows, 0] + 1, self.relations)]
        return rows


def _begin(words: np.ndarray, places: np.ndarray, texts: list[str]) -> np.ndarray:
    """Whether one of some texts stands at a place. Bool [places]."""
    found = np.zeros(len(places), dtype=bool)
    for text in map(str.encode, texts):
        same = np.ones(len(places), dtype=bool)
        for i in range(0, len(text), _WORD):
            part = text[i : i + _WORD]
            spare = np.uint64(8 * (_WORD - len(part)))  # bits of bytes that may be any
            word = words[np.minimum(places + i, len(words) - 1)]
            same &= (word ^ _as_word(part)) << spare == 0
        found |= same
    return found


def _as_word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _wanted_facts(min_weight: float | None, datasets: list[str] | None) -> pl.Expr | None:
    """What the JSON of a line must say for it to stay; ``None`` = anything."""
    wanted = []
    if min_weight is not None:
        wanted.append(pl.col("weight") >= min_weight)
    if datasets is not None:
        # A beginning ends where a part of the name ends: /d/wiktionary is not /d/wiktionaryx.
        parts = "|".join(re.escape(name.rstrip("/")) for name in datasets)
        name = pl.col("dataset").cast(pl.String())
        wanted.append(name.str.contains(rf"^(?:{parts})(?:/|$)"))
    return pl.all_horizontal(wanted) if wanted else None


class _Batch:
    """Lines that stay, of some pieces."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []  # from the relation on
        self.rows: list[np.ndarray] = []
        self.plain: list[np.ndarray] = []

    def frame(self) -> pl.DataFrame:
        """Relation, start, end, JSON, number of the row, and whether the JSON looks plain."""
        schema = dict.fromkeys(_FIELDS[1:], pl.String())
        frame = pl.DataFrame(schema=schema)
        if self.lines:
            lines = b"".join(self.lines)
            frame = pl.read_csv(
                lines, separator="\t", quote_char=None, has_header=False, schema=schema
            )
        row, plain = (pl.Series(np.concatenate(part)) for part in (self.rows, self.plain))
        return frame.select(*_FIELDS[1:], row=row, plain=plain)


def _select_rows(
    piece: _Piece, number: int, wanted: _Wanted, batch: _Batch, bad: BadLines, pieces: _Pieces
) -> None:
    """Add the lines that stay to a batch."""
    ends = _field_ends(piece.data)
    if ends is None:  # a line among them is no assertion
        first_line = pieces.first_line(number)
        kept, pieces.sifted[number] = _sift(piece.data.tobytes(), first_line, bad)
        piece = _piece(kept + bytes(_WORD), len(kept))
        ends = _field_ends(piece.data)
        if ends is None:
            raise GraphError(f"{bad.file}: something after line {first_line} cannot be read")
    rows = wanted.rows(piece.words, ends)
    ends = ends[rows]
    text = piece.data.tobytes()
    cuts = map(slice, (ends[:, 0] + 1).tolist(), (ends[:, -1] + 1).tolist())
    batch.lines += map(text.__getitem__, cuts)
    batch.rows.append(rows + number * _MANY)
    batch.plain.append(_look_plain(piece.words, ends[:, -1]))


def _field_ends(data: np.ndarray) -> np.ndarray | None:
    """Where the fields of each line end [lines, 5]; ``None`` if any is odd, empty or no UTF-8."""
    blocks = range(0, len(data), _BLOCK)
    marks = [np.flatnonzero(data[i : i + _BLOCK] <= _NEWLINE) + i for i in blocks]
    ends = np.concatenate(marks or [np.empty(0, np.intp)])
    found = data[ends]
    if len(found) and found.min() < _TAB:  # other characters without a picture are part of a field
        ends = ends[found >= _TAB]
        found = data[ends]
    if found.tobytes() != b"\t\t\t\t\n" * (len(found) // 5):
        return None
    empty = np.flatnonzero(np.diff(ends) == 1) + 1  # the first field may be
    lines = ends.reshape(-1, 5)
    return None if (empty % 5).any() or not _is_text(data, lines[:, -1] + 1) else lines


def _is_text(data: np.ndarray, ends: np.ndarray) -> bool:
    """Whether lines are UTF-8: some hundred at a time, which the cache can hold."""
    some = _BLOCK // 256
    try:
        for start, end in itertools.pairwise([0, *ends[some::some].tolist(), len(data)]):
            codecs.utf_8_decode(data[start:end].data)
    except UnicodeDecodeError:
        return False
    return True


def _sift(piece: bytes, first_line: int, bad: BadLines) -> tuple[bytes, list[int]]:
    """Leave bad and blank lines out, one by one; returns the rest and its line numbers."""
    kept, numbers = [], []
    for number, line in enumerate(piece.removesuffix(b"\n").split(b"\n"), start=first_line):
        fields = line.removesuffix(b"\r").split(b"\t")
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
        kept.append(line + b"\n")
        numbers.append(number)
    return b"".join(kept), numbers


def _look_plain(words: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether JSON ends in nothing but a weight of up to six letters; a guess that saves time."""
    plain = np.zeros(len(ends), dtype=bool)
    for length in range(1, 7):
        places = ends - len(f'], "weight": {"0" * length}}}')
        plain |= words[np.maximum(places, 0)] == _as_word(b'], "weight"'[:_WORD])
    return plain


class _Infos:
    """Reads the JSON of lines, what is plain and the same in many lines only once.

    Args:
        bad: Where bad lines go.
        pieces: Knows the numbers of lines.
    """

    def __init__(self, bad: BadLines, pieces: _Pieces) -> None:
        self.bad, self.pieces = bad, pieces
        self.sources = pl.Categorical(pl.Categories.random())
        self._forget()

    def _forget(self) -> None:
        self._texts = pl.Categorical(pl.Categories.random())
        self._alive = pl.Series([], dtype=self._texts)  # without data the codes would be dropped
        self._known = pl.DataFrame(schema={"dataset": self.sources, "weight": pl.Float64()})

    def read(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        """Weight, data set and, where there are any, surface texts, instead of JSON."""
        plain, other = rows.filter("plain"), rows.filter(~pl.col("plain"))
        facts = plain.drop("info", "plain").hstack(self._recall(plain["info"]))
        unusual = facts["weight"].is_null()
        if unusual.any():
            other = pl.concat([other, plain.filter(unusual)])
            facts = facts.filter(~unusual)
        return [facts, *self._read_each(other)]

    def _recall(self, texts: pl.Series) -> pl.DataFrame:
        """Data set and weight of each text; null where that is not all, or not certain."""
        if len(self._known) > MANY_TEXTS:
            self._forget()
        codes = texts.cast(self._texts).to_physical()
        count = 0 if codes.is_empty() else int(codes.max()) + 1  # type: ignore[arg-type]
        if count > len(self._known):
            new = pl.Series(np.arange(len(self._known), count, dtype=np.uint32))
            found = _parse_usual(new.cat.to(self._texts).cast(pl.String()))
            speaks = pl.any_horizontal(pl.col(_SURFACES).is_not_null())
            found = found.select(
                pl.col("dataset").cast(self.sources),
                weight=pl.when(~speaks).then("weight"),
            )
            self._known = pl.concat([self._known, found], rechunk=True)
        return self._known[codes]

    def _read_each(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        names = rows.drop("info", "plain")
        found = _parse_usual(rows["info"])
        found = found.with_columns(pl.col("dataset").cast(self.sources))
        unusual = found["weight"].is_null()
        usual = names.hstack(found).filter(~unusual)
        slow = [
            (*fields, row, *about)
            for *fields, text, row, _ in rows.filter(unusual).iter_rows()
            if (about := self._parse(row, text)) is not None
        ]
        return [usual, pl.DataFrame(slow, schema=usual.schema, orient="row")]

    def _parse(self, row: int, text: str) -> list[float | str | None] | None:
        try:
            return _parse_info(text)
        except (ValueError, TypeError, KeyError) as error:
            reason = "no weight" if isinstance(error, KeyError) else str(error)
            expected = f"bad JSON ({reason}); an object with a weight expected in field 5"
            self.bad.add(self.pieces.line(row), "bad JSON", expected)
            return None


def _parse_usual(texts: pl.Series) -> pl.DataFrame:
    """Data set, weight and surface texts of JSON as ConceptNet writes it; else all null."""
    parts = texts.str.splitn(_BETWEEN, 2).struct.unnest()
    first, second = parts.get_columns()
    dataset = _datasets(first)
    usual = second.str.contains(_SECOND).fill_null(False) & dataset.is_not_null()
    # What the pattern has seen has no name twice: any parser reads it alike.
    about = ("{" + second.set(~usual, None)).str.json_decode(_SPOKEN)
    return about.struct.unnest().select(
        dataset.set(~usual, None).alias("dataset"), "weight", *_SURFACES
    )


def _datasets(first: pl.Series) -> pl.Series:
    """Data set of each row, null where the first part is not the usual one; parsed once a text."""
    coded = first.cast(pl.Categorical(pl.Categories.random()))
    distinct = coded.unique()
    found = distinct.cast(pl.String()).str.extract(_FIRST)
    return coded.replace_strict(distinct, found, return_dtype=pl.String())


def _parse_info(text: str) -> list[float | str | None]:
    """Data set, weight and surface texts of a line's JSON."""
    about = json.loads(text)
    if not isinstance(about, dict):
        raise TypeError(f"{text[:20]!r} is no object")
    dataset, *texts = (about.get(name) for name in ("dataset", *_SURFACES))
    if not all(value is None or isinstance(value, str) for value in (dataset, *texts)):
        raise TypeError("dataset and surface texts must be strings")
    return [dataset, float(about["weight"]), *texts]


class _Collected:
    """Gathers what stays, names as numbers, so that no piece is held.

    Args:
        surfaces: Keep surface texts.
        sources: Numbers of the data sets.
    """

    def __init__(self, surfaces: bool, sources: pl.Categorical) -> None:
        self.surfaces = surfaces
        self.sources = sources
        self.entity, self.relation = (pl.Categorical(pl.Categories.random()) for _ in range(2))
        self.triples: list[pl.DataFrame] = []
        self.links: list[pl.DataFrame] = []
        self.texts: list[pl.DataFrame] = []
        self._said: list[pl.DataFrame] = []  # of one batch

    def add(self, found: list[pl.DataFrame], wanted: pl.Expr | None) -> None:
        """Take the facts that are wanted, in the order of their lines."""
        triples = [
            self._add_rows(rows if wanted is None else rows.filter(wanted)) for rows in found
        ]
        self.triples.append(pl.concat(triples).sort("row").drop("row"))
        if self._said:
            said = pl.concat(self._said).sort("row", maintain_order=True).drop("row")
            self.texts.append(said)
            self._said = []

    def _add_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        rows = rows.with_columns(pl.col("start").cast(self.entity))
        is_link = rows["relation"] == EXTERNAL_URL
        if is_link.any():
            links = rows.filter(is_link)
            urls = pl.Series(links["end"].to_list(), dtype=pl.String())  # not where the piece lies
            self.links.append(pl.DataFrame({"entity": links["start"], "url": urls}))
            rows = rows.filter(~is_link)
        rows = rows.with_columns(
            pl.col("end").cast(self.entity), pl.col("relation").cast(self.relation)
        )
        if self.surfaces and "surfaceText" in rows.columns:
            self._add_texts(rows)
        return rows.select("row", "start", "end", "relation", "weight", source="dataset")

    def _add_texts(self, rows: pl.DataFrame) -> None:
        for column, owner, kind in (
            ("surfaceStart", "start", "alias"),
            ("surfaceEnd", "end", "alias"),
            ("surfaceText", "start", "description"),
        ):
            texts = rows.select("row", entity=owner, text=column, kind=pl.lit(kind))
            self._said.append(texts.drop_nulls("text"))

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
            same = said["text"] == labels["text"].gather(said["entity"])
            said = said.filter(~(same & (said["kind"] == "alias")))
            texts.append(said.unique(maintain_order=True))  # people say the same again and again
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
