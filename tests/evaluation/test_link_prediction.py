from __future__ import annotations

import collections

import pytest
import torch
from torch import Tensor

from kgclip.evaluation import evaluate_link_prediction, evaluate_ranking


def draw(seed: int, num_entities: int, num_relations: int, num_known: int, num_test: int):
    generator = torch.Generator().manual_seed(seed)

    def triples(count: int) -> Tensor:
        ends = torch.randint(0, num_entities, (count, 2), generator=generator)
        relations = torch.randint(0, num_relations, (count, 1), generator=generator)
        return torch.cat([ends[:, :1], relations, ends[:, 1:]], dim=1)

    # Coarse scores, so that many tie.
    table = torch.randint(0, 5, (2, num_relations, num_entities, num_entities), generator=generator)
    return triples(num_known), triples(num_test), table.float()


def table_scorer(table: Tensor):
    def score(anchor_ids: Tensor, relation_ids: Tensor, side: str) -> Tensor:
        return table[0 if side == "tail" else 1, relation_ids, anchor_ids]

    return score


def slow_mean(values):
    """In float64 as torch adds it: the comparison below is exact."""
    return float(torch.tensor(values, dtype=torch.float64).mean())


def slow_link_prediction(score, test, known, num_entities, ties="realistic", tolerance=0.0):
    """One question at a time, with sets."""
    share = {"optimistic": 0.0, "realistic": 0.5, "pessimistic": 1.0}[ties]
    asked = [tuple(triple) for triple in test.tolist()]
    true = {tuple(triple) for triple in known.tolist()} | set(asked)
    trained = [tuple(triple) for triple in known.tolist() if tuple(triple) not in set(asked)]
    ranks = collections.defaultdict(list)
    for side in ("tail", "head"):
        for head, relation, tail in asked:
            anchor, answer = (head, tail) if side == "tail" else (tail, head)
            scores = score(torch.tensor([anchor]), torch.tensor([relation]), side)[0].tolist()
            counts = [
                sum(r == relation and (t if side == "tail" else h) == entity for h, r, t in trained)
                for entity in range(num_entities)
            ]
            rivals = [
                entity
                for entity in range(num_entities)
                if entity != answer
                and ((head, relation, entity) if side == "tail" else (entity, relation, tail))
                not in true
            ]
            for name, values in (("model", scores), ("baseline", counts)):
                gaps = [values[rival] - values[answer] for rival in rivals]
                better = sum(gap > tolerance for gap in gaps)
                tied = sum(abs(gap) <= tolerance for gap in gaps)
                ranks[name, side].append((1 + better + share * tied, len(rivals) + 1))
    groups = {side: ranks["model", side] for side in ("tail", "head")}
    groups["both"] = groups["tail"] + groups["head"]
    groups["baseline"] = ranks["baseline", "tail"] + ranks["baseline", "head"]
    results = {}
    for name, items in groups.items():
        values = [rank for rank, _ in items]
        chance = sum(count - 1 for _, count in items) / 2
        results |= {
            f"{name}/mrr": slow_mean([1 / rank for rank in values]),
            f"{name}/mr": slow_mean(values),
            f"{name}/amri": 1 - sum(rank - 1 for rank in values) / chance if chance else 0.0,
            **{f"{name}/hits@{k}": slow_mean([rank <= k for rank in values]) for k in (1, 3, 10)},
            f"{name}/count": float(len(values)),
        }
    for relation in {relation for _, relation, _ in asked}:
        mine = [
            rank
            for (rank, _), (_, r, _) in zip(groups["both"], asked * 2, strict=True)
            if r == relation
        ]
        results[f"relation/{relation}/mrr"] = slow_mean([1 / rank for rank in mine])
    classes = slow_cardinalities(trained)
    for label in ("1-1", "1-N", "N-1", "N-N"):
        rows = [row for row, (_, r, _) in enumerate(asked) if classes.get(r) == label]
        if rows:
            for side in ("tail", "head"):
                mine = [groups[side][row][0] for row in rows]
                results[f"cardinality/{label}/{side}/mrr"] = slow_mean([1 / r for r in mine])
            results[f"cardinality/{label}/count"] = float(len(rows))
    return results


