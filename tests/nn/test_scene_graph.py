import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from kgclip.nn.scene_graph import SceneCLIP, SceneGraphEncoder, SceneGraphs

WIDTH, RELATIONS = 16, 4
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"context_length": 8, "vocab_size": 50, "width": WIDTH, "heads": 2, "layers": 1}
# Two nodes with an edge and its inverse, a self loop with a duplicate, one node alone, no node.
GRAPHS = SceneGraphs(
    words=torch.tensor([[1, 2], [3, 0], [4, 5], [6, 0]]),
    edge_index=torch.tensor([[0, 1, 2, 2], [1, 0, 2, 2]]),
    edge_type=torch.tensor([0, 2, 1, 1]),
    relation_words=torch.tensor([[7, 8], [9, 0], [10, 8], [11, 0]]),
    graph_ids=torch.tensor([0, 0, 1, 2]),
    num_graphs=4,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SceneCLIP(CLIP(8, VISION, TEXT), SceneGraphEncoder(WIDTH, 8, RELATIONS))


def slow_encode(model):
    """Node by node and edge by edge."""
    embed = model.clip.token_embedding.weight
    encoder = model.graph_encoder
    words = [[embed[w] for w in row if w] for row in GRAPHS.words.tolist()]
    x = [torch.stack(row).sum(0) for row in words]
    relation_words = [[embed[w] for w in row if w] for row in GRAPHS.relation_words.tolist()]
    texts = [encoder.relation_norm(torch.stack(row).sum(0)) for row in relation_words]
    for conv, norm in zip(encoder.convs, encoder.norms, strict=True):
        normed = [norm(row) for row in x]
        relations = [conv.relation_text(texts[r]) + conv.relations[r] for r in range(RELATIONS)]
        new = []
        for i in range(len(x)):
            entering = [
                (source, relation)
                for source, target, relation in zip(
                    *GRAPHS.edge_index.tolist(), GRAPHS.edge_type.tolist(), strict=True
                )
                if target == i
            ]
            forward, inverse, loop = conv.weight
            out = (normed[i] * conv.loop_relation) @ loop + conv.bias
            for source, relation in entering:
                weight = forward if relation < 2 else inverse
                out = out + (normed[source] * relations[relation]) @ weight / len(entering)
            new.append(x[i] + F.gelu(out))
        x = new
    pooled = [(x[0] + x[1]) / 2, x[2], x[3], torch.zeros(WIDTH)]
    return F.normalize(torch.stack([encoder.readout(row) for row in pooled]), dim=-1)


def test_graphs_are_encoded_as_the_slow_way_does(model):
    fast, slow = model.encode_graphs(GRAPHS), slow_encode(model)
    torch.testing.assert_close(fast, slow)
    names, parameters = zip(*model.named_parameters(), strict=True)
    target = torch.randn(4, 8)
    grads = [
        torch.autograd.grad((out * target).sum(), parameters, allow_unused=True)
        for out in (fast, slow)
    ]
    for name, ours, theirs in zip(names, *grads, strict=True):
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours, theirs, msg=name)


def test_direction_and_binding_change_the_graph(model):
    def encode(words, relation):
        graphs = SceneGraphs(
            torch.tensor(words),
            torch.tensor([[0, 1], [1, 0]]),
            torch.tensor([relation, (relation + 2) % 4]),
            GRAPHS.relation_words,
            torch.tensor([0, 0]),
            1,
        )
        return model.encode_graphs(graphs)[0]

    with torch.no_grad():
        first = encode([[1, 20], [2, 30]], 0)
        torch.testing.assert_close(encode([[2, 30], [1, 20]], 2), first)  # said from the other end
        for words, relation in (([[2, 30], [1, 20]], 0), ([[1, 20], [2, 30]], 1),
                                ([[1, 30], [2, 20]], 0)):  # fmt: skip
            assert not torch.allclose(encode(words, relation), first, atol=1e-4)


def test_output_has_the_fields_that_were_asked_for(model):
    pictures, text = torch.randn(2, 3, 32, 32), torch.randint(1, 50, (2, 8))
    output = model(pictures, text)
    assert output.image_features.shape == output.text_features.shape == (2, 8)
    assert output.pair_graph_features is output.negative_text_features is None
    negative = torch.randint(1, 50, (2, 3, 8))
    output = model(pictures, text, negative_text=negative, graphs=GRAPHS)
    assert output.negative_text_features.shape == (2, 3, 8)
    torch.testing.assert_close(
        output.negative_text_features[1, 2],
        model.clip.encode_text(negative[1, 2:], normalize=True)[0],
    )
    encoded = model.encode_graphs(GRAPHS)
    torch.testing.assert_close(output.pair_graph_features, encoded[[0, 2]])
    torch.testing.assert_close(output.negative_graph_features, encoded[[1, 3]][:, None])


def test_graphs_that_do_not_fit_are_refused(model):
    pictures, text = torch.randn(3, 3, 32, 32), torch.randint(1, 50, (3, 8))
    with pytest.raises(ValueError, match="4 given for 3 pairs"):
        model(pictures, text, graphs=GRAPHS)
    with pytest.raises(ValueError, match="graph_encoder"):
        SceneCLIP(model.clip)(pictures[:2], text[:2], graphs=GRAPHS)
