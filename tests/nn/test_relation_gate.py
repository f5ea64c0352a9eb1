"""The gated mean equals its definition, forward and backward, and starts as the plain mean."""

import pytest
import torch

from kgclip.nn.relation_gate import RelationGateConv


def slow_gate(conv, x, edge_index, edge_type, relation_features):
    rows = []
    for node in range(len(x)):
        total, norm = 0 * x[node], 0.0
        for (source, target), relation in zip(
            edge_index.T.tolist(), edge_type.tolist(), strict=True
        ):
            if target == node:
                weight = conv.weight(relation_features[relation]).exp().squeeze()
                gate = 1 + conv.gate(relation_features[relation])
                total = total + weight * gate * x[source]
                norm = norm + weight
        rows.append(total / norm if isinstance(norm, torch.Tensor) else total)
    return torch.stack(rows)


def case(num_nodes, num_edges, seed=0, channels=6, num_relations=4):
    torch.manual_seed(seed)
    conv = RelationGateConv(channels, 5).double()
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(num_nodes, channels, dtype=torch.double, requires_grad=True)
    edge_index = torch.randint(num_nodes, (2, num_edges))
    edge_type = torch.randint(num_relations - 1, (num_edges,))  # the last relation has no edge
    relations = torch.randn(num_relations, 5, dtype=torch.double, requires_grad=True)
    return conv, x, edge_index, edge_type, relations


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(1, 0), (1, 3), (7, 0), (7, 30), (20, 15)])
def test_equals_the_definition(num_nodes, num_edges):
    conv, *inputs = case(num_nodes, num_edges)
    x, relations = inputs[0], inputs[3]
    results = []
    for function in (conv, lambda *given: slow_gate(conv, *given)):
        out = function(*inputs)
        wanted = [x, relations, *conv.parameters()]
        grads = torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)
        zeros = [torch.zeros_like(value) for value in wanted]
        filled = [zero if grad is None else grad for grad, zero in zip(grads, zeros, strict=True)]
        results.append([out, *filled])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)


def test_starts_as_the_mean_of_the_neighbours():
    conv = RelationGateConv(3, 2)
    x = torch.randn(4, 3)
    edge_index = torch.tensor([[1, 2, 2, 0], [0, 0, 0, 3]])
    out = conv(x, edge_index, torch.tensor([0, 1, 1, 0]), torch.randn(2, 2))
    torch.testing.assert_close(out[0], (x[1] + 2 * x[2]) / 3)
    torch.testing.assert_close(out[3], x[0])
    assert not out[1].any(), "no edge ends here"


def test_direction_of_messages_is_pygs():
    conv = RelationGateConv(2, 2)
    out = conv(torch.eye(2), torch.tensor([[0], [1]]), torch.tensor([0]), torch.zeros(1, 2))
    assert torch.equal(out, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("edge_index", "edge_type", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), "edge_index: torch.float32"),
        (torch.zeros(3, 2, dtype=torch.long), torch.zeros(2, dtype=torch.long), r"\[3, 2\]"),
        (
            torch.zeros(2, 3, dtype=torch.long),
            torch.zeros(2, dtype=torch.long),
            r"long \[3\] expected",
        ),
    ],
)
def test_bad_edges(edge_index, edge_type, message):
    with pytest.raises(ValueError, match=message):
        RelationGateConv(2, 2)(torch.eye(2), edge_index, edge_type, torch.zeros(1, 2))
