"""Devices by name, and the pretended GPU that the tests of whole runs use."""

import pytest
import torch
from torch import nn

from kgclip.devices import pick_device
from kgclip.tables import GraphError
from tests.pretended_gpu import GPU, PretendedGPU


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(GraphError, match="cannot be used on this machine") as caught:
        pick_device(name)
    assert repr(name) in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.cuda
def test_the_gpu_is_found():
    assert pick_device("auto") == pick_device("cuda:0") == GPU


def test_a_pretended_gpu_does_what_the_cpu_does_but_does_not_meet_it():
    layer, x = nn.Linear(3, 4), torch.randn(5, 3)
    expected = layer(x)
    with PretendedGPU():
        assert layer.to("cuda").weight.device == GPU
        with pytest.raises(RuntimeError, match="one device"):
            layer(x)
        y = layer(x.to("cuda"))
        y.sum().backward()
        assert {y.device, layer.weight.grad.device, torch.zeros(1, device=y.device).device} == {GPU}
        rows = torch.tensor([1])
        assert y[rows].device == GPU
        with pytest.raises(RuntimeError, match="one device"):
            x[rows.to("cuda")]
        with pytest.raises(TypeError, match="numpy"):
            y.detach().numpy()
        assert torch.equal(y.cpu(), expected)
        assert (y + torch.tensor(1.0)).device == GPU
        assert layer.to("cpu").weight.device == torch.device("cpu")
