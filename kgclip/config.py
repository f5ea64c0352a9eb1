"""A training config: TOML in, checked settings out.

Config stops here: the trainer, the batches and the losses take keyword arguments and know
nothing of TOML.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from kgclip.batches import BatchOptions
from kgclip.nn.losses import LOSSES
from kgclip.nn.triples import PRESETS, TripleEncoderOptions
from kgclip.settings import Settings, check_settings, nearest, read_settings
from kgclip.trainer import TrainerOptions


class LoraSettings(Settings):
    """Adapters; see :func:`kgclip.nn.lora.add_lora`."""

    rank: int = pydantic.Field(default=8, ge=1)
    alpha: float = 16.0
    target_modules: list[str] | None = None


class ModelSettings(Settings):
    """Which towers, and what stands beside them.

    Attributes:
        name: open_clip's model name, or ours, ``kgclip-effnet-lite0``.
        pretrained: open_clip's tag, or the path of a checkpoint.
        pretrained_image: Start from trained weights of the image trunk.
        graph_layers: Hops of the graph encoder; 0 = no graph part.
        triple_encoder: Preset of the triple encoder, ``"small"`` or ``"paper"``; ``None`` = the
            text tower reads triples.
        triple_options: What differs from the preset: fields of
            :class:`~kgclip.nn.triples.TripleEncoderOptions`.
        lock_image: Freeze the image tower (a timm tower's trunk), as LiT does: each picture is
            encoded once. Else pictures are decoded in every step, without augmentation.
        unlocked_groups: With ``lock_image``: last groups of its layers that train nevertheless, as
            open_clip counts them; pictures are then decoded in every step too.
        lock_text: Freeze the text tower; each text is encoded once.
        lora: Low-rank adapters instead of weights, in the towers that are not locked.
        tower_lr: Peak learning rate of the towers; ``None`` = that of ``trainer``.
    """

    name: str = "kgclip-effnet-lite0"
    pretrained: str | None = None
    pretrained_image: bool = True
    graph_layers: int = pydantic.Field(default=0, ge=0)
    triple_encoder: str | None = None
    triple_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    lock_image: bool = True
    unlocked_groups: int = pydantic.Field(default=0, ge=0)
    lock_text: bool = False
    lora: LoraSettings | None = None
    tower_lr: float | None = pydantic.Field(default=None, gt=0)

    @pydantic.model_validator(mode="after")
    def _known_options(self) -> Self:
        self.triple_encoder_options()
        if self.unlocked_groups and not self.lock_image:
            raise ValueError("unlocked_groups without lock_image, which trains all of them anyway")
        if self.lora is not None and self.lock_image and self.lock_text:
            raise ValueError("lora, but both towers are locked: lock_image or lock_text = false")
        if self.lora is not None and self.unlocked_groups:
            raise ValueError("lora and unlocked_groups: adapters or weights expected, not both")
        return self

    @property
    def caches_images(self) -> bool:
        """Whether nothing before the image head trains, so that each picture is encoded once."""
        return self.lock_image and not self.unlocked_groups

    def triple_encoder_options(self) -> TripleEncoderOptions | None:
        """The preset with its changes; ``None`` where no triple encoder is asked for.

        Raises:
            ValueError: If a name or a value is unknown, or there are changes but no preset.
        """
        if self.triple_encoder is None:
            if self.triple_options:
                raise ValueError("triple_options without triple_encoder, a preset to change")
            return None
        if self.triple_encoder not in PRESETS:
            known = nearest(self.triple_encoder, PRESETS)
            raise ValueError(f"unknown triple_encoder {self.triple_encoder!r}; {known}")
        preset = PRESETS[self.triple_encoder]
        for name in self.triple_options:
            if not hasattr(preset, name):
                known = nearest(name, dataclasses.asdict(preset))
                raise ValueError(f"unknown triple_options key {name!r}; {known}")
        return dataclasses.replace(preset, **self.triple_options)


class LossSettings(Settings):
    """A loss of ``kgclip.nn.losses.LOSSES`` and its share.

    Attributes:
        weight: At full strength; 0 = off.
        ramp: Share of the steps over which the weight rises from 0.
        options: Keyword arguments of the loss.
    """

    weight: float = pydantic.Field(default=1.0, ge=0)
    ramp: float = pydantic.Field(default=0.0, ge=0, le=1)
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


class EvaluationSettings(Settings):
    """What a run is measured on before and after training, beside what its graph holds out.

    Attributes:
        pairs: Image-text pairs: COCO captions, a CSV with filepath and title, or a graph.
        images: Folder of the pictures that ``pairs`` names.
        classes: Folder with one folder of pictures a class, for zero-shot classification.
        templates: Wordings of a class, each with ``{}``.
    """

    pairs: str | None = None
    images: str | None = None
    classes: str | None = None
    templates: tuple[str, ...] = pydantic.Field(default=("a photo of a {}.",), min_length=1)


class TrainConfig(Settings):
    """Everything that decides a run.

    Attributes:
        graph: A saved graph's folder, or a recipe.
        output: Folder of the run.
        device: Where it trains: ``"auto"`` = a CUDA GPU where there is one, ``"cpu"``,
            ``"cuda:1"``. What a run is used on later is chosen then.
        model: The towers and the graph part.
        batches: What a step sees.
        trainer: How long and how fast.
        losses: Settings by name in ``LOSSES``.
        evaluation: What it is measured on, beside what the graph holds out.
        unreadable_pictures: ``"raise"``, or ``"skip"`` = train without the pictures that are
            missing or cannot be decoded, and warn with their number.
        task: What a config without a task is for.
        claim: Free text by key: source, licence, expected result.
    """

    graph: str
    output: str
    device: str = "auto"
    model: ModelSettings = ModelSettings()
    batches: BatchOptions = BatchOptions()
    trainer: TrainerOptions
    losses: dict[str, LossSettings] = pydantic.Field(
        default_factory=lambda: {"contrastive": LossSettings()}
    )
    evaluation: EvaluationSettings = EvaluationSettings()
    unreadable_pictures: Literal["raise", "skip"] = "raise"
    task: Literal["clip"] = "clip"
    claim: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _fitting_parts(self) -> Self:
        if self.batches.chunk_size is not None and self.model.triple_encoder is not None:
            raise ValueError("batches.chunk_size: the triple encoder reads its batch at once")
        if self.batches.graph and not self.model.graph_layers:
            raise ValueError("batches.graph needs model.graph_layers, 1 or more")
        return self

    @pydantic.field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: dict[str, LossSettings]) -> dict[str, LossSettings]:
        for name in losses:
            if name not in LOSSES:
                raise ValueError(f"unknown loss {name!r}; {nearest(name, LOSSES)}")
        return losses


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> TrainConfig:
    """Read and check a training config.

    Args:
        path: TOML file.
        overrides: Values by dotted key, as in ``{"trainer.steps": 100}``.

    Returns:
        The checked config.

    Raises:
        GraphError: If the file is missing, no TOML, or a key or value is wrong; names the key
            and the nearest known one.
    """
    return check_config(read_settings(path, overrides), str(path))


def check_config(values: Mapping[str, Any], where: str = "config") -> TrainConfig:
    """Check the values of a config.

    Args:
        values: Nested mapping, as TOML gives it.
        where: What the values were read from, for the message.

    Raises:
        GraphError: Names the key, what was given and the nearest known key.
    """
    return check_settings(TrainConfig, values, where)
