"""The average is what a slow loop makes of all weights so far."""

import pytest
import torch
from torch import nn

from kgclip.nn.ema import WeightAverage


def model_after(step):
    torch.manual_seed(step)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(5, 3))  # batch norm's statistics and its whole number
    return model


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_average_is_that_of_a_slow_loop(decay):
    models = [model_after(step) for step in range(30)]
    average = WeightAverage(models[0], decay)
    weights = [1.0] + [0.0] * 29  # share of each step's weights
    for step in range(1, 30):
        average.update(models[step], step)
        share = min(decay, (1 + step) / (10 + step))
        weights = [share * weight for weight in weights]
        weights[step] = 1 - share
    assert sum(weights) == pytest.approx(1)
    found = average.state_dict()
    for name, last in models[-1].state_dict().items():
        if last.is_floating_point():
            parts = zip(weights, models, strict=True)
            expected = sum(weight * m.state_dict()[name].double() for weight, m in parts)
            assert (found[name] - expected).abs().max() <= 1e-6 * expected.abs().max().clamp(min=1)
        else:
            assert torch.equal(found[name], last)


def test_it_is_a_copy_that_goes_on():
    models = [model_after(step) for step in range(4)]
    whole, first = WeightAverage(models[0], 0.9), WeightAverage(models[0], 0.9)
    start = models[0].state_dict()["0.weight"].clone()
    for step in (1, 2, 3):
        whole.update(models[step], step)
    assert torch.equal(models[0].state_dict()["0.weight"], start)
    first.update(models[1], 1)
    resumed = WeightAverage(models[3], 0.9)
    resumed.load_state_dict(first.state_dict())
    for step in (2, 3):
        resumed.update(models[step], step)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_share_of_the_past_is_below_one(decay):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        WeightAverage(nn.Linear(1, 1), decay)
