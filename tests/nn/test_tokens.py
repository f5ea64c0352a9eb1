import gc

import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import text_global_pool
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from kgclip.nn import tokens as module
from kgclip.nn.tokens import (
    encode_text_trimmed,
    encode_tokens,
    encode_with_tokens,
    num_prefix_tokens,
    text_tower,
)

LENGTH, VOCABULARY, EOT = 12, 50, 49
TEXT = {
    "context_length": LENGTH,
    "vocab_size": VOCABULARY,
    "width": 16,
    "heads": 2,
    "layers": 2,
}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
SIGLIP = {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True, "pad_id": 1}
COCA = {**TEXT, "embed_cls": True, "output_tokens": True}


def _clip(vision=VIT, text=TEXT, cls=CLIP):
    torch.manual_seed(0)
    model = cls(8, vision_cfg=dict(vision), text_cfg=dict(text)).eval()
    with torch.no_grad():  # a mistake in the text tower shall not hide in a tiny start
        for parameter in text_tower(model).parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def _coca():
    torch.manual_seed(0)
    decoder = {"context_length": LENGTH, "width": 16, "heads": 2, "layers": 1}
    vision = {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    return CoCa(8, multimodal_cfg=decoder, text_cfg=dict(COCA), vision_cfg=vision).eval()


def _hugging_face(pooler="mean_pooler"):
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
    )
    model = _clip(cls=CustomTextCLIP)
    model.text = HFTextEncoder("", 8, config=config, pooler_type=pooler, proj_type="linear")
    return model.eval()


def _texts(*lengths, pad=0, eot=EOT):
    """Random rows of the given lengths, end-of-text token included."""
    generator = torch.Generator().manual_seed(len(lengths))
    rows = torch.full((len(lengths), LENGTH), pad)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(3, 40, (length,), generator=generator)
        row[length - 1] = eot
    return rows


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    "options", [{}, {"pool_type": "avg"}, {"pool_type": "avg", "final_ln_after_pool": True}]
)
def test_vit_tokens_pool_to_the_image_features(options):
    model, images = _clip({**VIT, **options}), torch.randn(2, 3, 32, 32)
    tokens, mask = encode_tokens(model, image=images)
    assert tokens.shape == (2, 1 + 16, 32)
    assert mask.shape == (2, 17)
    assert mask.all()
    assert num_prefix_tokens(model) == 1
    pooled, _ = model.visual._global_pool(tokens)
    if options.get("final_ln_after_pool"):
        pooled = model.visual.ln_post(pooled)
    torch.testing.assert_close(
        pooled @ model.visual.proj, model.encode_image(images), atol=1e-5, rtol=0
    )


def test_vit_patches_are_in_the_order_of_the_rows():
    model = _clip()
    model.visual.transformer.resblocks = nn.ModuleList()  # no mixing between the patches
    model.visual.transformer.resblocks.append(nn.Identity())
    model.visual.transformer.resblocks[0].forward = lambda x, attn_mask=None: x
    images = torch.zeros(2, 3, 32, 32)
    images[1, :, 8:16, 16:24] = 1  # second row, third column of four
    tokens, _ = encode_tokens(model, image=images)
    assert (tokens[0] != tokens[1]).any(dim=-1).nonzero().tolist() == [[1 + 4 + 2]]


def test_coca_image_tokens_are_its_queries():
    model, images = _coca(), torch.randn(2, 3, 32, 32)
    tokens, mask = encode_tokens(model, image=images)
    pooled, rest = model.visual._global_pool(tokens)
    wanted, wanted_rest = model.visual(images)
    torch.testing.assert_close(rest, wanted_rest, atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled @ model.visual.proj, wanted, atol=1e-5, rtol=0)
    assert mask.all()
    assert num_prefix_tokens(model) == 1


