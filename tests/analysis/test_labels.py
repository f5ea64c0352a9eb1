import csv
from collections import Counter

import pytest

import kgclip
from kgclip.analysis import audit_labels
from kgclip.tables import GraphError
from tests.analysis.cases import random_graph

MEMBER, HEAD = (f"http://swrc.ontoware.org/ontology#{name}" for name in ("member", "head"))


def slow_audit(graph, labels):
    triples = set(graph.to_networkx().edges(data="relation"))
    found = {}
    for relation in {r for _, _, r in triples}:
        for arrow in "→←":
            pairs = [(a, b) if arrow == "→" else (b, a) for a, b, r in triples if r == relation]
            mine = {e: {b for a, b in pairs if a == e} for e in labels}
            compared = told = 0
            for e in labels:
                votes = Counter(
                    labels[o] for n in mine[e] for o in labels if o != e and n in mine[o]
                )
                best = [label for label, count in votes.items() if count == max(votes.values())]
                compared += bool(votes)
                told += (labels[e] in best) / max(len(best), 1)
            direct = sum(labels[e] in mine[e] for e in labels)
            if any(mine.values()):
                entities = sum(map(bool, mine.values()))
                found[relation, arrow] = (entities, direct, compared, pytest.approx(told))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_audit_equals_counting_by_hand(seed):
    graph = random_graph(seed, num_entities=15)
    labels = {f"e{i}": f"e{i % 3}" for i in range(12)}
    table = audit_labels(graph, labels)
    columns = ("entities", "direct", "compared", "told")
    ours = {(row["relation"], row["direction"]): tuple(row[c] for c in columns)
            for row in table.to_dicts()}  # fmt: skip
    assert ours == slow_audit(graph, labels)


def test_labels_are_checked():
    with pytest.raises(GraphError, match="none given"):
        audit_labels(random_graph(0), {})
    with pytest.raises(GraphError, match="e1"):
        audit_labels(random_graph(0), {"e111": "x"})


def test_aifb_gives_78_of_its_labels_away(shared_data):
    folder = shared_data / "rdf_aifb"
    graph = kgclip.read_graph(folder / "aifb_stripped.nt.gz")
    with (folder / "completeDataset.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    labels = {row["person"]: row["label_affiliation"] for row in rows}
    table = audit_labels(graph, labels)
    leaks = table.filter(table["direct"] > 0)
    assert leaks.select("relation", "direction", "direct").rows() == [
        (MEMBER, "←", 73),
        (HEAD, "←", 5),
    ]
    assert leaks["direct_share"].sum() == pytest.approx(78 / 176)
