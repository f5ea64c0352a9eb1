import dataclasses
import json
import math
import time

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn
from torch_geometric.data import HeteroData

from kgclip.checkpoint import load_average, read_checkpoint
from kgclip.nn.losses import ContrastiveLoss, G2ELoss
from kgclip.nn.output import Batch, KnowledgeOutput, Targets
from kgclip.tables import GraphError
from kgclip.trainer import LossTerm, Trainer, TrainerOptions, decay_groups, move

SIZE = 6


class Pairs(nn.Module):
    """A real, small open_clip model; dropping patches makes every step random."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        vision = CLIPVisionCfg(
            layers=1, width=16, head_width=8, patch_size=4, image_size=16, patch_dropout=0.5
        )
        text = CLIPTextCfg(context_length=6, vocab_size=40, width=16, heads=2, layers=1)
        self.clip = CLIP(8, vision, text)

    def forward(self, images, tokens):
        image, text, scale = self.clip(images, tokens)
        return KnowledgeOutput(image_features=image, text_features=text, logit_scale=scale)


def batches(step):
    g = torch.Generator().manual_seed(step)
    inputs = {
        "images": torch.randn(SIZE, 3, 16, 16, generator=g),
        "tokens": torch.randint(1, 40, (SIZE, 6), generator=g),
    }
    return Batch(inputs, Targets(pair_ids=torch.arange(SIZE)), SIZE)


OPTIONS = TrainerOptions(steps=8, warmup_steps=2, log_every=2, checkpoint_every=3)
TERMS = {"contrastive": LossTerm(ContrastiveLoss())}


def build(model=None, terms=None, options=OPTIONS, **others):
    return Trainer(model or Pairs(), terms or TERMS, batches, options=options, **others)


def parameters(trainer):
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


def without_cpu(records):
    return [{k: v for k, v in record.items() if k != "cpu_seconds"} for record in records]


class KilledError(Exception):
    """What ends a run in the middle."""


def kill_at(last):
    def on_step(step, model):
        torch.rand(3)  # an evaluation may draw and may switch the mode
        model.eval()
        if step == last:
            raise KilledError

    return on_step


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = build(output=tmp_path / "whole")
    expected = whole.fit()
    # Checkpoints lie at 3 and 6: the steps 4 and 5 are logged, lost and run again.
    for seed, last in ((0, 5), (1, 7)):
        with pytest.raises(KilledError):
            build(Pairs(seed), output=tmp_path / "cut", on_step=kill_at(last)).fit("auto")
    log = tmp_path / "cut" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 8, "lo')  # killed while writing
    again = build(Pairs(seed=9), output=tmp_path / "cut")
    records = again.fit("auto")
    assert torch.equal(parameters(whole), parameters(again))
    assert without_cpu(records) == without_cpu(expected)
    assert records == [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 4, 6, 8]
    state = [t.optimizer.state_dict()["state"] for t in (whole, again)]
    assert torch.equal(state[0][0]["exp_avg_sq"], state[1][0]["exp_avg_sq"])


def test_resume_from_a_path_and_of_a_finished_run(tmp_path):
    first = build(output=tmp_path / "a")
    first.fit()
    other = build(Pairs(seed=5), output=tmp_path / "b")
    assert other.fit(tmp_path / "a") == []  # nothing left to do
    assert torch.equal(parameters(first), parameters(other))
    assert other.cpu_seconds == first.cpu_seconds > 0


def test_a_run_is_a_function_of_its_seed():
    runs = [build(options=dataclasses.replace(OPTIONS, seed=seed)) for seed in (0, 0, 1)]
    logs = [without_cpu(run.fit()) for run in runs]
    assert logs[0] == logs[1] != logs[2]
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))
    assert not torch.equal(parameters(runs[0]), parameters(runs[2]))


def test_dropout_differs_from_step_to_step():
    seen = []
    options = dataclasses.replace(OPTIONS, log_every=1, lr=0.0, seed=3)
    constant = Trainer(Pairs(), TERMS, lambda step: batches(0), options=options)
    seen = [record["loss"] for record in constant.fit()]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("change", "terms", "message"),
    [
        ({"lr": 0.5}, TERMS, "options.lr is 0.001, this run's 0.5"),
        ({"steps": 20}, TERMS, "options.steps is 8, this run's 20"),
        ({}, {"contrastive": LossTerm(ContrastiveLoss(), 2.0)}, "terms.contrastive"),
        ({}, {"other": LossTerm(ContrastiveLoss())}, "terms.contrastive"),
    ],
)
def test_resume_with_other_settings_is_refused(tmp_path, change, terms, message):
    build(output=tmp_path).fit()
    trainer = build(terms=terms, options=dataclasses.replace(OPTIONS, **change), output=tmp_path)
    before = parameters(trainer)
    with pytest.raises(GraphError, match=message):
        trainer.fit("auto")
    assert torch.equal(parameters(trainer), before)


def test_logging_may_change_on_resume(tmp_path):
    build(output=tmp_path).fit()
    options = dataclasses.replace(OPTIONS, log_every=1, checkpoint_every=0)
    assert build(options=options, output=tmp_path).fit("auto")[-1]["step"] == 8


def test_it_learns_and_writes_what_it_did(tmp_path):
    options = TrainerOptions(steps=30, lr=1e-2, warmup_steps=3, log_every=10)
    trainer = Trainer(
        Pairs(),
        TERMS,
        lambda step: batches(0),
        options=options,
        output=tmp_path,
        config={"name": "x"},
    )
    records = trainer.fit()
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert set(records[0]) == {
        "step", "loss", "loss/contrastive", "lr", "grad_norm", "logit_scale", "batch_size",
        "cpu_seconds",
    }  # fmt: skip
    assert records[0]["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-4)
    assert records[0]["batch_size"] == SIZE
    found = read_checkpoint(tmp_path)
    assert (found.step, found.config) == (30, {"name": "x"})
    assert found.extra["cpu_seconds"] == trainer.cpu_seconds == records[-1]["cpu_seconds"]


def test_one_step_is_adamw_by_hand():
    """Gradient clipped to 0.1, first warm-up step at a quarter of the rate, decay on matrices."""
    options = TrainerOptions(steps=1, lr=0.1, warmup_steps=4, grad_clip_norm=0.1, weight_decay=0.5)
    model, twin = nn.Linear(2, 2), nn.Linear(2, 2)
    twin.load_state_dict(model.state_dict())
    features = torch.tensor([[1.0, 2.0], [3.0, -1.0]])

    class Wrap(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear = linear

        def forward(self, x):
            return KnowledgeOutput(image_features=self.linear(x))

    class Square:
        reads = ("image_features",)

        def __call__(self, output, targets):
            return output.image_features.square().sum()

    batch = Batch({"x": features}, Targets(), 2)
    term = {"square": LossTerm(Square(), 3.0)}
    log = Trainer(Wrap(model), term, lambda step: batch, options=options).fit()
    loss = 3 * twin(features).square().sum()
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert log[0]["loss/square"] == pytest.approx(loss.item() / 3, rel=1e-6)
    assert log[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert norm > 0.1
    for ours, theirs in ((model.weight, twin.weight), (model.bias, twin.bias)):
        gradient = theirs.grad * 0.1 / norm
        # Adam's first step: the averages corrected for their start are g and g².
        decayed = theirs * (1 - 0.025 * (0.5 if theirs.ndim == 2 else 0.0))
        expected = decayed - 0.025 * gradient / (gradient.abs() + options.eps)
        assert torch.allclose(ours, expected, atol=1e-5)


def test_learning_rate_over_the_steps():
    options = TrainerOptions(steps=10, warmup_steps=4)
    factors = [options.lr_factor(step) for step in range(10)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[7] == pytest.approx(0.5)
    assert factors == sorted(factors[:4]) + sorted(factors[4:], reverse=True)
    assert 0 < factors[-1] < 0.1
    constant = dataclasses.replace(options, schedule="constant")
    assert [constant.lr_factor(step) for step in (0, 3, 9)] == [0.25, 1.0, 1.0]
    assert TrainerOptions(steps=1, warmup_steps=0).lr_factor(0) == 1.0


def test_each_group_has_its_own_peak():
    model = Pairs()
    groups = decay_groups(model.clip.visual, 0.1, lr=1e-5) + decay_groups(
        model.clip.transformer, 0.2
    )
    trainer = build(model, param_groups=groups, options=dataclasses.replace(OPTIONS, steps=2))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer.fit()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == [1e-5, 1e-5, 1e-3, 1e-3]
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.1, 0, 0.2, 0]
    for name, value in model.named_parameters():
        trained = name.startswith(("clip.visual", "clip.transformer"))
        assert torch.equal(value, before[name]) != trained, name


def test_decay_follows_open_clips_rule():
    model = Pairs()
    model.clip.visual.conv1.weight.requires_grad_(False)
    decayed, free = (
        {name for name, _ in group["params"]} for group in decay_groups(model, weight_decay=0.1)
    )
    for name, value in model.named_parameters():
        excluded = value.ndim < 2 or any(
            part in name for part in ("bn", "ln", "bias", "logit_scale")
        )
        assert (name in free) == (value.requires_grad and excluded)
        assert (name in decayed) == (value.requires_grad and not excluded)


@pytest.mark.parametrize("limit", [100.0, None])
def test_logit_scale_stays_below_its_limit(limit):
    model = Pairs()
    with torch.no_grad():
        model.clip.logit_scale.fill_(5.0)
    build(model, options=dataclasses.replace(OPTIONS, max_logit_scale=limit, lr=1e-6)).fit()
    expected = 5.0 if limit is None else math.log(100)
    assert model.clip.logit_scale.item() == pytest.approx(expected, abs=1e-3)


def test_ramp_and_switch():
    assert [LossTerm(ContrastiveLoss(), 2.0, 0.5).weight_at(s, 8) for s in (0, 1, 2, 4, 7)] == [
        0.0, 0.5, 1.0, 2.0, 2.0,
    ]  # fmt: skip
    assert LossTerm(ContrastiveLoss(), 2.0).weight_at(0, 8) == 2.0
    # G2ELoss would fail: this model has no graph features.
    terms = {
        "contrastive": LossTerm(ContrastiveLoss(), 1.0, ramp=0.5),
        "g2e": LossTerm(G2ELoss(), weight=0.0),
    }
    records = build(terms=terms).fit()
    shares = [record["loss"] / record["loss/contrastive"] for record in records]
    assert shares == pytest.approx([0.0, 0.25, 0.75, 1.0, 1.0])
    assert "loss/g2e" not in records[0]


class Spoiled(Pairs):
    """Breaks at the fifth step, in the loss or only in its gradient."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, images, tokens):
        output = super().forward(images, tokens)
        self.calls += 1
        if self.calls == 5 and self.how == "loss":
            output.image_features = output.image_features * torch.nan
        if self.calls == 5 and self.how == "gradient":
            zero = (output.text_features * 0).sum().abs().sqrt()  # 0, with an infinite slope
            output.image_features = output.image_features + zero
        return output


