import copy
import json
import logging
import pickle

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from kgclip.nn.clip import (
    build_tokenizer,
    create_model_and_transforms,
    evaluating,
    image_head,
    image_trunk,
    image_trunk_features,
    lock_image_trunk,
    register_model_configs,
)

OURS = "kgclip-effnet-lite0"
TEXT = {"context_length": 12, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
TIMM = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "image_size": 32}
VISION = {
    "timm, mlp": {**TIMM, "timm_proj": "mlp"},
    "timm, linear": {**TIMM, "timm_proj": "linear"},
    "timm, projection in the trunk": {**TIMM, "timm_proj": ""},
    "timm, attention pool": {**TIMM, "timm_pool": "rot_attn", "timm_proj": ""},
    "vit": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
}


@pytest.fixture(params=VISION)
def model(request):
    torch.manual_seed(0)
    return CLIP(8, dict(VISION[request.param]), dict(TEXT))


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return create_model_and_transforms(OURS, pretrained_image=True)


def test_registering_twice_adds_the_folder_once():
    register_model_configs()
    before = list(open_clip.factory._MODEL_CONFIG_PATHS)
    register_model_configs()
    assert before == open_clip.factory._MODEL_CONFIG_PATHS
    assert OURS in open_clip.list_models()


def test_our_model_has_the_documented_shape(ours):
    model, _, preprocess = ours
    images, tokens = torch.zeros(2, 3, 128, 128), build_tokenizer(OURS)(["a cat", "two cats"])
    assert tokens.shape == (2, 32)
    model.eval()
    with torch.no_grad():
        assert image_trunk_features(model, images).shape == (2, 1280)
        assert model.encode_image(images).shape == model.encode_text(tokens).shape == (2, 128)
    assert "mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)" in repr(preprocess)


def test_trained_trunk_comes_without_a_hub_and_without_a_false_warning(caplog):
    with caplog.at_level(logging.WARNING):
        trained = create_model_and_transforms(OURS, pretrained_image=True)[0]
        assert "initialized randomly" not in caplog.text
        random = create_model_and_transforms(OURS)[0]
        assert "initialized randomly" in caplog.text
    stem = "visual.trunk.conv_stem.weight"
    assert trained.state_dict()[stem].std() > 2 * random.state_dict()[stem].std()


def test_a_name_of_open_clip_gives_its_own_model():
    torch.manual_seed(0)
    mine, _, _ = create_model_and_transforms("RN50", vision_cfg=VISION["vit"], text_cfg=TEXT)
    torch.manual_seed(0)
    theirs, _, _ = open_clip.create_model_and_transforms(
        "RN50", vision_cfg=VISION["vit"], text_cfg=TEXT
    )
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in mine.state_dict().items())


@pytest.mark.parametrize("create", [create_model_and_transforms, build_tokenizer])
def test_a_misspelt_name_is_an_error_with_the_nearest(create):
    with pytest.raises(ValueError, match="ViT-B-32"):
        create("ViT-B-23")


def test_a_tokenizer_takes_both_spellings_of_a_name():
    tokens = build_tokenizer("ViT-B/32")(["a cat"])
    assert torch.equal(tokens, open_clip.get_tokenizer("ViT-B-32")(["a cat"]))


def test_a_checkpoint_file_replaces_every_weight(ours, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(ours[0].state_dict(), path)
    loaded, _, preprocess = create_model_and_transforms(OURS, pretrained=str(path))
    state = ours[0].state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert repr(preprocess) == repr(ours[2])


def test_a_checkpoint_wins_over_the_default_trunk(ours, tmp_path):
    changed = {name: torch.zeros_like(tensor) for name, tensor in ours[0].state_dict().items()}
    torch.save(changed, tmp_path / "weights.pt")
    loaded, _, _ = create_model_and_transforms(
        OURS, pretrained=str(tmp_path / "weights.pt"), pretrained_image=True
    )
    assert not loaded.state_dict()["visual.trunk.conv_stem.weight"].any()


def test_a_local_folder_brings_its_config_and_preprocessing(ours, tmp_path):
    model = ours[0]
    config = {
        "model_cfg": open_clip.get_model_config(OURS),
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    loaded, _, preprocess = create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = build_tokenizer(f"local-dir:{tmp_path}")(["a cat"])
    with torch.no_grad():
        assert torch.equal(loaded.encode_text(tokens), model.encode_text(tokens))
    assert "mean=[0.5, 0.5, 0.5]" in repr(preprocess)


def test_head_of_trunk_is_the_tower_itself(model):
    model.eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = image_trunk_features(model, images)
        assert torch.equal(image_head(model, features), model.encode_image(images))


def test_a_head_trains_on_cached_trunk_features(ours):
    model, images = ours[0].eval(), torch.randn(2, 3, 64, 64)
    model.zero_grad()
    model.encode_image(images).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.visual.head.named_parameters()}
    model.zero_grad()
    with torch.no_grad():
        features = image_trunk_features(model, images)
    image_head(model, features).square().sum().backward()
    for name, parameter in model.visual.head.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])


def _twice(model):
    images = torch.randn(4, 3, 32, 32)
    return model.train().encode_image(images), model.eval().encode_image(images)


def test_a_locked_trunk_stays_as_it_is_in_training(model):
    before = {name: tensor.clone() for name, tensor in image_trunk(model).state_dict().items()}
    lock_image_trunk(model)
    training, evaluation = _twice(model)
    assert torch.equal(training, evaluation)
    after = image_trunk(model).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in image_trunk(model).parameters())
    head = [p for n, p in model.visual.named_parameters() if n.startswith("head.")]
    assert all(parameter.requires_grad for parameter in head)


def test_without_the_lock_training_changes_the_statistics():
    model = CLIP(8, dict(VISION["timm, mlp"]), dict(TEXT))
    assert not torch.equal(*_twice(model))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_locked_model_is_locked_by_itself(duplicate):
    model = CLIP(8, dict(VISION["timm, mlp"]), dict(TEXT))
    lock_image_trunk(model)
    copied = duplicate(model).train()
    assert copied.visual.trunk.train.args[0] is copied.visual.trunk
    assert not any(part.training for part in copied.visual.trunk.modules())
    assert copied.visual.head.training


def _interrupted(model):
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        raise KeyboardInterrupt


def test_evaluating_restores_each_part():
    model = CLIP(8, dict(VISION["timm, mlp"]), dict(TEXT)).train()
    model.visual.trunk.blocks.eval()
    before = [part.training for part in model.modules()]
    with pytest.raises(KeyboardInterrupt):
        _interrupted(model)
    assert before == [part.training for part in model.modules()]
    assert any(before)
    assert not all(before)


def test_the_last_groups_of_a_tower_can_train():
    model = CLIP(8, dict(VISION["timm, mlp"]), dict(TEXT))
    lock_image_trunk(model, unlocked_groups=1)
    parts = dict(model.visual.trunk.named_parameters())
    trained = [name for name, weight in parts.items() if weight.requires_grad]
    assert 0 < len(trained) < len(parts)
    before = {name: tensor.clone() for name, tensor in model.visual.trunk.state_dict().items()}
    model.train()
    model.encode_image(torch.randn(4, 3, 32, 32)).sum().backward()
    after = model.visual.trunk.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for name in changed:  # batch norm's statistics, of what trains alone
        assert f"{name.rpartition('.')[0]}.weight" in trained
