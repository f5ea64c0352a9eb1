"""Every kind of negative is what its definition lists, and none is in the training graph."""

from collections import defaultdict

import pytest
import torch

from kgclip.negatives import NEGATIVES, SIDES, NegativeSampler

ENTITIES, RELATIONS = 7, 5
GRAPHS = {
    "random": [(i * 5 % 7, i % 3, (i * i + 2) % 7) for i in range(14)],
    "empty": [],
    "self loop and duplicates": [(0, 1, 0), (0, 1, 0), (0, 2, 1), (0, 2, 1), (3, 2, 1)],
    "symmetric": [(0, 0, 1), (1, 0, 0), (2, 0, 3), (4, 1, 5), (4, 2, 5), (3, 1, 5)],
    "relation without triples": [(0, 4, 1), (0, 4, 2), (3, 4, 2), (5, 0, 6)],
}


def as_tensor(rows):
    return torch.tensor(rows, dtype=torch.long).reshape(-1, 3)


def candidates(rows, triple, kind, side, types=None):
    """All negatives of a triple by definition, one by one."""
    rows, (h, r, t) = set(rows), triple
    holders = defaultdict(set)
    for a, q, b in rows:
        holders[q, "to", b].add(a)
        holders[q, "from", a].add(b)

    def ends(old, is_tail):
        if kind == "uniform":
            return range(ENTITIES)
        if kind == "typed":
            return {b if is_tail else a for a, q, b in rows if q == r}
        near = {e for group in holders.values() if old in group for e in group}
        return {e for e in near if types is None or types[e] == types[old]}

    if kind == "swap":
        both = [(a, q, b) for a, q, b in rows if q == r]
        symmetric = bool(both) and sum((b, q, a) in rows for a, q, b in both) >= len(both) / 2
        found = set() if symmetric else {(t, r, h)}
    elif kind == "relation":
        sides = {q: [{x[c] for x in rows if x[1] == q} for c in (0, 2)] for q in range(RELATIONS)}
        found = {
            (h, q, t)
            for q in range(RELATIONS)
            if q != r
            and all(mine & theirs for mine, theirs in zip(sides[r], sides[q], strict=True))
        }
    else:
        found = {(h, r, e) for e in ends(t, True)} if side != "head" else set()
        found |= {(e, r, t) for e in ends(h, False)} if side != "tail" else set()
    return found - rows - {triple}


@pytest.mark.parametrize("kind", NEGATIVES)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("side", ["tail", "head", "both"])
def test_equals_the_definition(kind, graph, side):
    rows = GRAPHS[graph]
    sampler = NegativeSampler(as_tensor(rows), ENTITIES, RELATIONS)
    asked = [*rows, (6, 3, 6), (1, 0, 2)]
    generator = torch.Generator().manual_seed(0)
    negatives, found = sampler.sample(
        as_tensor(asked), kind, 150, side=side, generator=generator, tries=300
    )
    assert negatives.shape == (len(asked), 150, 3)
    for triple, drawn, ok in zip(asked, negatives, found, strict=True):
        expected = candidates(rows, triple, kind, side)
        assert set(map(tuple, drawn[ok].tolist())) == expected
        assert ok.all() if expected else not ok.any()
        assert set(map(tuple, drawn[~ok].tolist())) <= {triple}


def test_siblings_keep_their_type():
    rows, types = GRAPHS["random"], [0, 0, 1, 1, 0, 1, 0]
    sampler = NegativeSampler(as_tensor(rows), ENTITIES, RELATIONS, entity_type=torch.tensor(types))
    negatives, found = sampler.sample(as_tensor(rows), "sibling", 300, side="tail", tries=60)
    for triple, drawn, ok in zip(rows, negatives, found, strict=True):
        expected = candidates(rows, triple, "sibling", "tail", types)
        assert set(map(tuple, drawn[ok].tolist())) == expected


def test_relations_are_confused_by_the_types_they_join():
    left, right, colour = range(3)
    rows = [(0, left, 1), (2, right, 3), (0, colour, 5), (2, colour, 6)]
    alone = NegativeSampler(as_tensor(rows), ENTITIES, 3)
    assert not alone.sample(as_tensor(rows[:1]), "relation")[1].any(), "no entity in common"
    typed = NegativeSampler(
        as_tensor(rows), ENTITIES, 3, entity_type=torch.tensor([0, 0, 0, 0, 0, 1, 1])
    )
    negatives, found = typed.sample(as_tensor(rows[:1]), "relation", 5)
    assert found.all()
    assert set(map(tuple, negatives[0].tolist())) == {(0, right, 1)}