@pytest.mark.parametrize(("how", "message"), [("loss", "loss 'contrastive'"), ("gradient", "grad")])
def test_what_is_not_finite_ends_the_run_and_spoils_nothing(tmp_path, how, message):
    trainer = build(Spoiled(how), output=tmp_path)
    with pytest.raises(FloatingPointError, match=rf"step 5: .*{message}.* is nan"):
        trainer.fit()
    assert read_checkpoint(tmp_path).step == 3
    assert parameters(trainer).isfinite().all()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()] == [1, 2, 4]


def test_a_foreign_output_is_named():
    class Foreign(Pairs):
        def forward(self, images, tokens):
            return {"image_features": images}

    with pytest.raises(TypeError, match="returned dict, not a KnowledgeOutput"):
        build(Foreign()).fit()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: 0 given"),
        ({"seed": -1}, "seed: -1 given"),
        ({"log_every": 0}, "log_every"),
        ({"schedule": "cosin"}, "nearest is 'cosine'"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **change)


def test_nothing_to_train_is_said():
    with pytest.raises(ValueError, match="ramp"):
        LossTerm(ContrastiveLoss(), ramp=1.5)
    with pytest.raises(ValueError, match="nothing to train"):
        build(terms={"contrastive": LossTerm(ContrastiveLoss(), 0.0)})
    with pytest.raises(ValueError, match="nothing to train"):
        build(Pairs().requires_grad_(False))


