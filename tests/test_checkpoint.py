import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kgclip.checkpoint import find_checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from kgclip.tables import GraphError


class Tied(nn.Module):
    """A tied weight, a view of a buffer, a number and an integer buffer."""

    def __init__(self, width=4, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(6, width)
        self.output = nn.Linear(width, 6, bias=False)
        self.output.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(width)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        table = torch.randn(4, width)
        self.register_buffer("table", table)
        self.register_buffer("column", table[:, 1])

    def forward(self, ids):
        return self.logit_scale * self.output(self.norm(self.embedding(ids)))


def train(model, optimizer, steps=2):
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.tensor([step, 1, 2])).square().mean().backward()
        optimizer.step()


def build(seed=0, kind=torch.optim.AdamW, **options):
    model = Tied(seed=seed)
    return model, kind(model.named_parameters(), lr=0.1, **options)


def tensors_equal(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"betas": (0.9, 0.98)}),
        (torch.optim.AdamW, {"fused": True, "amsgrad": True}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {}),
    ],
)
def test_goes_on_bit_for_bit(tmp_path, kind, options):
    model, optimizer = build(kind=kind, **options)
    train(model, optimizer)
    saved = save_checkpoint(
        tmp_path, model=model, optimizer=optimizer, step=2, config={"a": 1}, extra={"b": [2]}
    )
    again, again_optimizer = build(seed=1, kind=kind, **options)
    assert not tensors_equal(model, again)
    found = load_checkpoint(tmp_path, again, again_optimizer)
    assert (found.step, found.config, found.extra, found.score) == (2, {"a": 1}, {"b": [2]}, None)
    assert found.path == saved == tmp_path / "last"
    assert tensors_equal(model, again)
    assert again.output.weight is again.embedding.weight
    assert optimizer.param_groups[0].get("betas") == again_optimizer.param_groups[0].get("betas")
    train(model, optimizer)
    train(again, again_optimizer)
    assert tensors_equal(model, again)


def test_the_model_file_is_its_state_dict(tmp_path):
    model, _ = build()
    path = save_checkpoint(tmp_path, model=model, step=0)
    plain = load_file(path / "model.safetensors")
    Tied(seed=3).load_state_dict(plain)
    assert torch.equal(plain["column"], model.table[:, 1])
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "state.json"]


def test_best_is_the_best_and_last_the_last(tmp_path):
    model, _ = build()
    for step, score in enumerate([0.3, 0.7, 0.5, None]):
        save_checkpoint(tmp_path, model=model, step=step, score=score)
    assert read_checkpoint(tmp_path).step == 3
    assert read_checkpoint(tmp_path / "best").step == 1
    assert read_checkpoint(tmp_path / "best").score == 0.7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last"]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_must_be_finite(tmp_path, score):
    with pytest.raises(ValueError, match="score"):
        save_checkpoint(tmp_path, model=build()[0], step=0, score=score)
    assert not list(tmp_path.iterdir())


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    model, _ = build()
    save_checkpoint(tmp_path, model=model, step=1)
    with pytest.raises(ValueError, match="must be JSON"):
        save_checkpoint(tmp_path, model=model, step=2, config={"path": tmp_path})
    assert read_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_leaves_one_whole_checkpoint(tmp_path, monkeypatch, renames):
    """Killed before the first or between the two renames of the second save."""
    model, optimizer = build()
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, step=1)
    real, done = os.rename, []

    def killed(old, new):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(new)
        real(old, new)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, model=model, optimizer=optimizer, step=2)
    monkeypatch.undo()
    again, again_optimizer = build(seed=1)
    for folder in (tmp_path, tmp_path / "last"):
        assert load_checkpoint(folder, again, again_optimizer).step == 1
    assert tensors_equal(model, again)
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, step=3)
    assert read_checkpoint(tmp_path).step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_an_empty_folder_holds_none(tmp_path):
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "absent") is None
    with pytest.raises(GraphError, match="not a checkpoint"):
        load_checkpoint(tmp_path, build()[0])


def test_the_working_folder_can_be_the_run(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, model=build()[0], step=4)
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint(".").step == 4


class Renamed(Tied):
    def __init__(self):
        super().__init__()
        self.norms = self.norm
        del self.norm


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Tied(width=5),
            r"7 tensors of another size .*embedding.weight is \[6, 4\], the model's \[6, 5\]",
        ),
        (nn.Linear(2, 2), "2 tensors of the model missing .weight, bias"),
        (Renamed(), "norm.bias may be the model's norms.bias"),
    ],
)
def test_a_model_that_does_not_fit_is_left_alone(tmp_path, model, message):
    save_checkpoint(tmp_path, model=build()[0], step=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(GraphError, match=message):
        load_checkpoint(tmp_path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_optimizer_that_does_not_fit_leaves_the_model_alone(tmp_path):
    model, optimizer = build()
    train(model, optimizer)
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, step=2)
    again = Tied(seed=1)
    before = again.embedding.weight.detach().clone()
    named = list(again.named_parameters())
    with pytest.raises(
        GraphError, match=r"groups of \[4\] parameters, the optimizer's of \[1, 3\]"
    ):
        load_checkpoint(
            tmp_path,
            again,
            torch.optim.AdamW([{"params": named[:1]}, {"params": named[1:]}]),
        )
    with pytest.raises(GraphError, match=r"state of logit_scale, the optimizer has norm.bias"):
        load_checkpoint(tmp_path, again, torch.optim.AdamW(named[::-1]))
    assert torch.equal(again.embedding.weight, before)


def test_no_optimizer_state_is_said(tmp_path):
    model, optimizer = build()
    save_checkpoint(tmp_path, model=model, step=2)
    with pytest.raises(GraphError, match="no optimizer state"):
        load_checkpoint(tmp_path, model, optimizer)


def test_damage_is_said(tmp_path):
    model, _ = build()
    path = save_checkpoint(tmp_path / "a", model=model, step=2)
    cut, other, broken, bare = (tmp_path / name for name in ("cut", "other", "broken", "bare"))
    for copy in (cut, other, broken, bare):
        shutil.copytree(path, copy)
    (cut / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-4])
    (bare / "model.safetensors").unlink()
    for folder in (cut, bare):
        with pytest.raises(GraphError, match="missing or damaged"):
            load_checkpoint(folder, model)
    (other / "state.json").write_text(json.dumps({"format": "kgclip-checkpoint-9"}))
    with pytest.raises(GraphError, match="format 'kgclip-checkpoint-9' given"):
        load_checkpoint(other, model)
    (broken / "state.json").write_text("{")
    with pytest.raises(GraphError, match="not JSON"):
        load_checkpoint(broken, model)


def test_a_state_that_is_no_tensor_is_refused(tmp_path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(ValueError, match="_extra_state: dict"):
        save_checkpoint(tmp_path, model=Odd(2, 2), step=0)
