"""The training loop: a model, weighted losses and a function step → batch; out comes a log.

Everything random is a function of (seed, step): batches by contract, dropout because torch is
seeded anew before every step. A resumed run is therefore bit for bit the uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from kgclip.checkpoint import (
    find_checkpoint,
    load_average,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from kgclip.nn.ema import WeightAverage
from kgclip.nn.info_nce import Loss
from kgclip.nn.output import Batch, KnowledgeOutput
from kgclip.progress import build_progress
from kgclip.tables import GraphError

SCHEDULES = ("cosine", "constant")
PRECISIONS = ("fp32", "amp_bf16")
# What a resumed run may change: neither changes a parameter.
FREE_OPTIONS = ("log_every", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class TrainerOptions:
    """How long and how fast.

    Attributes:
        steps: Optimizer steps, at least 1.
        lr: Peak learning rate of every group that names none of its own.
        weight_decay: Of parameters with two or more dimensions; the others have none.
        warmup_steps: Steps of linear rise to the peak.
        schedule: After the warm-up: ``"cosine"`` (to 0 at ``steps``) or ``"constant"``.
        betas: AdamW's, open_clip's default for ViTs.
        eps: AdamW's.
        grad_clip_norm: Largest norm of the whole gradient; ``None`` = no limit.
        max_logit_scale: Largest inverse temperature; ``None`` = no limit.
        accumulate: Batches whose gradients one step averages. Each is contrasted with itself
            alone; more negatives in the same memory are ``chunk_size`` of the batches.
        precision: open_clip's names: ``"fp32"``, or ``"amp_bf16"`` = the model under autocast to
            bfloat16; weights, losses and optimizer stay float32.
        ema_decay: Also keep a moving average of the weights, which is then what is evaluated and
            exported; ``None`` = no. See :class:`~kgclip.nn.ema.WeightAverage`.
        seed: At least 0; of dropout and whatever else draws from torch.
        log_every: Steps between two records of the log; the first and last step are always there.
        checkpoint_every: Steps between two checkpoints; 0 = only one, at the end.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 20
    schedule: str = "cosine"
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    grad_clip_norm: float | None = 1.0
    max_logit_scale: float | None = 100.0
    accumulate: int = 1
    precision: str = "fp32"
    ema_decay: float | None = None
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        lowest = {
            "steps": 1, "warmup_steps": 0, "accumulate": 1, "seed": 0, "log_every": 1,
            "checkpoint_every": 0,
        }  # fmt: skip
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} given, at least {least} expected")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            given = getattr(self, name)
            if given not in known:
                near = difflib.get_close_matches(given, known, n=1, cutoff=0.0)
                raise ValueError(
                    f"{name}: {given!r} given, one of {known} expected; the nearest is {near[0]!r}"
                )
        if self.ema_decay is not None and not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay: {self.ema_decay} given, a share in [0, 1) expected")

    def lr_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step, in [0, 1].

        Args:
            step: Steps done before, in [0, steps).
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """A loss and its share of the total.

    Attributes:
        loss: From the model's output and the batch's targets to a scalar.
        weight: At full strength; 0 switches the term off, and its loss is not computed.
        ramp: Share of all steps, in [0, 1], over which the weight rises linearly from 0.
    """

    loss: Loss
    weight: float = 1.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.ramp <= 1.0:
            raise ValueError(f"ramp: {self.ramp} given, a share of the steps in [0, 1] expected")

    def weight_at(self, step: int, steps: int) -> float:
        """Return the weight after ``step`` of ``steps`` steps."""
        rise = self.ramp * steps
        return self.weight if step >= rise else self.weight * step / rise