def test_on_step_sees_every_step_and_its_time_does_not_count():
    seen = []

    def on_step(step, model):
        seen.append(step)
        _burn(0.05)

    began = time.process_time()
    trainer = build(on_step=on_step)
    trainer.fit()
    spent = time.process_time() - began
    assert seen == list(range(1, 9))
    assert 0 < trainer.cpu_seconds < spent - 8 * 0.05


def _burn(seconds):
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def test_without_a_terminal_one_line(capsys):
    build().fit()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("8 steps, ")
    assert captured.err.count("\n") == 1


def test_on_a_terminal_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    build().fit()
    assert "training" in capsys.readouterr().err


def test_batches_follow_the_model_whatever_they_hold():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        ids: torch.Tensor
        names: list[str]

    data = HeteroData()
    data["a"].x = torch.ones(2, 3)
    value = {
        "graph": data,
        "nested": [Inner(torch.arange(2), ["x"]), (torch.ones(1), 3, None)],
        "text": "t",
    }
    moved = move(value, torch.device("meta"))
    assert moved["graph"]["a"].x.device.type == "meta"
    assert moved["nested"][0].ids.device.type == "meta"
    assert moved["nested"][0].names == ["x"]
    assert moved["nested"][1][0].device.type == "meta"
    assert moved["nested"][1][1:] == (3, None)
    assert moved["text"] == "t"
    assert value["nested"][0].ids.device.type == "cpu"
    targets = move(Targets(pair_ids=torch.arange(2)), torch.device("meta"))
    assert isinstance(targets, Targets)
    assert targets.pair_ids.device.type == "meta"


