"""ConceptNet 5 assertions: a file of any size, filtered while it is read.

A line is assertion, relation, start, end and JSON, between tabs. The file is read in pieces, of
which compiled code takes the usual lines (``assertion_kernels``) and Python the others
(``assertions``); a small file is not worth loading a compiler. What remains is a triple, its weight
and its data set (``triples.source``); the sentence that it was said in is a description of its
start, ``[[...]]`` and all; ``/r/ExternalURL`` fills ``links``. The contributors and the licence of
each line are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from kgclip.loading import collector_at_rest
from kgclip.progress import track, waiting
from kgclip.sources.assertions import FIELDS, KINDS, AssertionReader, Assertions, Wanted
from kgclip.sources.bad_lines import BadLines
from kgclip.sources.compression import COMPRESSIONS, open_binary, origin_of, text_size
from kgclip.tables import GraphError, Origin, Tables, build_tables

# ConceptNet's own list, https://github.com/commonsense/conceptnet5/wiki/Relations
SYMMETRIC = frozenset(
    f"/r/{name}"
    for name in (
        *("Antonym", "DistinctFrom", "EtymologicallyRelatedTo", "LocatedNear", "RelatedTo"),
        *("SimilarTo", "Synonym"),
    )
)
PIECE_BYTES = 2**22
COMPILED_FROM = 2**25  # bytes of text: what Python reads while the compiled code is loaded
_SPARE = 128  # bytes after a piece: a missing newline, and what may be looked at beyond it


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
    wanted = Wanted(_listed(languages), _listed(relations), min_weight, _listed(datasets))
    reader = AssertionReader(wanted, surfaces, bad)
    quick = None
    if text_size(file) >= COMPILED_FROM:
        with collector_at_rest(), waiting("compiling the reader, once"):
            from kgclip.sources.assertion_kernels import PieceReader

            quick = PieceReader(wanted, surfaces)
    pieces = _Pieces(file)
    line = 1
    for buffer, size in pieces:
        if quick is None:
            texts = bytes(buffer[:size]).split(b"\n")[:-1]
            count, rest = len(texts), list(enumerate(texts, line))
        else:
            count, rest = quick.add(buffer, size, line)
        for number, text in rest:
            reader.add(number, text)
        line += count
    if line == 1:
        raise GraphError(f"{file}: empty; expected lines of {', '.join(FIELDS)} between tabs")
    bad.report()
    kept = reader.assertions()
    if quick is not None:
        kept = quick.assertions(kept)
    del reader, quick  # which hold as much memory as the tables will
    return build_tables(_frames(kept, senses == "fold"), (pieces.origin(),))


def _listed(values: Sequence[str] | str | None) -> list[str] | None:
    return [values] if isinstance(values, str) else None if values is None else list(values)


class _Pieces:
    """Whole lines, about ``PIECE_BYTES`` at a time, and the file's checksum.

    Yields a buffer, valid until the next one, and how many of its bytes are whole lines; what may
    be looked at beyond them follows.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._digest = None if file.suffix.lower() in COMPRESSIONS else hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[bytearray, int]]:
        with open_binary(self.file) as stream:
            found = self._whole_lines(stream)
            yield from track(found, f"reading {self.file.name}", lambda piece: piece[1])

    def _whole_lines(self, stream: IO[bytes]) -> Iterator[tuple[bytearray, int]]:
        buffer = bytearray(PIECE_BYTES + _SPARE)
        filled, count = 0, 1
        while count:
            view = memoryview(buffer)[filled:-_SPARE]
            count = stream.readinto(view)  # type: ignore[attr-defined]
            if self._digest is not None:  # what is read is what lies on the disk
                self._digest.update(view[:count])
            filled += count
            end = buffer.rfind(b"\n", 0, filled) + 1
            if not count and filled:  # the last line has no newline
                buffer[filled] = ord("\n")
                end = filled = filled + 1
            if end:
                yield buffer, end
                buffer[: filled - end] = buffer[end:filled]
                filled -= end
            elif filled == len(buffer) - _SPARE:  # a line longer than a piece
                short, buffer = buffer, bytearray(2 * len(buffer))
                buffer[:filled] = short[:filled]

    def origin(self) -> Origin:
        """Name and checksum, once all pieces are read."""
        if self._digest is None:
            return origin_of(self.file)
        return Origin(self.file.name, self._digest.hexdigest())


