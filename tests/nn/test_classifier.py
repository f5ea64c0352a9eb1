"""The layer without features equals PyG's RGCNConv on one-hot features, in output and gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import RGCNConv as PyGRGCNConv

from kgclip.nn.classifier import EntityClassifier, FeaturelessRGCNConv, edges_into
from kgclip.nn.rgcn import RGCNConv

GRAPHS = {
    "random": (
        torch.randint(0, 7, (2, 30), generator=torch.Generator().manual_seed(0)),
        torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(1)),
        9,  # two isolated entities
        4,  # a relation without an edge
    ),
    "empty": (torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 3, 2),
    "self loop, twice": (torch.zeros(2, 2, dtype=torch.long), torch.zeros(2).long(), 1, 1),
}


def peer_of(conv, num_entities, num_relations, channels, rows):
    """PyG's layer with the same parameters; those that no edge reads are zero."""
    peer = PyGRGCNConv(num_entities, channels, num_relations).double()
    with torch.no_grad():
        peer.weight.zero_()
        peer.weight[conv.pair_relation, conv.pair_source] = conv.weight
        peer.root.zero_()
        peer.root[rows] = conv.root
        peer.bias.copy_(conv.bias)
    return peer


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("targets", [None, torch.tensor([0]), torch.zeros(0, dtype=torch.long)])
def test_equals_pyg(name, targets):
    edge_index, edge_type, num_entities, num_relations = GRAPHS[name]
    if name == "random" and targets is not None and len(targets):
        targets = torch.tensor([6, 2, 8])
    rows = torch.arange(num_entities) if targets is None else targets
    torch.manual_seed(0)
    conv = FeaturelessRGCNConv(
        edge_index, edge_type, num_entities, num_relations, 5, targets
    ).double()
    peer = peer_of(conv, num_entities, num_relations, 5, rows)
    ours, theirs = conv(), peer(None, edge_index, edge_type)[rows]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for out in (ours, theirs):
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    expected = peer.weight.grad[conv.pair_relation, conv.pair_source]
    torch.testing.assert_close(conv.weight.grad, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(conv.root.grad, peer.root.grad[rows])
    unread = peer.weight.grad.clone()
    unread[conv.pair_relation, conv.pair_source] = 0
    assert not unread.any()  # what has no parameter here has no gradient there


def test_what_no_answer_needs_is_left_out():
    edge_index, edge_type, num_entities, num_relations = GRAPHS["random"]
    torch.manual_seed(0)
    asked = torch.tensor([3, 8])
    model = EntityClassifier(
        edge_index, edge_type, asked, num_entities=num_entities,
        num_relations=num_relations, num_classes=2, hidden_channels=4,
    ).eval()  # fmt: skip
    whole = FeaturelessRGCNConv(edge_index, edge_type, num_entities, num_relations, 4)
    into = edges_into(edge_index, asked, num_entities)
    with torch.no_grad():
        known = zip(model.embed.pair_relation, model.embed.pair_source, strict=True)
        row = {(int(r), int(s)): i for i, (r, s) in enumerate(known)}
        every = zip(whole.pair_relation, whole.pair_source, strict=True)
        for i, (r, s) in enumerate(every):
            if (int(r), int(s)) in row:
                whole.weight[i] = model.embed.weight[row[int(r), int(s)]]
        needed = torch.unique(torch.cat([edge_index[0, into], asked]))
        whole.root[needed] = model.embed.root
        hidden = whole().relu()
        last = RGCNConv(4, 2, num_relations)
        last.load_state_dict(model.conv.state_dict())
        expected = last(hidden, edge_index, edge_type)[asked]
    torch.testing.assert_close(model(), expected)
    assert len(model.embed.weight) <= len(whole.weight)
    assert into.tolist() == [e for e in range(30) if int(edge_index[1, e]) in (3, 8)]


def test_dropout_is_for_training_alone():
    edge_index, edge_type, num_entities, num_relations = GRAPHS["random"]
    torch.manual_seed(0)
    model = EntityClassifier(
        edge_index, edge_type, torch.arange(9), num_entities=num_entities,
        num_relations=num_relations, num_classes=2, dropout=0.5,
    )  # fmt: skip
    assert not torch.equal(model(), model())
    assert torch.equal(model.eval()(), model())
    F.cross_entropy(model(), torch.zeros(9, dtype=torch.long)).backward()
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": torch.tensor([9])}, r"asked: ids 9 to 9 given, \[0, 9\)"),
        ({"edge_index": torch.tensor([[0], [9]]), "edge_type": torch.tensor([0])}, "edge_index"),
        ({"edge_type": torch.full((30,), 4)}, "edge_type"),
    ],
)
def test_bad_input_is_refused(change, message):
    edge_index, edge_type, num_entities, num_relations = GRAPHS["random"]
    arguments = {
        "edge_index": edge_index,
        "edge_type": edge_type,
        "asked": torch.tensor([0]),
        "num_entities": num_entities,
        "num_relations": num_relations,
        "num_classes": 2,
    }
    with pytest.raises(ValueError, match=message):
        EntityClassifier(**arguments | change)
