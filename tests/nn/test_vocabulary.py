import open_clip
import pytest
import torch
from open_clip.model import CLIP

from kgclip.nn.tokens import encode_text_trimmed
from kgclip.nn.vocabulary import restore_vocabulary, shrink_vocabulary

VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CLIP(8, VISION, TEXT).eval()


def test_a_shrunk_tower_computes_the_same(model):
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=12)(["a cow", "saxophones of Chad"])
    before = model.encode_text(tokens)
    kept, full = shrink_vocabulary(model, tokens)
    assert len(kept) == model.token_embedding.num_embeddings < 12
    renumbered = torch.searchsorted(kept, tokens)
    assert torch.equal(model.encode_text(renumbered), before)
    torch.testing.assert_close(encode_text_trimmed(model, renumbered), before)
    with torch.no_grad():
        model.token_embedding.weight.add_(1.0)
    after = model.encode_text(renumbered)
    old = full.weight.clone()
    restore_vocabulary(model, kept, full)
    assert torch.equal(model.encode_text(tokens), after)
    untouched = torch.ones(49408, dtype=torch.bool)
    untouched[kept] = False
    assert torch.equal(model.token_embedding.weight[untouched], old[untouched])
    assert model.token_embedding.weight.requires_grad


def test_another_pooling_is_refused():
    model = CLIP(8, VISION, {**TEXT, "pool_type": "last"})
    with pytest.raises(ValueError, match="argmax"):
        shrink_vocabulary(model, torch.zeros(1, dtype=torch.long))