def _frames(kept: Assertions, fold: bool) -> dict[str, pl.DataFrame]:
    """The tables' columns; entities and relations are numbered as they are first met."""
    triples, links = kept.triples, kept.links
    entities, relations, sources, texts = kept.names
    names, number = entities, np.arange(len(entities))
    if fold or not kept.is_ordered:
        names, number = _numbered(entities, _as_met(triples, links), fold)
    relations, relation_number = _numbered(relations, triples["relation"])
    return {
        "entities": pl.DataFrame({"name": names}),
        "relations": _relation_frame(relations),
        "triples": triples.select(
            head=_renumber(triples["head"], number),
            relation=_renumber(triples["relation"], relation_number),
            tail=_renumber(triples["tail"], number),
            weight="weight",
            source=sources.gather(triples["source"]),
        ),
        "texts": _texts(names, number, kept.said, texts),
        "links": links.select(
            entity=_renumber(links["entity"], number), url=texts.gather(links["url"])
        ),
    }


def _texts(
    names: pl.Series, number: np.ndarray, said: pl.DataFrame, texts: pl.Series
) -> pl.DataFrame:
    spoken, term = _language_and_term(names)
    label = term.str.replace_all("_", " ", literal=True).fill_null(names)
    kind = np.array([KINDS.index(kind) for kind in KINDS])[said["surface"]]  # two are aliases
    entity, text = number[said["entity"]], said["text"].to_numpy()
    shape = (len(KINDS), len(names), len(texts))
    # People say the same again and again.
    said_once = pl.Series((kind * shape[1] + entity) * shape[2] + text).unique(maintain_order=True)
    kind, entity, text = np.unravel_index(said_once, shape)
    is_label = kind == KINDS.index("alias")
    is_label &= texts.hash().to_numpy()[text] == label.hash().to_numpy()[entity]
    is_label[is_label] = texts.gather(text[is_label]) == label.gather(entity[is_label])
    kind, entity, text = kind[~is_label], entity[~is_label], text[~is_label]
    return pl.DataFrame(
        {
            "entity": np.concatenate([np.arange(len(names)), entity]),
            "text": label.append(texts.gather(text)),
            "language": spoken.append(spoken.gather(entity)),
            "kind": pl.repeat("label", len(names), eager=True).append(
                pl.Series(KINDS, dtype=pl.String()).gather(kind)
            ),
        }
    )


def _language_and_term(names: pl.Series) -> tuple[pl.Series, pl.Series]:
    """``/c/en/test/n`` → ``en``, ``test``; null where a name has none."""
    parts = names.to_frame("name").select(
        pl.when(pl.col("name").str.starts_with("/c/")).then("name").str.split_exact("/", 3)
    )
    _, _, language, term = parts.unnest("name").get_columns()
    return language, term


def _as_met(triples: pl.DataFrame, links: pl.DataFrame) -> pl.Series:
    """Entities line by line, the start of a line before its end."""
    ends = np.column_stack([triples["head"], triples["tail"]]).ravel()
    lines = np.concatenate([np.repeat(triples["line"], 2), links["line"]])
    codes = np.concatenate([ends, links["entity"]])
    return pl.Series(codes[np.argsort(lines, kind="stable")])


def _numbered(
    names: pl.Series, codes: pl.Series, fold: bool = False
) -> tuple[pl.Series, np.ndarray]:
    """Names that are used, in the order in which they are met, and the number of each code."""
    order = codes.unique(maintain_order=True).to_numpy()
    number = np.full(len(names), -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    names = names.gather(order)
    if fold:
        folded = names.str.extract(r"^(/c/[^/]+/[^/]+)").fill_null(names)
        names = folded.unique(maintain_order=True)
        ids = names.to_frame("name").with_row_index("id")
        merged = folded.to_frame("name").join(ids, on="name", maintain_order="left")
        number[order] = merged["id"].to_numpy()
    return names, number


def _renumber(column: pl.Series, number: np.ndarray) -> pl.Series:
    return pl.Series(column.name, number[column.to_numpy()])


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
