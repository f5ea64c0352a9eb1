"""What is written as RDF comes back: every fact, and nothing else."""

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pyoxigraph as ox
import pytest
import rdflib
import rdflib.compare
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph
from kgclip.rdf.stating import name_terms
from kgclip.rdf.terms import BASE, KG, RDF_TYPE, RDFS_LABEL, SAME_AS
from kgclip.sources import read_graph
from kgclip.tables import SCHEMAS, GraphError, build_tables

NAMES = st.text(min_size=1, max_size=5) | st.sampled_from(
    [
        *("_:b0", "_:b1", "_:", "_: x", "ünï", "a b", "http://x/y", "http://x/é#1", "urn:a"),
        *("<<( <urn:a> <urn:b> _:b0 )>>", '"quoted"', f"{BASE}a%20b", f"{KG}Entity", "urn:%zz"),
        *("hasCapital", "/c/en/dog", "\\", "\n", "100%", "x> <urn:y", "é:b"),
        *(RDF_TYPE, SAME_AS, RDFS_LABEL),
    ]
)  # fmt: skip
TEXTS = st.text(max_size=4) | st.sampled_from(['"', "\\u0041", "a\tb\r\n", "\x00\x7f￾", "_:b0"])
LANGUAGES = st.sampled_from([None, None, "en", "EN-gb", "de"])
TYPES = st.sampled_from([None, "http://www.w3.org/2001/XMLSchema#integer", "urn:t"])


def column(rows, i, dtype):
    return pl.Series([row[i] for row in rows], dtype=dtype)


def table(name, columns, rows):
    schema = SCHEMAS[name]
    return {key: column(rows, i, schema[key]) for i, key in enumerate(columns)}


