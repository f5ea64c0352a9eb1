"""Back from what ``kgclip.rdf.writing`` says in words of our own, so that nothing is lost.

Minted names become the names they stand for; declarations of entities and relations that no
statement names, weights, boxes and the like go where they came from and leave no trace.
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from kgclip.rdf.terms import BASE, IRI, KG, RDF, RDF_TYPE, mint
from kgclip.tables import SCHEMAS, GraphError

_FACTS = ("weight", "source", "split", "graph", "named")
_RELATION_WORDS = ("label", "inverse", "symmetric")
_PICTURE = ("entity", "path", "sha256", "box", "split")


@dataclasses.dataclass
class Facts:
    """What statements say, by ids.

    Attributes:
        names: Of the entities.
        is_iri: Whether an entity is an IRI.
        relations: Names of the relations.
        triples: Head, relation, tail and what else is known of a triple.
        literals: Entity, relation, value, datatype and language.
        images: Pictures with more than a path.
        texts: Texts of kinds that no property has.
        scenes: Entity and scene.
        relation_words: Names of relations to what words of ours say: label, inverse, symmetric.
    """

    names: pl.Series
    is_iri: pl.Series
    relations: pl.Series
    triples: pl.DataFrame
    literals: pl.DataFrame
    images: pl.DataFrame = dataclasses.field(
        default_factory=lambda: pl.DataFrame(schema={n: SCHEMAS["images"][n] for n in _PICTURE})
    )
    texts: pl.DataFrame = dataclasses.field(
        default_factory=lambda: pl.DataFrame(schema=dict(SCHEMAS["texts"]))
    )
    scenes: pl.DataFrame = dataclasses.field(
        default_factory=lambda: pl.DataFrame(schema={"entity": pl.Int64(), "scene": pl.String()})
    )
    relation_words: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)


def restore(facts: Facts) -> Facts:
    """Give back what was written in words of our own; other facts stay as they are.

    Raises:
        GraphError: If words of our own are used in a way that makes no sense.
    """
    has_words = bool(
        facts.names.str.starts_with(KG).any() or facts.relations.str.starts_with(KG).any()
    )
    bases = [BASE]
    if has_words:
        try:
            facts, bases = _Restoration(facts).facts()
        except (ValueError, pl.exceptions.PolarsError) as error:
            raise GraphError(f"statements with {KG} make no sense: {error}") from error
    elif "graph" in facts.triples.columns:
        graphs = _unminted(facts.triples["graph"], bases)
        facts.triples = facts.triples.with_columns(graph=graphs)
    facts.names = _unminted(facts.names, bases)
    facts.relations = _unminted(facts.relations, bases)
    return facts


def _unminted(names: pl.Series, bases: Iterable[str]) -> pl.Series:
    for base in bases:
        minted = names.filter(names.str.starts_with(base)).unique()
        if len(minted):
            names = names.replace(minted, [_meant(name, base) for name in minted])
    return names


def _meant(name: str, base: str) -> str:
    """The name that was minted, or the IRI itself if we did not mint it."""
    try:
        meant = urllib.parse.unquote(name[len(base) :], errors="strict")
    except UnicodeDecodeError:
        return name
    is_iri = re.fullmatch(IRI, f"<{meant}>") and not meant.startswith((base, BASE, KG))
    return meant if mint(meant, base) == name and not is_iri else name


class _Restoration:
    def __init__(self, facts: Facts) -> None:
        self.facts_ = facts
        self.triples, self.literals = facts.triples, facts.literals
        if "graph" not in self.triples.columns:
            self.triples = self.triples.with_columns(graph=pl.lit(None, pl.String()))
        self.names, self.relations = facts.names, facts.relations

    def facts(self) -> tuple[Facts, list[str]]:
        """Facts without our words, and the bases of minted names."""
        entities = self._declared("Entity")
        idle = self.names.gather(self._declared("Relation")).to_list()
        bases = [BASE, *self.names.gather(self._declared("Base"))]
        statements, images = self._statements(), self._images()
        said = self.literals.with_columns(
            word=self.relations.gather(self.literals["relation"])
        ).filter(pl.col("word").str.starts_with(KG))
        self.literals = self.literals.join(said, on="relation", how="anti", maintain_order="left")
        named_graphs = self.triples["graph"]
        self.triples = self.triples.with_columns(graph=_unminted(named_graphs, bases))
        keys = ["head", "relation", "tail", "graph"]
        plain = self.triples.join(
            statements, on=keys, how="anti", nulls_equal=True, maintain_order="left"
        )
        statements = statements.with_columns(graph=pl.coalesce("graph", "named")).drop("named")
        scenes = said.filter(pl.col("word") == f"{KG}scene")
        texts = said.filter(pl.col("word").str.starts_with(f"{KG}text:"))
        kinds = [urllib.parse.unquote(word[len(KG) + 5 :]) for word in texts["word"]]
        words: dict[str, dict[str, str]] = defaultdict(dict)
        about = said.filter(pl.col("word").is_in([f"{KG}{word}" for word in _RELATION_WORDS]))
        named = _unminted(self.names.gather(about["entity"]), bases)
        for name, word, value in zip(named, about["word"], about["value"], strict=True):
            words[name][word.removeprefix(KG)] = value
        found = Facts(
            names=self.names,
            is_iri=self.facts_.is_iri,
            relations=self.relations,
            triples=pl.concat([plain, statements], how="diagonal"),
            literals=self.literals,
            images=images,
            scenes=scenes.select("entity", pl.col("value").alias("scene")),
            texts=texts.select("entity", pl.col("value").alias("text"), "language").with_columns(
                kind=pl.Series(kinds, dtype=pl.String())
            ),
            relation_words=words,
        )
        return _without_unused(found, entities, idle), bases

    def _relation(self, name: str) -> int:
        found = self.relations.index_of(name)
        return -1 if found is None else found

    def _declared(self, kind: str) -> pl.Series:
        """Heads of the statements that declare something, which are then gone."""
        tail = self.names.index_of(f"{KG}{kind}")
        is_it = (pl.col("relation") == self._relation(RDF_TYPE)) & (
            pl.col("tail") == (-1 if tail is None else tail)
        )
        heads = self.triples.filter(is_it)["head"]
        self.triples = self.triples.filter(~is_it)
        return heads

    def _rows(self, kind: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The triples and literals of the rows of one kind, which are then gone."""
        ours = self.names.str.starts_with(f"{KG}{kind}:").arg_true().to_list()
        is_link, is_value = pl.col("head").is_in(ours), pl.col("entity").is_in(ours)
        links = self.triples.filter(is_link).select(row="head", relation="relation", id="tail")
        values = self.literals.filter(is_value).select(
            row="entity", relation="relation", value="value"
        )
        self.triples = self.triples.filter(~is_link)
        self.literals = self.literals.filter(~is_value)
        return links, values

    def _column(self, rows: pl.DataFrame, property_name: str, name: str) -> pl.DataFrame:
        found = rows.filter(pl.col("relation") == self._relation(property_name))
        return found.drop("relation").rename({found.columns[-1]: name})

    def _statements(self) -> pl.DataFrame:
        links, values = self._rows("statement")
        frame = self._column(links, f"{RDF}subject", "head")
        for word, name in ((f"{RDF}predicate", "relation"), (f"{RDF}object", "tail")):
            frame = frame.join(self._column(links, word, name), on="row", maintain_order="left")
        for name in _FACTS:
            column = self._column(values, f"{KG}{name}", name)
            frame = frame.join(column, on="row", how="left", maintain_order="left")
        _check_complete(frame, links, values)
        numbers = {name: i for i, name in enumerate(self.relations)}
        names = self.names.gather(frame["relation"])
        relation = pl.Series([numbers[name] for name in names], dtype=pl.Int64())
        weights = pl.Series(map(_number, frame["weight"]), dtype=pl.Float64())
        return frame.with_columns(relation=relation, weight=weights).drop("row")

    def _images(self) -> pl.DataFrame:
        links, values = self._rows("image")
        frame = self._column(links, f"{KG}entity", "entity")
        for name in _PICTURE[1:]:
            column = self._column(values, f"{KG}{name}", name)
            frame = frame.join(column, on="row", how="left", maintain_order="left")
        _check_complete(frame.drop_nulls("path"), links, values)
        boxes = [None if box is None else json.loads(box) for box in frame["box"]]
        box = pl.Series(boxes, dtype=SCHEMAS["images"]["box"])
        return frame.with_columns(box=box).select(_PICTURE)


