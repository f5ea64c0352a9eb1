"""The path model equals its formula, and knows no entity by name."""

import pytest
import torch
import torch.nn.functional as F

from kgclip.nn.paths import PathEncoder, propagate, random_walk_weights


def slow_scores(model, start, questions, edge_index, edge_type, edge_weight, priors):
    """One query, one edge at a time."""
    rows = []
    for query in range(len(start)):
        e = model.question(questions[query])
        hidden = [start[query, v] * F.softplus(model.start(e)) for v in range(start.shape[1])]
        states = []
        for relations, stay, mix in zip(model.relations, model.stay, model.mix, strict=True):
            gates = F.softplus(relations(e) - 1).view(-1, model.channels)
            total = [h * torch.sigmoid(stay(e)) for h in hidden]
            for (u, v), r, w in zip(
                edge_index.T.tolist(), edge_type.tolist(), edge_weight, strict=True
            ):
                total[v] = total[v] + w * hidden[u] * gates[r]
            hidden = [t + F.relu(mix(t)) if t.sum() > 0 else t for t in total]
            states.append(hidden)
        scores = []
        for v in range(start.shape[1]):
            found = torch.log1p(50 * torch.cat([state[v] for state in states]))
            context = torch.cat([found, e, priors[query, v]])
            scores.append(model.score(found) + model.correct(context))
        rows.append(torch.cat(scores))
    return torch.stack(rows)


def case(seed=0, nodes=7, edges=15, queries=3, relations=4):
    torch.manual_seed(seed)
    model = PathEncoder(2, relations, channels=4, num_layers=3, question_channels=5).double().eval()
    edge_index = torch.randint(nodes, (2, edges))
    edge_type = torch.randint(relations - 1, (edges,))  # the last relation has no edge
    weight = torch.rand(edges, dtype=torch.double)
    start = F.one_hot(torch.randint(nodes, (queries,)), nodes).double()
    priors = torch.rand(queries, nodes, 2, dtype=torch.double)
    return model, (start, torch.arange(queries) % 2, edge_index, edge_type, weight, priors)


@pytest.mark.parametrize(("nodes", "edges"), [(7, 15), (1, 0), (1, 2), (5, 0)])
def test_equals_the_formula(nodes, edges):
    model, inputs = case(nodes=nodes, edges=edges)
    fast, slow = model(*inputs), slow_scores(model, *inputs)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    wanted = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(fast.square().sum(), wanted, allow_unused=True),
        torch.autograd.grad(slow.square().sum(), wanted, allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero.double() if one is None else one.sum(),
            zero.double() if other is None else other.sum(),
            rtol=1e-8, atol=1e-9,
        )  # fmt: skip


def test_renaming_entities_renames_the_scores():
    model, (start, questions, edges, kinds, weight, priors) = case()
    order = torch.randperm(7)
    place = torch.argsort(order)
    renamed = model(start[:, order], questions, place[edges], kinds, weight, priors[:, order])
    expected = model(start, questions, edges, kinds, weight, priors)[:, order]
    torch.testing.assert_close(renamed, expected)


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
