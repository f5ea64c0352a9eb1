"""RDF is read as it is written, and what is wrong is told with file and line."""

import bz2
import gzip
import lzma
import warnings

import polars as pl
import pyoxigraph as ox
import pytest

from kgclip.sources import read_graph
from kgclip.sources.rdf import RDF_TYPE, read_rdf
from kgclip.tables import GraphError

TURTLE = """
@prefix : <http://x/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> . @prefix foaf: <http://xmlns.com/foaf/0.1/> .
:a a :City, :Place ; :near :b ; rdfs:label "A"@en, "Ah"@de ; :size 3 ;
   rdfs:comment "A town." ; foaf:depiction :a.png ; owl:sameAs <http://y/a> .
:b :near [ :size "x" ] .
:near a owl:SymmetricProperty ; rdfs:label "is near" ; owl:inverseOf :close .
"""


@pytest.fixture
def turtle(tmp_path):
    (tmp_path / "t.ttl").write_text(TURTLE)
    return tmp_path / "t.ttl"


def test_tables_hold_what_the_file_says(turtle):
    graph = read_graph(turtle)
    a = graph.entity_id("http://x/a")
    assert graph.entities["type"][a] == "http://x/City"
    assert graph.types.filter(pl.col("entity") == a)["type"].to_list() == [
        "http://x/City",
        "http://x/Place",
    ]
    near = graph.relation_id("http://x/near")
    assert graph.relations.row(near) == ("http://x/near", "is near", "http://x/close", True)
    texts = graph.texts.filter(pl.col("entity") == a).rows()
    assert texts == [
        (a, "A", "en", "label"),
        (a, "Ah", "de", "label"),
        (a, "A town.", None, "description"),
    ]
    assert graph.links.rows() == [(a, "http://y/a")]
    assert graph.images["path"].to_list() == ["http://x/a.png"]
    sizes = graph.literals.filter(pl.col("relation") == graph.relation_id("http://x/size"))
    assert sizes.select("value", "datatype").rows() == [
        ("3", "http://www.w3.org/2001/XMLSchema#integer"),
        ("x", "http://www.w3.org/2001/XMLSchema#string"),
    ]
    kinds = graph.triples.filter(pl.col("relation") == graph.relation_id(RDF_TYPE))
    assert len(kinds) == 3, "rdf:type stays a triple"
    assert sum(name.startswith("_:") for name in graph.entities["name"]) == 1


def test_literals_as_nodes(turtle):
    graph = read_graph(turtle, literals="nodes")
    assert '"A"@en' in graph.entities["name"].to_list()
    assert graph.literals.is_empty()


@pytest.mark.parametrize(("suffix", "compress"), [
    ("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)
])  # fmt: skip
def test_syntaxes_and_compressions_agree(tmp_path, turtle, suffix, compress):
    quads = list(ox.parse(TURTLE, format=ox.RdfFormat.TURTLE))
    expected = read_rdf(turtle)
    for name, syntax in (("t.nt", ox.RdfFormat.N_TRIPLES), ("t.rdf", ox.RdfFormat.RDF_XML)):
        data = ox.serialize([quad.triple for quad in quads], format=syntax)
        file = tmp_path / (name + suffix)
        file.write_bytes(compress(data))
        tables = read_rdf(file)
        assert len(tables.triples) == len(expected.triples)
        assert sorted(tables.texts.rows(), key=str) == sorted(expected.texts.rows(), key=str)


def test_named_graphs_are_kept(tmp_path):
    file = tmp_path / "q.nq"
    file.write_text("<urn:a> <urn:r> <urn:b> <urn:g> .\n<urn:a> <urn:r> <urn:c> .\n")
    assert read_graph(file).triples["graph"].to_list() == ["urn:g", None]


def test_own_property_maps(turtle):
    tables = read_rdf(turtle, text_properties={"http://x/size": "caption"}, image_properties=[])
    assert tables.texts["kind"].to_list() == ["caption", "caption"]
    assert tables.images.is_empty()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.nt", b"<urn:a> <urn:r> <urn:b> .\n<urn:a> oops .\n", r"a\.nt:2: "),
        ("a.ttl", b"@prefix : <urn:> .\n:a :b\n", r"a\.ttl:\d: "),
        ("a.nt.gz", gzip.compress(b"<urn:a> <urn:r> <urn:b> .\n" * 99)[:-9], "damaged or cut off"),
        ("a.nt.gz", b"no gzip", "damaged or cut off"),
        ("a.nt", b'<urn:a> <urn:r> "\xff" .\n', r"a\.nt:1: "),
        ("a.bin", b"", "unknown suffix"),
    ],
)
def test_mistakes_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path / name)


