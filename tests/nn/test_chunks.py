import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from open_clip.model import CLIP

from kgclip.nn.chunks import encode_in_chunks
from kgclip.nn.relation_gate import RelationGateConv

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2}
VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CLIP(8, dict(VISION), dict(TEXT))


def gradients(model, gnn, chunk_size):
    """A batch of 32 pictures, texts and graph neighbourhoods under one contrastive loss."""
    torch.manual_seed(1)
    images, tokens = torch.randn(32, 3, 32, 32), torch.randint(1, 50, (32, 8))
    x, relations = torch.randn(40, 8), torch.randn(3, 8)
    edge_index, edge_type = torch.randint(0, 40, (2, 99)), torch.randint(0, 3, (99,))
    model.zero_grad()
    gnn.zero_grad()

    def encode_graph(rows):
        return gnn(x, edge_index, edge_type, relations)[rows]

    image = encode_in_chunks(model.encode_image, images, chunk_size)
    text = encode_in_chunks(model.encode_text, tokens, chunk_size)
    graph = encode_in_chunks(encode_graph, torch.arange(32), chunk_size)
    image, text, graph = (F.normalize(part, dim=-1) for part in (image, text, graph))
    scale, loss = model.logit_scale.exp(), ClipLoss()
    (loss(image, text, scale) + loss(image, graph, scale)).backward()
    return [value.grad for part in (model, gnn) for value in part.parameters()]


def test_gradient_of_towers_and_graph_is_that_of_the_full_batch(model):
    gnn = RelationGateConv(8, 8)
    full, chunked = gradients(model, gnn, None), gradients(model, gnn, 8)
    assert all(grad is not None for grad in full[:-1])
    for mine, theirs in zip(chunked, full, strict=True):
        if theirs is not None:
            assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_no_activation_is_kept(model):
    images = torch.randn(32, 3, 32, 32)

    def count(chunk_size):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode_in_chunks(model.encode_image, images, chunk_size)
        return total

    assert count(None) > 3 * images.numel()
    assert count(8) <= images.numel()


def test_dropout_is_the_same_in_both_passes():
    weight = torch.ones(4, requires_grad=True)

    def encode(rows):
        return F.dropout(rows * weight, 0.5)

    torch.manual_seed(0)
    out = encode_in_chunks(encode, torch.ones(8, 4), 2)
    out.sum().backward()
    assert torch.equal(weight.grad, out.detach().sum(dim=0))


@pytest.mark.parametrize("rows", [0, 3, 8])
def test_few_rows_and_none(model, rows):
    tokens = torch.randint(1, 50, (rows, 8))
    with torch.no_grad():
        chunked = encode_in_chunks(model.encode_text, tokens, 2)
        torch.testing.assert_close(chunked, model.encode_text(tokens))


def test_a_chunk_has_rows(model):
    with pytest.raises(ValueError, match="chunk_size: 0"):
        encode_in_chunks(model.encode_text, torch.zeros(2, 8, dtype=torch.long), 0)
