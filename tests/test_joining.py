"""Entities become one by rule, and nothing that was said of them is lost."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph
from kgclip.joining import Rule, add_prefixes, apply_rules, fill_texts, keep_near, rename_entities
from kgclip.tables import GraphError, build_tables
from tests.test_storage import graphs


def said(tables):
    """All that is said, by name: each table's rows as a set, triples and literals as a list."""
    names = tables.entities["name"].to_list()
    facts = {}
    for table, frame in tables.frames().items():
        if table in ("entities", "relations"):
            continue
        owners = [c for c in ("entity", "head", "tail") if c in frame.columns]
        rows = [
            tuple(
                (c, names[v]) if c in owners else (c, str(v))
                for c, v in zip(frame.columns, row, strict=True)
            )
            for row in frame.iter_rows()
        ]
        facts[table] = sorted(rows) if table in ("triples", "literals") else set(rows)
    return facts


@given(graphs(), st.data())
@settings(max_examples=40, deadline=None)
def test_renaming_moves_everything_and_loses_nothing(tables, data):
    new = [data.draw(st.sampled_from(["x", "y", name])) for name in tables.entities["name"]]
    joined = rename_entities(tables, new)
    assert sorted(joined.entities["name"]) == sorted(set(new))
    place = dict(zip(tables.entities["name"], new, strict=True))
    expected = said(tables)
    moved = {
        table: [
            tuple((c, place[v]) if c in ("entity", "head", "tail") else (c, v) for c, v in row)
            for row in rows
        ]
        for table, rows in expected.items()
    }
    found = said(joined)
    for table in ("triples", "literals"):
        assert found[table] == sorted(moved[table])
    for table in ("types", "texts", "images"):
        assert found[table] == set(moved[table])
    links = {(("entity", n), ("url", o)) for o, n in place.items() if o != n}
    assert found["links"] == set(moved["links"]) | links


def test_the_entity_that_had_the_name_speaks_first():
    tables = build_tables(
        {"entities": {"name": ["b", "a", "c"], "type": ["x", "y", None], "scene": ["s", None, "t"]}}
    )
    joined = rename_entities(tables, ["a", "a", "c"])
    assert joined.entities.rows() == [("a", "y", "s"), ("c", None, "t")]


def test_rules_are_tried_in_order():
    tables = KnowledgeGraph.from_triples([("v:hot dog", "r", "w:dog"), ("/c/hot_dog", "r", "x")])
    rules = [Rule(r"v:(.+)", r"/c/\1", "_"), Rule("w:(.+)", r"/c/\1"), Rule(".*dog", "hound", " ")]
    names = apply_rules(tables.tables, rules).entities["name"].to_list()
    assert names == ["/c/hot_dog", "w:dog", "x"], "nobody is called /c/dog or hound"
    rules[1] = rules[1]._replace(existing=False)
    assert "/c/dog" in apply_rules(tables.tables, rules).entities["name"].to_list()


@pytest.mark.parametrize(
    ("rule", "message"),
    [(Rule("(", "x"), r"merge\.match '\('"), (Rule("a", r"\1"), r"merge\.into .*groups are")],
)
def test_rules_that_cannot_be_read(rule, message):
    tables = KnowledgeGraph.from_triples([("a", "r", "b")]).tables
    with pytest.raises(GraphError, match=message):
        apply_rules(tables, [rule])


def test_prefixes():
    tables = build_tables(
        {
            "entities": {"name": ["a"]},
            "relations": {"name": ["r", "s"], "label": [None, "S"], "inverse": ["s", None]},
        }
    )
    prefixed = add_prefixes(tables, "e:", "r:")
    assert prefixed.entities["name"].to_list() == ["e:a"]
    assert prefixed.relations.select("name", "label", "inverse").rows() == [
        ("r:r", "r", "r:s"), ("r:s", "S", None)
    ]  # fmt: skip
    same = add_prefixes(tables)
    assert same.relations.equals(tables.relations)


def test_texts_for_bare_names():
    tables = build_tables(
        {
            "entities": {"name": ["http://x/newYork", "b"], "type": [None, "city"]},
            "texts": {"entity": [1], "text": ["Bee"], "kind": ["alias"]},
        }
    )
    filled = fill_texts(tables, "{name} ({key}), a {type}")
    assert filled.texts.filter(pl.col("kind") == "label").rows() == [
        (0, "new york (http://x/newYork), a thing", None, "label")
    ]
    for template, message in (("{nmae}", "no field 'nmae'"), ("{", "texts.template")):
        with pytest.raises(GraphError, match=message):
            fill_texts(tables, template)


@given(st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_of_a_source_stays_what_is_near_the_others(hops, seed):
    """Against a walk from the others' entities, triple by triple."""
    random = np.random.default_rng(seed)
    rows = [(f"e{a}", "r", f"e{b}") for a, b in random.integers(0, 30, (40, 2))]
    first, last = 5, 35
    tables = KnowledgeGraph.from_triples(rows).tables
    kept = keep_near(tables, first, last, hops)
    others = rows[:first] + rows[last:]
    reached = {end for head, _, tail in others for end in (head, tail)}
    near = set()
    for _ in range(hops):
        near = {n for n in range(first, last) if {rows[n][0], rows[n][2]} & reached}
        reached |= {end for n in near for end in (rows[n][0], rows[n][2])}
    expected = [row for n, row in enumerate(rows) if n in near or not first <= n < last]
    names = kept.entities["name"]
    found = [(names[h], "r", names[t]) for h, t in kept.triples.select("head", "tail").iter_rows()]
    assert found == expected
    assert set(names) == {end for head, _, tail in expected for end in (head, tail)}


def test_what_else_is_said_keeps_an_entity():
    tables = build_tables(
        {
            "entities": {"name": ["a", "b", "far", "told", "lone"]},
            "relations": {"name": ["r"]},
            "triples": {"head": [0, 2], "relation": [0, 0], "tail": [1, 3]},
            "texts": {"entity": [3], "text": ["told"], "kind": ["label"]},
        }
    )
    kept = keep_near(tables, 1, 2, 1)
    assert kept.entities["name"].to_list() == ["a", "b", "told", "lone"]
    assert kept.texts["entity"].to_list() == [2]
