"""The audit against sets of triples, and what is wrong with published benchmarks."""

from collections import Counter

import polars as pl
import pytest

import kgclip
from kgclip.analysis import audit_leakage, find_leaks, mine_rules
from kgclip.analysis.leakage import seen_part, stems
from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables
from tests.analysis.cases import CASES, random_graph


def with_splits(graph: KnowledgeGraph) -> KnowledgeGraph:
    split = [("train", "train", None, "valid", "test", "inference")[i % 6]
             for i in range(graph.num_triples)]  # fmt: skip
    triples = graph.triples.with_columns(split=pl.Series(split, dtype=pl.String()))
    return KnowledgeGraph(build_tables({**graph.tables.frames(), "triples": triples}))


def rows_by_part(graph):
    rows = list(graph.triples.select("head", "relation", "tail").iter_rows())
    parts = graph.triples["split"].to_list()
    seen = {row for row, part in zip(rows, parts, strict=True) if part not in ("valid", "test")}
    asked = [(i, rows[i], parts[i]) for i in range(len(rows)) if parts[i] in ("valid", "test")]
    return seen, asked


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_leaks_equal_sets_of_triples(graph):
    graph = with_splits(graph)
    seen, asked = rows_by_part(graph)
    found = {kind: [] for kind in ("seen", "other part", "repeated", "mirrored")}
    for place, (i, (h, r, t), part) in enumerate(asked):
        if (h, r, t) in seen:
            found["seen"].append(i)
        if any(row == (h, r, t) and other != part for _, row, other in asked):
            found["other part"].append(i)
        if any(row == (h, r, t) and other == part for _, row, other in asked[:place]):
            found["repeated"].append(i)
        if h != t and (t, r, h) in seen:
            found["mirrored"].append(i)
    leaks = find_leaks(graph)
    for kind, rows in found.items():
        assert sorted(leaks.filter(pl.col("kind") == kind)["triple"]) == rows
    assert set(leaks["part"]) <= {"valid", "test"}


@pytest.mark.parametrize("seed", range(3))
def test_implied_triples_are_those_of_the_best_rule(seed):
    graph = with_splits(random_graph(seed, num_entities=12, num_triples=120))
    limits = {"min_support": 2, "min_confidence": 0.5}
    seen, asked = rows_by_part(graph)
    names = graph.relations["name"].to_list()
    step = {name: {(h, t) for h, r, t in seen if names[r] == name} for name in names}
    step |= {f"{name}⁻¹": {(t, h) for h, t in pairs} for name, pairs in list(step.items())}
    expected = {}
    for rule in mine_rules(seen_part(graph), **limits).filter(pl.col("length") == 2).to_dicts():
        one, two = (step[word] for word in rule["body"])
        holds = {(x, y) for x, z in one for w, y in two if z == w}
        for i, (h, r, t), _ in asked:
            if names[r] == rule["head"] and (h, t) in holds:
                expected[i] = max(expected.get(i, 0), rule["pca_confidence"])
    leaks = find_leaks(graph, **limits).filter(pl.col("kind") == "rule")
    assert dict(leaks.select("triple", "confidence").iter_rows()) == pytest.approx(expected)


def found(table: pl.DataFrame, part: str, kind: str) -> Counter[str]:
    rows = table.filter((pl.col("part") == part) & (pl.col("kind") == kind))
    return Counter(dict(rows.select("relation", "found").iter_rows()))


@pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
def test_audit_of_a_graph_without_splits_tells_of_the_whole(graph):
    table = audit_leakage(graph)
    assert set(table["part"]) <= {"all"}
    rows = [
        graph.triples.select("head", "relation", "tail").row(i) for i in range(len(graph.triples))
    ]
    assert found(table, "all", "repeated").total() == len(rows) - len(set(rows))
    mirrored = sum(h != t and (t, r, h) in set(rows) for h, r, t in set(rows))
    assert found(table, "all", "mirrored").total() == mirrored


def test_inverse_and_duplicate_relations_are_found_unaided():
    pairs = [(f"a{i}", f"b{i % 7}") for i in range(20)]
    rows = [(a, "made", b, "train") for a, b in pairs] + [
        (b, "made by", a, "train") for a, b in pairs
    ]
    rows += [(a, "built", b, "train" if i else "test") for i, (a, b) in enumerate(pairs)]
    graph = KnowledgeGraph.from_triples([row[:3] for row in rows])
    split = pl.Series([row[3] for row in rows])
    graph = KnowledgeGraph(
        build_tables({**graph.tables.frames(), "triples": graph.triples.with_columns(split=split)})
    )
    leaks = find_leaks(graph)
    assert set(leaks.select("triple", "kind", "evidence").iter_rows()) == {
        (40, "inverse", "made by"),
        (40, "same pair", "made"),
    }
    whole = audit_leakage(graph).filter(pl.col("part") == "all")
    assert {(r["relation"], r["evidence"]) for r in whole.to_dicts() if r["kind"] == "inverse"} == {
        *(("made", "made by"), ("made by", "made"), ("built", "made by"), ("made by", "built"))
    }


def test_stems_know_no_accents_and_no_short_words():
    assert stems("Côte d'Ivoire") == {"cote", "ivoi"}
    assert stems("Malaysian ringgit") & stems("Malaysia")
    assert stems("an ox 42") == set()


def test_conceptnet100k_leaks_3_test_and_8_validation_triples(shared_data):
    table = audit_leakage(kgclip.read_graph(shared_data / "conceptnet100k"))
    assert found(table, "test", "seen").total() == 3
    assert found(table, "valid", "seen").total() == 8
    assert found(table, "test", "repeated").total() == 1
    assert found(table, "valid", "repeated").total() == 1


def test_wn18rr_leaks_through_its_symmetric_relations(shared_data):
    graph = kgclip.read_graph(shared_data / "wn18rr")
    table = audit_leakage(graph)
    seen, asked = rows_by_part(graph)
    mirrored = Counter(
        graph.relations["name"][r] for _, (h, r, t), part in asked
        if part == "test" and (t, r, h) in seen
    )  # fmt: skip
    assert found(table, "test", "mirrored") == mirrored
    assert mirrored["_derivationally_related_form"] == 1011
    shares = table.filter((pl.col("part") == "all") & (pl.col("kind") == "mirrored"))
    symmetric = set(shares.filter(pl.col("share") > 0.99)["relation"])
    assert symmetric == {"_derivationally_related_form", "_verb_group", "_similar_to"}


def test_umls_leaks_through_inverse_relations(shared_data):
    graph = kgclip.read_graph(shared_data / "pykeen_small" / "umls")
    rows = audit_leakage(graph).filter((pl.col("part") == "all") & (pl.col("kind") == "inverse"))
    pairs = {}
    for head, tail, relation in graph.to_networkx().edges(data="relation"):
        pairs.setdefault(relation, set()).add((head, tail))
    expected = {}
    for relation, mine in pairs.items():
        for other, theirs in pairs.items():
            backwards = {(t, h) for h, t in theirs if t != h}
            both = mine & backwards
            if relation != other and len(both) >= 10 and len(both) / len(backwards) >= 0.8:
                expected[relation, other] = len(both)
    assert {(r["relation"], r["evidence"]): r["found"] for r in rows.to_dicts()} == expected
    assert expected["affects", "precedes"] == 72
    assert len(expected) > 5


def test_openmoji_has_626_mirrored_borders(openmoji_tables):
    table = audit_leakage(KnowledgeGraph(openmoji_tables))
    assert found(table, "all", "mirrored") == {"borders": 626}