def _check_complete(frame: pl.DataFrame, links: pl.DataFrame, values: pl.DataFrame) -> None:
    rows = pl.concat([links["row"], values["row"]]).n_unique()
    if rows != len(frame):
        raise ValueError(f"{rows} reified rows, {len(frame)} of them complete and said once")


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _without_unused(facts: Facts, declared: pl.Series, idle: list[str]) -> Facts:
    """Without the entities and relations that only our words named; ids are given anew."""
    triples, literals = facts.triples, facts.literals
    entities = np.zeros(len(facts.names), dtype=bool)
    for ids in (
        *(triples["head"], triples["tail"], literals["entity"], facts.images["entity"]),
        *(facts.texts["entity"], facts.scenes["entity"], declared),
    ):
        entities[ids.to_numpy()] = True
    relations = np.zeros(len(facts.relations), dtype=bool)
    for ids in (triples["relation"], literals["relation"]):
        relations[ids.to_numpy()] = True
    entity_ids, relation_ids = (pl.Series(np.cumsum(used) - 1) for used in (entities, relations))

    def moved(frame: pl.DataFrame) -> pl.DataFrame:
        columns: dict[str, Any] = {}
        for name in frame.columns:
            if name in ("head", "tail", "entity"):
                columns[name] = entity_ids.gather(frame[name])
            elif name == "relation":
                columns[name] = relation_ids.gather(frame[name])
        return frame.with_columns(**columns)

    kept = facts.relations.filter(pl.Series(relations))
    missing = [name for name in idle if name not in set(kept)]
    return dataclasses.replace(
        facts,
        names=facts.names.filter(pl.Series(entities)),
        is_iri=facts.is_iri.filter(pl.Series(entities)),
        relations=pl.concat([kept, pl.Series(missing, dtype=pl.String())]),
        triples=moved(triples),
        literals=moved(literals),
        images=moved(facts.images),
        texts=moved(facts.texts),
        scenes=moved(facts.scenes),
    )