def decay_groups(
    model: nn.Module, weight_decay: float, lr: float | None = None
) -> list[dict[str, Any]]:
    """Two AdamW groups of a module's trainable parameters: with and without weight decay.

    Without: everything of fewer than two dimensions (biases, norms, ``logit_scale``), open_clip's
    rule. Concatenate the groups of several modules to give each its own learning rate.

    Args:
        model: Frozen parameters are left out, and a group that would be empty too.
        weight_decay: Of the first group.
        lr: Of both groups; ``None`` = the trainer's.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    rate = {} if lr is None else {"lr": lr}
    groups: list[dict[str, Any]] = [
        {"params": [pair for pair in named if pair[1].ndim >= 2], "weight_decay": weight_decay},
        {"params": [pair for pair in named if pair[1].ndim < 2], "weight_decay": 0.0},
    ]
    return [{**group, **rate} for group in groups if group["params"]]


def move(value: Any, device: torch.device) -> Any:
    """Copy a value to a device: tensors and all that has ``to``, and whatever nests them.

    Args:
        value: Dictionaries, lists, tuples and dataclasses are walked through; anything else that
            has no ``to`` stays as it is.
        device: Where to.
    """
    if hasattr(value, "to"):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(item, device) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(move(item, device) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **move(fields, device))
    return value


class Trainer:
    """Trains a model in place with AdamW.

    Args:
        model: Called with the batch's inputs, returns a ``KnowledgeOutput``. It stays on its
            device; batches come to it.
        terms: Name → loss; the total is the weighted sum.
        batches: The batch of each number in [0, steps x accumulate): a pure function, so that a
            run can resume.
        options: See :class:`TrainerOptions`.
        output: Folder of ``log.jsonl`` and the checkpoints; ``None`` = write nothing.
        param_groups: AdamW's; default :func:`decay_groups` of the model.
        on_step: Called after each step with the number of steps done and the model; its time does
            not count as training.
        config: Kept in the checkpoints.

    Attributes:
        average: Moving average of the weights; ``None`` where none is asked for.
        cpu_seconds: Process CPU time of the steps, batches included; logging, checkpoints and
            ``on_step`` excluded, an earlier part of a resumed run included.

    Raises:
        ValueError: If no term has a weight or no parameter is trainable.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: Mapping[str, LossTerm],
        batches: Callable[[int], Batch],
        *,
        options: TrainerOptions,
        output: Path | None = None,
        param_groups: Sequence[dict[str, Any]] | None = None,
        on_step: Callable[[int, nn.Module], None] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.terms = {name: term for name, term in terms.items() if term.weight != 0}
        self.batches = batches
        self.options = options
        self.output = None if output is None else Path(output)
        self.on_step = on_step
        self.config = dict(config or {})
        self.cpu_seconds = 0.0
        if param_groups is None:
            param_groups = decay_groups(model, options.weight_decay)
        groups = [{**group, "params": list(group["params"])} for group in param_groups]
        if not self.terms or not groups:
            raise ValueError("nothing to train: a term with a weight and a parameter expected")
        self.optimizer = _build_optimizer(groups, options)
        self._parameters = [value for group in groups for value in _values(group["params"])]
        self._device = self._parameters[0].device
        self._peaks = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._scales = [
            value
            for name, value in model.named_parameters()
            if name.rpartition(".")[2] == "logit_scale" and value.requires_grad
        ]
        self.average = (
            None if options.ema_decay is None else WeightAverage(model, options.ema_decay)
        )

    def fit(self, resume: Path | str | Literal["auto"] | None = None) -> list[dict[str, Any]]:
        """Train from the start, or from a checkpoint, to the last step.

        Args:
            resume: A checkpoint or a run's folder; ``"auto"`` = this run's last checkpoint where
                there is one, else the start; ``None`` = the start.

        Returns:
            The log: ``step`` (steps done), ``loss``, ``loss/<term>`` (unweighted), ``lr`` (the
            largest), ``grad_norm`` (before clipping), ``logit_scale``, ``batch_size``,
            ``cpu_seconds``. A resumed run continues its folder's log.

        Raises:
            GraphError: If the checkpoint cannot be read, does not fit the model, or is of a run
                with other options or terms.
            FloatingPointError: If a loss or the gradient is not finite; no checkpoint is written.
            TypeError: If the model returns anything but a ``KnowledgeOutput``.
        """
        start = self._resume(resume)
        log = _Log(None if self.output is None else self.output / "log.jsonl", start)
        console = Console(stderr=True)
        with build_progress(console) as progress:
            bar = progress.add_task("training", total=self.options.steps, completed=start, loss="")
            for step in range(start, self.options.steps):
                self._after_step(step + 1, self._step(step), log)
                progress.update(bar, advance=1, loss=log.loss_text)
        console.print(f"{self.options.steps} steps, {self.cpu_seconds:.1f} s CPU{log.loss_text}")
        return log.records

    def _step(self, step: int) -> dict[str, Any]:
        """Take one optimizer step; the parameters stay as they are if anything is not finite.

        Returns the record with its values still on the device, so that an unlogged step waits
        for nothing.
        """
        began = time.process_time()
        _seed(self.options.seed, step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        count = self.options.accumulate
        parts = [self._backward(step, step * count + number) for number in range(count)]
        norm = self._update(step)
        self.cpu_seconds += time.process_time() - began
        sums = {"batch_size": sum(part.pop("batch_size") for part in parts)}
        means = {name: sum(part[name] for part in parts) / count for name in parts[0]}
        return {
            "step": step + 1,
            **means,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "grad_norm": norm,
            **sums,
            "cpu_seconds": self.cpu_seconds,
        }

    def _backward(self, step: int, number: int) -> dict[str, Any]:
        """Add the gradient of one batch to that of the step; returns what it measured."""
        batch = self.batches(number)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self.options.precision == "amp_bf16"
        ):
            output = self.model(**move(batch.inputs, self._device))
        if not isinstance(output, KnowledgeOutput):
            raise TypeError(f"the model returned {type(output).__name__}, not a KnowledgeOutput")
        if self.options.precision != "fp32":
            output = _in_float32(output)
        targets = move(batch.targets, self._device)
        losses = {name: term.loss(output, targets) for name, term in self.terms.items()}
        self._check_finite(step, losses)
        weights = [term.weight_at(step, self.options.steps) for term in self.terms.values()]
        total = torch.stack(
            [weight * loss for weight, loss in zip(weights, losses.values(), strict=True)]
        ).sum()
        (total / self.options.accumulate).backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
        scale = {} if output.logit_scale is None else {"logit_scale": output.logit_scale}
        return {
            "loss": total.detach(),
            **{f"loss/{name}": loss.detach() for name, loss in losses.items()},
            **{name: value.detach() for name, value in scale.items()},
            "batch_size": batch.size,
        }

    def _update(self, step: int) -> Tensor:
        """Clip, step and clamp; returns the gradient's norm before clipping."""
        limit = self.options.grad_clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, math.inf if limit is None else limit)
        self._check_finite(step, {"gradient": norm})
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self.options.lr_factor(step)
        self.optimizer.step()
        if self.options.max_logit_scale is not None:
            with torch.no_grad():
                for scale in self._scales:
                    scale.clamp_(0.0, math.log(self.options.max_logit_scale))
        if self.average is not None:
            self.average.update(self.model, step + 1)
        return norm

    def _check_finite(self, step: int, values: Mapping[str, Tensor]) -> None:
        # One transfer from the device for all of them.
        for name, value in zip(values, torch.stack(list(values.values())).tolist(), strict=True):
            if not math.isfinite(value):
                what = "the gradient" if name == "gradient" else f"loss {name!r}"
                raise FloatingPointError(
                    f"step {step + 1}: {what} is {value}; lower the learning rate or the term's "
                    "weight, or look for a batch without finite features"
                )

    def _after_step(self, done: int, record: dict[str, Any], log: _Log) -> None:
        options = self.options
        if done in (1, options.steps) or done % options.log_every == 0:
            log.append(record)
        due = options.checkpoint_every and done % options.checkpoint_every == 0
        if self.output is not None and (due or done == options.steps):
            save_checkpoint(
                self.output,
                model=self.model,
                optimizer=self.optimizer,
                step=done,
                config=self.config,
                extra={"cpu_seconds": self.cpu_seconds, **self._identity()},
                average=None if self.average is None else self.average.state_dict(),
            )
        if self.on_step is not None:
            self.on_step(done, self.model)

    def _identity(self) -> dict[str, Any]:
        """What a run must share with the checkpoint it resumes from, as JSON gives it back."""
        options = dataclasses.asdict(self.options)
        identity = {
            "options": {name: options[name] for name in options if name not in FREE_OPTIONS},
            "terms": {name: [term.weight, term.ramp] for name, term in self.terms.items()},
            "peaks": {str(index): peak for index, peak in enumerate(self._peaks)},
        }
        return dict(json.loads(json.dumps(identity)))

    def _resume(self, resume: Path | str | None) -> int:
        """Load the checkpoint asked for; returns the number of steps already done."""
        if resume == "auto":
            resume = None if self.output is None else find_checkpoint(self.output)
        if resume is None:
            return 0
        found = read_checkpoint(resume)
        for part, mine in self._identity().items():
            theirs = found.extra.get(part)
            if theirs is None:
                raise GraphError(f"{found.path}: no {part}; a checkpoint of a trainer expected")
            for name in sorted({*theirs, *mine}):
                if theirs.get(name) != mine.get(name):
                    raise GraphError(
                        f"{found.path}: {part}.{name} is {theirs.get(name)}, this run's "
                        f"{mine.get(name)}; resume with the same, or start anew from its weights"
                    )
        load_checkpoint(resume, self.model, self.optimizer)
        if self.average is not None:
            self.average.load_state_dict(load_average(resume, self.model))
        self.cpu_seconds = float(found.extra["cpu_seconds"])
        return found.step


