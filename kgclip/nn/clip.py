"""open_clip models as this project uses them: create, split, freeze.

In goes an open_clip model name, out come open_clip's own model and transforms; every function
takes such a model unwrapped. What one would not guess: an image tower of timm has a *trunk*
(everything up to the pooled features) and a *head* (the projection), so a frozen trunk runs
once a picture and only the head trains; of our own grid tower the frozen grid is the trunk; every
other tower is all trunk.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from torch import Tensor, nn

from kgclip.nn.grid_tower import GridTower
from kgclip.nn.pretrained import IMAGE_MEAN, IMAGE_STD, load_efficientnet_lite0

_CONFIGS = Path(__file__).parent / "model_configs"
_OURS = tuple(sorted(path.stem for path in _CONFIGS.glob("*.json")))
_Created = tuple[nn.Module, Callable[[Any], Tensor], Callable[[Any], Tensor]]
_SCHEMAS = ("hf-hub:", "local-dir:")


def register_model_configs() -> None:
    """Make the model configs of this package known to open_clip; a second call does nothing."""
    known = set(open_clip.list_models())
    if not set(_OURS) <= known:
        open_clip.add_model_config(_CONFIGS)


def create_model_and_transforms(
    model_name: str, pretrained: str | None = None, **kwargs: Any
) -> _Created:
    """Create an open_clip model and its transforms; open_clip's function, with our models too.

    Our own models share a text transformer of 2 layers and width 128, and joint width 128:
    ``kgclip-effnet-lite0`` sees pictures of 128 pixels by EfficientNet-Lite0, ``kgclip-grid`` by
    its first stages under a small transformer (:mod:`kgclip.nn.grid_tower`), so that it can tell
    where something is. They normalise pictures as their trunk was trained; with
    ``pretrained_image=True`` its ImageNet weights come from the extra ``demo`` and not from a
    model hub.

    Args:
        model_name: A name of ``open_clip.list_models()``, ``hf-hub:…``, ``local-dir:…`` or ours.
        pretrained: open_clip's tag of trained weights, or the path of a checkpoint.
        **kwargs: Everything else that ``open_clip.create_model_and_transforms`` takes.

    Returns:
        The model, the transform for training (with augmentation) and the one for evaluation;
        both turn a PIL picture into a float tensor [3, H, W].

    Raises:
        ValueError: If open_clip has no such model; says the nearest name.
        ModuleNotFoundError: If our model's trained trunk is asked for and its package is missing.
        RuntimeError: If ``pretrained`` is neither a tag nor a file (open_clip's error).
    """
    _check_model_name(model_name)
    if model_name not in _OURS:
        created: _Created = open_clip.create_model_and_transforms(model_name, pretrained, **kwargs)
        return created
    # open_clip's own rule: a full checkpoint or a file for the tower wins over default weights.
    fill = kwargs.pop("pretrained_image", False) and not (
        pretrained or kwargs.get("pretrained_image_path")
    )
    kwargs = {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD, **kwargs}
    with _without_random_start_warning() if fill else contextlib.nullcontext():
        created = open_clip.create_model_and_transforms(model_name, pretrained, **kwargs)
    if fill:
        load_efficientnet_lite0(image_trunk(created[0]))
    return created


def build_tokenizer(model_name: str, **kwargs: Any) -> Callable[[str | list[str]], Tensor]:
    """Build the tokenizer that belongs to a model, cut to the model's context length.

    Args:
        model_name: As for :func:`create_model_and_transforms`.
        **kwargs: Everything else that ``open_clip.get_tokenizer`` takes.

    Returns:
        A function from texts to token ids, long [B, L].

    Raises:
        ValueError: If open_clip has no such model (its own function would return CLIP's
            tokenizer for a misspelt name).
    """
    _check_model_name(model_name)
    if not model_name.startswith(_SCHEMAS):
        model_name = model_name.replace("/", "-")
    tokenizer: Callable[[str | list[str]], Tensor] = open_clip.get_tokenizer(model_name, **kwargs)
    return tokenizer


def save_model(model: nn.Module, model_name: str, folder: str | Path) -> None:
    """Save a model as ``open_clip.create_model("local-dir:FOLDER")`` loads it.

    Of our models ``kgclip.nn.clip`` must be imported first: it makes their towers known.

    Args:
        model: Made by :func:`create_model_and_transforms` from the config of that name.
        model_name: A name of ``open_clip.list_models()``.
        folder: Made if absent; ``open_clip_config.json`` and ``open_clip_model.safetensors``.
    """
    _check_model_name(model_name)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    visual: Any = model.visual
    config = {
        "model_cfg": open_clip.get_model_config(model_name),
        "preprocess_cfg": visual.preprocess_cfg,
    }
    text = json.dumps(config, indent=1) + "\n"
    (target / "open_clip_config.json").write_text(text, encoding="utf-8")
    save_file(model.state_dict(), target / "open_clip_model.safetensors")


def image_trunk(model: nn.Module) -> nn.Module:
    """The part of the image tower that :func:`lock_image_trunk` freezes.

    A timm tower's trunk, of a grid tower its grid; the whole tower, projection included, for
    every other kind.
    """
    visual: Any = model.visual
    trunk: nn.Module = visual.trunk if isinstance(visual, TimmModel) else visual
    return trunk.grid if isinstance(trunk, GridTower) else trunk


def image_trunk_features(model: nn.Module, images: Tensor) -> Tensor:
    """What the trunk makes of pictures; :func:`image_head` finishes it.

    ``image_head(model, image_trunk_features(model, x))`` equals ``model.encode_image(x)`` bit by
    bit. For a tower without this split (ViT, ModifiedResNet) these *are* the image features and
    the head is the identity.

    Args:
        model: An open_clip model.
        images: Preprocessed pictures. Float [B, 3, H, W].

    Returns:
        Float [B, W]; [B, W, H', W'] for a grid tower and a timm tower whose head pools. With
        gradient.
    """
    clip: Any = model
    split = isinstance(clip.visual, TimmModel)
    features: Tensor = (
        image_trunk(model)(images) if split else clip.encode_image(images, normalize=False)
    )
    return features


def image_head(model: nn.Module, features: Tensor) -> Tensor:
    """Project trunk features into the joint space.

    Args:
        model: An open_clip model.
        features: Output of :func:`image_trunk_features`.

    Returns:
        Image features before normalisation. Float [B, D], with gradient.
    """
    visual: Any = model.visual
    if not isinstance(visual, TimmModel):
        return features
    trunk: nn.Module = visual.trunk
    if isinstance(trunk, GridTower):
        features = trunk.forward_head(trunk.encode_grid(features))
    projected: Tensor = visual.head(features)
    return projected


def project_image(model: nn.Module, image: Tensor) -> Tensor:
    """Pictures, or what :func:`image_trunk_features` made of them before, to joint features.

    Args:
        model: An open_clip model.
        image: Pictures, float [B, 3, H, W], or trunk features of any other shape.

    Returns:
        Image features before normalisation. Float [B, D], with gradient.
    """
    if image.ndim == 4 and image.shape[1] == 3:
        features: Tensor = model.encode_image(image, normalize=False)  # type: ignore[operator]  # open_clip is untyped
        return features
    return image_head(model, image)


def lock_image_trunk(model: nn.Module, unlocked_groups: int = 0) -> None:
    """Freeze the image trunk: no gradients, and evaluation mode even after ``model.train()``.

    Batch norm keeps its statistics and dropout stays off, so cached trunk features remain true.
    open_clip's ``lock_image_tower(freeze_bn_stats=True)`` is not used: it swaps modules, and
    drops the activation inside timm's ``BatchNormAct2d``.

    Args:
        model: An open_clip model; changed in place.
        unlocked_groups: Last groups of layers that train nevertheless, as open_clip counts them
            in ``lock_image_tower``: 1 = a ViT's projection, 2 = its last block too.

    Raises:
        ValueError: If the tower cannot be locked in part, as open_clip's ResNets cannot.
    """
    trunk = image_trunk(model)
    if not unlocked_groups:
        _stay_evaluating(trunk.requires_grad_(False))
        return
    visual: Any = model.visual
    try:
        visual.lock(unlocked_groups=unlocked_groups)
    except AssertionError as error:
        raise ValueError(
            f"unlocked_groups: {unlocked_groups} given, 0 expected: open_clip cannot lock a "
            f"{type(visual).__name__} in part"
        ) from error
    for part in trunk.modules():
        weights = list(part.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            _stay_evaluating(part)


def _stay_evaluating(module: nn.Module) -> None:
    module.eval()
    # A parent's train() calls this instead of the method. A partial survives deepcopy.
    module.train = functools.partial(_stay_in_evaluation, module)  # type: ignore[method-assign]  # on purpose, for this object only


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; restore every submodule's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _stay_in_evaluation(trunk: nn.Module, mode: bool = True) -> nn.Module:
    return trunk


def _check_model_name(model_name: str) -> None:
    register_model_configs()
    names = open_clip.list_models()
    if model_name.startswith(_SCHEMAS) or model_name.replace("/", "-") in names:
        return
    nearest = difflib.get_close_matches(model_name, names, n=3, cutoff=0.3)
    raise ValueError(
        f"no open_clip model {model_name!r}; nearest: {', '.join(nearest) or 'none'}; "
        f"all: open_clip.list_models(), or {' and '.join(_SCHEMAS)} with a repository or folder"
    )


@contextlib.contextmanager
def _without_random_start_warning() -> Iterator[None]:
    """open_clip would say "initialized randomly" of a trunk that is filled a moment later."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