def test_only_the_nearest_relations_are_confusable():
    rows = [(h, 0, t) for h in range(3) for t in range(3)]
    rows += [(h, 1, t) for h in range(3) for t in range(3)] + [(0, 2, 0)]
    sampler = NegativeSampler(as_tensor(rows), ENTITIES, 3, num_confusable=1)
    assert sampler.confusable.start.tolist() == [0, 1, 2, 3]
    assert sampler.confusable.members[:2].tolist() == [1, 0]


def test_bernoulli_replaces_the_head_of_a_one_to_many_relation():
    rows = [(0, 0, t) for t in range(1, 7)] + [(h, 1, 0) for h in range(1, 4)]
    sampler = NegativeSampler(as_tensor(rows), ENTITIES, RELATIONS)
    # 6 tails a head, 1 head a tail; then 1 tail a head, 3 heads a tail; nothing known of the rest.
    torch.testing.assert_close(sampler.head_share, torch.tensor([6 / 7, 1 / 4, 0.5, 0.5, 0.5]))
    relations = torch.zeros(20_000, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    columns = sampler.replaced_columns(relations, "bernoulli", generator)
    assert abs((columns == 0).double().mean() - 6 / 7) < 0.01
    negatives, found = sampler.sample(as_tensor(rows), side="bernoulli", num_negatives=20)
    assert not sampler.is_true(negatives[found]).any()


def test_uniform_is_uniform_and_the_seed_decides():
    sampler = NegativeSampler(as_tensor([(0, 0, 1)]), ENTITIES, RELATIONS)
    triples = as_tensor([(0, 0, 1)])

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sampler.sample(triples, num_negatives=6000, side="tail", generator=generator)[0]

    counts = torch.bincount(draw(0)[0, :, 2], minlength=ENTITIES)
    assert counts[1] == 0
    chi_square = ((counts[counts > 0] - 1000) ** 2 / 1000).sum()
    assert chi_square < 20.5  # 0.1 % quantile for 5 degrees of freedom
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_nothing_to_draw():
    for side in SIDES:
        sampler = NegativeSampler(as_tensor([(0, 0, 0)]), 1, 1)
        negatives, found = sampler.sample(as_tensor([(0, 0, 0)]), num_negatives=2, side=side)
        assert not found.any()
        assert negatives.tolist() == [[[0, 0, 0]] * 2]
        negatives, found = sampler.sample(as_tensor([]), num_negatives=2, side=side)
        assert negatives.shape == (0, 2, 3)
        assert found.shape == (0, 2)


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        (torch.zeros(2, 3), "torch.float32"),
        (torch.zeros(2, 2, dtype=torch.long), r"\[2, 2\] given, long \[T, 3\] expected"),
        (torch.tensor([[0, 0, 7]]), r"entity ids 0 to 7 given, \[0, 7\) expected"),
        (torch.tensor([[0, 5, 0]]), r"relation ids 5 to 5 given, \[0, 5\) expected"),
        (torch.tensor([[-1, 0, 0]]), "entity ids -1"),
    ],
)
def test_bad_triples(triples, message):
    with pytest.raises(ValueError, match=message):
        NegativeSampler(triples, ENTITIES, RELATIONS)
    with pytest.raises(ValueError, match=message):
        NegativeSampler(as_tensor([]), ENTITIES, RELATIONS).sample(triples)


def test_bad_words_and_sizes():
    sampler = NegativeSampler(as_tensor([(0, 0, 1)]), ENTITIES, RELATIONS)
    with pytest.raises(ValueError, match="kind: 'hard' given, one of"):
        sampler.sample(sampler.triples, "hard")
    with pytest.raises(ValueError, match="side: 'left' given"):
        sampler.sample(sampler.triples, side="left")
    with pytest.raises(ValueError, match="do not fit a 64-bit key"):
        NegativeSampler(sampler.triples, 2**31, 4)
    with pytest.raises(ValueError, match=r"entity_type: \[3\] given, long \[7\] expected"):
        NegativeSampler(sampler.triples, ENTITIES, 5, entity_type=torch.zeros(3))