def _in_float32(output: KnowledgeOutput) -> KnowledgeOutput:
    """Autocast leaves features in bfloat16, in which large logits are too coarse for a loss."""
    fields = {name: value.float() for name, value in vars(output).items() if value is not None}
    return dataclasses.replace(output, **fields)


class _Log:
    """Records in memory and, one JSON line each, in a file; a resumed run continues the file."""

    def __init__(self, path: Path | None, start: int) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        if path is None:
            return
        if start and path.is_file():
            self.records = [record for record in _read_log(path) if record["step"] <= start]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(record) + "\n" for record in self.records]
        path.write_text("".join(lines), encoding="utf-8")

    @property
    def loss_text(self) -> str:
        return f", loss {self.records[-1]['loss']:.4f}" if self.records else ""

    def append(self, record: Mapping[str, Any]) -> None:
        values = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in record.items()
        }
        self.records.append(values)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")


def _read_log(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return  # the line a kill cut short; the steps after it are run again


def _build_optimizer(
    groups: Sequence[dict[str, Any]], options: TrainerOptions
) -> torch.optim.AdamW:
    devices = {value.device.type for group in groups for value in _values(group["params"])}
    return torch.optim.AdamW(
        list(groups),
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=devices <= {"cpu", "cuda"},
    )


def _values(parameters: Sequence[Any]) -> list[Tensor]:
    """Return a group's tensors, whether it names them or not."""
    return [item[1] if isinstance(item, tuple) else item for item in parameters]


def _seed(seed: int, step: int) -> None:
    # torch's CPU generator reads only the lower 32 bits of a seed, so (seed, step) is hashed.
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
