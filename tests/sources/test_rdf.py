"""RDF is read as it is written, and what is wrong is told with file and line."""

import bz2
import gzip
import lzma
import warnings

import polars as pl
import pyoxigraph as ox
import pytest
import zstandard

from kgclip.sources import rdf, read_graph
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

RDF_XML = (
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="urn:">'
    b'<rdf:Description rdf:about="urn:a"><x:p>v</x:p></rdf:Description>%s</rdf:RDF>'
)


@pytest.fixture(autouse=True, params=["polars", "compiled"])
def reader(request, monkeypatch):
    """Every file is read by one of two readers, whatever its size."""
    size = 0 if request.param == "compiled" else 2**62
    monkeypatch.setattr(rdf, "COMPILED_FROM", size)


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
    assert graph.relations["label"][graph.relation_id("http://x/size")] == "size"
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
    ("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress),
    (".zst", zstandard.compress),
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


def test_named_graphs_are_selectable(tmp_path):
    file = tmp_path / "q.trig"
    file.write_text("<urn:a> <urn:r> <urn:b> . <urn:g> { <urn:a> <urn:r> <urn:c> , 'x' }")
    for graphs, tails, literals in (
        (["urn:g"], ["urn:c"], 1),
        ([""], ["urn:b"], 0),
        (["", "urn:g"], ["urn:b", "urn:c"], 1),
    ):
        graph = read_graph(file, graphs=graphs)
        assert graph.entities["name"].gather(graph.triples["tail"]).to_list() == tails
        assert len(graph.literals) == literals
    with pytest.raises(GraphError, match="no named graph 'urn:h'; the nearest is 'urn:g'"):
        read_graph(file, graphs=["urn:h"])


def test_many_files_and_folders(tmp_path):
    """Blank nodes of two files are two, even if they are written alike; names are one."""
    (tmp_path / "sub").mkdir()
    first, second = tmp_path / "a.nt", tmp_path / "sub" / "b.nt"
    third, note = tmp_path / "c.ttl", tmp_path / "note.md"
    first.write_text('_:x <urn:r> <urn:a> .\n<urn:a> <urn:q> "_:x" .\n')
    second.write_text('_:x <urn:r> <urn:a> .\n_:x <urn:r> <<( _:x <urn:_:x> "_:x" )>> .\n')
    third.write_text("_:x <urn:r> [] .")
    note.write_text("no RDF")
    names = ["_:b0", "urn:a", "_:b1", "_:b2", "_:b3", '<<( _:b3 <urn:_:x> "_:x" )>>']
    for graph in (read_graph([first, third, second]), read_graph(tmp_path)):
        assert sorted(graph.entities["name"]) == sorted(names)
        assert graph.literals["value"].to_list() == ["_:x"]
        assert {origin.name for origin in graph.origins} == {"a.nt", "c.ttl", "b.nt"}
    assert read_graph([first]).entities["name"].to_list() == ["_:x", "urn:a"]
    with pytest.raises(GraphError, match="no RDF file in it"):
        read_rdf(tmp_path / "sub" / "..", syntax="nt") if note.unlink() else read_rdf(
            (tmp_path / "empty").mkdir() or tmp_path / "empty"
        )


def test_triple_terms_are_entities(tmp_path):
    (tmp_path / "t.ttl").write_text(
        'PREFIX : <urn:> :a :b :c ~ :r {| :since "1999" |} .'  # RDF 1.2: annotated
    )
    graph = read_graph(tmp_path / "t.ttl")
    assert "<<( <urn:a> <urn:b> <urn:c> )>>" in graph.entities["name"].to_list()
    assert graph.num_triples == 2
    assert graph.literals["value"].to_list() == ["1999"]


def test_languages_fall_back(turtle):
    def texts(*languages):
        return read_rdf(turtle, languages=languages).texts["text"].to_list()

    assert texts("de", "en") == ["Ah"]
    assert texts("fr", "en", "") == ["A", "A town.", "is near"]
    assert texts("") == ["A town.", "is near"]
    tables = read_rdf(turtle, languages=["fr"])
    assert tables.texts.is_empty()
    assert len(tables.literals) == 6, "literals keep every language"


def test_same_as_can_merge(tmp_path):
    file = tmp_path / "a.ttl"
    file.write_text(
        "@prefix owl: <http://www.w3.org/2002/07/owl#> . @prefix : <urn:> ."
        ":z :r :y . [] owl:sameAs :b . :a owl:sameAs :b ; :r :a ; :size 1 . :b :r :c ; a :T ."
    )
    graph = read_graph(file, same_as="merge")
    assert graph.entities["name"].to_list() == ["urn:z", "urn:y", "urn:b", "urn:c", "urn:T"]
    b = graph.entity_id("urn:b")
    assert graph.links.rows() == [(b, "_:b0"), (b, "urn:a")]
    assert graph.triples.select("head", "tail").rows() == [(0, 1), (b, b), (b, 3), (b, 4)]
    assert graph.literals["entity"].to_list() == [b]
    assert graph.entities["type"][b] == "urn:T"


def test_pictures_stay_below_their_root(tmp_path):
    def paths(value, **options):
        (tmp_path / "a.nt").write_text(f"<urn:a> <http://schema.org/image> {value} .\n")
        return read_graph(tmp_path / "a.nt", **options).images["path"].to_list()

    assert paths('"pictures/a.png"') == ["pictures/a.png"]
    assert paths(f"<{(tmp_path / 'a b.png').as_uri()}>") == ["a b.png"]
    for address in ("https://x.org/a.png", "data:image/png;base64,AA", "urn:uuid:1", "ftp://x/a"):
        assert paths(f"<{address}>") == [address]
    for outside in ('"../a.png"', '"/etc/passwd"', "<file:///etc/passwd>", '"b/../../a"'):
        with pytest.raises(GraphError, match=r"leaves the folder .* give image_root="):
            paths(outside)
    assert paths('"a.png"', image_root=tmp_path.parent) == [str(tmp_path.parent / "a.png")]


def test_pictures_in_the_web_can_be_saved(turtle, tmp_path):
    graph = read_graph(turtle)
    graph.save(tmp_path / "out")
    assert "1 images are addresses, not files" in graph.validate()
    with pytest.raises(GraphError, match="an address; fetch the file"):
        graph.image_path(0)


def test_oversized_literals_are_refused(tmp_path):
    for name in ("a.nt", "a.ttl"):
        (tmp_path / name).write_text(f'<urn:a> <urn:b> "{"x" * 2000}" .\n')
        assert len(read_graph(tmp_path / name).literals) == 1
        with pytest.raises(GraphError, match="of more than 1,000 bytes"):
            read_graph(tmp_path / name, max_literal_bytes=1000)


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
        ("a.nt.gz", b"", "damaged or cut off"),
        ("a.nt", b'<urn:a> <urn:r> "x .\n', r"a\.nt:1: .*expected N-Triples, one statement.*mend"),
        ("a.nq", b"<urn:a> <urn:r> <urn:b> <urn:g> <urn:h> .\n", r"a\.nq:1: .*expected N-Quads"),
        ("a.rdf", RDF_XML % b'<rdf:Description rdf:about="x y"/>', r"a\.rdf, statement 2: .*IRI"),
        ("a.rdf", RDF_XML % b"<a></b>", r"a\.rdf, statement 2: "),
        ("a.jsonld", b'{"@id": "urn:a",\n "urn:r": ', r"a\.jsonld:2: .*end of file"),
        (
            "a.jsonld",
            b'{"@context": "http://x/c", "@id": "urn:a"}',
            "nothing is fetched.*contexts=",
        ),
        ("a.bin", b"", "unknown suffix"),
    ],
)
def test_mistakes_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path / name)


def test_contexts_are_given(tmp_path):
    (tmp_path / "c.jsonld").write_text(
        '{"@context": {"near": {"@id": "urn:near", "@type": "@id"}}}'
    )
    (tmp_path / "a.jsonld").write_text(
        '[{"@context": ["http://x/c", {"is": "urn:is"}], "@id": "urn:a", "near": "urn:b", "is": 1}]'
    )
    contexts = {"http://x/c": tmp_path / "c.jsonld"}
    graph = read_graph(tmp_path / "a.jsonld", contexts=contexts)
    assert graph.relations["name"].to_list() == ["urn:near", "urn:is"]
    for broken in ("absent.jsonld", "broken.jsonld"):
        (tmp_path / "broken.jsonld").write_text("{")
        with pytest.raises(GraphError, match=broken):
            read_graph(tmp_path / "a.jsonld", contexts={"http://x/c": tmp_path / broken})


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
    with pytest.warns(UserWarning, match=r"2 malformed lines .*: 2, 6 \(2 × The subj"):
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


def test_no_warning_on_clean_files(turtle):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_rdf(turtle)