def test_options_are_checked(turtle, tmp_path):
    for options, message in (
        ({"literals": "tabel"}, "'table' or 'nodes'"),
        ({"on_error": "skip"}, "one statement a line"),
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
        ({"syntax": "foo"}, "unknown RDF syntax"),
        ({"literal": "nodes"}, "did you mean 'literals'"),
    ):
        with pytest.raises(GraphError, match=message):
            read_graph(turtle, **options)
    with pytest.raises(GraphError, match="no such file"):
        read_graph(tmp_path / "absent.nt")


def test_skipping_counts(tmp_path):
    file = tmp_path / "a.nt"
    file.write_text("<urn:a> <urn:r> _:x .\noops\n# fine\n\n<urn:b> <urn:r> _:x .\nagain\n")
    with pytest.warns(UserWarning, match=r"2 malformed lines skipped, the first: 2, 6"):
        graph = read_graph(file, on_error="skip")
    assert graph.entities["name"].to_list() == ["urn:a", "_:x", "urn:b"]
    assert graph.num_triples == 2


def test_empty_file_is_an_empty_graph(tmp_path):
    (tmp_path / "a.nt").write_text("# nothing\n")
    assert read_graph(tmp_path / "a.nt").num_entities == 0


@pytest.mark.parametrize(
    ("literals", "entities", "triples"), [("nodes", 8285, 29043), ("table", 2835, 20338)]
)
def test_aifb_counts_are_the_published_ones(shared_data, literals, entities, triples):
    graph = read_graph(shared_data / "rdf_aifb" / "aifb_stripped.nt.gz", literals=literals)
    assert (graph.num_entities, graph.num_relations, graph.num_triples) == (entities, 45, triples)
    assert len(graph.types) == 4124


@pytest.mark.parametrize(("suite", "syntax"), [("rdf-n-triples", "nt"), ("rdf-turtle", "ttl")])
def test_w3c_suites(shared_data, tmp_path, suite, syntax):
    """Every syntax test that pyoxigraph itself passes, positive and negative."""
    manifests = list((shared_data / "w3c_rdf_tests").rglob("manifest.ttl"))
    [folder] = [m.parent for m in manifests if suite in str(m.parent) or syntax in m.parent.name]
    entries = ox.parse(path=folder / "manifest.ttl", base_iri="http://m/")
    facts = {}
    for quad in entries:
        facts.setdefault(quad.subject, {}).setdefault(quad.predicate.value, []).append(quad.object)
    tested = 0
    for about in facts.values():
        kinds = " ".join(str(kind) for kind in about.get(RDF_TYPE, ()))
        action = about.get("http://www.w3.org/2001/sw/DataAccess/tests/test-manifest#action")
        if not action or "Test" not in kinds:
            continue
        file = folder / action[0].value.removeprefix("http://m/")
        base = f"http://www.w3.org/2013/{file.name}"
        try:
            quads = list(ox.parse(path=file, base_iri=base))
        except SyntaxError:
            assert "Negative" in kinds, file.name
            with pytest.raises(GraphError, match=file.name):
                read_rdf(file, base_iri=base)
        else:
            assert "Negative" not in kinds or "Eval" in kinds, file.name
            tables = read_rdf(file, base_iri=base, literals="nodes")
            assert len(tables.triples) == len(quads), file.name
        tested += 1
    assert tested > 60


def test_no_warning_on_clean_files(turtle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rdf(turtle)
