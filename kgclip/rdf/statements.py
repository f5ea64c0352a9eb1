"""Lines of statements, their terms numbered.

Statements come as lines of canonical N-Triples or N-Quads, whatever they were read from. Terms
are numbered by a dictionary inside polars while lines come in; those of large files by
``kgclip.rdf.statement_kernels``. The codes mean nothing: ids are given in ``kgclip.rdf.assembly``,
when all is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from kgclip.rdf.terms import (
    IMAGE_PROPERTIES,
    SAME_AS,
    TEXT_PROPERTIES,
    plain_names,
    rename_blank,
    unescape,
)

NONE = np.uint32(2**32 - 1)  # the tail of a statement whose literal is no entity
_LITERALS = dict.fromkeys(("entity", "relation", "suffix"), pl.UInt32()) | {"value": pl.String()}
_GRAPH = r" (<[^<>\" ]*>|_:[^\s\"]+) \.$"  # no literal ends like this


@dataclasses.dataclass(frozen=True)
class StatementOptions:
    """How statements fill tables.

    Attributes:
        literals_as_nodes: Each distinct literal is an entity; the table of literals stays empty.
        text_properties: Property to kind of text.
        image_properties: Properties whose values are pictures.
        languages: Keep, for each entity and kind of text, the texts of the first of these
            languages that it has; "" = without a language. ``None`` = all texts.
        graphs: Names of the named graphs to keep, "" = the default graph. ``None`` = all.
        merge_same: Make entities that owl:sameAs connects one.
        image_root: Folder that picture files start from and must not leave.
        image_prefix: Goes before the path from there.
    """

    literals_as_nodes: bool = False
    text_properties: Mapping[str, str] = dataclasses.field(default_factory=lambda: TEXT_PROPERTIES)
    image_properties: Collection[str] = IMAGE_PROPERTIES
    languages: Collection[str] | None = None
    graphs: Collection[str] | None = None
    merge_same: bool = False
    image_root: Path | None = None
    image_prefix: str = ""


@dataclasses.dataclass(frozen=True)
class Statements:
    """Numbered statements.

    Attributes:
        heads: Code of each subject in ``terms``. Uint32 [S].
        relations: Code of each property in ``predicates``. Uint32 [S].
        tails: Code of each object in ``terms``; ``NONE`` where it is a literal. Uint32 [S].
        graphs: Code of each graph in ``graph_names``; ``NONE`` = the default graph. Uint32 [S].
        literals: Codes of entity, relation and suffix, and the value, of the literals that are
            kept whole.
        terms: Entities as N-Triples writes them.
        predicates: IRIs.
        graph_names: IRIs and blank nodes.
        suffixes: What follows a literal's closing quote: nothing, ``@language`` or ``^^<IRI>``.
    """

    heads: np.ndarray
    relations: np.ndarray
    tails: np.ndarray
    graphs: np.ndarray | None
    literals: pl.DataFrame
    terms: pl.Series
    predicates: pl.Series
    graph_names: pl.Series
    suffixes: pl.Series


def kept_properties(options: StatementOptions) -> tuple[str, ...]:
    """Properties whose literals are kept whole, also where literals are nodes."""
    return (*options.text_properties, *options.image_properties, SAME_AS)


class _Dictionary:
    """Numbers strings; polars keeps the one mapping for all blocks."""

    def __init__(self) -> None:
        self.dtype = pl.Categorical(pl.Categories.random())
        self.count = 0
        self._alive = pl.Series([], dtype=self.dtype)  # without data the mapping would be dropped

    def codes(self, strings: pl.Series) -> np.ndarray:
        """Code of each string; ``NONE`` for null."""
        codes = strings.cast(self.dtype).to_physical()
        highest = codes.max()
        if highest is not None:
            self.count = max(self.count, int(highest) + 1)  # type: ignore[arg-type]
        return codes.fill_null(int(NONE)).to_numpy()

    def strings(self) -> pl.Series:
        """String of each code."""
        codes = pl.Series(np.arange(self.count, dtype=np.uint32))
        return codes.cat.to(self.dtype).cast(pl.String())


class StatementCollector:
    """Takes lines of statements, gives their numbered terms.

    Args:
        options: How statements fill tables.
        quads: Whether lines may name a graph.
    """

    def __init__(self, options: StatementOptions, *, quads: bool = True) -> None:
        self.options, self.quads = options, quads
        self._nodes, self._predicates = _Dictionary(), _Dictionary()
        self._graphs, self._suffixes = _Dictionary(), _Dictionary()
        self._blocks: list[tuple[np.ndarray, ...]] = []
        self._literals: list[pl.DataFrame] = []
        self._kept = [f"<{name}>" for name in kept_properties(options)]

    def add(self, lines: pl.Series, *, blank_label: str = "") -> None:
        """Take one block of lines.

        Args:
            lines: Each a statement in canonical form.
            blank_label: What the names of blank nodes start with.
        """
        parts = lines.str.splitn(" ", 3).struct.unnest()
        subject, predicate, rest = parts.get_columns()
        graph = None
        if self.quads:
            graph = rest.str.extract(_GRAPH)
            rest = rest.str.replace(_GRAPH, " .")
            wanted = self._wanted(graph)
            if wanted is not None:
                subject, predicate, rest, graph = (
                    column.filter(wanted) for column in (subject, predicate, rest, graph)
                )
        tail = rest.str.strip_suffix(" .")
        if blank_label:
            subject, tail = _labelled(subject, blank_label), _labelled(tail, blank_label)
            graph = None if graph is None else _labelled(graph, blank_label)
        is_literal = tail.str.starts_with('"')
        heads, relations = self._nodes.codes(subject), self._predicates.codes(predicate)
        if self.options.literals_as_nodes:
            tails = self._nodes.codes(tail)
            is_literal &= predicate.is_in(self._kept)
        else:
            tails = np.full(len(tail), NONE)
            tails[~is_literal.to_numpy()] = self._nodes.codes(tail.filter(~is_literal))
        self._add_literals(tail.filter(is_literal), is_literal.to_numpy(), heads, relations)
        block = (heads, relations, tails)
        self._blocks.append(block if graph is None else (*block, self._graphs.codes(graph)))

    def _wanted(self, graph: pl.Series) -> pl.Series | None:
        if self.options.graphs is None:
            self._graphs.codes(graph)
            return None
        self._graphs.codes(graph)  # so that a wrong name can be told the right ones
        names = [name if name.startswith("_:") else f"<{name}>" for name in self.options.graphs]
        chosen = graph.is_in(names).fill_null("" in self.options.graphs)
        return None if chosen.all() else chosen

    def _add_literals(
        self, literals: pl.Series, mask: np.ndarray, heads: np.ndarray, relations: np.ndarray
    ) -> None:
        if literals.is_empty():
            return
        parts = literals.str.splitn('"', 3).struct.unnest()
        value, suffix = parts["field_1"], parts["field_2"]
        place = literals.str.contains("\\", literal=True).arg_true()
        if len(place):  # an escaped quote does not end a literal
            escaped = literals.gather(place)
            value.scatter(place, unescape(escaped.str.extract(r'^"((?s:.*))"')))
            suffix.scatter(place, escaped.str.extract(r'"([^"]*)$'))
        self._literals.append(
            pl.DataFrame(
                {
                    "entity": heads[mask],
                    "relation": relations[mask],
                    "suffix": self._suffixes.codes(suffix),
                    "value": value,
                }
            )
        )

    def numbered(self) -> Statements:
        """All that was added, the terms by their codes; the collector is empty then."""
        columns = [
            np.concatenate([block[i] for block in self._blocks] or [np.empty(0, np.uint32)])
            for i in range(4 if self.quads else 3)
        ]
        literals = pl.concat(self._literals) if self._literals else pl.DataFrame(schema=_LITERALS)
        self._blocks, self._literals = [], []
        return Statements(
            heads=columns[0],
            relations=columns[1],
            tails=columns[2],
            graphs=columns[3] if self.quads else None,
            literals=literals,
            terms=self._nodes.strings(),
            predicates=plain_names(self._predicates.strings()),
            graph_names=plain_names(self._graphs.strings()),
            suffixes=self._suffixes.strings(),
        )


def _labelled(terms: pl.Series, label: str) -> pl.Series:
    return rename_blank(terms, lambda name: f"_:{label}{name[2:]}")
