"""The knowledge graph: eight tables that do not change, and what can be asked of them.

An entity's or a relation's id is its row number. Storage and conversions live below, in
``kgclip.storage`` and ``kgclip.conversion``, and work on the tables alone.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from kgclip.conversion import (
    tables_from_networkx,
    tables_from_triples,
    tables_to_networkx,
    tables_to_scipy,
    tables_to_scipy_stacked,
)
from kgclip.frames import (
    LabelledTriples,
    tables_from_frame,
    tables_from_labelled,
    tables_to_labelled,
)
from kgclip.names import readable
from kgclip.rdf.terms import BASE
from kgclip.splits import split_triples
from kgclip.storage import load_tables, save_tables
from kgclip.tables import GraphError, Origin, Tables, build_tables, is_address

if TYPE_CHECKING:
    import networkx
    import rdflib
    import scipy.sparse

    from kgclip.rdf.stating import RdfOptions

__all__ = ["GraphError", "KnowledgeGraph", "load_graph"]


class KnowledgeGraph:
    """A knowledge graph with texts and pictures; immutable.

    Args:
        tables: The eight tables of ``kgclip.tables.SCHEMAS``.
        root: Folder that relative picture paths start from.
    """

    __slots__ = ("_root", "_tables")
    _root: Path | None
    _tables: Tables

    def __init__(self, tables: Tables, root: str | Path | None = None) -> None:
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_root", None if root is None else Path(root))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a KnowledgeGraph does not change; make a new one to set {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KnowledgeGraph):
            return NotImplemented
        theirs = other.tables.frames()
        return all(frame.equals(theirs[name]) for name, frame in self.tables.frames().items())

    def __reduce__(self) -> tuple[type[KnowledgeGraph], tuple[Tables, Path | None]]:
        return KnowledgeGraph, (self.tables, self.root)  # copying sets no attribute either

    __hash__ = None  # type: ignore[assignment]  # equal by content, too large to hash

    def __repr__(self) -> str:
        return (
            f"KnowledgeGraph({self.num_entities:,} entities, {self.num_relations:,} relations, "
            f"{self.num_triples:,} triples)"
        )

    @property
    def tables(self) -> Tables:
        """The eight tables."""
        return self._tables

    @property
    def root(self) -> Path | None:
        """Folder that relative picture paths start from."""
        return self._root

    @property
    def entities(self) -> pl.DataFrame:
        """Name, type and scene of each entity."""
        return self.tables.entities

    @property
    def types(self) -> pl.DataFrame:
        """Every type of every entity."""
        return self.tables.types

    @property
    def relations(self) -> pl.DataFrame:
        """Name, label, inverse and symmetry of each relation."""
        return self.tables.relations

    @property
    def triples(self) -> pl.DataFrame:
        """Head, relation and tail ids, weight, source, named graph and split."""
        return self.tables.triples

    @property
    def literals(self) -> pl.DataFrame:
        """Entity, relation, value, datatype and language, as the source says them."""
        return self.tables.literals

    @property
    def texts(self) -> pl.DataFrame:
        """Labels, aliases, descriptions and captions."""
        return self.tables.texts

    @property
    def images(self) -> pl.DataFrame:
        """Picture files, their checksums and boxes."""
        return self.tables.images

    @property
    def links(self) -> pl.DataFrame:
        """Addresses of the same entity elsewhere."""
        return self.tables.links

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What the graph was read from."""
        return self.tables.origins

    @property
    def num_entities(self) -> int:
        """Number of entities."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """Number of relations, inverse relations not counted."""
        return len(self.relations)

    @property
    def num_triples(self) -> int:
        """Number of triples, duplicates included."""
        return len(self.triples)

    def save(self, path: str | Path) -> Path:
        """Write the graph into a folder; pictures with relative paths are copied along.

        Raises:
            GraphError: If the folder is there and is no graph, or a picture is missing.
        """
        return save_tables(self.tables, path, root=self.root)

    @classmethod
    def from_networkx(cls, graph: networkx.Graph, drop: bool = False) -> KnowledgeGraph:
        """Read a networkx graph of any kind; see ``kgclip.conversion``.

        Args:
            graph: Nodes and edges may have different attributes.
            drop: Leave out edge attributes that have no place in the tables, with a warning.
        """
        return cls(tables_from_networkx(graph, drop))

    @classmethod
    def from_rdflib(cls, graph: rdflib.Graph) -> KnowledgeGraph:
        """Read an rdflib graph, its statements sorted; what ``to_rdflib`` wrote comes back."""
        from kgclip.rdf.writing import tables_from_rdflib

        return cls(tables_from_rdflib(graph))

    @classmethod
    def from_triples(cls, rows: Iterable[Sequence[Any]]) -> KnowledgeGraph:
        """Read rows of (head, relation, tail) or (head, relation, tail, weight) names."""
        return cls(tables_from_triples(rows))

    @classmethod
    def from_frame(cls, frame: Any, columns: Sequence[str] | None = None) -> KnowledgeGraph:
        """Read a polars or pandas frame of named triples; see ``kgclip.frames``."""
        return cls(tables_from_frame(frame, columns))

    @classmethod
    def from_pykeen(cls, factory: Any) -> KnowledgeGraph:
        """Read a PyKEEN ``TriplesFactory``; ids stay what they are.

        Args:
            factory: With ``mapped_triples`` [T, 3], ``entity_to_id`` and ``relation_to_id``.
        """
        return cls(
            tables_from_labelled(
                factory.mapped_triples, factory.entity_to_id, factory.relation_to_id
            )
        )

    def to_labelled(self) -> LabelledTriples:
        """Triples by name and id maps.

        ``TriplesFactory.from_labeled_triples(**graph.to_labelled()._asdict())`` is PyKEEN's.
        """
        return tables_to_labelled(self.tables)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """Convert to a ``networkx.MultiDiGraph`` with entity names as nodes."""
        return tables_to_networkx(self.tables)

    def to_rdflib(
        self, drop: bool = False, *, reify: bool = False, base: str = BASE, literals: str = "table"
    ) -> rdflib.Graph:
        """Convert to an ``rdflib.Graph``.

        Args:
            drop: Leave out what RDF cannot say: weights, boxes, splits, named graphs and the like.
            reify: Say it in words of our own instead, which ``from_rdflib`` understands.
            base: What names that are no IRIs are minted under; they become labels, too.
            literals: ``"nodes"`` writes entities that are named as literals as literals.

        Raises:
            GraphError: If there is such a thing and neither ``drop`` nor ``reify`` is set.
        """
        from kgclip.rdf.writing import to_rdflib

        return to_rdflib(self.tables, _rdf_options(drop, reify, base, literals))

    def write_rdf(
        self,
        path: str | Path,
        *,
        drop: bool = False,
        reify: bool = False,
        base: str = BASE,
        literals: str = "table",
    ) -> Path:
        """Write an RDF file; ``read_graph`` gives the graph back, but for its order.

        Args:
            path: File; its suffix says the syntax (.nt, .nq, .ttl, .trig, .rdf, .jsonld), .gz
                behind it packs it. Named graphs need .nq, .trig or .jsonld.
            drop: See :meth:`to_rdflib`, also for what follows.
            reify: Say what RDF cannot say in words of our own.
            base: What names that are no IRIs are minted under.
            literals: ``"table"`` or ``"nodes"``.

        Returns:
            The file.

        Raises:
            GraphError: If the suffix is unknown, or the graph holds what RDF cannot say and
                neither ``drop`` nor ``reify`` is set.
        """
        from kgclip.rdf.writing import write_rdf

        return write_rdf(self.tables, path, _rdf_options(drop, reify, base, literals))

    def canonical(self) -> KnowledgeGraph:
        """The same for all graphs that say the same in RDF; see ``kgclip.rdf.canonical``.

        Rows are distinct and in a fixed order, blank nodes named by what is said of them,
        languages in lower case; texts, types and the like are statements, too.
        """
        from kgclip.rdf.canonical import canonical_tables

        return KnowledgeGraph(canonical_tables(self.tables), self.root)

    def to_scipy(self, relation: str | int | None = None) -> scipy.sparse.csr_array:
        """Adjacency matrix: how many triples lead from row to column. Int64 [N, N].

        Args:
            relation: Name or id of one relation; ``None`` = all.
        """
        number = self.relation_id(relation) if isinstance(relation, str) else relation
        return tables_to_scipy(self.tables, number)

    def to_scipy_stacked(self) -> scipy.sparse.csr_array:
        """Adjacency matrices of all relations, one below the other. Int64 [R * N, N]."""
        return tables_to_scipy_stacked(self.tables)

    def entity_id(self, name: str) -> int:
        """Id of an entity by its name.

        Raises:
            GraphError: If there is none; names the nearest.
        """
        return _find("entity", self.entities["name"], name)

    def relation_id(self, name: str) -> int:
        """Id of a relation by its name.

        Raises:
            GraphError: If there is none; names the nearest.
        """
        return _find("relation", self.relations["name"], name)

    def labels(self) -> list[str]:
        """One readable text for each entity: its first label, else its name made readable."""
        first = self.texts.filter(pl.col("kind") == "label").unique(
            "entity", keep="first", maintain_order=True
        )
        found = dict(first.select("entity", "text").iter_rows())
        return [found.get(i) or readable(name) for i, name in enumerate(self.entities["name"])]

    def image_path(self, row: int) -> Path:
        """File of a row of ``images``.

        Raises:
            GraphError: If the picture is an address, its path leaves the graph's folder, or there
                is no folder to start from.
        """
        if is_address(self.images["path"][row]):
            raise GraphError(f"image {self.images['path'][row]}: an address; fetch the file first")
        path = Path(self.images["path"][row])
        if path.is_absolute():
            return path
        if self.root is None:
            raise GraphError(f"image {path}: relative, and the graph has no root; give root=")
        file = self.root / path
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise GraphError(f"image {path}: leaves the graph's folder {self.root}")
        return file

    def distinct(self) -> KnowledgeGraph:
        """Without the triples that repeat an earlier (head, relation, tail)."""
        triples = self.triples.unique(
            ["head", "relation", "tail"], keep="first", maintain_order=True
        )
        return self._with(triples=triples)

    def select(
        self,
        relations: Iterable[str] | None = None,
        *,
        min_degree: int = 0,
        largest_component: bool = False,
        seeds: Iterable[str] | None = None,
        hops: int = 1,
    ) -> KnowledgeGraph:
        """Keep a part of the graph; ids are numbered anew.

        Args:
            relations: Names of the relations whose triples stay; ``None`` = all.
            min_degree: Entities with fewer triples go.
            largest_component: Keep the largest connected part only.
            seeds: Names of entities; what is further than ``hops`` from all of them goes.
            hops: Distance from the seeds, in triples of either direction.

        Raises:
            GraphError: If a relation or a seed does not exist; names the nearest.
        """
        graph = self
        if relations is not None:
            wanted = [self.relation_id(name) for name in relations]
            graph = self._with(triples=self.triples.filter(pl.col("relation").is_in(wanted)))
        keep = np.ones(graph.num_entities, dtype=bool)
        adjacency = tables_to_scipy(graph.tables)
        undirected = (adjacency + adjacency.T).tocsr()
        if seeds is not None:
            reached = np.zeros(graph.num_entities, dtype=bool)
            reached[[self.entity_id(name) for name in seeds]] = True
            for _ in range(hops):
                reached |= undirected @ reached.astype(np.int64) > 0
            keep &= reached
        if min_degree:
            keep &= np.asarray(adjacency.sum(axis=0) + adjacency.sum(axis=1)) >= min_degree
        if largest_component:
            from scipy.sparse.csgraph import connected_components

            part = connected_components(undirected, directed=False)[1]
            keep &= part == np.bincount(part).argmax()
        return graph.restrict(keep)

    def restrict(self, keep: np.ndarray) -> KnowledgeGraph:
        """Keep some entities and whatever refers to them alone; ids are numbered anew.

        Args:
            keep: True for each entity that stays. Bool [N].
        """
        if keep.all():
            return self
        number = pl.Series(np.where(keep, np.cumsum(keep) - 1, -1))
        frames = {"entities": self.entities.filter(pl.Series(keep)), "relations": self.relations}
        for name, frame in self.tables.frames().items():
            columns = [c for c in ("entity", "head", "tail") if c in frame.columns]
            if columns:
                renumbered = frame.with_columns(number.gather(frame[c]).alias(c) for c in columns)
                frames[name] = renumbered.filter(pl.all_horizontal(pl.col(columns) >= 0))
        return KnowledgeGraph(build_tables(frames, self.origins), self.root)

    def merge(self, *others: KnowledgeGraph) -> KnowledgeGraph:
        """Join graphs: entities and relations of one name become one.

        The first graph's type, label and root win; equal texts, pictures, types and links are
        kept once, triples and literals all.
        """
        merged = self
        for other in others:
            merged = merged._merge_one(other)
        return merged

    def _merge_one(self, other: KnowledgeGraph) -> KnowledgeGraph:
        frames: dict[str, pl.DataFrame] = {}
        numbers = {}
        for name in ("entities", "relations"):
            both = pl.concat([getattr(self, name), getattr(other, name)])
            filled = [pl.col(c).drop_nulls().first() for c in both.columns if c != "name"]
            frames[name] = (
                both.group_by("name", maintain_order=True).agg(filled).select(both.columns)
            )
            place = {key: i for i, key in enumerate(frames[name]["name"])}
            numbers[name] = pl.Series(
                [place[key] for key in getattr(other, name)["name"]], dtype=pl.Int64
            )
        for name, frame in other.tables.frames().items():
            if name in frames:
                continue
            columns: dict[str, str] = {
                c: "entities" for c in ("entity", "head", "tail") if c in frame.columns
            }
            columns |= {"relation": "relations"} if "relation" in frame.columns else {}
            moved = frame.with_columns(
                numbers[table].gather(frame[c]).alias(c) for c, table in columns.items()
            )
            joined = pl.concat([getattr(self, name), moved])
            once = name not in ("triples", "literals")
            frames[name] = joined.unique(keep="first", maintain_order=True) if once else joined
        origins = tuple(dict.fromkeys((*self.origins, *other.origins)))
        return KnowledgeGraph(build_tables(frames, origins), self.root or other.root)

    def split(self, ratios: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> KnowledgeGraph:
        """Split the triples into train, valid and test without leakage.

        All triples between the same two entities, in either direction, stay together.
        """
        return KnowledgeGraph(split_triples(self.tables, ratios=ratios, seed=seed), self.root)

    def validate(self) -> list[str]:
        """What looks wrong, a sentence each: missing pictures, changed files, no labels."""
        findings = []
        addresses = sum(map(is_address, self.images["path"]))
        if addresses:
            findings.append(f"{addresses} images are addresses, not files")
        for row, (path, digest) in enumerate(self.images.select("path", "sha256").iter_rows()):
            if is_address(path):
                continue
            file = self.image_path(row)
            if not file.is_file():
                findings.append(f"images, row {row}: {file} is missing")
            elif digest and hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                findings.append(f"images, row {row}: {file} has changed")
        unlabelled = self.relations.filter(pl.col("label").is_null())["name"].to_list()
        if unlabelled:
            findings.append(f"relations without a label: {', '.join(unlabelled[:5])}")
        repeated = self.num_triples - self.distinct().num_triples
        if repeated:
            findings.append(f"{repeated} triples repeat an earlier one; distinct() drops them")
        return findings

    def _with(self, **frames: pl.DataFrame) -> KnowledgeGraph:
        return KnowledgeGraph(
            build_tables({**self.tables.frames(), **frames}, self.origins), self.root
        )


def _rdf_options(drop: bool, reify: bool, base: str, literals: str) -> RdfOptions:
    from kgclip.rdf.stating import RdfOptions

    if literals not in ("table", "nodes"):
        raise GraphError(f"literals={literals!r}: expected 'table' or 'nodes'")
    return RdfOptions(base=base, reify=reify, drop=drop, literals_as_nodes=literals == "nodes")


def load_graph(path: str | Path) -> KnowledgeGraph:
    """Load a graph that ``save`` or ``kgclip build`` wrote.

    Args:
        path: Its folder.

    Raises:
        GraphError: If the folder is no graph, of a newer schema, incomplete or changed.
    """
    return KnowledgeGraph(load_tables(path), Path(path))


def _find(kind: str, names: pl.Series, name: str) -> int:
    found = names.index_of(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, names.to_list(), n=1, cutoff=0)
    raise GraphError(f"no {kind} {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))
