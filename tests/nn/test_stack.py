"""A stack starts as its input, loses no node type, and serves HeteroData as it serves one graph."""

import functools

import pytest
import torch
from torch_geometric.data import HeteroData

from kgclip.graph import KnowledgeGraph
from kgclip.hetero import to_hetero
from kgclip.nn import CompGCNConv, HGTConv
from kgclip.nn.convs import CONVS
from kgclip.nn.stack import ConvStack
from tests.nn.test_convs import GRAPHS, IN, RELATIONS, tensors


def typed_data():
    """Type "c" has no edge at all, "b" none that ends in it."""
    torch.manual_seed(0)
    data = HeteroData()
    for kind, size in (("a", 5), ("b", 4), ("c", 2)):
        data[kind].x = torch.randn(size, IN)
    data["b", "r", "a"].edge_index = torch.tensor([[0, 1, 3], [0, 4, 4]])
    data["a", "s", "a"].edge_index = torch.tensor([[0, 1], [2, 2]])
    return data


@pytest.mark.parametrize("name", CONVS)
class TestEveryConvolution:
    @pytest.mark.parametrize("graph", GRAPHS)
    def test_starts_as_its_input(self, name, graph):
        stack = ConvStack(CONVS[name], IN, IN, RELATIONS).double()
        x, edge_index, edge_type = tensors(*GRAPHS[graph])
        assert torch.equal(stack(x, edge_index, edge_type), x)

    def test_training_opens_it(self, name):
        torch.manual_seed(0)
        stack = ConvStack(CONVS[name], IN, 6, RELATIONS).double()
        graph = tensors(*GRAPHS["random"])
        before = stack(*graph)
        optimizer = torch.optim.SGD(stack.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            stack(*graph).square().sum().backward()
            optimizer.step()
        assert all(layer.gate != 0 for layer in stack.layers)
        assert (
            stack.layers[0]
            .conv.conv.get_parameter(
                next(name for name, _ in stack.layers[0].conv.conv.named_parameters())
            )
            .grad.any()
        )
        assert not torch.allclose(stack(*graph), before)

    def test_hetero_is_one_graph(self, name):
        data = typed_data()
        conv = functools.partial(HGTConv, num_node_types=3) if name == "hgt" else CONVS[name]
        stack = ConvStack(conv, IN, IN, 2, gate=0.5)
        out = stack.encode_hetero(data)
        assert {kind: list(value.shape) for kind, value in out.items()} == {
            "a": [5, IN], "b": [4, IN], "c": [2, IN],
        }  # fmt: skip
        edges = torch.tensor([[5, 6, 8, 0, 1], [0, 4, 4, 2, 2]])
        x = torch.cat([data[kind].x for kind in "abc"])
        rest = (torch.tensor([0] * 5 + [1] * 4 + [2] * 2),) if name == "hgt" else ()
        expected = stack(x, edges, torch.tensor([0, 0, 0, 1, 1]), *rest)
        torch.testing.assert_close(torch.cat(list(out.values())), expected)


def test_relations_are_those_of_to_hetero():
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "s", "c")])
    data = to_hetero(graph)
    data["entity"].x = torch.randn(3, IN)
    stack = ConvStack(CompGCNConv, IN, IN, 4, gate=1.0)
    found = stack.encode_hetero(data)["entity"]
    edges = torch.tensor([[0, 1, 1, 2], [1, 2, 0, 1]])
    expected = stack(data["entity"].x, edges, torch.tensor([0, 1, 2, 3]))
    torch.testing.assert_close(found, expected)


def test_widths_differ_by_type():
    data = typed_data()
    data["b"].x = torch.randn(4, 7)
    stack = ConvStack(CONVS["rgcn"], {"a": IN, "b": 7, "c": IN}, 5, 2, gate=1.0)
    assert stack.encode_hetero(data)["b"].shape == (4, 5)
    with pytest.raises(ValueError, match="node type 'c' given, one of"):
        ConvStack(CONVS["rgcn"], {"a": IN, "b": 7}, 5, 2).encode_hetero(data)


def test_texts_of_relations_go_through():
    stack = ConvStack(
        lambda width, out, _: CompGCNConv(width, out, relation_channels=3), IN, IN, 0, gate=1.0
    )
    out = stack.encode_hetero(typed_data(), torch.randn(2, 3))
    assert out["a"].shape == (5, IN)


def test_data_without_edges_and_bad_arguments():
    data = HeteroData()
    data["a"].x = torch.randn(3, IN)
    assert torch.equal(ConvStack(CONVS["rgcn"], IN, IN, 2).encode_hetero(data)["a"], data["a"].x)
    data["b"].num_nodes = 2
    with pytest.raises(ValueError, match="x: missing for node type 'b'"):
        ConvStack(CONVS["rgcn"], IN, IN, 2).encode_hetero(data)
    for options in ({"num_layers": -1}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="0 or more and"):
            ConvStack(CONVS["rgcn"], IN, IN, 2, **options)
