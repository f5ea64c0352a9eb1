import open_clip
import pytest
import timm
import torch

from kgclip.nn.clip import (
    build_tokenizer,
    create_model_and_transforms,
    image_head,
    image_trunk,
    image_trunk_features,
    lock_image_trunk,
    project_image,
    save_model,
)
from kgclip.nn.grid_tower import GridTower
from kgclip.nn.pretrained import load_efficientnet_lite0
from kgclip.nn.tokens import encode_tokens, num_prefix_tokens

OURS = "kgclip-grid"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model_and_transforms(OURS, pretrained_image=True)[0].eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 128, 128)


def test_the_grid_is_efficientnets_fifth_stage(model, images):
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_efficientnet_lite0(network)
    with torch.no_grad():
        stages = network.forward_intermediates(images, indices=[3], intermediates_only=True)
        grid = image_trunk_features(model, images)
    assert grid.shape == (3, 112, 8, 8)
    assert torch.equal(grid, stages[0])


def test_the_head_on_a_cached_grid_is_the_tower(model, images):
    with torch.no_grad():
        grid = image_trunk_features(model, images)
        features = image_head(model, grid)
        assert torch.equal(features, model.encode_image(images))
        assert torch.equal(project_image(model, grid), features)
        assert torch.equal(project_image(model, images), features)
    assert features.shape == (3, 128)


def test_only_the_grid_is_locked(images):
    model = create_model_and_transforms(OURS)[0]
    lock_image_trunk(model)
    model.train()
    assert image_trunk(model) is model.visual.trunk.grid
    model.encode_image(images).sum().backward()
    trained = {name for name, value in model.visual.named_parameters() if value.grad is not None}
    assert not any(name.startswith("trunk.grid.") for name in trained)
    assert {"trunk.cells.0.weight", "trunk.positions", "trunk.head.weight"} <= trained
    assert not any(part.training for part in image_trunk(model).modules())


def test_a_state_dict_loads_into_open_clips_own_model(model, images):
    other = open_clip.create_model(OURS)
    other.load_state_dict(model.state_dict())
    other.eval()
    tokens = open_clip.get_tokenizer(OURS)(["a cow left of a canoe"])
    with torch.no_grad():
        assert torch.equal(other.encode_image(images), model.encode_image(images))
        assert torch.equal(other.encode_text(tokens), model.encode_text(tokens))


def test_a_saved_model_is_one_of_open_clips(model, images, tmp_path):
    save_model(model, OURS, tmp_path / "saved")
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    loaded.eval()
    with torch.no_grad():
        assert torch.equal(loaded.encode_image(images), model.encode_image(images))
    assert "mean=[0.5, 0.5, 0.5]" in repr(preprocess)


def test_its_tokens_are_the_class_token_and_the_cells(model, images):
    with torch.no_grad():
        tokens, mask = encode_tokens(model, image=images)
        assert torch.equal(model.visual.trunk.forward_head(tokens), model.encode_image(images))
    assert tokens.shape == (3, 17, 128)
    assert mask.all()
    assert num_prefix_tokens(model) == 1


def test_where_something_is_can_be_told(model):
    left = torch.zeros(1, 3, 128, 128)
    left[..., :64, :64] = 1
    with torch.no_grad():
        assert not torch.allclose(model.encode_image(left), model.encode_image(left.flip(-1)))


def test_a_tower_without_projection_gives_its_width():
    tower = GridTower(width=32, heads=2, layers=1)
    assert tower(torch.randn(2, 3, 128, 128)).shape == (2, 32)
    tower.reset_classifier(5)
    assert tower(torch.randn(2, 3, 128, 128)).shape == (2, 5)


def test_captions_fit_its_context():
    tokens = build_tokenizer(OURS)(["a small cow on red left of a big canoe on gray"])
    assert tokens.shape == (1, 16)
    assert tokens[0, 13] == tokens.max()  # the end of text is not cut off