@pytest.mark.parametrize(
    ("name", "options", "shape", "prefix"),
    [
        ("test_efficientnet", {"timm_proj": "mlp"}, (2, 16, 256), 0),
        ("test_efficientnet", {"timm_proj": ""}, (2, 16, 256), 0),
        ("test_convnext", {"timm_proj": "linear"}, (2, 16, 64), 0),
        ("test_vit", {"timm_proj": "linear", "timm_pool": "token"}, (2, 101, 64), 1),
    ],
)
def test_timm_tokens_pool_to_the_image_features(name, options, shape, prefix):
    size = 160 if name == "test_vit" else 128
    model = _clip({"timm_model_name": name, "timm_pool": "avg", "image_size": size, **options})
    images = torch.randn(2, 3, size, size)
    tokens, mask = encode_tokens(model, image=images)
    assert tokens.shape == shape
    assert mask.shape == shape[:2]
    assert mask.all()
    assert num_prefix_tokens(model) == prefix
    trunk = model.visual.trunk
    side = int(tokens.shape[1] ** 0.5)
    states = tokens if prefix else tokens.transpose(1, 2).unflatten(2, (side, side))
    features = model.visual.head(trunk.forward_head(states))
    torch.testing.assert_close(features, model.encode_image(images), atol=1e-5, rtol=0)


def test_a_map_with_channels_last_is_not_mistaken_for_another():
    model = _clip({"timm_model_name": "test_efficientnet", "timm_proj": "linear"})
    model.visual.trunk = SwinTransformer(
        img_size=32, patch_size=4, embed_dim=8, depths=(1,), num_heads=(1,), window_size=4,
        num_classes=0,
    ).eval()  # fmt: skip
    model.visual.head = nn.Linear(8, 8)
    images = torch.randn(2, 3, 32, 32)
    tokens, _ = encode_tokens(model, image=images)
    assert tokens.shape == (2, 64, 8)
    features = model.visual.head(tokens.mean(dim=1))
    torch.testing.assert_close(features, model.encode_image(images), atol=1e-5, rtol=0)


def test_resnet_tokens_pool_to_the_image_features():
    model, images = _clip(RESNET), torch.randn(2, 3, 64, 64)
    tokens, mask = encode_tokens(model, image=images)
    assert tokens.shape == (2, 4, 256)
    assert mask.all()
    assert num_prefix_tokens(model) == 0
    pooled = model.visual.attnpool(tokens.transpose(1, 2).unflatten(2, (2, 2)))
    torch.testing.assert_close(pooled, model.encode_image(images), atol=1e-5, rtol=0)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("kind", ["first", "eos", "bidirectional", "siglip", "hugging face"])
