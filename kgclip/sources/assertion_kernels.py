"""Assertions as ConceptNet 5 writes them, many lines at a time, compiled by numba.

Takes the lines that are certain to say what they seem to say and gives all others back: a field too
many, JSON in another order, a character by its number. JSON is read in parts. What comes first
(data set, licence, sources) and last (weight) is the same in many lines: it is numbered, and
checked and read once for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from kgclip.name_table import NameTable
from kgclip.scanning import (
    SPAN,
    WORD,
    after_character,
    at_least,
    at_most,
    compiled,
    equal_to,
    lowest,
    text_end,
    word_at,
)
from kgclip.sources.assertions import (
    EXTERNAL_URL,
    LINKS,
    OWNERS,
    SAID,
    SURFACES,
    TRIPLES,
    Assertions,
    Wanted,
)

_TAB, _NEWLINE, _SPACE, _QUOTE, _COMMA, _BRACKET = b'\t\n ",]'

_TEXT = r'[^"\\\x00-\x1f]*'
_PAIR = rf'"[a-z]+": "{_TEXT}"'
_GIVER = rf"\{{{_PAIR}(?:, {_PAIR})*\}}"
_FIRST = re.compile(
    rf'\{{"dataset": "({_TEXT})", "license": "{_TEXT}", "sources": \[{_GIVER}(?:, {_GIVER})*'
)
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_LAST = re.compile(rf'"weight": ({_NUMBER})\}}\r?')
_KEYS = ("surfaceEnd", "surfaceStart", "surfaceText")  # in the order in which they are written
_SHORTEST_LINE = len("\ta\ta\ta\t], x\n")  # that _split takes for usual
_SHORTEST_TEXT = len('"surfaceEnd": "", ')
_ESCAPED = tuple(b'"\\/bfnrt')
_KEY_OF = tuple(map(_KEYS.index, SURFACES))
_IS_TAIL = np.array([owner == "tail" for owner in OWNERS])


@compiled
def _begins(data, place, words, starts):  # type: ignore[no-untyped-def]
    """Whether one of some texts stands at a place; of each word also which bits count."""
    for text in range(len(starts) - 1):
        i = starts[text]
        end = starts[text + 1]
        here = place
        while i < end and (word_at(data, here) ^ words[0, i]) & words[1, i] == 0:
            i += 1
            here += WORD
        if i == end:
            return True
    return False


@compiled
def _find_bracket(data, place, end):  # type: ignore[no-untyped-def]
    """The first ``], `` from a place on, or ``end``."""
    while place < end:
        marks = equal_to(data, place, _BRACKET)
        if marks == 0:
            place += SPAN
            continue
        place += lowest(marks)
        if place < end and data[place + 1] == _COMMA and data[place + 2] == _SPACE:
            return place
        place += 1
    return end


@compiled
def _split(  # type: ignore[no-untyped-def]
    data, size, languages, language_starts, relations, relation_starts, link, link_starts,
    keys, key_starts, key_lengths, usual, said, others,
):  # fmt: skip
    """Find lines that are wanted and usual, what was said in them, and lines that are not usual.

    Columns of ``usual``: line, its begin, its four tabs, where the first part of its JSON ends,
    where the last one begins, its end. Of ``said``: which of the usual lines, which surface, begin
    and end of its text, whether it has escapes. Of ``others``: line, begin, end.

    Returns:
        Number of columns of each, and of lines; the latter is -1 if one of them is no UTF-8.
    """
    begins, ends, escapes = np.empty(3, np.intp), np.empty(3, np.intp), np.empty(3, np.bool_)
    first = second = third = fourth = 0
    tabs = line = begin = num_usual = num_said = num_others = checked = 0
    for block in range(0, size, SPAN):
        if at_least(data, block, 0x80):
            checked = max(checked, block)
            while checked < min(block + SPAN, size):
                checked = checked + 1 if data[checked] < 0x80 else after_character(data, checked)
                if checked < 0:
                    return 0, 0, 0, -1
        marks = at_most(data, block, _NEWLINE)
        while marks:
            i = block + lowest(marks)
            marks &= marks - np.uint64(1)
            if data[i] == _TAB:
                first, second, third, fourth = second, third, fourth, i
                tabs += 1
            elif data[i] == _NEWLINE and i < size:
                shortest = min(second - first, third - second, fourth - third, i - fourth)
                is_usual = tabs == 4 and shortest > 1
                is_wanted = not is_usual or (
                    _begins(data, second + 1, languages, language_starts)
                    and (
                        _begins(data, third + 1, languages, language_starts)
                        or _begins(data, first + 1, link, link_starts)
                    )
                    and _begins(data, first + 1, relations, relation_starts)
                )
                if is_usual and is_wanted:
                    first_end = _find_bracket(data, fourth + 1, i)
                    place = first_end + 3
                    for key in range(len(begins)):
                        begins[key] = 0
                        if place < i and _begins(data, place, keys, key_starts[key : key + 2]):
                            begins[key] = place + key_lengths[key]
                            ends[key], escapes[key] = text_end(data, begins[key], i, _ESCAPED)
                            place = ends[key] + 3
                            if (
                                data[place - 3] != _QUOTE
                                or data[place - 2] != _COMMA
                                or data[place - 1] != _SPACE
                            ):
                                place = i
                    is_usual = place < i
                    if is_usual:
                        usual[0, num_usual] = line
                        usual[1, num_usual] = begin
                        usual[2, num_usual] = first
                        usual[3, num_usual] = second
                        usual[4, num_usual] = third
                        usual[5, num_usual] = fourth
                        usual[6, num_usual] = first_end
                        usual[7, num_usual] = place
                        usual[8, num_usual] = i
                        for surface in range(len(begins)):
                            key = _KEY_OF[surface]
                            if begins[key]:
                                said[0, num_said] = num_usual
                                said[1, num_said] = surface
                                said[2, num_said] = begins[key]
                                said[3, num_said] = ends[key]
                                said[4, num_said] = escapes[key]
                                num_said += 1
                        num_usual += 1
                if not is_usual:
                    others[0, num_others] = line
                    others[1, num_others] = begin
                    others[2, num_others] = i
                    num_others += 1
                tabs = 0
                line += 1
                begin = i + 1
    return num_usual, num_said, num_others, line


class PieceReader:
    """Takes pieces of a file.

    Args:
        wanted: Which assertions stay.
        surfaces: Keep what people said.
    """

    def __init__(self, wanted: Wanted, surfaces: bool) -> None:
        self.wanted, self.surfaces = wanted, surfaces
        keys = [f'"{key}": "' for key in _KEYS]
        self._texts = (
            *_flat(wanted.languages), *_flat(wanted.relations), *_flat([f"{EXTERNAL_URL}\t"]),
            *_flat(keys), np.array(list(map(len, keys))),
        )  # fmt: skip
        self._found = [np.empty((rows, 0), np.intp) for rows in (9, 5, 3)]
        self.entities, self.relations, self.sources, self.texts = (NameTable() for _ in range(4))
        self._link = self.relations.number_all([EXTERNAL_URL])[0]
        self._firsts, self._lasts = NameTable(), NameTable()
        # Of each first part the source, -1 = none that is wanted, -2 = not as usual; of each last
        # part the weight, NaN = not as usual.
        self._source, self._weight = np.empty(0, np.int32), np.empty(0)
        self._triples: list[tuple[np.ndarray, ...]] = []
        self._links: list[tuple[np.ndarray, ...]] = []
        self._said: list[tuple[np.ndarray, ...]] = []
        self.add(bytearray(SPAN), 0, 0)  # so that code is compiled here, if it must be

    def add(
        self, buffer: bytearray, size: int, first_line: int
    ) -> tuple[int, list[tuple[int, bytes]]]:
        """Take a piece.

        Args:
            buffer: Bytes of which the first ``size`` are whole lines; ``SPAN`` more follow them.
            size: Number of bytes.
            first_line: Number of the first line.

        Returns:
            How many lines there are; numbers and lines of those that were not taken.
        """
        data = np.frombuffer(buffer, np.uint8)
        if self._found[2].shape[1] < size:
            least = (_SHORTEST_LINE, _SHORTEST_TEXT, 1)
            self._found = [
                np.empty((len(rows), size // bytes_each + 1), np.intp)
                for rows, bytes_each in zip(self._found, least, strict=True)
            ]
        *counts, num_lines = _split(data, size, *self._texts, *self._found)
        if num_lines < 0:
            lines = bytes(buffer[:size]).split(b"\n")[:-1]
            return len(lines), list(enumerate(lines, first_line))
        usual, said, others = (
            rows[:, :count] for rows, count in zip(self._found, counts, strict=True)
        )
        odd = self._add_lines(data, first_line, usual, said)
        others = np.hstack([others, usual[:, odd][[0, 1, 8]]])
        rest = [
            (first_line + line, bytes(buffer[begin:end])) for line, begin, end in others.T.tolist()
        ]
        return num_lines, sorted(rest)

    def _add_lines(
        self, data: np.ndarray, first_line: int, usual: np.ndarray, said: np.ndarray
    ) -> np.ndarray:
        """Take usual lines; returns which of them are not usual after all."""
        firsts = self._firsts.number(data, usual[5] + 1, usual[6])
        lasts = self._lasts.number(data, usual[7], usual[8])
        self._read_new()
        source, weight = self._source[firsts], self._weight[lasts]
        odd = (source == -2) | np.isnan(weight)
        kept = (source >= 0) & (weight >= self.wanted.min_weight)
        if not kept.all():
            said = said[:, kept[said[0]]]
            said[0] = (kept.cumsum() - 1)[said[0]]
            usual, source, weight = usual[:, kept], source[kept], weight[kept]
        self._add_facts(data, first_line + usual[0], usual[2:6], source, weight, said)
        places: np.ndarray = odd.nonzero()[0]
        return places

    def _read_new(self) -> None:
        """Read the first and last parts that were not met before."""
        sources = [self._read_first(text) for text in self._firsts.strings(len(self._source))]
        weights = [_read_last(text) for text in self._lasts.strings(len(self._weight))]
        if sources:
            self._source = np.append(self._source, np.array(sources, np.int32))
        if weights:
            self._weight = np.append(self._weight, weights)

    def _read_first(self, text: bytes) -> int:
        found = _FIRST.fullmatch(text.decode())
        if found is None:
            return -2
        if not self.wanted.has_dataset(found[1]):
            return -1
        return int(self.sources.number_all([found[1]])[0])

    def _add_facts(
        self,
        data: np.ndarray,
        line: np.ndarray,
        tabs: np.ndarray,
        source: np.ndarray,
        weight: np.ndarray,
        said: np.ndarray,
    ) -> None:
        first, second, third, fourth = tabs
        relation = self.relations.number(data, first + 1, second)
        is_triple = relation != self._link
        # As they are met: the start of a line before its end, which is no entity in a link.
        before = is_triple.cumsum() - is_triple  # triples before a line
        heads = np.arange(len(line)) + before
        tails = heads[is_triple] + 1
        begins, ends = np.empty((2, len(heads) + len(tails)), np.intp)
        begins[heads], begins[tails] = second + 1, third[is_triple] + 1
        ends[heads], ends[tails] = third, fourth[is_triple]
        codes = self.entities.number(data, begins, ends)
        head, tail = codes[heads], codes[tails]
        is_link = ~is_triple
        url = self.texts.number(data, third[is_link] + 1, fourth[is_link])
        self._links.append((line[is_link], head[is_link], url))
        columns = [column[is_triple] for column in (line, head, relation, weight, source)]
        self._triples.append((*columns[:3], tail, *columns[3:]))
        if self.surfaces:
            row, surface, begins, ends, escapes = said[:, is_triple[said[0]]]
            entity = np.where(_IS_TAIL[surface], tail[before[row]], head[row])
            text = np.empty(len(row), np.int32)
            plain, escaped = escapes == 0, escapes.nonzero()[0]
            text[plain] = self.texts.number(data, begins[plain], ends[plain])
            bounds = zip(begins[escaped].tolist(), ends[escaped].tolist(), strict=True)
            quoted = [data[begin - 1 : end + 1].tobytes() for begin, end in bounds]
            text[escaped] = self.texts.number_all(json.loads(b"[%s]" % b",".join(quoted)))
            self._said.append((line[row], entity, text, surface.astype(np.int8)))

    def assertions(self, more: Assertions) -> Assertions:
        """What was kept, and what was kept elsewhere, in the order of their lines.

        The reader is empty then.
        """
        tables = (self.entities, self.relations, self.sources, self.texts)
        entity, relation, source, text = (
            pl.Series(table.number_all(names))
            for table, names in zip(tables, more.names, strict=True)
        )
        triples = {"head": entity, "tail": entity, "relation": relation, "source": source}
        return Assertions(
            tuple(table.to_series() for table in tables),
            _frame(TRIPLES, self._triples, more.triples, triples),
            _frame(LINKS, self._links, more.links, {"entity": entity, "url": text}),
            _frame(SAID, self._said, more.said, {"entity": entity, "text": text}),
            is_ordered=more.triples.is_empty() and more.links.is_empty(),
        )


def _frame(
    schema: dict[str, Any],
    parts: list[tuple[np.ndarray, ...]],
    more: pl.DataFrame,
    places: dict[str, pl.Series],
) -> pl.DataFrame:
    columns = map(np.concatenate, zip(*parts, strict=True))
    frame = pl.DataFrame(dict(zip(schema, columns, strict=True)) if parts else None, schema)
    parts.clear()
    if more.is_empty():
        return frame
    here = [place.gather(more[column]).alias(column) for column, place in places.items()]
    return frame.merge_sorted(more.with_columns(here), key="line")


def _flat(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Words of texts and which of their bits count, and where each text begins among them.

    Returns:
        Uint64 [2, words] and int64 [texts + 1].
    """
    words, masks, starts = [], [], [0]
    for text in texts:
        encoded = text.encode()
        for i in range(0, len(encoded), WORD):
            part = encoded[i : i + WORD]
            words.append(int.from_bytes(part, "little"))
            masks.append(2 ** (8 * len(part)) - 1)
        starts.append(len(words))
    return np.array([words, masks], np.uint64), np.array(starts)


def _read_last(text: bytes) -> float:
    found = _LAST.fullmatch(text.decode())
    return float("nan") if found is None else float(found[1])
