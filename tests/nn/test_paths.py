"""The path model equals its formula, and knows neither entities nor, with texts, relations."""

import pytest
import torch
import torch.nn.functional as F

from kgclip.nn.paths import PathEncoder, propagate, random_walk_weights

NUM_RELATIONS = 4


def slow_scores(model, start, questions, edges, kinds, weights, priors, *, relation_features=None):
    """One query, one edge at a time."""
    rows = []
    for query in range(len(start)):
        if relation_features is None:
            e = model.question(questions[query])
        else:
            e = model.question(relation_features[questions[query]])
        hidden = [start[query, v] * F.softplus(model.start(e)) for v in range(start.shape[1])]
        states = []
        for relations, stay, mix in zip(model.relations, model.stay, model.mix, strict=True):
            total = [h * torch.sigmoid(stay(e)) for h in hidden]
            for (u, v), r, w in zip(edges.T.tolist(), kinds.tolist(), weights, strict=True):
                if relation_features is None:
                    gate = relations(e).view(-1, model.channels)[r]
                else:
                    d = model.describe(relation_features[r])
                    gate = relations(torch.cat([e, d, e * d]))
                total[v] = total[v] + w * hidden[u] * F.softplus(gate - 1)
            hidden = [t + F.relu(mix(t)) if t.sum() > 0 else t for t in total]
            states.append(hidden)
        scores = []
        for v in range(start.shape[1]):
            found = torch.log1p(50 * torch.cat([state[v] for state in states]))
            context = torch.cat([found, e, priors[query, v]])
            scores.append(model.score(found) + model.correct(context))
        rows.append(torch.cat(scores))
    return torch.stack(rows)