@st.composite
def graphs(draw, *, plain):
    """Any graph; a plain one holds nothing that RDF cannot say."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    relations = draw(st.lists(NAMES, unique=True, max_size=3))
    entity = st.integers(0, max(0, len(names) - 1))
    relation = st.integers(0, max(0, len(relations) - 1))

    def rows(*columns, size=4, needs=names):
        return draw(st.lists(st.tuples(*columns), max_size=size)) if needs else []

    def rare(strategy):
        return st.none() if plain else st.none() | strategy

    both = names and relations
    weight = st.floats(allow_nan=False)
    split = st.sampled_from(["train", "test"])
    languages = LANGUAGES if plain else LANGUAGES | st.just("ar--rtl")
    graph_names = st.none() if plain else st.none() | st.sampled_from(["urn:g", "_:g", "a graph"])
    kinds = ["label", "alias", "description", "caption", *([] if plain else ["a kind"])]
    box = st.lists(st.floats(0, 9), min_size=4, max_size=4)
    paths = st.sampled_from(["a.png", "b/ü.png", "http://x/a.png", "http://x/a b.png"])
    symmetric = st.sampled_from([None, True] if plain else [None, True, False])
    return build_tables(
        {
            "entities": table(
                "entities",
                ("name", "type", "scene"),
                [(n, draw(st.none() | NAMES), draw(rare(TEXTS))) for n in names],
            ),
            "types": table("types", ("entity", "type"), rows(entity, NAMES, size=2)),
            "relations": table(
                "relations",
                ("name", "label", "inverse", "symmetric"),
                [
                    (n, draw(st.none() | TEXTS), draw(st.none() | NAMES), draw(symmetric))
                    for n in relations
                ],
            ),
            "triples": table(
                "triples",
                ("head", "relation", "tail", "weight", "source", "graph", "split"),
                rows(
                    *(entity, relation, entity, rare(weight), rare(TEXTS), graph_names),
                    rare(split),
                    size=8,
                    needs=both,
                ),
            ),
            "literals": table(
                "literals",
                ("entity", "relation", "value", "language"),
                rows(entity, relation, TEXTS, languages, needs=both),
            ),
            "texts": table(
                "texts",
                ("entity", "text", "language", "kind"),
                rows(entity, TEXTS, languages, st.sampled_from(kinds)),
            ),
            "images": table(
                "images",
                ("entity", "path", "sha256", "box", "split"),
                rows(entity, paths, rare(st.just("00")), rare(box), rare(split)),
            ),
            "links": table("links", ("entity", "url"), rows(entity, NAMES, size=2)),
        }
    )


def assert_same(mine, expected):
    mine, expected = mine.canonical(), expected.canonical()
    assert facts(mine) == facts(expected)
    assert mine == expected


def facts(graph):
    """Everything a graph says, by names; languages in lower case, blank nodes all alike."""
    names, relations = graph.entities["name"].to_list(), graph.relations["name"].to_list()
    found = Counter()
    for kind, frame in graph.tables.frames().items():
        for row in frame.iter_rows(named=True):
            for key in ("entity", "head", "tail"):
                if key in row:
                    row[key] = names[row[key]]
            if "relation" in row:
                row["relation"] = relations[row["relation"]]
            if row.get("language"):
                row["language"] = row["language"].lower()
            blank = ("_:", "<<(")
            cells = ("blank" if str(c).startswith(blank) else repr(c) for c in row.values())
            found[(kind, *cells)] += 1
    return found


def assert_nothing_is_lost(before, after):
    """Rows of ``before`` are in ``after``, except where canonical() fills in or picks a value."""
    ours, theirs = facts(before), facts(after)
    free = ("entities", "relations", "texts", "literals")  # compared below, by column
    missing = [row for row in ours if row not in theirs and row[0] not in free]
    assert not missing
    for table in ("entities", "relations"):
        names = [{row[1] for row in rows if row[0] == table} for rows in (ours, theirs)]
        assert names[0] <= names[1]
    for row in ours:
        if row[0] == "literals":  # a missing datatype is xsd:string
            assert any(r[:4] == row[:4] and r[5] == row[5] for r in theirs), row
        if row[0] == "texts" and row[2] != repr(""):
            assert row in theirs, row
        if row[0] == "entities":
            assert any(r[:2] == row[:2] and row[3] in ("None", r[3]) for r in theirs), row


@given(graphs(plain=False))
@settings(max_examples=40, deadline=None)
def test_canonical_form_keeps_every_fact(tables):
    graph = KnowledgeGraph(tables)
    canonical = graph.canonical()
    assert_nothing_is_lost(graph, canonical)
    assert_same(canonical, graph)


@given(graphs(plain=False), st.sampled_from([".nt", ".nq", ".ttl", ".nt.gz"]))
@settings(max_examples=30, deadline=None)
def test_files_round_trip(tables, suffix):
    graph = KnowledgeGraph(tables)
    with tempfile.TemporaryDirectory() as folder:
        file = graph.write_rdf(Path(folder) / f"g{suffix}", reify=True)
        again = read_graph(file)
    assert_same(again, graph)


@given(graphs(plain=True), st.sampled_from([BASE, "http://example.org/my/"]))
@settings(max_examples=30, deadline=None)
def test_rdflib_round_trip(tables, base):
    graph = KnowledgeGraph(tables)
    if graph.entities["name"].str.starts_with("<<(").any():
        return  # rdflib knows no triple terms, as is tested below
    assert_same(KnowledgeGraph.from_rdflib(graph.to_rdflib(base=base)), graph)


@given(st.lists(NAMES, unique=True, min_size=1))
@settings(deadline=None)
def test_terms_of_names_are_terms_and_differ(names):
    terms = name_terms(pl.Series(names), BASE)
    assert terms.n_unique() == len(names)
    for term in terms:
        [quad] = ox.parse(f"{term} <urn:r> {term} .", format=ox.RdfFormat.N_TRIPLES)
        assert str(quad.subject) == term


def test_n_triples_are_written_as_they_were_read(shared_data, tmp_path):
    source = shared_data / "rdf_aifb" / "aifb_stripped.nt.gz"
    for literals in ("table", "nodes"):
        graph = read_graph(source, literals=literals)
        file = graph.write_rdf(tmp_path / "a.nt", literals=literals)
        with gzip.open(source) as stream:
            expected = set(ox.parse(stream.read(), format=ox.RdfFormat.N_TRIPLES))
        assert set(ox.parse(path=file)) == expected


def test_rdf_goes_through_rdflib_unchanged():
    rdf = rdflib.Graph()
    rdf.parse(
        data="""@prefix : <http://x/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
        :a a :City ; :near :b, [ :size 3 ] ; rdfs:label "A"@en ; :note "x"^^:odd, "01"^^:odd ."""
    )
    assert rdflib.compare.isomorphic(KnowledgeGraph.from_rdflib(rdf).to_rdflib(), rdf)


def test_what_cannot_be_written_is_named(tmp_path):
    weighted = KnowledgeGraph.from_triples([("a", "r", "b", 0.5)])
    for options, message in (
        ({}, "weights; give reify=True"),
        ({"reify": True, "drop": True}, "one of them"),
        ({"base": "no base", "drop": True}, "expected an absolute IRI"),
        ({"literals": "both"}, "'table' or 'nodes'"),
    ):
        with pytest.raises(GraphError, match=message):
            weighted.write_rdf(tmp_path / "a.nt", **options)
    with pytest.raises(GraphError, match="unknown suffix"):
        weighted.write_rdf(tmp_path / "a.csv", drop=True)
    assert list(tmp_path.iterdir()) == []
    text = {"entity": [0], "text": ["x"]}
    literal = {"entity": [0], "relation": [0], "value": ["x"], "datatype": ["int"]}
    for frames, message in (
        ({"texts": {**text, "kind": ["label"], "language": ["en_US"]}}, "expected a language tag"),
        ({"texts": {**text, "kind": ["rhyme"]}}, "texts of kind 'rhyme'"),
        ({"literals": literal}, "expected an absolute IRI"),
        ({"triples": {"head": [0], "relation": [0], "tail": [0], "graph": ["g"]}}, "named graphs"),
        ({"relations": {"name": ["r"], "symmetric": [False]}}, "not symmetric"),
    ):
        tables = build_tables({"entities": {"name": ["a"]}, "relations": {"name": ["r"]}, **frames})
        with pytest.raises(GraphError, match=message):
            KnowledgeGraph(tables).to_rdflib()
    arabic = build_tables(
        {"entities": {"name": ["a"]}, "texts": {**text, "kind": ["label"], "language": ["ar--rtl"]}}
    )
    with pytest.raises(GraphError, match="rdflib knows none"):
        KnowledgeGraph(arabic).to_rdflib()
    term = KnowledgeGraph.from_triples([("a", "r", "<<( <urn:a> <urn:b> <urn:c> )>>")])
    with pytest.raises(GraphError, match="rdflib knows no triple terms"):
        term.to_rdflib()
    odd = rdflib.Graph()
    odd.add((rdflib.URIRef("a b"), rdflib.RDF.type, rdflib.BNode()))
    with pytest.raises(GraphError, match="'a b': no IRI"):
        KnowledgeGraph.from_rdflib(odd)


def test_words_of_ours_that_make_no_sense_are_refused(tmp_path):
    (tmp_path / "a.nt").write_text(
        f'<{KG}statement:0> <{KG}weight> "heavy" .\n'
        f"<{KG}statement:0> <http://www.w3.org/1999/02/22-rdf-syntax-ns#subject> <urn:a> .\n"
    )
    with pytest.raises(GraphError, match="make no sense"):
        read_graph(tmp_path / "a.nt")