def test_trimming_drops_no_real_token(kind):
    model, text = MODELS[kind](), _texts(4, 7, pad=1 if kind == "siglip" else 0)
    tokens, mask = encode_tokens(model, text=text)
    short, short_mask = encode_tokens(model, text=text, trim=True)
    assert short.shape[1] == (LENGTH if kind == "siglip" else 7)
    assert torch.equal(short_mask, mask[:, : short.shape[1]])
    assert mask.sum() == short_mask.sum()
    torch.testing.assert_close(short[short_mask], tokens[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize("trim", [False, True])
def test_native_text_tokens_pool_to_the_text_features(cls, trim):
    model, text = _clip(cls=cls), _texts(4, 7, 2)
    tokens, mask = encode_tokens(model, text=text, trim=trim)
    assert tokens.shape == (3, 7 if trim else LENGTH, 16)
    assert mask.sum(dim=1).tolist() == [4, 7, 2]
    assert mask.int().diff(dim=1).max() <= 0  # real tokens come first
    pooled = text_global_pool(tokens, text, "argmax")
    torch.testing.assert_close(
        pooled @ text_tower(model).text_projection, model.encode_text(text), atol=1e-5, rtol=0
    )


def test_the_end_of_text_is_found_by_its_number_too():
    model = _clip(text={**TEXT, "pool_type": "eos", "eos_id": 2}, cls=CustomTextCLIP)
    _, mask = encode_tokens(model, text=_texts(4, 12, eot=2))
    assert mask.sum(dim=1).tolist() == [4, 12]


def test_siglip_text_tokens_keep_the_pooled_position():
    model, text = _clip(text=SIGLIP, cls=CustomTextCLIP), _texts(4, 7, pad=1, eot=5)
    for trim in (False, True):
        tokens, mask = encode_tokens(model, text=text, trim=trim)
        assert tokens.shape == (2, LENGTH, 16)
        assert mask.sum(dim=1).tolist() == [4 + 1, 7 + 1]
        features = model.text.text_projection(tokens[:, -1])
        torch.testing.assert_close(features, model.encode_text(text), atol=1e-5, rtol=0)


def test_coca_text_tokens_end_with_the_class_token():
    model, text = _coca(), _texts(4, 7)
    tokens, mask = encode_tokens(model, text=text)
    assert tokens.shape == (2, LENGTH + 1, 16)
    assert mask[:, -1].all()
    assert mask.sum(dim=1).tolist() == [4 + 1, 7 + 1]
    features = tokens[:, -1] @ model.text.text_projection
    wanted = model.encode_text(text, normalize=False)
    torch.testing.assert_close(features, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_last_hidden_state_pooler"])
@pytest.mark.parametrize("trim", [False, True])
def test_hugging_face_tokens_pool_to_the_text_features(pooler, trim):
    model, text = _hugging_face(pooler), _texts(4, 7)
    tokens, mask = encode_tokens(model, text=text, trim=trim)
    assert tokens.shape == (2, 7 if trim else LENGTH, 16)
    assert mask.sum(dim=1).tolist() == [4, 7]
    if pooler == "mean_pooler":
        weights = mask.unsqueeze(-1) / mask.sum(dim=1)[:, None, None]
        pooled = (tokens * weights).sum(dim=1)
    else:
        pooled = tokens[:, 0]
    torch.testing.assert_close(model.text.proj(pooled), model.encode_text(text), atol=1e-5, rtol=0)


class Words(nn.Module):
    """A text tower of somebody else's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)

    def forward_tokens(self, text):
        return self.embedding(text), text != 0

    def forward(self, text):
        tokens, mask = self.forward_tokens(text)
        return (tokens * mask.unsqueeze(-1)).sum(dim=1)


class Pixels(nn.Module):
    num_prefix_tokens = 2

    def forward_tokens(self, image):
        return image.flatten(2).transpose(1, 2), torch.ones(len(image), 16, dtype=torch.bool)


def test_a_module_of_ours_says_its_tokens_itself():
    model = _clip(cls=CustomTextCLIP)
    model.text, model.visual = Words(), Pixels()
    text = _texts(4, 7, 4)
    tokens, mask = encode_tokens(model, text=text)
    assert tokens.shape == (3, LENGTH, 8)
    assert mask.sum(dim=1).tolist() == [4, 7, 4]
    assert encode_tokens(model, text=text, trim=True)[0].shape == (3, 7, 8)
    assert encode_tokens(model, image=torch.zeros(2, 3, 4, 4))[0].shape == (2, 16, 3)
    assert num_prefix_tokens(model) == 2
    torch.testing.assert_close(encode_text_trimmed(model, text), model.encode_text(text))


def test_tokens_carry_gradients():
    model = _clip()
    for name, inputs in {"image": torch.randn(2, 3, 32, 32), "text": _texts(4, 7)}.items():
        tokens, _ = encode_tokens(model, **{name: inputs}, trim=True)
        tokens.sum().backward()
    assert model.visual.conv1.weight.grad.abs().sum() > 0
    assert model.token_embedding.weight.grad.abs().sum() > 0


def test_unclear_requests_are_errors():
    model = _clip(cls=CustomTextCLIP)
    with pytest.raises(ValueError, match="either image or text"):
        encode_tokens(model)
    with pytest.raises(ValueError, match="either image or text"):
        encode_tokens(model, image=torch.zeros(1, 3, 32, 32), text=_texts(3))
    model.visual, model.text = nn.Flatten(), nn.Identity()
    with pytest.raises(ValueError, match=r"Flatten .* forward_tokens"):
        encode_tokens(model, image=torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"Identity .* forward_tokens"):
        encode_tokens(model, text=_texts(3))
    with pytest.raises(ValueError, match=r"\[B, L\]"):
        encode_text_trimmed(model, _texts(3)[0])


# ---------------------------------------------------------------- trimming

MODELS = {
    "clip": _clip,
    "custom": lambda: _clip(cls=CustomTextCLIP),
    "eos": lambda: _clip(text={**TEXT, "pool_type": "eos", "eos_id": EOT}, cls=CustomTextCLIP),
    "first": lambda: _clip(text={**TEXT, "pool_type": "first"}, cls=CustomTextCLIP),
    "projection with bias": lambda: _clip(text={**TEXT, "proj_bias": True}),
    "no projection": lambda: _clip(text={**TEXT, "proj_type": "none"}),
    "bidirectional": lambda: _clip(text={**TEXT, "no_causal_mask": True}, cls=CustomTextCLIP),
    "siglip": lambda: _clip(text=SIGLIP, cls=CustomTextCLIP),
    "coca": _coca,
    "hugging face": _hugging_face,
}
TRIMMED = {
    "clip",
    "custom",
    "eos",
    "projection with bias",
    "no projection",
    "hugging face",
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lengths", [(4,), (2, 5, 3, 7), (LENGTH, 3), (LENGTH, LENGTH)])
@pytest.mark.parametrize("normalize", [False, True])
def test_trimmed_texts_equal_full_ones(kind, lengths, normalize):
    model, distinct = MODELS[kind](), _texts(*lengths)
    text = distinct[torch.randint(len(distinct), (9,))]
    weights = torch.randn(9, 16 if kind == "no projection" else 8)
    results = []
    for encode in (
        model.encode_text,
        lambda t, normalize: encode_text_trimmed(model, t, normalize),
    ):
        model.zero_grad()
        features = encode(text, normalize=normalize)
        (features * weights).sum().backward()
        gradients = [p.grad for p in text_tower(model).parameters() if p.grad is not None]
        results.append([features.detach(), *(g.clone() for g in gradients)])
    for wanted, given in zip(*results, strict=True):
        scale = max(1.0, wanted.abs().max().item())
        assert given.shape == wanted.shape
        torch.testing.assert_close(given, wanted, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("kind", MODELS)
def test_only_distinct_short_rows_are_computed(kind):
    model, text = MODELS[kind](), _texts(4, 6)[torch.tensor([0, 1, 0, 0, 1])]
    encode_text_trimmed(model, text)  # the first call also checks
    shapes = []
    text_tower(model).transformer.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append((*args, kwargs.get("input_ids"))[0].shape[:2]),
        with_kwargs=True,
    )
    encode_text_trimmed(model, text)
    length = {"coca": LENGTH + 1}.get(kind, 6 if kind in TRIMMED else LENGTH)
    assert [tuple(shape) for shape in shapes] == [(2, length)]


class Surprising(CLIP):
    """Looks like CLIP, but reads its padding."""

    share = 1.0

    def encode_text(self, text, normalize=False):
        features = super().encode_text(text, normalize=False)
        return features + self.share * self.token_embedding(text).sum(dim=1)[:, :8]


@pytest.mark.parametrize("share", [1.0, 2e-5])  # the second changes features by some 1e-5
def test_a_model_that_does_more_than_its_structure_shows_is_not_trimmed(caplog, share):
    model, text = _clip(cls=Surprising), _texts(4, 6, 4)
    model.share = share
    torch.testing.assert_close(encode_text_trimmed(model, text), model.encode_text(text))
    assert "Surprising is not trimmed" in caplog.text


def test_the_check_runs_once_a_model_and_keeps_no_model_alive(monkeypatch):
    monkeypatch.setattr(module, "_TRIM_IS_EXACT", type(module._TRIM_IS_EXACT)())
    model, text = _clip(), _texts(4, 6)
    lengths = []
    model.transformer.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    encode_text_trimmed(model, _texts(LENGTH))  # nothing to trim, nothing to check
    for _ in range(2):
        encode_text_trimmed(model, text)
    assert lengths == [LENGTH, LENGTH, 6, 6, 6]
    assert len(module._TRIM_IS_EXACT) == 1
    del model
    gc.collect()
    assert len(module._TRIM_IS_EXACT) == 0


def test_the_check_sees_through_dropout():
    model, text = _hugging_face().train(), _texts(4, 6)
    encode_text_trimmed(model, text)
    assert module._TRIM_IS_EXACT[model]
    assert all(part.training for part in model.modules())


def test_no_texts_give_no_rows():
    assert encode_text_trimmed(_clip(), _texts()).shape == (0, 8)


# ---------------------------------------------------------------- both at once


@pytest.mark.parametrize("kind", ["vit", "avg", "coca", "timm", "timm vit", "resnet", "own"])
def test_features_and_tokens_of_pictures_are_those_of_two_passes(kind):
    model, size = _image_model(kind)
    images = torch.randn(2, 3, size, size)
    features, tokens, mask = encode_with_tokens(model, image=images)
    alone = model.encode_image(images, normalize=False)
    torch.testing.assert_close(features, alone, atol=1e-5, rtol=0)
    expected, expected_mask = encode_tokens(model, image=images)
    torch.testing.assert_close(tokens, expected)
    assert torch.equal(mask, expected_mask)


def _image_model(kind):
    timm = {"timm_model_name": "test_efficientnet", "timm_proj": "linear", "image_size": 128}
    vit = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160}
    if kind == "own":
        model = _clip()
        model.visual = _Tower()
        return model, 32
    return {
        "vit": lambda: (_clip(), 32),
        "avg": lambda: (_clip({**VIT, "pool_type": "avg", "final_ln_after_pool": True}), 32),
        "coca": lambda: (_coca(), 32),
        "timm": lambda: (_clip(timm), 128),
        "timm vit": lambda: (_clip({**vit, "timm_pool": "token"}), 160),
        "resnet": lambda: (_clip(RESNET), 64),
    }[kind]()


class _Tower(nn.Module):
    def forward_tokens(self, images):
        tokens = images.flatten(2).transpose(1, 2)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)

    def forward(self, images):
        return self.forward_tokens(images)[0].mean(dim=1)


@pytest.mark.parametrize("kind", MODELS)
def test_features_and_tokens_of_texts_are_those_of_two_passes(kind):
    model = MODELS[kind]()
    text = _texts(4, 7, 4, pad=1 if kind == "siglip" else 0)
    text[2] = text[0]  # encoded once
    features, tokens, mask = encode_with_tokens(model, text=text)
    alone = model.encode_text(text, normalize=False)
    torch.testing.assert_close(features, alone, atol=1e-5, rtol=0)
    expected, expected_mask = encode_tokens(model, text=text, trim=True)
    torch.testing.assert_close(tokens[mask], expected[expected_mask], atol=1e-5, rtol=0)
    assert torch.equal(mask, expected_mask)


def test_features_with_tokens_cost_one_pass_of_the_towers():
    model = _clip()
    passes = []
    for block in (model.visual.transformer.resblocks[0], model.transformer.resblocks[0]):
        block.register_forward_hook(lambda *_: passes.append(1))
    encode_with_tokens(model, text=_texts(4, 7))
    passes.clear()  # the first call also checks the model
    encode_with_tokens(model, text=_texts(4, 7))
    encode_with_tokens(model, image=torch.randn(2, 3, 32, 32))
    assert len(passes) == 2


def test_features_with_tokens_of_nothing_and_of_both():
    model = _clip()
    features, tokens, mask = encode_with_tokens(model, text=_texts())
    assert (len(features), len(tokens), len(mask)) == (0, 0, 0)
    with pytest.raises(ValueError, match="either image or text"):
        encode_with_tokens(model)