def case(text=False, seed=0, nodes=7, edges=15, queries=3):
    torch.manual_seed(seed)
    options = {"channels": 4, "num_layers": 3, "question_channels": 5}
    if text:
        model = PathEncoder(text_channels=6, **options)
    else:
        model = PathEncoder(2, NUM_RELATIONS, **options)
    edge_index = torch.randint(nodes, (2, edges))
    edge_type = torch.randint(NUM_RELATIONS - 1, (edges,))  # the last relation has no edge
    weight = torch.rand(edges, dtype=torch.double)
    start = F.one_hot(torch.randint(nodes, (queries,)), nodes).double()
    priors = torch.rand(queries, nodes, 2, dtype=torch.double)
    inputs = (start, torch.arange(queries) % 2, edge_index, edge_type, weight, priors)
    features = torch.randn(NUM_RELATIONS, 6, dtype=torch.double)
    return model.double().eval(), inputs, {"relation_features": features} if text else {}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("nodes", "edges", "queries"), [(7, 15, 3), (1, 0, 1), (1, 2, 3), (5, 0, 2), (4, 9, 0)]
)
def test_equals_the_formula(text, nodes, edges, queries):
    model, inputs, features = case(text, nodes=nodes, edges=edges, queries=queries)
    fast = model(*inputs, **features)
    assert fast.shape == (queries, nodes)
    if not queries:
        return
    slow = slow_scores(model, *inputs, **features)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    wanted = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(fast.square().sum(), wanted, allow_unused=True),
        torch.autograd.grad(slow.square().sum(), wanted, allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros((), dtype=torch.double)
        torch.testing.assert_close(
            zero if one is None else one.sum(),
            zero if other is None else other.sum(),
            rtol=1e-8,
            atol=1e-9,
        )


def test_duplicate_triples_count_twice():
    model, (start, questions, edges, kinds, weight, priors), _ = case()
    twice = model(
        start, questions, torch.cat([edges, edges], 1), kinds.repeat(2), weight.repeat(2), priors
    )
    heavy = model(start, questions, edges, kinds, 2 * weight, priors)
    torch.testing.assert_close(twice, heavy)


def test_renaming_entities_renames_the_scores():
    model, (start, questions, edges, kinds, weight, priors), _ = case()
    order = torch.randperm(7)
    place = torch.argsort(order)
    renamed = model(start[:, order], questions, place[edges], kinds, weight, priors[:, order])
    expected = model(start, questions, edges, kinds, weight, priors)[:, order]
    torch.testing.assert_close(renamed, expected)


def test_renaming_relations_changes_nothing_with_texts():
    """No vector belongs to a relation: a new one is walked and asked by its text."""
    model, (start, questions, edges, kinds, weight, priors), given = case(text=True)
    features = given["relation_features"]
    expected = model(start, questions, edges, kinds, weight, priors, relation_features=features)
    more = torch.cat([torch.randn(3, 6, dtype=torch.double), features])  # three without triples
    found = model(start, questions + 3, edges, kinds + 3, weight, priors, relation_features=more)
    torch.testing.assert_close(found, expected)
    other = model(start, questions, edges, kinds, weight, priors, relation_features=features + 1)
    assert not torch.allclose(other, expected)


def test_only_the_answers_that_are_asked():
    model, (start, questions, edges, kinds, weight, priors), _ = case()
    every = model(start, questions, edges, kinds, weight, priors)
    answers = torch.tensor([5, 0, 5])
    some = model(start, questions, edges, kinds, weight, priors[:, answers], answers=answers)
    torch.testing.assert_close(some, every[:, answers])
    plain = model(start, questions, edges, kinds, weight)
    torch.testing.assert_close(
        plain, model(start, questions, edges, kinds, weight, torch.zeros_like(priors))
    )


@pytest.mark.parametrize("text", [False, True])
def test_two_threads_repeat(text):
    model, _, _ = case(text)
    model = model.float()
    torch.manual_seed(1)
    edges, kinds = torch.randint(300, (2, 4000)), torch.randint(NUM_RELATIONS, (4000,))
    start, weights = torch.rand(16, 300), torch.rand(4000)
    features = {"relation_features": torch.randn(NUM_RELATIONS, 6)} if text else {}
    threads = torch.get_num_threads()
    grads = []
    try:
        torch.set_num_threads(2)
        for _ in range(4):
            model.zero_grad()
            scores = model(start, torch.arange(16) % 2, edges, kinds, weights, **features)
            scores.square().sum().backward()
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(threads)
    for other in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_questions": 2},
        {"num_relations": 2},
        {"num_questions": 2, "num_relations": 2, "text_channels": 3},
        {"num_questions": 2, "text_channels": 3},
    ],
)
def test_relations_come_by_number_or_by_text(given):
    with pytest.raises(ValueError, match="expected the first two, or the last"):
        PathEncoder(**given)


def test_features_must_fit():
    model, inputs, given = case(text=True)
    with pytest.raises(ValueError, match="text_channels=6 expected"):
        model(*inputs)
    with pytest.raises(ValueError, match="width 5 given"):
        model(*inputs, relation_features=given["relation_features"][:, :5])
    model, inputs, _ = case()
    with pytest.raises(ValueError, match="text_channels=None expected"):
        model(*inputs, **given)


def test_start_weights_make_a_random_walk():
    edges = torch.tensor([[0, 0, 0, 1], [1, 2, 1, 2]])
    kinds = torch.tensor([0, 0, 1, 0])
    weights = random_walk_weights(edges, kinds, torch.tensor([1.0, 3.0, 2.0, 5.0]), 2)
    assert weights.tolist() == [0.25, 0.75, 1.0, 1.0]
    assert random_walk_weights(edges[:, :0], kinds[:0], torch.zeros(0), 2).shape == (0,)
    zeros = random_walk_weights(edges, kinds, torch.zeros(4), 2)
    assert zeros.tolist() == [0, 0, 0, 0], "removed edges carry nothing"


def test_untrained_walk_reaches_what_is_near():
    edges = torch.tensor([[0, 1, 3], [1, 2, 4]])
    passed = propagate(torch.eye(5)[:1], edges, torch.ones(3), num_layers=2)
    assert passed.tolist() == [[0, 1, 1, 0, 0]]
