import re

from kgclip.analysis.findings import analyse_graph
from kgclip.analysis.page import write_page
from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables


def test_sentences_say_what_was_found(tmp_path):
    rows = [(f"a{i}", "near", f"a{i + 1}") for i in range(9)]
    rows += [(tail, relation, head) for head, relation, tail in rows[:4]]
    tables = KnowledgeGraph.from_triples(rows).tables
    split = ["train"] * 9 + ["test"] * 4
    triples = tables.triples.with_columns(split=tables.triples["split"].scatter(range(13), split))
    texts = {"entity": [0, 1], "text": ["A", "B"], "kind": ["label", "label"]}
    graph = KnowledgeGraph(build_tables({**tables.frames(), "triples": triples, "texts": texts}))
    write_page(tmp_path / "report.html", analyse_graph(graph), "a chain")
    page = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text("utf-8"))
    assert "10 entities, 1 relations, 13 triples." in page
    assert "test: 4 of 4 (100.0%) triples are given away" in page
    assert "10 of 10 (100.0%) entities are in the largest of 1 connected components" in page
    assert "2 of 10 (20.0%) entities have a text." in page
    assert "0 of 10 (0.0%) entities have a picture, so nothing can be encoded" in page
