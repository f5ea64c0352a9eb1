"""One form for all graphs that say the same in RDF.

What counts is what RDF counts: statements are a set, blank nodes have no names, language tags no
upper case. Weights, boxes and all else that RDF has no words for are kept.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable

import polars as pl
import pyoxigraph as ox

from kgclip.rdf.assembly import assemble
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.rdf.stating import RdfOptions, name_terms, objects_only, rdf_statements
from kgclip.rdf.terms import BASE, TOKEN, rename_blank
from kgclip.rdf.writing import statement_lines
from kgclip.tables import Tables, build_tables

_MAX_BRANCHES = 256  # of the search for the first of many like namings
_NAME_COLUMNS = {  # where entities are named
    "entities": ("name", "type"),
    "types": ("type",),
    "triples": ("graph",),
    "links": ("url",),
}
Fact = tuple[str, ...]


def canonical_tables(tables: Tables) -> Tables:
    """The canonical form of a graph.

    Texts, types, links, pictures and the columns of relations say what statements say, and the
    other way round; rows are distinct and sorted by names. Graphs have equal canonical forms if
    they differ in nothing but the order of rows, repeated rows, the names of blank nodes, or the
    case of language tags.
    """
    options = StatementOptions()
    collector = StatementCollector(options)
    statements = rdf_statements(tables, RdfOptions(reify=True, named_graphs=True))
    for block in statement_lines(statements):
        data = "\n".join(block).encode()
        quads = ox.parse(data, format=ox.RdfFormat.N_QUADS, rename_blank_nodes=False)
        written: bytes = ox.serialize(quads, format=ox.RdfFormat.N_QUADS)  # type: ignore[assignment]
        collector.add(pl.read_lines(written).to_series())
    found = assemble(collector.numbered(), options, tables.origins)
    return build_tables(_sorted(_renamed(found)), tables.origins)


def _renamed(tables: Tables) -> dict[str, pl.DataFrame]:
    """The frames with new names of blank nodes."""
    frames = tables.frames()
    columns = [frames[table][name] for table, names in _NAME_COLUMNS.items() for name in names]
    blank = pl.concat(columns).drop_nulls().unique()
    blank = blank.filter(blank.str.starts_with("_:"))
    # A triple term of which something is said is a name like any other, not a term.
    names = tables.entities["name"]
    triple_terms = names.filter(names.str.starts_with("<<(") & objects_only(tables))
    given = pl.concat([blank, triple_terms])
    kept = pl.repeat(True, len(given), eager=True)
    terms = given.filter(name_terms(given, BASE, kept=kept) == given)
    labels = blank_labels(_facts(tables, set(terms)))
    renamed = rename_blank(terms, lambda old: labels.get(old, old))
    return {
        table: frame.with_columns(
            frame[column].replace(terms, renamed) for column in _NAME_COLUMNS.get(table, ())
        )
        for table, frame in frames.items()
    }


def _sorted(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Entities and relations by name, all other rows distinct and by what they hold."""
    types = frames["types"].group_by("entity").agg(pl.col("type").min())
    entities = frames["entities"].with_row_index("entity").drop("type")
    entities = entities.with_columns(pl.col("entity").cast(pl.Int64()))
    entities = entities.join(types, on="entity", how="left").sort("name")
    relations = frames["relations"].with_row_index("relation")
    relations = relations.with_columns(pl.col("relation").cast(pl.Int64())).sort("name")
    numbers = {
        "entity": _places(entities["entity"]),
        "relation": _places(relations["relation"]),
    }
    numbers |= {"head": numbers["entity"], "tail": numbers["entity"]}
    result = {"entities": entities.drop("entity"), "relations": relations.drop("relation")}
    for name, frame in frames.items():
        if name in result:
            continue
        moved = frame.with_columns(
            ids.gather(frame[column]).alias(column)
            for column, ids in numbers.items()
            if column in frame.columns
        )
        box = [pl.col(c).arr.to_list() for c, kind in frame.schema.items() if kind == pl.Array]
        keys = moved.with_columns(box).with_columns(
            pl.col(pl.List).list.eval(pl.element().cast(pl.String())).list.join(" ")
        )
        order = keys.with_row_index("row").sort(*frame.columns)["row"]
        result[name] = moved[order.to_list()].unique(maintain_order=True)
    return result


def _places(order: pl.Series) -> pl.Series:
    return order.arg_sort().cast(pl.Int64())


