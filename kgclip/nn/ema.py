"""An exponential moving average of a model's weights: often better than the last ones.

A model goes in once and is looked at after every step; out comes a ``state_dict`` of the same
names, so that whatever loads, merges or exports the model's weights takes the average too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """a ← d · a + (1 − d) · w after each step, with d = min(decay, (1 + t) / (10 + t)).

    The share d is small in the first steps t = 1, 2 …, so that the start is soon forgotten. Whole
    numbers, such as batch norm's count of batches, are the model's own.

    Args:
        model: Averaged from its weights of now on.
        decay: Largest share of the past, in [0, 1).

    Raises:
        ValueError: If ``decay`` is out of range.

    Reference:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; the
        warm-up is TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay: {decay} given, a share in [0, 1) expected")
        self.decay = decay
        self._average = {name: _copy(value) for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the model's weights.

        Args:
            model: The one that the average is of.
            step: Steps done, at least 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by the model's names; they change with the next update."""
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from averaged weights of the same model."""
        for name, value in state.items():
            self._average[name].copy_(value)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
