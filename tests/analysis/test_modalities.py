from collections import Counter

import polars as pl
import pytest

from kgclip.analysis import missing_modality, modality_coverage, text_languages
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError, build_tables
from tests.analysis.cases import CASES

WORLD = KnowledgeGraph(
    build_tables(
        {
            "entities": {"name": ["Kenya", "Uganda", "Nairobi", "nobody"],
                         "type": ["c", "c", None, None]},
            "types": {"entity": [0, 2, 0], "type": ["c", "city", "big"]},
            "relations": {"name": ["capital", "borders"]},
            "triples": {"head": [0, 0, 1], "relation": [0, 1, 1], "tail": [2, 1, 0]},
            "texts": {"entity": [0, 0, 2], "text": ["Kenya", "Kenia", "Nairobi"],
                      "language": ["en", "de", None], "kind": ["label"] * 3},
            "images": {"entity": [0, 1], "path": ["k.png", "u.png"]},
        }
    )
)  # fmt: skip


def test_coverage_by_type():
    table = modality_coverage(WORLD)
    assert table.rows() == [
        ("(all)", 4, 2, 2, 1, 1),
        ("c", 2, 1, 2, 1, 0),
        ("(none)", 1, 0, 0, 0, 1),
        ("big", 1, 1, 1, 1, 0),
        ("city", 1, 1, 0, 0, 0),
    ]


def test_coverage_by_relation():
    table = modality_coverage(WORLD, by="relation")
    assert set(table.rows()) == {
        ("borders", "head", 2, 1, 2, 1, 0),
        ("borders", "tail", 2, 1, 2, 1, 0),
        ("capital", "head", 1, 1, 1, 1, 0),
        ("capital", "tail", 1, 1, 0, 0, 0),
    }


def test_what_is_missing_comes_by_degree():
    assert missing_modality(WORLD, "image")["name"].to_list() == ["Nairobi", "nobody"]
    assert missing_modality(WORLD, "text").rows() == [(1, "Uganda", "c", 2), (3, "nobody", None, 0)]


def test_languages_are_counted():
    assert Counter(text_languages(WORLD).rows()) == Counter(
        [("en", "label", 1, 1), ("de", "label", 1, 1), (None, "label", 1, 1)]
    )


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_any_graph_can_be_asked(graph):
    table = modality_coverage(graph)
    assert table.filter(pl.col("type") == "(all)")["entities"].sum() == graph.num_entities
    assert modality_coverage(graph, by="relation")["with_text"].sum() == 0
    assert len(missing_modality(graph, "text")) == graph.num_entities
    assert text_languages(graph).is_empty()


def test_unknown_words_are_refused():
    with pytest.raises(GraphError, match="text, image"):
        missing_modality(WORLD, "sound")
    with pytest.raises(GraphError, match="'type' or 'relation'"):
        modality_coverage(WORLD, by="colour")