def _facts(tables: Tables, terms: set[str]) -> list[Fact]:
    """Rows that name a blank node; what is no name of an entity starts with a quote."""
    names, relations = tables.entities["name"], tables.relations["name"]
    facts: list[Fact] = []
    for table, frame in tables.frames().items():
        if table == "entities":
            frame = frame.drop("type")  # the first of its types, in whatever order they came
        ids = [column for column in ("entity", "head", "tail") if column in frame.columns]
        frame = frame.with_columns(names.gather(frame[column]).alias(column) for column in ids)
        if "relation" in frame.columns:
            frame = frame.with_columns(relation=relations.gather(frame["relation"]))
        columns = _NAME_COLUMNS.get(table, ())
        named = [*ids, *(column for column in columns if column in frame.columns)]
        has_blank = pl.any_horizontal(pl.col(named).str.contains(r"^_:|^<<\("))
        is_name = [column in named for column in frame.columns]
        for row in frame.filter(has_blank).iter_rows():
            cells = zip(row, is_name, strict=True)
            facts.append((table, *(token for cell in cells for token in _tokens(*cell, terms))))
    return facts


def _tokens(cell: object, is_name: bool, terms: set[str]) -> Iterable[str]:
    """A cell, or the terms in it if it is a triple term."""
    if not is_name or cell not in terms:
        return [f'"{cell!r}']
    name = str(cell)
    return ["<<(", *(t[0] for t in TOKEN.finditer(name))] if name.startswith("<<(") else [name]


def blank_labels(facts: Iterable[Fact]) -> dict[str, str]:
    """New names of blank nodes, the same for all facts that differ in those names alone.

    Nodes are told apart by what is said of them, then by what is said of their neighbours, and
    so on; of nodes that stay alike each is tried as the first, and the least outcome is taken.

    Args:
        facts: Texts; those that start with ``_:`` are blank nodes.

    Returns:
        Old name to ``_:c0``, ``_:c1``, …

    Reference:
        Colour refinement with individualisation, as in Hogan, "Canonical forms for isomorphic
        and equivalent RDF graphs", ACM TWEB 11(4), 2017.
    """
    facts = list(dict.fromkeys(facts))
    about: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        for token in {token for token in fact if token.startswith("_:")}:
            about[token].append(fact)
    search = _Search(about, facts)
    colours = search.best(search.refined(dict.fromkeys(about, "")))
    order = sorted(about, key=colours.__getitem__)
    return {name: f"_:c{i}" for i, name in enumerate(order)}


class _Search:
    def __init__(self, about: dict[str, list[Fact]], facts: list[Fact]) -> None:
        self.about, self.facts = about, facts
        self.branches = 0

    def refined(self, colours: dict[str, str]) -> dict[str, str]:
        """Colours that say all that can be told from neighbours."""
        count = len(set(colours.values()))
        while True:
            colours = {
                node: _hash(
                    colours[node],
                    *sorted(_hash(*self._seen(fact, node, colours)) for fact in facts),
                )
                for node, facts in self.about.items()
            }
            found = len(set(colours.values()))
            if found == count:
                return colours
            count = found

    def _seen(self, fact: Fact, node: str, colours: dict[str, str]) -> Iterable[str]:
        for token in fact:
            yield "self" if token == node else colours.get(token, token)

    def best(self, colours: dict[str, str]) -> dict[str, str]:
        """Refined colours, one for each node, with the least certificate."""
        groups: dict[str, list[str]] = defaultdict(list)
        for node, colour in colours.items():
            groups[colour].append(node)
        ties = {colour: nodes for colour, nodes in groups.items() if len(nodes) > 1}
        if not ties:
            return colours
        tied = {node for nodes in ties.values() for node in nodes}
        for colour, nodes in ties.items():
            # Twins have no neighbours that are still alike: any order of them is as good.
            if all(self._is_apart(node, tied) for node in nodes):
                split = {node: _hash(colour, str(i)) for i, node in enumerate(nodes)}
                return self.best(self.refined({**colours, **split}))
        first = min(ties, key=lambda colour: (len(ties[colour]), colour))
        outcomes: list[dict[str, str]] = []
        for node in ties[first]:
            if outcomes and self.branches >= _MAX_BRANCHES:
                break  # too many like nodes to try all: nearly always they are exchangeable
            self.branches += 1
            outcomes.append(self.best(self.refined({**colours, node: _hash(first, "first")})))
        return min(outcomes, key=self._certificate)

    def _is_apart(self, node: str, tied: set[str]) -> bool:
        return all(
            token == node or token not in tied for fact in self.about[node] for token in fact
        )

    def _certificate(self, colours: dict[str, str]) -> str:
        return _hash(
            *sorted(_hash(*(colours.get(token, token) for token in fact)) for fact in self.facts)
        )


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(map(repr, texts)).encode(errors="surrogatepass")).hexdigest()
