"""Statements of large files, numbered by compiled code; equal to ``kgclip.rdf.statements``.

A kernel cuts lines into terms, which are numbered as bytes. In lines that no parser has seen, terms
must match the patterns of canonical N-Triples: each distinct term is checked once, when it is met
first. Lines with a term that does not match are given to a parser and come back in canonical form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from kgclip.name_table import NameTable
from kgclip.rdf.statements import NONE, StatementOptions, Statements, kept_properties
from kgclip.rdf.terms import BLANK, IRI, SUFFIX, plain_names, rename_blank, unescape
from kgclip.scanning import (
    SPAN,
    after_character,
    at_least,
    at_most,
    compiled,
    lowest,
    text_end,
)

_SPACE, _NEWLINE, _RETURN, _QUOTE, _UNDERSCORE, _COLON, _DOT, _LESS, _MORE = b' \n\r"_:.<>'
# Letters of escapes: those that canonical N-Triples has, and those that stand before digits, too.
_CANONICAL, _ANY = (np.array(list(letters), np.uint8) for letters in (b'btnfr"\\', b'btnfr"\\uU'))
_SHORTEST = len("   .\n")  # that _split takes for a statement
# Rows of what the kernel finds of a line: its number, and where its parts begin or end.
_LINE, _BEGIN, _SUBJECT, _PREDICATE, _OBJECT, _QUOTED, _GRAPH, _GRAPH_END, _END = range(9)

Rewrite = Callable[[list[int], list[bytes]], Sequence[str | None]]


@compiled
def _is_graph(data, begin, end):  # type: ignore[no-untyped-def]
    """Whether a token at the end of a line names a graph: no literal ends like this."""
    is_iri = data[begin] == _LESS and data[end - 1] == _MORE
    if not is_iri and (data[begin] != _UNDERSCORE or data[begin + 1] != _COLON):
        return False
    for i in range(begin + 1, end - 1):
        if data[i] == _QUOTE or (is_iri and (data[i] == _LESS or data[i] == _MORE)):
            return False
    return data[end - 1] != _QUOTE


@compiled
def _is_text(data, begin, end):  # type: ignore[no-untyped-def]
    """Whether bytes are UTF-8 that needs no escape: U+FFFE and U+FFFF do."""
    while begin < end:
        if data[begin] < 0x80:
            begin += 1
            continue
        if data[begin] == 0xEF and data[begin + 1] == 0xBF and data[begin + 2] >= 0xBE:
            return False
        begin = after_character(data, begin)
        if begin < 0:
            return False
    return True


@compiled
def _split(data, size, quads, is_parsed, letters, found, others):  # type: ignore[no-untyped-def]
    """Cut lines into terms; returns the number of statements, of other lines and of all."""
    spaces = np.zeros(4, np.intp)  # the first, the second, the last but one, the last
    num_spaces = line = begin = num_found = num_others = high = 0
    is_odd = False
    for block in range(0, size, SPAN):
        if at_least(data, block, 0x80):
            high = block + SPAN
        marks = at_most(data, block, _SPACE)
        while marks:
            i = block + lowest(marks)
            marks &= marks - np.uint64(1)
            if i >= size:
                break
            if data[i] == _SPACE:
                if num_spaces < 2:
                    spaces[num_spaces] = i
                spaces[2] = spaces[3]
                spaces[3] = i
                num_spaces += 1
                continue
            if data[i] != _NEWLINE:
                is_odd |= data[i] != _RETURN or data[i + 1] != _NEWLINE
                continue
            stop = i - 1 if i > begin and data[i - 1] == _RETURN else i
            first, second, end = spaces[0], spaces[1], spaces[3]
            is_good = not is_odd and num_spaces > 2 and end == stop - 2 and data[stop - 1] == _DOT
            is_good = is_good and data[begin] != _QUOTE
            if is_good and high > begin:
                is_good = is_parsed or _is_text(data, begin, stop)
            if is_good:
                graph = 0
                if quads and num_spaces > 3 and _is_graph(data, spaces[2] + 1, end):
                    graph = spaces[2] + 1
                    end = spaces[2]
                quote = 0
                if data[second + 1] == _QUOTE:
                    quote, _ = text_end(data, second + 2, end, letters)
                    is_good = quote < end and data[quote] == _QUOTE
                elif not is_parsed:
                    is_good = num_spaces == (4 if graph else 3)
            if is_good:
                found[_LINE, num_found] = line
                found[_BEGIN, num_found] = begin
                found[_SUBJECT, num_found] = first
                found[_PREDICATE, num_found] = second
                found[_OBJECT, num_found] = end
                found[_QUOTED, num_found] = quote
                found[_GRAPH, num_found] = graph
                found[_GRAPH_END, num_found] = stop - 2
                found[_END, num_found] = stop
                num_found += 1
            else:
                others[0, num_others] = line
                others[1, num_others] = begin
                others[2, num_others] = stop
                num_others += 1
            num_spaces, is_odd = 0, False
            line += 1
            begin = i + 1
    return num_found, num_others, line


class _Terms:
    """Numbers terms; in lines that no parser has seen, a term must match a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = f"^(?:{pattern})$"
        self.table = NameTable()
        self._matches = np.empty(0, dtype=bool)

    def number(self, data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        return self.table.number(data, begins, ends)

    def match(self, codes: np.ndarray, is_parsed: bool) -> np.ndarray:
        """Whether each term may stand as it is."""
        known, count = len(self._matches), len(self.table)
        if count > known:
            names = self.table.to_series(known)
            new = np.ones(count - known, bool) if is_parsed else names.str.contains(self.pattern)
            self._matches = np.append(self._matches, new)
        if is_parsed:  # what the parser writes is right, though it may not look like it
            self._matches[codes] = True
        matches: np.ndarray = self._matches[codes]
        return matches

    def matching(self) -> pl.Series:
        """The terms by their codes, "" for those that do not match."""
        return self.table.to_series().zip_with(
            pl.Series(self._matches, dtype=pl.Boolean()), pl.Series([""])
        )


class CompiledCollector:
    """Takes statements, gives their numbered terms.

    Args:
        options: How statements fill tables.
        quads: Whether lines may name a graph.
    """

    def __init__(self, options: StatementOptions, *, quads: bool = True) -> None:
        self.options, self.quads = options, quads
        node = f"{IRI}|{BLANK}"
        self._nodes, self._predicates, self._graphs = _Terms(node), _Terms(IRI), _Terms(node)
        self._suffixes, self._values = _Terms(SUFFIX), NameTable()
        kept = [f"<{name}>" for name in kept_properties(options)]
        self._kept = self._predicates.table.number_all(kept)
        self._predicates.match(self._kept, is_parsed=True)
        self._found = np.empty((9, 0), np.intp)
        self._others = np.empty((3, 0), np.intp)
        self._blocks: list[list[np.ndarray]] = []
        self._literals: list[list[np.ndarray]] = []
        self._cut(b"", 0, quads, False, "")  # so that code is compiled here, if it must be

    def add_block(
        self,
        block: bytes,
        first_line: int,
        rewrite: Rewrite,
        *,
        quads: bool = True,
        blank_label: str = "",
    ) -> int:
        """Take lines of a file.

        Args:
            block: Whole lines.
            first_line: Number of the first one.
            rewrite: Is given numbers and lines that are not certain to be in canonical form, and
                returns their statements in canonical form.
            quads: Whether these lines may name a graph.
            blank_label: What the names of blank nodes start with.

        Returns:
            How many lines there are.
        """
        parts, odd, num_lines = self._cut(block, first_line, quads, False, blank_label)
        if odd:
            numbers, lines = zip(*odd, strict=True)
            texts = [text or "" for text in rewrite(list(numbers), list(lines))]
            counts = [text.count("\n") + 1 if text else 0 for text in texts]
            data = "".join(f"{text}\n" for text in texts if text).encode()
            rewritten, _, _ = self._cut(data, 0, quads, True, blank_label)
            places = np.repeat(np.array(numbers), counts)
            rewritten = [[places[rows[0]], *rows[1:]] for rows in rewritten]
            parts = [_in_order(*pair) for pair in zip(parts, rewritten, strict=True)]
        statements, literals = parts
        self._blocks.append(statements[1:])
        self._literals.append(literals[1:])
        return num_lines

    def add(self, lines: bytes, *, blank_label: str = "") -> None:
        """Take lines in canonical form.

        Args:
            lines: Each a statement.
            blank_label: What the names of blank nodes start with.
        """
        (statements, literals), _, _ = self._cut(lines, 0, self.quads, True, blank_label)
        self._blocks.append(statements[1:])
        self._literals.append(literals[1:])

    def _cut(
        self, block: bytes, first_line: int, quads: bool, is_parsed: bool, label: str
    ) -> tuple[list[list[np.ndarray]], list[tuple[int, bytes]], int]:
        """Columns of statements and of literals, each with its line; and the lines that are odd."""
        end = b"" if block.endswith(b"\n") else b"\n"
        buffer = bytearray(b"".join((block, end, bytes(2 * SPAN))))
        size = len(block) + len(end) if block else 0
        if self._others.shape[1] <= size:
            self._found = np.empty((len(self._found), size // _SHORTEST + 1), np.intp)
            self._others = np.empty((len(self._others), size + 1), np.intp)
        data = np.frombuffer(buffer, np.uint8)
        letters = _ANY if is_parsed else _CANONICAL
        num_found, num_others, num_lines = _split(
            data, size, quads, is_parsed, letters, self._found, self._others
        )
        found, others = self._found[:, :num_found], self._others[:, :num_others]
        columns, bad = self._number(data, first_line, found, is_parsed, label)
        others = np.hstack([others, found[:, bad][[_LINE, _BEGIN, _END]]])
        odd = [
            (first_line + line, bytes(buffer[begin:end])) for line, begin, end in others.T.tolist()
        ]
        return columns, sorted(odd), num_lines

    def _number(
        self, data: np.ndarray, first_line: int, found: np.ndarray, is_parsed: bool, label: str
    ) -> tuple[list[list[np.ndarray]], np.ndarray]:
        """Columns of statements and of literals; and which of what was found is none."""
        heads, is_good = self._node(data, found[_BEGIN], found[_SUBJECT], is_parsed, label)
        relations = self._predicates.number(data, found[_SUBJECT] + 1, found[_PREDICATE])
        is_good &= self._predicates.match(relations, is_parsed)
        quotes = found[_QUOTED]
        is_literal = quotes > 0
        suffixes = self._suffixes.number(data, quotes[is_literal] + 1, found[_OBJECT][is_literal])
        is_good[is_literal] &= self._suffixes.match(suffixes, is_parsed)
        is_node = ~is_literal
        tails = np.full(len(heads), NONE)
        tails[is_node], is_known = self._node(
            data, found[_PREDICATE][is_node] + 1, found[_OBJECT][is_node], is_parsed, label
        )
        is_good[is_node] &= is_known
        graphs = np.full(len(heads), NONE)
        has_graph = (found[_GRAPH] > 0) & is_good
        if has_graph.any():
            graphs[has_graph], is_known = self._graph(data, found[:, has_graph], is_parsed, "")
            is_good[has_graph] &= is_known
        chosen = is_good & self._are_wanted(graphs)  # by the names that the file gives them
        has_graph &= chosen
        if label and has_graph.any():
            graphs[has_graph], _ = self._graph(data, found[:, has_graph], is_parsed, label)
        keeps = is_literal & chosen
        if self.options.literals_as_nodes:
            places = found[:, keeps]
            tails[keeps] = self._nodes.number(data, places[_PREDICATE] + 1, places[_OBJECT])
            self._nodes.match(tails[:0], is_parsed=True)
            keeps &= np.isin(relations, self._kept)
        places = found[:, keeps]
        line = first_line + found[_LINE]
        values = self._values.number(data, places[_PREDICATE] + 2, places[_QUOTED])
        literals = [
            line[keeps], heads[keeps], relations[keeps], suffixes[keeps[is_literal]], values,
        ]  # fmt: skip
        statements = [column[chosen] for column in (line, heads, relations, tails, graphs)]
        return [statements, literals], (~is_good).nonzero()[0]

    def _graph(
        self, data: np.ndarray, found: np.ndarray, is_parsed: bool, label: str
    ) -> tuple[np.ndarray, np.ndarray]:
        bounds = found[_GRAPH], found[_GRAPH_END]
        return self._node(data, *bounds, is_parsed, label, self._graphs)

    def _node(
        self,
        data: np.ndarray,
        begins: np.ndarray,
        ends: np.ndarray,
        is_parsed: bool,
        label: str,
        terms: _Terms | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes of nodes, and whether they may stand as they are."""
        terms = terms or self._nodes
        if not label:
            codes = terms.number(data, begins, ends)
            return codes, terms.match(codes, is_parsed)
        # Blank nodes, and triple terms that may hold some, get other names.
        is_plain = (data[begins] == _LESS) & (data[begins + 1] != _LESS)
        codes = np.zeros(len(begins), np.int32)
        codes[is_plain] = terms.number(data, begins[is_plain], ends[is_plain])
        is_known = np.ones(len(begins), dtype=bool)
        is_known[is_plain] = terms.match(codes[is_plain], is_parsed)
        bounds = zip(begins[~is_plain].tolist(), ends[~is_plain].tolist(), strict=True)
        texts = pl.Series([data[i:j].tobytes().decode() for i, j in bounds], dtype=pl.String())
        if not is_parsed:
            is_known[~is_plain] = texts.str.contains(f"^{BLANK}$").to_numpy()
        texts = texts.filter(is_known[~is_plain])
        codes[~is_plain & is_known] = terms.table.number_all(
            rename_blank(texts, lambda name: f"_:{label}{name[2:]}")
        )
        terms.match(codes[:0], is_parsed=True)
        return codes, is_known

    def _are_wanted(self, graphs: np.ndarray) -> np.ndarray:
        if self.options.graphs is None:
            return np.ones(len(graphs), dtype=bool)
        names = [name if name.startswith("_:") else f"<{name}>" for name in self.options.graphs]
        known = self._graphs.table.to_series()
        chosen = np.append(known.is_in(names).to_numpy(), "" in self.options.graphs)
        return chosen[np.where(graphs == NONE, len(known), graphs)]

    def numbered(self) -> Statements:
        """All that was added, the terms by their codes; the collector is empty then."""
        heads, relations, tails, graphs = _columns(self._blocks, 4)
        entity, relation, suffix, value = _columns(self._literals, 4)
        self._blocks, self._literals = [], []
        values = self._values.to_series()
        place = values.str.contains("\\", literal=True).arg_true()
        if len(place):
            values = values.scatter(place, unescape(values.gather(place)))
        columns = {"entity": entity, "relation": relation, "suffix": suffix}
        return Statements(
            heads=heads,
            relations=relations,
            tails=tails,
            graphs=graphs if self.quads else None,
            literals=pl.DataFrame(columns).with_columns(value=values.gather(value)),
            terms=self._nodes.table.to_series(),
            predicates=plain_names(self._predicates.table.to_series()),
            graph_names=plain_names(self._graphs.matching()),
            suffixes=self._suffixes.table.to_series(),
        )


def _in_order(rows: list[np.ndarray], more: list[np.ndarray]) -> list[np.ndarray]:
    """Columns of both, in the order of the lines, which are the first column."""
    columns = [np.concatenate(pair) for pair in zip(rows, more, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]


def _columns(blocks: list[list[np.ndarray]], count: int) -> list[np.ndarray]:
    return [
        np.concatenate([block[i] for block in blocks] or [np.empty(0)]).astype(np.uint32)
        for i in range(count)
    ]