@pytest.mark.cuda
def test_a_model_on_the_gpu_trains_and_resumes_there(tmp_path):
    whole = build(Pairs().cuda(), output=tmp_path / "whole")
    expected = whole.fit()
    with pytest.raises(KilledError):
        build(Pairs().cuda(), output=tmp_path / "cut", on_step=kill_at(5)).fit()
    again = build(Pairs(seed=9).cuda(), output=tmp_path / "cut")
    assert again.fit("auto")[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=1e-5)
    assert torch.allclose(parameters(whole), parameters(again), atol=1e-6)


def test_accumulation_is_the_mean_gradient_of_the_batches():
    options = TrainerOptions(steps=1, warmup_steps=0, accumulate=3, grad_clip_norm=None)
    trainer = build(deterministic(), options=options)
    model = deterministic()
    slow = torch.optim.AdamW(decay_groups(model, options.weight_decay), lr=options.lr,
                             betas=options.betas, eps=options.eps)  # fmt: skip
    model.train()
    losses = []
    for number in range(3):
        batch = batches(number)
        loss = ContrastiveLoss()(model(**batch.inputs), batch.targets)
        (loss / 3).backward()
        losses.append(float(loss))
    slow.step()
    (record,) = trainer.fit()
    assert record["loss"] == pytest.approx(sum(losses) / 3, abs=1e-5)
    assert record["batch_size"] == 3 * SIZE
    expected = torch.cat([value.detach().flatten() for value in model.parameters()])
    assert (parameters(trainer) - expected).abs().max() <= 1e-6


def deterministic():
    model = Pairs()
    model.clip.visual.patch_dropout = nn.Identity()
    return model


def test_bfloat16_trains_the_same_model_a_little_coarser():
    full = build(deterministic())
    half = build(deterministic(), options=dataclasses.replace(OPTIONS, precision="amp_bf16"))
    seen = []
    half.terms = {"contrastive": LossTerm(lambda o, t: seen.append(o) or ContrastiveLoss()(o, t))}
    losses = [[record["loss"] for record in trainer.fit()] for trainer in (full, half)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert all(value.dtype == torch.float32 for value in half.model.parameters())
    assert {seen[0].image_features.dtype, seen[0].text_features.dtype} == {torch.float32}


def test_the_average_is_kept_and_a_resumed_run_goes_on_with_it(tmp_path):
    options = dataclasses.replace(OPTIONS, ema_decay=0.9)
    slow = {}

    def watch(done, model):
        decay = min(0.9, (1 + done) / (10 + done))
        for name, value in model.state_dict().items():
            slow[name] = decay * slow[name] + (1 - decay) * value.double()

    trainer = build(options=options, output=tmp_path / "whole", on_step=watch)
    slow |= {name: value.double() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    whole = load_average(tmp_path / "whole", trainer.model)
    for name, value in slow.items():
        assert (whole[name] - value).abs().max() <= 1e-6
    assert not torch.equal(whole["clip.text_projection"], trainer.model.clip.text_projection)
    with pytest.raises(KilledError):
        build(options=options, output=tmp_path / "cut", on_step=kill_at(7)).fit()
    assert read_checkpoint(tmp_path / "cut").step == 6
    build(options=options, output=tmp_path / "cut").fit(resume="auto")
    resumed = load_average(tmp_path / "cut", trainer.model)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_without_an_average_the_weights_are_it(tmp_path):
    trainer = build(output=tmp_path)
    trainer.fit()
    average, weights = load_average(tmp_path, trainer.model), trainer.model.state_dict()
    assert all(torch.equal(average[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 0}, "accumulate: 0 given, at least 1"),
        ({"precision": "amp_bf61"}, "the nearest is 'amp_bf16'"),
        ({"ema_decay": 1.0}, r"ema_decay: 1\.0 given"),
    ],
)
def test_ways_of_training_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        TrainerOptions(steps=1, **change)
