import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from torchvision import transforms

from kgclip.nn.clip import image_trunk_features
from kgclip.nn.features import cache_image_features, cache_image_tokens, cache_text_features
from kgclip.nn.tokens import encode_tokens, text_tower
from kgclip.tables import GraphError

TEXT = {"context_length": 12, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
VISION = {"timm_model_name": "test_efficientnet", "timm_proj": "mlp", "image_size": 32}
PREPROCESS = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])


class Counted:
    """A model and how many pictures its trunk has seen."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = CLIP(8, dict(VISION), dict(TEXT))
        self.batches = []
        self.model.visual.trunk.register_forward_pre_hook(
            lambda _, images: self.batches.append(len(images[0]))
        )


@pytest.fixture
def counted():
    return Counted()


@pytest.fixture
def paths(tmp_path):
    generator = np.random.default_rng(0)
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file in files:
        Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
    return files


def test_rows_equal_encoding_one_by_one(counted, paths):
    order = [paths[i] for i in (3, 0, 3, 1, 4, 2, 0)]
    cached = cache_image_features(counted.model, PREPROCESS, order, batch_size=2)
    assert counted.batches == [2, 2, 1]
    assert cached.dtype == torch.float32
    features = cached[:]
    assert not features.requires_grad
    counted.model.eval()
    for path, row in zip(order, features, strict=True):
        with Image.open(path) as picture, torch.no_grad():
            wanted = image_trunk_features(counted.model, PREPROCESS(picture).unsqueeze(0))
        torch.testing.assert_close(row, wanted[0])


def test_the_model_keeps_its_modes_and_statistics(counted, paths):
    counted.model.train()
    counted.model.visual.trunk.blocks.eval()
    modes = [part.training for part in counted.model.modules()]
    state = {name: tensor.clone() for name, tensor in counted.model.state_dict().items()}
    cache_image_features(counted.model, PREPROCESS, paths)
    assert modes == [part.training for part in counted.model.modules()]
    assert all(torch.equal(state[n], tensor) for n, tensor in counted.model.state_dict().items())


def test_the_second_call_reads_the_file_in_any_order(counted, paths, tmp_path):
    first = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")[:]
    counted.batches.clear()
    with torch.no_grad():  # the head may train; the trunk's features are the same
        counted.model.visual.head.mlp.fc1.weight.add_(1)
    again = cache_image_features(
        counted.model, PREPROCESS, paths[::-1] + paths[:1], folder=tmp_path / "cache"
    )
    assert counted.batches == []
    assert torch.equal(again[:], torch.cat([first.flip(0), first[:1]]))
    assert [file.suffix for file in _files(tmp_path)] == [".safetensors"]


def _files(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def _change_weight(model, paths):
    with torch.no_grad():
        model.visual.trunk.conv_stem.weight[0, 0, 0, 0] += 1
    return PREPROCESS


def _change_statistics(model, paths):
    model.visual.trunk.bn1.running_mean[0] += 1
    return PREPROCESS


def _change_picture(model, paths):
    Image.new("RGB", (20, 24)).save(paths[0])
    return PREPROCESS


def _change_preprocessing(model, paths):
    return transforms.Compose([transforms.Resize((40, 40)), transforms.ToTensor()])


@pytest.mark.parametrize(
    "change", [_change_weight, _change_statistics, _change_picture, _change_preprocessing]
)
def test_what_determines_the_features_names_the_file(counted, paths, tmp_path, change):
    before = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")
    preprocess = change(counted.model, paths)
    after = cache_image_features(counted.model, preprocess, paths, folder=tmp_path / "cache")
    assert len(_files(tmp_path)) == 2
    assert not torch.equal(before[:], after[:])


def test_a_changed_picture_alone_is_encoded_again(counted, paths, tmp_path):
    before = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")[:]
    _change_picture(counted.model, paths)
    after = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")[:]
    assert counted.batches == [5, 1]
    assert (before != after).any(dim=1).tolist() == [True, False, False, False, False]


def test_an_address_in_the_transforms_name_does_not_matter(counted, paths, tmp_path):
    for _ in range(2):
        preprocess = transforms.Compose(
            [transforms.Lambda(lambda p: p.resize((32, 32))), *PREPROCESS.transforms]
        )
        cache_image_features(counted.model, preprocess, paths, folder=tmp_path / "cache")
    assert counted.batches == [5]


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"nonsense" * 9])
def test_a_damaged_file_is_computed_again(counted, paths, tmp_path, damage):
    first = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")[:]
    (file,) = _files(tmp_path)
    content = file.read_bytes()
    file.write_bytes(damage)
    again = cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")
    assert torch.equal(first, again[:])
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [None, b"", b"not a picture", "half"])
def test_an_unreadable_picture_is_named_and_leaves_nothing(counted, paths, tmp_path, content):
    if content is None:
        paths[2].unlink()
    else:
        paths[2].write_bytes(paths[2].read_bytes()[:400] if content == "half" else content)
    with pytest.raises(GraphError, match=r"2\.png: .*(decode|read)"):
        cache_image_features(counted.model, PREPROCESS, paths, folder=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_no_pictures_still_have_a_width(counted):
    features = cache_image_features(counted.model, PREPROCESS, [])
    assert features.shape == (0, counted.model.visual.trunk.num_features)
    assert features[:].shape == features.shape


def test_a_tower_without_a_trunk_is_cached_whole(paths):
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    model = CLIP(8, vision, dict(TEXT))
    features = cache_image_features(model, PREPROCESS, paths)
    assert features.shape == (5, 8)


def test_a_tower_in_half_precision_gives_float32(counted, paths):
    features = cache_image_features(counted.model.to(torch.bfloat16), PREPROCESS, paths)
    assert features.dtype == torch.float32


def test_the_batch_size_is_checked(counted, paths):
    with pytest.raises(ValueError, match="batch_size"):
        cache_image_features(counted.model, PREPROCESS, paths, batch_size=0)


@pytest.mark.parametrize("progress", [True, False])
def test_a_long_run_shows_a_bar_on_stderr_only(counted, paths, monkeypatch, capsys, progress):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    monkeypatch.setattr("kgclip.nn.features._QUIET_SECONDS", 0)
    cache_image_features(counted.model, PREPROCESS, paths, batch_size=1, progress=progress)
    printed = capsys.readouterr()
    assert ("encoding pictures" in printed.err) == progress
    assert not printed.out


def test_tokens_of_pictures_are_pooled_and_kept(counted, paths, tmp_path):
    folder = tmp_path / "cache"
    tokens = cache_image_tokens(counted.model, PREPROCESS, paths, max_tokens=None, folder=folder)
    counted.model.eval()
    with Image.open(paths[0]) as picture, torch.no_grad():
        wanted, _ = encode_tokens(counted.model, image=PREPROCESS(picture).unsqueeze(0))
    torch.testing.assert_close(tokens[:][0], wanted[0])
    again = cache_image_tokens(counted.model, PREPROCESS, paths, max_tokens=None, folder=folder)
    assert torch.equal(again[:], tokens[:])
    one = cache_image_tokens(counted.model, PREPROCESS, paths, max_tokens=1, folder=folder)
    torch.testing.assert_close(one[:], tokens[:].mean(dim=1, keepdim=True))
    cache_image_features(counted.model, PREPROCESS, paths, folder=folder)
    assert len(_files(tmp_path)) == 3


def test_parts_of_a_picture_are_pictures_of_their_own(counted, paths, tmp_path):
    with Image.open(paths[0]) as whole:
        whole.crop((2, 3, 12, 15)).save(tmp_path / "part.png")
    parts = [(paths[0], (2, 3, 10, 12)), (paths[0], None), paths[0], (paths[0], (1, 3, 10, 12))]
    cached = cache_image_features(counted.model, PREPROCESS, parts, folder=tmp_path / "cache")[:]
    assert counted.batches == [3]
    wanted = cache_image_features(counted.model, PREPROCESS, [tmp_path / "part.png", paths[0]])[:]
    torch.testing.assert_close(cached[:2], wanted)
    assert torch.equal(cached[1], cached[2])
    assert not torch.equal(cached[0], cached[3])
    with pytest.raises(GraphError, match=r"0\.png: the box .* has no pixel"):
        cache_image_features(counted.model, PREPROCESS, [(paths[0], (24, 0, 5, 5))])


# ---------------------------------------------------------------- texts

EOT = 49


def _ids(*lengths):
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(len(lengths), 12, dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(1, EOT, (length,), generator=generator)
        row[length - 1] = EOT
    return rows


def _text_model(cls=CLIP):
    torch.manual_seed(0)
    return cls(8, dict(VISION), dict(TEXT))


@pytest.mark.parametrize("cls", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize("on_disk", [True, False])
def test_texts_equal_encoding_one_by_one_and_run_once(tmp_path, cls, on_disk):
    model, folder = _text_model(cls), tmp_path / "cache" if on_disk else None
    tokens = _ids(9, 3, 5, 12, 3)[torch.tensor([0, 3, 1, 0, 2, 1, 4])]
    seen = []
    text_tower(model).transformer.register_forward_pre_hook(
        lambda _, states: seen.append(len(states[0]))
    )
    cached = cache_text_features(model, tokens, batch_size=2, folder=folder)
    assert cached.shape == (7, 8)
    for row, text in zip(cached[:], tokens, strict=True):
        torch.testing.assert_close(row, model.encode_text(text[None])[0])
    seen.clear()
    again = cache_text_features(model, tokens.flip(0), folder=folder)
    assert torch.equal(again[:], cached[:].flip(0)) or not on_disk
    assert (seen == []) == on_disk


def test_a_changed_text_alone_is_encoded_again(tmp_path):
    model, tokens = _text_model(), _ids(9, 3, 5)
    before = cache_text_features(model, tokens, folder=tmp_path)[:]
    seen = []
    model.transformer.register_forward_pre_hook(lambda _, states: seen.append(len(states[0])))
    tokens[1, 0] = 7
    after = cache_text_features(model, tokens, folder=tmp_path)[:]
    assert seen == [1]
    assert (before != after).any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("weight", ["token_embedding.weight", "ln_final.bias", "text_projection"])
@pytest.mark.parametrize("cls", [CLIP, CustomTextCLIP])
def test_another_text_tower_is_another_folder(tmp_path, weight, cls):
    model, tokens = _text_model(cls), _ids(9, 3, 5)
    before = cache_text_features(model, tokens, folder=tmp_path)[:]
    with torch.no_grad():
        text_tower(model).get_parameter(weight).mul_(2).add_(1)
    after = cache_text_features(model, tokens, folder=tmp_path)[:]
    assert not torch.equal(before, after)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_image_tower_is_nothing_to_texts(tmp_path):
    model, tokens = _text_model(), _ids(9, 3, 5)
    cache_text_features(model, tokens, folder=tmp_path)
    with torch.no_grad():
        model.visual.trunk.conv_stem.weight.add_(1)
        model.logit_scale.add_(1)
    cache_text_features(model, tokens, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_no_texts_still_have_a_width():
    assert cache_text_features(_text_model(), _ids()).shape == (0, 8)
