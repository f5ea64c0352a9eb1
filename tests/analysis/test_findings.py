import json

import numpy as np
import polars as pl
import pytest

from kgclip.analysis.findings import TOP, analyse_graph, to_json
from kgclip.analysis.page import TITLES, write_page
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError
from tests.analysis.cases import CASES, random_graph

ENOUGH = {k: g for k, g in CASES.items() if g.num_entities > 1 and g.num_triples}


@pytest.mark.parametrize("graph", ENOUGH.values(), ids=ENOUGH)
def test_any_graph_becomes_a_page(graph, tmp_path):
    findings = analyse_graph(graph)
    assert list(findings) == ["graph", "structure", "trust", "missing"]
    write_page(tmp_path / "report.html", findings, "any")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<svg") >= 3
    assert json.loads(json.dumps(to_json(findings), allow_nan=False))


@pytest.mark.parametrize("name", ["empty", "one entity", "self loop"])
def test_too_little_is_refused(name):
    with pytest.raises(GraphError, match="at least two entities and one triple"):
        analyse_graph(CASES[name])


def test_every_section_can_be_asked_for(tmp_path):
    graph = random_graph(0)
    vectors = np.random.default_rng(0).normal(size=(graph.num_entities, 8))
    findings = analyse_graph(graph, vectors=vectors, entity="e0", other="e9")
    assert set(findings) == set(TITLES)
    write_page(tmp_path / "report.html", findings, "all of it")
    page = (tmp_path / "report.html").read_text("utf-8")
    for title in TITLES.values():
        assert title in page
    assert findings["entity"]["near"]["name"][0] == "e0"
    frames = [v for s in findings.values() for v in s.values() if isinstance(v, pl.DataFrame)]
    assert max(len(frame) for frame in frames) <= 3 * TOP


def test_the_page_needs_nothing_and_repeats(tmp_path):
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, analyse_graph(random_graph(1)), "one <b>graph</b>")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page == (tmp_path / "b.html").read_text("utf-8")
    assert "one &lt;b&gt;graph" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_unknown_entity_names_the_nearest():
    graph = KnowledgeGraph.from_triples([("Nairobi", "in", "Kenya")])
    with pytest.raises(GraphError, match="Nairobi"):
        analyse_graph(graph, entity="Nairoby")
