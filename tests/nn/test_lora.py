import copy

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP

from kgclip.nn.lora import add_lora, merge_lora

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2}
VISION = {
    "vit": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "timm": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
}


@pytest.fixture(params=VISION)
def model(request):
    torch.manual_seed(0)
    build = CLIP if request.param == "vit" else CustomTextCLIP
    return build(8, dict(VISION[request.param]), dict(TEXT)).eval()


def embed(model):
    torch.manual_seed(1)
    size = model.visual.image_size
    size = size if isinstance(size, tuple) else (size, size)
    images, tokens = torch.randn(2, 3, *size), torch.randint(1, 50, (3, 8))
    return model.encode_image(images), model.encode_text(tokens)


def train_a_little(model):
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sum(features.square().mean() for features in embed(model)).backward()
        optimizer.step()
    model.eval()


def distance(one, other):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(one, other, strict=True))


@torch.no_grad()
def test_nothing_changes_before_training(model):
    before = embed(model)
    after = embed(add_lora(model, rank=2))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_only_adapters_learn_and_each_of_them_does(model):
    frozen = copy.deepcopy(model.state_dict())
    adapted = add_lora(model, rank=2)
    trained = [name for name, value in adapted.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert any(name.startswith("visual") for name in trained)
    assert any(not name.startswith("visual") for name in trained)
    start = {name: value.clone() for name, value in adapted.named_parameters()}
    train_a_little(adapted)
    for name, value in adapted.named_parameters():
        assert torch.equal(value, start[name]) == (name not in trained), name
    for name, value in adapted.state_dict().items():
        plain = name.replace("parametrizations.", "").removesuffix(".original")
        assert ("lora_" in name) != (plain in frozen)
        assert "lora_" in name or torch.equal(value, frozen[plain])


def test_merged_is_the_adapted_model_with_plain_names(model):
    plain = copy.deepcopy(model)
    with torch.no_grad():
        start = embed(model)
    adapted = add_lora(model, rank=2)
    train_a_little(adapted)
    with torch.no_grad():
        expected = embed(adapted)
        merged = merge_lora(adapted)
        assert distance(embed(merged), expected) <= 1e-6
    assert distance(expected, start) > 1e-3
    assert merged.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(merged.state_dict())
    with torch.no_grad():
        assert distance(embed(plain), expected) <= 1e-6


def test_what_cannot_be_adapted(model):
    with pytest.raises(ValueError, match="rank: 0"):
        add_lora(model, rank=0)
    with pytest.raises(ValueError, match="nothing"):
        add_lora(model, target_modules=["nothing"])
    with pytest.raises(ValueError, match="no linear layer or attention inside"):
        add_lora(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
