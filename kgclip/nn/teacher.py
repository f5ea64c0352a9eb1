"""The frozen start model that distillation compares with: run along, or its outputs cached."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.clip import project_image
from kgclip.nn.tokens import encode_text_trimmed


@dataclasses.dataclass
class TeacherFeatures:
    """What the start model made of image-text pairs; all features are unit vectors.

    Attributes:
        image: Float [B, D'].
        text: Float [B, D'].
        logit_scale: Inverse temperature, exponentiated. Float scalar.
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor


class Teacher:
    """A frozen copy of an open_clip model as it is now.

    Not a module: a model that holds it neither trains nor saves it. Costs a forward pass of both
    towers a step; where pictures are not augmented, cache what it returns instead.

    Args:
        clip: Copied; later changes do not reach the copy.
    """

    def __init__(self, clip: nn.Module) -> None:
        self.clip = copy.deepcopy(clip).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, image: Tensor, text: Tensor) -> TeacherFeatures:
        """Encode pairs: pictures or cached trunk features, and token ids."""
        clip: Any = self.clip.to(text.device)
        return TeacherFeatures(
            F.normalize(project_image(clip, image), dim=-1),
            encode_text_trimmed(clip, text, normalize=True),
            clip.logit_scale.exp(),
        )
