"""Models by name: a run of ours, a folder that ``kgclip export`` wrote, or any open_clip model.

Every command that uses a trained model comes through :func:`open_model`; :func:`export_model`
writes the folder that open_clip, and whatever builds on it, loads without kgclip.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.tokenizer import HFTokenizer
from safetensors import SafetensorError
from torch import Tensor, nn

from kgclip.checkpoint import find_checkpoint, load_average, read_checkpoint
from kgclip.config import ModelSettings, TrainConfig, check_config
from kgclip.devices import pick_device
from kgclip.nn.clip import build_tokenizer, lock_image_trunk, register_model_configs
from kgclip.nn.lora import add_lora, merge_lora
from kgclip.nn.model import KnowledgeCLIP, create_model_and_transforms
from kgclip.tables import GraphError

FORMAT = "kgclip-model-1"
SETTINGS, CARD = "kgclip.json", "README.md"
CLIP_CONFIG, CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
KNOWLEDGE_WEIGHTS = "knowledge.safetensors"
# What open_clip and torch raise of a checkpoint that is missing, damaged or another model's.
_BAD_WEIGHTS = (
    RuntimeError, OSError, AssertionError, AttributeError, KeyError, EOFError,
    pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
_CLIP = "clip."  # prefix of open_clip's tensors in a KnowledgeCLIP


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model ready for use.

    Attributes:
        model: In evaluation mode.
        preprocess: From a PIL picture to float [3, H, W].
        tokenizer: From texts to token ids, long [B, L].
        config: Of the run that trained it; ``None`` for a plain open_clip model.
    """

    model: KnowledgeCLIP
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    config: TrainConfig | None = None


def build_model(config: TrainConfig) -> tuple[KnowledgeCLIP, Callable[[Any], Tensor]]:
    """Build the model of a config as it starts, what shall not train frozen.

    Args:
        config: ``trainer.seed`` decides the random weights.

    Returns:
        The model, and the transform from a PIL picture to a tensor.

    Raises:
        GraphError: If the checkpoint is missing or does not fit the towers, or what the config
            asks for cannot be done with them.
    """
    settings = config.model
    torch.manual_seed(config.trainer.seed)
    try:
        model, _, preprocess = create_model_and_transforms(
            settings.name,
            settings.pretrained,
            graph_layers=settings.graph_layers,
            triple_encoder=settings.triple_encoder_options(),
            pretrained_image=settings.pretrained_image,
        )
    except _BAD_WEIGHTS as error:
        weights = settings.pretrained or settings.name
        raise GraphError(
            f"model.pretrained: {weights}: no weights of {settings.name}: {_first_line(error)}; "
            "give a tag of open_clip.list_pretrained_tags_by_model, or a checkpoint of this model"
        ) from error
    try:
        _freeze(model.clip, settings)
        _check_batch_norm(model.clip, config)
    except ValueError as error:
        raise GraphError(f"model: {error}") from error
    return model, preprocess


def _freeze(clip: nn.Module, settings: ModelSettings) -> None:
    """Leave what shall train: whole towers, groups of the image tower, or adapters."""
    if settings.lora is not None:
        locked = settings.lock_image, settings.lock_text
        tower = {(True, False): "text", (False, True): "image"}.get(locked)
        add_lora(clip, **settings.lora.model_dump(), tower=tower)
    elif settings.lock_text:
        clip.lock_text_tower()  # type: ignore[operator]  # open_clip is untyped
    if settings.lock_image:
        lock_image_trunk(clip, settings.unlocked_groups)


def _check_batch_norm(clip: nn.Module, config: TrainConfig) -> None:
    """Chunks are encoded twice, and batch norm in training mode sees each of them."""
    trains = any(
        isinstance(part, nn.modules.batchnorm._BatchNorm)
        and any(weight.requires_grad for weight in part.parameters())
        for part in clip.modules()
    )
    if trains and config.batches.chunk_size is not None:
        raise ValueError(
            f"{config.model.name} has batch norm, whose statistics batches.chunk_size would "
            "change: lock_image = true, or leave chunk_size out"
        )


