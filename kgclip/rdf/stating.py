"""What tables say, as statements of RDF: a frame with a row for each.

Names that are no IRI are minted under a base, with the name as ``rdfs:label``. What RDF has no
words for (weights, boxes, …) is refused, left out, or said in words of our own, which the readers
understand (``kgclip.rdf.restoring``).
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pyoxigraph as ox

from kgclip.names import readable
from kgclip.rdf.terms import (
    BASE,
    IMAGE_PROPERTIES,
    INVERSE_OF,
    IRI,
    KG,
    RDF,
    RDF_TYPE,
    RDFS_LABEL,
    SAME_AS,
    SYMMETRIC,
    TEXT_PROPERTIES,
    WRITTEN_TEXTS,
    XSD,
    mint,
)
from kgclip.tables import GraphError, Tables, is_address

_SCHEMA = dict.fromkeys(
    ("subject", "predicate", "object", "value", "datatype", "language", "graph"), pl.String()
)
_FACTS = ("weight", "source", "split")
_PICTURE_FACTS = ("sha256", "box", "split")


@dataclasses.dataclass(frozen=True)
class RdfOptions:
    """How tables become RDF.

    Attributes:
        base: What minted names start with.
        reify: Say in words of our own what RDF has none for.
        drop: Leave out what RDF cannot say.
        named_graphs: The syntax has named graphs.
        literals_as_nodes: Entities that are named as literals are written as literals.

    Raises:
        GraphError: If the base is no IRI, or both ``reify`` and ``drop`` are set.
    """

    base: str = BASE
    reify: bool = False
    drop: bool = False
    named_graphs: bool = False
    literals_as_nodes: bool = False

    def __post_init__(self) -> None:
        if not _is_term(f"<{self.base}>"):
            raise GraphError(f"base={self.base!r}: expected an absolute IRI, as {BASE!r}")
        if self.reify and self.drop:
            raise GraphError("reify and drop are both set; expected one of them")


def rdf_statements(tables: Tables, options: RdfOptions) -> pl.DataFrame:
    """Every statement that tables make.

    Args:
        tables: Any graph.
        options: How tables become RDF.

    Returns:
        Frame with subject, predicate and graph as N-Triples terms, and either object as a term
        or value, datatype and language of a literal.

    Raises:
        GraphError: If the graph holds what RDF cannot say and neither ``reify`` nor ``drop`` is
            set, or a language or datatype is none.
    """
    if not options.reify and not options.drop:
        _check_sayable(tables, options)
    statements = pl.concat(_Statements(tables, options).parts())
    _check_literals(statements)
    return statements


def _check_sayable(tables: Tables, options: RdfOptions) -> None:
    unsayable: dict[str, pl.Series] = {
        "weights": tables.triples["weight"],
        "sources": tables.triples["source"],
        "splits": tables.triples["split"],
        "boxes": tables.images["box"],
        "checksums": tables.images["sha256"],
        "splits of pictures": tables.images["split"],
        "scenes": tables.entities["scene"],
    }
    if not options.named_graphs:
        unsayable["named graphs"] = tables.triples["graph"]
    for what, column in unsayable.items():
        if column.null_count() < len(column):
            raise GraphError(
                f"RDF triples cannot say {what}; give reify=True to say them in words of our own, "
                "or drop=True to leave them out"
            )
    if (~tables.relations["symmetric"]).any():
        raise GraphError("RDF cannot say that a relation is not symmetric; give reify= or drop=")
    other = [kind for kind in tables.texts["kind"].unique() if kind not in WRITTEN_TEXTS]
    if other:
        raise GraphError(f"texts of kind {other[0]!r} have no property; give reify= or drop=")


def _check_literals(statements: pl.DataFrame) -> None:
    for language in statements["language"].drop_nulls().unique():
        if not _is_term(f'""@{language}'):
            raise GraphError(f"language {language!r}: expected a language tag, as en or pt-BR")
    for datatype in statements["datatype"].drop_nulls().unique():
        if not _is_term(f"<{datatype}>"):
            raise GraphError(f"datatype {datatype!r}: expected an absolute IRI")


def _is_term(text: str) -> bool:
    """Whether N-Triples takes a text for exactly one term in the place of an object."""
    try:
        quads = list(ox.parse(f"<urn:a> <urn:a> {text} .", format=ox.RdfFormat.N_TRIPLES))
    except SyntaxError:
        return False
    return len(quads) == 1 and not re.search(r"[\r\n]", text)


def name_terms(names: pl.Series, base: str, *, kept: pl.Series | None = None) -> pl.Series:
    """N-Triples terms of names: IRIs and blank nodes as they are, all else minted.

    Args:
        names: Any texts.
        base: What minted names start with.
        kept: Which names may also be triple terms or literals. Bool.
    """
    reserved = names.str.contains_any([base, BASE, KG])  # few names, so a wide net will do
    certain = names.str.contains(rf"^{IRI[1:-1]}$") & ~reserved
    terms = pl.select(pl.format("<{}>", names)).to_series()
    rows = (~certain).arg_true()
    if rows.is_empty():
        return terms
    free = kept if kept is not None else pl.repeat(False, len(names), eager=True)
    rest = zip(names.gather(rows), reserved.gather(rows), free.gather(rows), strict=True)
    return terms.scatter(rows, [_odd_term(name, base, is_ours, f) for name, is_ours, f in rest])


def _odd_term(name: str, base: str, reserved: bool, kept: bool) -> str:
    is_free = name.startswith("_:") or (kept and name.startswith(("<<(", '"')))
    if is_free and _is_term(name):
        return name
    if not reserved and ":" in name and _is_term(f"<{name}>"):
        return f"<{name}>"
    return f"<{mint(name, base)}>"


def objects_only(tables: Tables) -> pl.Series:
    """Whether an entity stands in the place of objects alone. Bool [N]."""
    frames = tables.frames()
    subjects = [frames["triples"]["head"]]
    subjects += [frames[n]["entity"] for n in ("types", "literals", "texts", "images", "links")]
    free = np.zeros(len(tables.entities), dtype=bool)
    free[frames["triples"]["tail"].to_numpy()] = True
    free[pl.concat(subjects).to_numpy()] = False
    columns = tables.entities["type", "scene"]
    return pl.Series(free) & columns.select(pl.all_horizontal(pl.all().is_null())).to_series()


_Row = tuple[str, str, str | None, str | None]  # subject, property, object, value


class _Statements:
    """Makes the statements of each table; those of texts, types, … only if no triple says them."""

    def __init__(self, tables: Tables, options: RdfOptions) -> None:
        self.tables, self.options = tables, options
        self.names = tables.entities["name"]
        self.relations = tables.relations["name"]
        self.predicates = self._iris(self.relations)
        self.terms = name_terms(self.names, options.base, kept=self._objects_only())
        self.facts = tables.triples.select(
            "head",
            self.relations.gather(tables.triples["relation"]).alias("property"),
            self.names.gather(tables.triples["tail"]).alias("tail"),
        )
        self.said = tables.literals.select(
            "entity",
            self.relations.gather(tables.literals["relation"]).alias("property"),
            "value",
            "language",
        )
        self.labels: dict[str, set[str]] = defaultdict(set)
        for name, text in self._labels_by_name():
            self.labels[name].add(text)

    def parts(self) -> list[pl.DataFrame]:
        """Frames of statements."""
        parts = [
            self._triples(),
            self._literals(),
            self._types(),
            self._texts(),
            self._links(),
            self._images(),
            self._relations(),
            self._base(),
        ]
        parts.append(self._minted(parts))
        words = [self._declared(parts), self._relation_words()]
        if self.options.reify:
            words += [*self._reified_triples(), *self._reified_images(), *self._own_words()]
        return [*parts, *words]

    def _iris(self, names: pl.Series) -> pl.Series:
        """Terms of names where only an IRI may stand."""
        terms = name_terms(names, self.options.base)
        blank = terms.str.starts_with("_:").arg_true()
        minted = [f"<{mint(name, self.options.base)}>" for name in names.gather(blank)]
        return terms.scatter(blank, minted) if minted else terms

    def _objects_only(self) -> pl.Series:
        """Entities whose name may be a triple term, or a literal: nothing is said of them."""
        free = objects_only(self.tables)
        return free if self.options.literals_as_nodes else free & ~self.names.str.starts_with('"')

    def _triples(self) -> pl.DataFrame:
        triples = self.tables.triples
        graph = self._graph_terms() if self.options.named_graphs else None
        return _frame(
            subject=self.terms.gather(triples["head"]),
            predicate=self.predicates.gather(triples["relation"]),
            object=self.terms.gather(triples["tail"]),
            graph=graph,
        )

    def _graph_terms(self) -> pl.Series:
        graphs = self.tables.triples["graph"]
        names = graphs.drop_nulls().unique()
        return graphs.replace_strict(names, name_terms(names, self.options.base), default=None)

    def _literals(self) -> pl.DataFrame:
        literals = self.tables.literals
        return _frame(
            subject=self.terms.gather(literals["entity"]),
            predicate=self.predicates.gather(literals["relation"]),
            value=literals["value"],
            datatype=literals["datatype"],
            language=literals["language"],
        )

    def _types(self) -> pl.DataFrame:
        entities = self.tables.entities.with_row_index("entity").drop_nulls("type")
        first = entities.select(pl.col("entity").cast(pl.Int64()), "type")
        said = self._tails([RDF_TYPE], "type")
        types = pl.concat([first, self.tables.types]).unique(maintain_order=True)
        types = types.join(said, on=["entity", "type"], how="anti", maintain_order="left")
        return self._about(types, RDF_TYPE, object=name_terms(types["type"], self.options.base))

    def _tails(self, properties: Any, column: str) -> pl.DataFrame:
        found = self.facts.filter(pl.col("property").is_in(list(properties)))
        return found.select(pl.col("head").alias("entity"), pl.col("tail").alias(column))

    def _about(self, rows: pl.DataFrame, predicate: str, **columns: Any) -> pl.DataFrame:
        """Statements with one property of the entities of some rows."""
        return _frame(
            subject=self.terms.gather(rows["entity"]),
            predicate=pl.repeat(f"<{predicate}>", len(rows), eager=True, dtype=pl.String()),
            **columns,
        )

    def _texts(self) -> pl.DataFrame:
        kinds = pl.Series(map(TEXT_PROPERTIES.get, self.said["property"]), dtype=pl.String())
        said = self.said.with_columns(kind=kinds).rename({"value": "text"})
        keys = ["entity", "text", "language", "kind"]
        texts = self.tables.texts.join(
            said, on=keys, how="anti", nulls_equal=True, maintain_order="left"
        )
        parts = [
            self._about(chosen, name, value=chosen["text"], language=chosen["language"])
            for kind, name in WRITTEN_TEXTS.items()
            for chosen in [texts.filter(pl.col("kind") == kind)]
        ]
        return pl.concat(parts)

    def _minted(self, parts: list[pl.DataFrame]) -> pl.DataFrame:
        """The names of entities that had to be minted, as labels."""
        nodes = pl.concat([pl.concat([part["subject"], part["object"]]) for part in parts])
        nodes = nodes.append(self.terms).drop_nulls().unique(maintain_order=True)
        start = f"<{self.options.base}"
        minted = nodes.filter(nodes.str.starts_with(start) & (nodes != f"{start}>"))
        names = [urllib.parse.unquote(term[len(start) : -1]) for term in minted]
        rows = pl.DataFrame({"subject": minted, "value": pl.Series(names, dtype=pl.String())})
        is_label = (pl.col("predicate") == f"<{RDFS_LABEL}>") & pl.col("language").is_null()
        for part in parts:
            said = part.filter(is_label)
            rows = rows.join(said, on=["subject", "value"], how="anti", maintain_order="left")
        return _plain(rows["subject"], RDFS_LABEL, value=rows["value"])

    def _links(self) -> pl.DataFrame:
        said = self.said.filter(pl.col("property") == SAME_AS).rename({"value": "url"})
        links = self.tables.links
        for other in (self._tails([SAME_AS], "url"), said.select("entity", "url")):
            links = links.join(other, on=["entity", "url"], how="anti", maintain_order="left")
        terms = name_terms(links["url"], self.options.base)
        is_minted = terms.str.starts_with(f"<{self.options.base}")
        return self._about(
            links,
            SAME_AS,
            object=terms.set(is_minted, None),
            value=links["url"].set(~is_minted, None),
        )

    def _images(self) -> pl.DataFrame:
        said = self.said.filter(pl.col("property").is_in(list(IMAGE_PROPERTIES)))
        images = self.tables.images.select("entity", "path").unique(maintain_order=True)
        for other in (
            self._tails(IMAGE_PROPERTIES, "path"),
            said.select("entity", pl.col("value").alias("path")),
        ):
            images = images.join(other, on=["entity", "path"], how="anti", maintain_order="left")
        addresses = [f"<{path}>" if is_address(path) else "" for path in images["path"]]
        terms = [term if _is_term(term) else None for term in addresses]
        objects = pl.Series(terms, dtype=pl.String())
        paths = images["path"].set(objects.is_not_null(), None)
        return self._about(images, IMAGE_PROPERTIES[0], object=objects, value=paths)

    def _relations(self) -> pl.DataFrame:
        """What the columns of relations say beyond their triples."""
        inverses = set(self._by_name([INVERSE_OF]))
        types = set(self._by_name([RDF_TYPE]))
        rows: list[_Row] = []
        for term, row in zip(self.predicates, self.tables.relations.iter_rows(), strict=True):
            name, label, inverse, symmetric = row
            if name.startswith("_:"):
                continue  # as an entity it would be a blank node: in words of our own
            if label and label != readable(name) and name not in self.labels:
                rows.append((term, RDFS_LABEL, None, label))
            if inverse is not None and (name, inverse) not in inverses and inverse[:2] != "_:":
                [other] = self._iris(pl.Series([inverse]))
                rows.append((term, INVERSE_OF, other, None))
            if symmetric and (name, SYMMETRIC) not in types:
                rows.append((term, RDF_TYPE, f"<{SYMMETRIC}>", None))
        return _rows(rows)

    def _relation_words(self) -> pl.DataFrame:
        """Columns of relations in words of our own, where a reader could take something else."""
        rows: list[_Row] = []
        for term, row in zip(self.predicates, self.tables.relations.iter_rows(), strict=True):
            name, label, inverse, symmetric = row
            said = self.labels.get(name, set())
            is_minted, is_blank = term != f"<{name}>", name.startswith("_:")
            chosen = label or (min(said) if len(said) > 1 or (said and is_minted) else None)
            if chosen and (is_minted or (said or {readable(name)}) != {chosen}):
                rows.append((term, f"{KG}label", None, chosen))
            if inverse is not None and (is_blank or inverse.startswith("_:")):
                rows.append((term, f"{KG}inverse", None, inverse))
            if symmetric is not None and (is_blank or not symmetric) and not self.options.drop:
                rows.append((term, f"{KG}symmetric", None, str(symmetric).lower()))
        return _rows(rows)

    def _labels_by_name(self) -> Iterator[tuple[str, str]]:
        known = self.names.is_in(self.relations.to_list()).arg_true().to_list()
        labels = self.tables.texts.filter(pl.col("kind") == "label")
        said = self.said.filter(
            pl.col("property").is_in([p for p, k in TEXT_PROPERTIES.items() if k == "label"])
        )
        both = pl.concat([labels.select("entity", "text"), said.select("entity", text="value")])
        for entity, text in both.filter(pl.col("entity").is_in(known)).iter_rows():
            yield self.names[entity], text

    def _by_name(self, properties: Any) -> Iterator[tuple[str, str]]:
        known = self.names.is_in(self.relations.to_list()).arg_true().to_list()
        tails = self._tails(properties, "tail").filter(pl.col("entity").is_in(known))
        for entity, tail in tails.iter_rows():
            yield self.names[entity], tail

    def _base(self) -> pl.DataFrame:
        base = self.options.base
        return _rows([] if base == BASE else [(f"<{base}>", RDF_TYPE, f"<{KG}Base>", None)])

    def _declared(self, parts: list[pl.DataFrame]) -> pl.DataFrame:
        """Entities and relations that no statement names."""
        nodes = pl.concat([pl.concat([part["subject"], part["object"]]) for part in parts]).unique()
        used = pl.concat([part["predicate"] for part in parts]).unique()
        lonely = self.terms.filter(~self.terms.is_in(nodes.drop_nulls().to_list()))
        idle = self.predicates.filter(~self.predicates.is_in(used.to_list()))
        return _rows(
            [
                *((term, RDF_TYPE, f"<{KG}Entity>", None) for term in lonely),
                *((term, RDF_TYPE, f"<{KG}Relation>", None) for term in idle),
            ]
        )

    def _reified_triples(self) -> Iterator[pl.DataFrame]:
        """Triples with a weight, source or split, and those that are alike but for them."""
        triples = self.tables.triples.with_row_index("row")
        named_graphs = self.options.named_graphs
        keys = ["head", "relation", "tail", *(["graph"] if named_graphs else [])]
        facts = [*_FACTS, *([] if named_graphs else ["graph"])]
        has_facts = pl.any_horizontal(pl.col(name).is_not_null() for name in facts)
        chosen = triples.filter(has_facts.any().over(keys))
        rows = chosen.select(pl.format(f"<{KG}statement:{{}}>", "row")).to_series()
        yield _plain(rows, f"{RDF}subject", object=self.terms.gather(chosen["head"]))
        yield _plain(rows, f"{RDF}predicate", object=self.predicates.gather(chosen["relation"]))
        yield _plain(rows, f"{RDF}object", object=self.terms.gather(chosen["tail"]))
        for name in _FACTS:
            yield _fact(rows, name, chosen[name])
        # Where the triple itself stands: in its graph, or in the only one there is.
        yield _fact(rows, "graph" if named_graphs else "named", chosen["graph"])

    def _reified_images(self) -> Iterator[pl.DataFrame]:
        images = self.tables.images.with_row_index("row")
        has_facts = pl.any_horizontal(pl.col(name).is_not_null() for name in _PICTURE_FACTS)
        chosen = images.filter(has_facts.any().over("entity", "path"))
        rows = chosen.select(pl.format(f"<{KG}image:{{}}>", "row")).to_series()
        yield _plain(rows, f"{KG}entity", object=self.terms.gather(chosen["entity"]))
        boxes = [None if box is None else json.dumps(list(box)) for box in chosen["box"]]
        yield _fact(rows, "path", chosen["path"])
        yield _fact(rows, "box", pl.Series(boxes, dtype=pl.String()))
        yield _fact(rows, "sha256", chosen["sha256"])
        yield _fact(rows, "split", chosen["split"])

    def _own_words(self) -> Iterator[pl.DataFrame]:
        """Scenes, and texts of kinds without a property."""
        scenes = self.tables.entities["scene"]
        yield _fact(self.terms, "scene", scenes)
        texts = self.tables.texts.filter(~pl.col("kind").is_in(list(WRITTEN_TEXTS)))
        for (kind,), chosen in texts.group_by("kind", maintain_order=True):
            name = f"{KG}text:{urllib.parse.quote(str(kind), safe='')}"
            yield self._about(chosen, name, value=chosen["text"], language=chosen["language"])


def _fact(rows: pl.Series, name: str, values: pl.Series) -> pl.DataFrame:
    """Literals that say one column of some rows."""
    present = values.is_not_null()
    datatype = None
    if values.dtype == pl.Float64():
        texts = [
            repr(number).replace("inf", "INF").replace("nan", "NaN")
            for number in values.drop_nulls()
        ]
        chosen = pl.Series(texts, dtype=pl.String())
        datatype = pl.repeat(f"{XSD}double", len(chosen), eager=True, dtype=pl.String())
    else:
        chosen = values.drop_nulls()
    return _plain(rows.filter(present), f"{KG}{name}", value=chosen, datatype=datatype)


def _plain(rows: pl.Series, predicate: str, **columns: Any) -> pl.DataFrame:
    predicates = pl.repeat(f"<{predicate}>", len(rows), eager=True, dtype=pl.String())
    return _frame(subject=rows, predicate=predicates, **columns)


def _rows(rows: list[_Row]) -> pl.DataFrame:
    names = ("subject", "predicate", "object", "value")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String()))
    return _frame(**frame.with_columns(pl.format("<{}>", "predicate").alias("predicate")).to_dict())


def _frame(**columns: pl.Series | None) -> pl.DataFrame:
    count = next(len(column) for column in columns.values() if column is not None)
    absent = pl.repeat(None, count, eager=True, dtype=pl.String())
    given = {name: absent if column is None else column for name, column in columns.items()}
    return pl.DataFrame({name: given.get(name, absent) for name in _SCHEMA}, schema=_SCHEMA)
