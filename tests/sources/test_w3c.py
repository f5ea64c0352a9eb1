"""W3C's test suites of RDF: ours reads what pyoxigraph reads, and refuses what it refuses.

The suites of N-Triples and Turtle 1.1 lie in the data folder. ``KGCLIP_W3C`` names a folder with
others, such as a clone of https://github.com/w3c/rdf-tests, and every manifest in it is run.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pyoxigraph as ox
import pytest

from kgclip.graph import KnowledgeGraph
from kgclip.sources import rdf
from kgclip.sources.rdf import FORMATS, RDF_TYPE, read_rdf
from kgclip.tables import GraphError
from tests.rdf.reference import reference_tables

MANIFEST = "http://www.w3.org/2001/sw/DataAccess/tests/test-manifest#"
KIND = re.compile(r"http://www\.w3\.org/ns/rdftest#Test(\w+?)(Positive|Negative)?(Syntax|Eval)")
HERE = "http://here/"
# What relative IRIs start from in suites whose manifest does not say it.
BASES = {
    "Turtle": "http://www.w3.org/2013/TurtleTests/",
    "Trig": "http://www.w3.org/2013/TriGTests/",
    "XML": "http://www.w3.org/2013/RDFXMLTests/",
}


@pytest.fixture(autouse=True, params=["polars", "compiled"])
def reader(request, monkeypatch):
    """Every file is read by one of two readers, whatever its size."""
    size = 0 if request.param == "compiled" else 2**62
    monkeypatch.setattr(rdf, "COMPILED_FROM", size)


def entries(manifest):
    """Syntax, whether it is wrong, file, base, and file of the result or nothing."""
    facts = {}
    for quad in ox.parse(path=manifest, base_iri=HERE):
        facts.setdefault(quad.subject, {}).setdefault(quad.predicate.value, []).append(quad.object)
    [base] = [said[0].value for about in facts.values()
              if (said := about.get(f"{MANIFEST}assumedTestBase"))] or [None]  # fmt: skip
    for about in facts.values():
        kinds = [KIND.match(str(kind.value)) for kind in about.get(RDF_TYPE, ())]
        for kind in filter(None, kinds):
            [file], result = about[f"{MANIFEST}action"], about.get(f"{MANIFEST}result")
            name = file.value.removeprefix(HERE)
            start = (base or BASES.get(kind[1], HERE)) + name
            wanted = result and manifest.parent / result[0].value.removeprefix(HERE)
            yield kind[1], kind[2] == "Negative", manifest.parent / name, start, wanted


def quads_of(file, base):
    """What pyoxigraph reads, or nothing if it refuses the file."""
    try:
        return list(ox.parse(path=file, format=FORMATS[file.suffix], base_iri=base))
    except SyntaxError:
        return None


def is_same(quads, others):
    found = [ox.Dataset(each) for each in (quads, others)]
    for each in found:
        each.canonicalize(ox.CanonicalizationAlgorithm.UNSTABLE)
    return found[0] == found[1]


def check(file, base, quads, wanted, folder):
    """Read a file; the tables must say what pyoxigraph's quads say, and the expected ones."""
    if quads is None:
        with pytest.raises(GraphError, match=re.escape(file.name)):
            read_rdf(file, base_iri=base)
        return
    tables = read_rdf(file, base_iri=base)
    assert len(tables.triples) + len(tables.literals) == len(quads)
    lines = ox.serialize(quads, format=ox.RdfFormat.N_QUADS)
    if b"<<(" in lines:  # the reference does not number blank nodes in triple terms
        (folder / "quads.nq").write_bytes(lines)
        expected = read_rdf(folder / "quads.nq")
        assert KnowledgeGraph(tables).canonical() == KnowledgeGraph(expected).canonical()
    else:
        is_renamed = file.suffix not in (".nt", ".nq")
        expected = reference_tables(
            file, FORMATS[file.suffix], base_iri=base, rename_blank=is_renamed
        )
        for name, frame in tables.frames().items():
            assert frame.equals(expected.frames()[name]), name
    if wanted:
        expected = read_rdf(wanted, base_iri=base)
        assert KnowledgeGraph(tables).canonical() == KnowledgeGraph(expected).canonical()


def test_suites(shared_data, tmp_path):
    """Every test that pyoxigraph itself passes: syntax, positive and negative, and evaluation."""
    root = Path(os.environ.get("KGCLIP_W3C", shared_data / "w3c_rdf_tests"))
    ran, left_out, wrong = Counter(), Counter(), {}
    for manifest in sorted(root.rglob("manifest.ttl")):
        for syntax, is_wrong, file, base, wanted in entries(manifest):
            if not file.is_file():
                continue
            quads = quads_of(file, base)
            passes = (quads is None) == is_wrong
            if passes and wanted and not is_wrong:
                passes = is_same(quads, quads_of(wanted, base) or [])
            if not passes:
                left_out[syntax] += 1
                wanted = None
            ran[syntax] += 1
            try:
                check(file, base, quads, wanted, tmp_path)
            except (AssertionError, pytest.fail.Exception, GraphError) as error:
                wrong[str(file.relative_to(root))] = str(error)[:300]
    print(f"ran {dict(ran)}; of these pyoxigraph itself fails {dict(left_out)}")
    assert not wrong
    assert ran.total() > 50