def _first_line(error: Exception) -> str:
    """What torch says of a checkpoint, without its list of every tensor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(". ")


def load_weights(run: str | Path, model: KnowledgeCLIP) -> KnowledgeCLIP:
    """Fill a model that :func:`build_model` built with what a run learned.

    The moving average, where the run kept one; adapters become part of the weights.

    Args:
        run: Folder of a run or a checkpoint.
        model: Changed in place.

    Returns:
        The model in evaluation mode, with open_clip's names.

    Raises:
        GraphError: If there is no checkpoint, it is damaged, or does not fit the model.
    """
    model.load_state_dict(load_average(run, model))
    return merge_lora(model).eval()


def open_model(name: str | Path, pretrained: str | None = None, device: str = "cpu") -> OpenedModel:
    """Open a model.

    Args:
        name: Folder of a run or of a checkpoint, folder that ``kgclip export`` wrote, or a name
            that open_clip knows, ``hf-hub:…`` and ``local-dir:…`` included.
        pretrained: open_clip's tag of trained weights or a checkpoint file, for an open_clip
            name alone.
        device: Where the model goes; see :func:`~kgclip.devices.pick_device`.

    Returns:
        The model and what goes with it.

    Raises:
        GraphError: If the folder holds neither a run nor an exported model, or there is no such
            device.
        ValueError: If it is no folder and open_clip has no such model; says the nearest name.
    """
    place = pick_device(device)
    opened = _open(name, pretrained)
    opened.model.to(place)
    return opened


def _open(name: str | Path, pretrained: str | None) -> OpenedModel:
    folder = Path(name)
    if find_checkpoint(folder) is not None:
        config = check_config(read_checkpoint(folder).config, str(folder))
        model, preprocess = build_model(config)
        tokenizer = build_tokenizer(config.model.name)
        return OpenedModel(load_weights(folder, model), preprocess, tokenizer, config)
    if (folder / SETTINGS).is_file():
        return _open_exported(folder)
    if folder.is_dir():
        raise GraphError(
            f"{folder}: neither a run nor an exported model: a folder with 'last', or with "
            f"{SETTINGS}, expected; an open_clip folder is local-dir:{folder}"
        )
    model, _, preprocess = create_model_and_transforms(str(name), pretrained, graph_layers=0)
    return OpenedModel(model.eval(), preprocess, build_tokenizer(str(name)))


def _open_exported(folder: Path) -> OpenedModel:
    settings = _read_json(folder / SETTINGS)
    if settings.get("format") != FORMAT:
        raise GraphError(
            f"{folder / SETTINGS}: format {settings.get('format')!r} given, {FORMAT!r} expected"
        )
    config = check_config(settings["config"], str(folder / SETTINGS))
    name = f"local-dir:{folder}"
    changes = {"name": name, "pretrained": None, "lora": None}
    here = config.model_copy(update={"model": config.model.model_copy(update=changes)})
    model, preprocess = build_model(here)
    if (folder / KNOWLEDGE_WEIGHTS).is_file():
        own = safetensors.torch.load_file(folder / KNOWLEDGE_WEIGHTS)
        missing, unknown = model.load_state_dict(own, strict=False)
        missing = [key for key in missing if not key.startswith(_CLIP)]
        if missing or unknown:
            raise GraphError(
                f"{folder / KNOWLEDGE_WEIGHTS}: {len(missing)} tensors missing and "
                f"{len(unknown)} unknown; export the run again"
            )
    return OpenedModel(model.eval(), preprocess, build_tokenizer(name), config)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GraphError(f"{file}: not JSON ({error}); export the run again") from error
    if not isinstance(values, dict):
        raise GraphError(f"{file}: a JSON object expected; export the run again")
    return values


def export_model(
    run: str | Path,
    output: str | Path,
    figures: Mapping[str, float] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a trained model as a folder that open_clip loads.

    ``open_clip.create_model("local-dir:OUTPUT")``, or the run's own model name with
    ``pretrained="OUTPUT/open_clip_model.safetensors"``, gives the run's embeddings. The folder
    has the layout of a Hugging Face repository.

    Args:
        run: Folder of a run.
        output: Folder that is written; must not exist, or be an earlier export.
        figures: What was measured, for the model card.
        state: Weights to write instead of the run's, as ``model.state_dict()`` names them.

    Returns:
        ``output``.

    Raises:
        GraphError: If ``run`` holds none, or ``output`` is another folder than an export.
    """
    opened = open_model(run)
    if opened.config is None:
        raise GraphError(f"{run}: a run's folder expected; open_clip's models need no export")
    target = Path(output)
    if target.exists() and not (target / SETTINGS).is_file():
        raise GraphError(f"{target}: exists and is no earlier export; name another folder")
    tensors = dict(state if state is not None else opened.model.state_dict())
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        _write(new, opened.model, opened.config, tensors, dict(figures or {}))
        shutil.rmtree(target, ignore_errors=True)
        os.rename(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def _write(
    folder: Path,
    model: KnowledgeCLIP,
    config: TrainConfig,
    tensors: Mapping[str, Tensor],
    figures: Mapping[str, float],
) -> None:
    clip = {
        key.removeprefix(_CLIP): _copy(value)
        for key, value in tensors.items()
        if key.startswith(_CLIP)
    }
    own = {key: _copy(value) for key, value in tensors.items() if not key.startswith(_CLIP)}
    safetensors.torch.save_file(clip, folder / CLIP_WEIGHTS)
    if own:
        safetensors.torch.save_file(own, folder / KNOWLEDGE_WEIGHTS)
    visual: Any = model.clip.visual
    _write_json(
        folder / CLIP_CONFIG,
        {"model_cfg": clip_config(config.model.name), "preprocess_cfg": visual.preprocess_cfg},
    )
    _save_tokenizer(folder, config.model.name)
    portable = config.model_copy(  # the names of the author's folders are nobody's business
        update={"graph": Path(config.graph).name, "output": Path(config.output).name}
    )
    settings = {"format": FORMAT, "config": portable.model_dump(mode="json"), "figures": figures}
    _write_json(folder / SETTINGS, settings)
    (folder / CARD).write_text(_card(config, figures), encoding="utf-8")


def _save_tokenizer(folder: Path, name: str) -> None:
    """Write a Hugging Face tokenizer beside the weights, where open_clip looks for it."""
    tokenizer: Any = build_tokenizer(name)
    if isinstance(tokenizer, HFTokenizer):
        tokenizer.tokenizer.save_pretrained(folder)


def clip_config(name: str) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of a model, ours included.

    Raises:
        GraphError: If open_clip keeps no config of that name.
    """
    register_model_configs()
    has_schema = name.startswith(("local-dir:", "hf-hub:"))
    found = open_clip.get_model_config(name if has_schema else name.replace("/", "-"))
    if found is None:
        raise GraphError(f"open_clip has no config of {name!r}; give a name of its list_models()")
    return dict(found)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _card(config: TrainConfig, figures: Mapping[str, float]) -> str:
    claim = "\n".join(f"- {key}: {value}" for key, value in config.claim.items())
    rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in figures.items())
    losses = ", ".join(f"{name} {term.weight:g}" for name, term in config.losses.items())
    return f"""---
library_name: open_clip
tags:
- clip
- knowledge-graph
- kgclip
---

# {Path(config.output).name}

A CLIP model trained with a knowledge graph by kgclip. `{CLIP_WEIGHTS}` is a plain open_clip
model; `{KNOWLEDGE_WEIGHTS}`, where present, holds the graph part.

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{{folder}}")
```

- towers: {config.model.name}
- start weights: {config.model.pretrained or "random, but for what the config names"}
- graph: {Path(config.graph).name}
- losses and weights: {losses}
- steps: {config.trainer.steps}, seed {config.trainer.seed}
{claim}

| measured on what the graph holds out | |
|---|---|
{rows or "| nothing was measured | |"}
"""


def start_state(config: TrainConfig) -> dict[str, Tensor]:
    """Weights that a run started from, built again from its config and seed."""
    model, _ = build_model(config)
    model = merge_lora(model)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}