def slow_cardinalities(triples):
    classes = {}
    for relation in {relation for _, relation, _ in triples}:
        pairs = {(head, tail) for head, r, tail in triples if r == relation}
        many_tails = len(pairs) / len({head for head, _ in pairs}) >= 1.5
        many_heads = len(pairs) / len({tail for _, tail in pairs}) >= 1.5
        classes[relation] = f"{'N' if many_heads else '1'}-{'N' if many_tails else '1'}"
    return classes


@pytest.mark.parametrize(
    ("sizes", "ties", "tolerance"),
    [
        ((7, 3, 40, 23), "realistic", 0.0),
        ((7, 3, 40, 23), "optimistic", 0.0),
        ((7, 3, 40, 23), "pessimistic", 1.0),
        ((12, 1, 0, 9), "realistic", 0.0),  # nothing known
        ((1, 2, 3, 4), "realistic", 0.0),  # one entity: self loops and duplicates
        ((30, 5, 200, 1), "realistic", 1.0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_slow_version_exactly(sizes, ties, tolerance, seed):
    known, test, table = draw(seed, *sizes)
    known = torch.cat([known, test[: len(test) // 2]])  # partly known, as benchmarks give it
    score = table_scorer(table)
    fast = evaluate_link_prediction(score, test, known, sizes[0], ties, tolerance, batch_size=5)
    assert fast == slow_link_prediction(score, test, known, sizes[0], ties, tolerance)


@pytest.mark.parametrize("max_cells", [1, 100])
def test_memory_is_bounded_whatever_the_number_of_entities(max_cells, monkeypatch):
    known, test, table = draw(0, 30, 5, 200, 7)
    asked = []

    def score(anchors, relations, side):
        asked.append(len(anchors))
        return table_scorer(table)(anchors, relations, side)

    expected = evaluate_link_prediction(table_scorer(table), test, known, 30)
    monkeypatch.setattr("kgclip.evaluation.link_prediction._MAX_CELLS", max_cells)
    assert evaluate_link_prediction(score, test, known, 30) == expected
    assert max(asked) == max(1, max_cells // 30)


def test_a_perfect_scorer_has_rank_one_though_other_answers_are_true():
    known = torch.tensor([[0, 0, 1], [0, 0, 2], [3, 0, 2]])
    table = torch.zeros(2, 1, 5, 5)
    for head, relation, tail in known.tolist():
        table[0, relation, head, tail] = table[1, relation, tail, head] = 1
    results = evaluate_link_prediction(table_scorer(table), known, known, 5)
    assert results["both/mrr"] == results["both/amri"] == results["both/hits@1"] == 1.0


def test_a_constant_scorer_is_at_chance():
    known, test, _ = draw(3, 20, 2, 60, 30)
    results = evaluate_link_prediction(
        lambda anchors, relations, side: torch.ones(len(anchors), 20), test, known, 20
    )
    assert results["both/amri"] == pytest.approx(0.0, abs=1e-12)


def test_relations_are_named_and_weigh_both_sides():
    test = torch.tensor([[0, 1, 2]])
    table = torch.zeros(2, 2, 3, 3)
    table[0, 1, 0] = torch.tensor([0.0, 0.0, 1.0])  # tail: first of three
    table[1, 1, 2] = torch.tensor([0.0, 1.0, 2.0])  # head: last of three
    results = evaluate_link_prediction(
        table_scorer(table), test, test, 3, relation_names=["is a", "borders"]
    )
    assert results["relation/borders/mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert not any("is a" in key for key in results)


def test_relations_of_one_name_count_together():
    known, test, table = draw(5, 9, 3, 30, 20)
    score = table_scorer(table)
    apart = evaluate_link_prediction(score, test, known, 9)
    names = ["same"] * 3
    together = evaluate_link_prediction(score, test, known, 9, relation_names=names)
    assert together["relation/same/mrr"] == apart["both/mrr"]


def test_the_baseline_never_sees_the_test_triples():
    known = torch.tensor([[0, 0, 1], [2, 0, 1], [0, 0, 3]])
    test = torch.tensor([[4, 0, 3], [0, 0, 3]])  # only these have tail 3
    results = evaluate_link_prediction(
        lambda anchors, relations, side: torch.zeros(len(anchors), 5), test, known, 5
    )
    # Without test, tail 1 counts 2 and all others 0. For anchor 4, tails 0, 2, 3, 4 tie behind
    # it: rank 3.5 of 5. For anchor 0, tail 1 is filtered: rank 2.5 of 4. As heads of tail 3,
    # filtered to 1, 2, 3 and the true one: 0 and 2 count 1. Head 4: rank 3; head 0: rank 1.5.
    assert results["baseline/mr"] == pytest.approx((3.5 + 2.5 + 3.0 + 1.5) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": torch.tensor([[0, 0, 9]])}, "test: entity 9 given, below 4 expected"),
        ({"known": torch.tensor([[0, -1, 1]])}, "known: id -1 given"),
        ({"test": torch.zeros(0, 3, dtype=torch.long)}, "no triple given"),
        ({"test": torch.zeros(2, 2, dtype=torch.long)}, r"\[M, 3\] expected"),
        ({"known": torch.zeros(2, 3)}, "torch.float32"),
        ({"ties": "mean"}, "ties: 'mean' given"),
        ({"batch_size": 0}, "batch_size: 0 given"),
        ({"relation_names": ["a"]}, "relation_names: 1 given"),
        ({"score": lambda a, r, s: torch.zeros(len(a), 3)}, r"score: shape \[1, 3\]"),
        ({"score": lambda a, r, s: torch.full((len(a), 4), torch.nan)}, "NaN"),
    ],
)
def test_bad_input_is_refused(change, message):
    triple = torch.tensor([[0, 1, 2]])
    arguments = {
        "score": lambda anchors, relations, side: torch.zeros(len(anchors), 4),
        "test": triple,
        "known": triple,
        "num_entities": 4,
    }
    with pytest.raises(ValueError, match=message):
        evaluate_link_prediction(**arguments | change)


def slow_evaluate_ranking(scores, relevant, groups, asked):
    found = collections.defaultdict(list)
    for query, answer in asked.nonzero().tolist():
        rivals = [c for c in range(scores.shape[1]) if not relevant[query, c]]
        gaps = [float(scores[query, rival] - scores[query, answer]) for rival in rivals]
        rank = 1 + sum(gap > 0 for gap in gaps) + sum(gap == 0 for gap in gaps) / 2
        found[int(groups[query])].append(rank)
    means = [
        (slow_mean([1 / r for r in ranks]), *(slow_mean([r <= k for r in ranks]) for k in (1, 10)))
        for _, ranks in sorted(found.items())
    ]
    mrr, first, ten = (sum(column) / len(means) for column in zip(*means, strict=True))
    return {"mrr": mrr, "hits@1": first, "hits@10": ten, "count": float(asked.sum())}


@pytest.mark.parametrize("seed", range(4))
def test_evaluate_ranking_equals_the_slow_version(seed, monkeypatch):
    monkeypatch.setattr("kgclip.evaluation.link_prediction._MAX_CELLS", 60)  # several blocks
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (15, 13), generator=generator).float()
    relevant = torch.rand(15, 13, generator=generator) < 0.2
    asked = relevant & (torch.rand(15, 13, generator=generator) < 0.6)
    groups = torch.randint(0, 3, (15,), generator=generator)
    one = torch.zeros(15, dtype=torch.long)
    assert evaluate_ranking(scores, relevant, groups, asked) == slow_evaluate_ranking(
        scores, relevant, groups, asked
    )
    assert evaluate_ranking(scores, relevant) == slow_evaluate_ranking(
        scores, relevant, one, relevant
    )


def test_groups_weigh_the_same_whatever_their_size():
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    relevant = torch.tensor([[True, False]] * 4)
    results = evaluate_ranking(scores, relevant, torch.tensor([5, 5, 5, 8]))
    assert results["hits@1"] == 0.5
    assert evaluate_ranking(scores, relevant)["hits@1"] == 0.75


def test_evaluate_ranking_refuses_bad_input():
    scores, relevant = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="nothing is asked"):
        evaluate_ranking(scores, relevant)
    with pytest.raises(ValueError, match="not relevant"):
        evaluate_ranking(scores, relevant, asked=~relevant)
    with pytest.raises(ValueError, match=r"relevant: torch\.float32"):
        evaluate_ranking(scores, scores)
    with pytest.raises(ValueError, match="groups"):
        evaluate_ranking(scores, ~relevant, torch.zeros(3, dtype=torch.long))
