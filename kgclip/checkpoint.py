"""Checkpoints: a model, its optimizer and how far they came → a folder, and back without pickle.

``FOLDER/last`` (and ``FOLDER/best``, where a score is given) hold ``model.safetensors`` (the
model's own ``state_dict``, readable by anything that reads safetensors), ``optimizer.safetensors``
and ``state.json``. A save writes beside and renames: at every moment one whole checkpoint is there.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kgclip.tables import GraphError

FORMAT = "kgclip-checkpoint-1"
STATE, MODEL, OPTIMIZER = "state.json", "model.safetensors", "optimizer.safetensors"
AVERAGE = "average.safetensors"
# While "last" is swapped for its successor, it lives here.
PREVIOUS = ".previous"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Everything of a checkpoint but its tensors.

    Attributes:
        path: The folder that holds its files.
        step: Training steps done.
        config: Resolved configuration of the run.
        extra: What else the writer kept.
        score: Higher is better; ``None`` where none was given.
    """

    path: Path
    step: int
    config: dict[str, Any]
    extra: dict[str, Any]
    score: float | None


def save_checkpoint(
    folder: Path | str,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    step: int,
    config: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    score: float | None = None,
    average: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write ``folder/last``, and ``folder/best`` where the score beats the best so far.

    Args:
        folder: Created where absent.
        model: Its ``state_dict`` must hold tensors only; tied tensors are written under each name.
        optimizer: Any whose state is tensors, numbers and strings.
        step: Training steps done, at least 0.
        config: Resolved configuration; anything JSON holds.
        extra: Anything JSON holds.
        score: Higher is better; finite.
        average: Averaged weights, by the model's names.

    Returns:
        ``folder/last``.

    Raises:
        ValueError: If the score is not finite, or a state is neither tensor nor JSON.
    """
    if score is not None and not math.isfinite(score):
        raise ValueError(f"score: {score} given, a finite number expected")
    folder = Path(folder)
    state = {
        "format": FORMAT,
        "step": step,
        "score": score,
        "config": dict(config or {}),
        "extra": dict(extra or {}),
    }
    tensors = {MODEL: _copy_tensors(model.state_dict())}
    if average is not None:
        tensors[AVERAGE] = _copy_tensors(average)
    if optimizer is not None:
        tensors[OPTIMIZER], state["optimizer"] = _flatten_optimizer(optimizer.state_dict())
    try:
        text = json.dumps(state, indent=2)
    except TypeError as error:
        raise ValueError(f"config, extra and optimizer state must be JSON: {error}") from error
    names = ["last", "best"] if score is not None and _beats(folder / "best", score) else ["last"]
    for name in names:
        _replace_folder(folder / name, tensors, text)
    return folder / "last"


def find_checkpoint(folder: Path | str) -> Path | None:
    """Return the folder of a run's last checkpoint, or ``None`` where it has none.

    Args:
        folder: A checkpoint, or a run's folder that holds ``last``.
    """
    folder = Path(folder).absolute()
    last = folder / "last"
    for candidate in (folder, _previous(folder), last, _previous(last)):
        if (candidate / STATE).is_file():
            return candidate
    return None


def read_checkpoint(folder: Path | str) -> Checkpoint:
    """Read a checkpoint's step, configuration and extras, not its tensors.

    Args:
        folder: A checkpoint, or a run's folder that holds ``last``.

    Raises:
        GraphError: If there is none, or it is of another format.
    """
    path, state = _read_state(folder)
    return Checkpoint(path, state["step"], state["config"], state["extra"], state["score"])


def load_checkpoint(
    folder: Path | str, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Checkpoint:
    """Fill a model, and an optimizer, from a checkpoint; all of it or nothing.

    Args:
        folder: A checkpoint, or a run's folder that holds ``last``.
        model: Must have exactly the checkpoint's tensors, in name and shape; on any device.
        optimizer: Must hold the same parameters in the same groups.

    Returns:
        The rest of the checkpoint.

    Raises:
        GraphError: If there is no checkpoint, it is damaged, or it fits the model or the
            optimizer in name, shape or number of tensors not exactly.
    """
    path, state = _read_state(folder)
    tensors = _read_tensors(path / MODEL)
    _check_tensors(path / MODEL, tensors, model.state_dict())
    optimizer_state: dict[str, Any] | None = None
    if optimizer is not None:
        if "optimizer" not in state:
            raise GraphError(f"{path}: no optimizer state; load it without an optimizer")
        optimizer_tensors = _read_tensors(path / OPTIMIZER)
        optimizer_state = _unflatten_optimizer(optimizer_tensors, state["optimizer"])
        _check_groups(path, optimizer_state["param_groups"], optimizer)
    model.load_state_dict(tensors)
    if optimizer is not None and optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    return Checkpoint(path, state["step"], state["config"], state["extra"], state["score"])


def load_average(folder: Path | str, model: nn.Module) -> dict[str, Tensor]:
    """Read the averaged weights of a checkpoint; where it has none, its weights.

    Args:
        folder: A checkpoint, or a run's folder that holds ``last``.
        model: Must have exactly the checkpoint's tensors, in name and shape.

    Raises:
        GraphError: If there is no checkpoint, it is damaged, or does not fit the model.
    """
    path, _ = _read_state(folder)
    file = path / AVERAGE if (path / AVERAGE).is_file() else path / MODEL
    tensors = _read_tensors(file)
    _check_tensors(file, tensors, model.state_dict())
    return tensors


def _copy_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    # A copy each: safetensors refuses tensors that share memory, as tied weights and views do.
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: {type(value).__name__} in a state_dict, a tensor expected")
    return {name: _copy(value) for name, value in state.items()}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors ``<parameter>.<name>`` and JSON."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = _copy(value)
            else:
                values[f"{index}.{name}"] = value
    groups = [
        {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"values": values, "param_groups": groups}


def _unflatten_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["values"]}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = [
        # JSON has no tuple, and AdamW's betas are one.
        {
            key: tuple(value) if isinstance(value, list) and key == "betas" else value
            for key, value in group.items()
        }
        for group in rest["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _beats(best: Path, score: float) -> bool:
    found = next((path for path in (best, _previous(best)) if (path / STATE).is_file()), None)
    if found is None:
        return True
    old = read_checkpoint(found).score
    return old is None or score > old


def _previous(folder: Path) -> Path:
    return folder.with_name(folder.name + PREVIOUS)


def _replace_folder(folder: Path, files: Mapping[str, Mapping[str, Tensor]], state: str) -> None:
    """Write beside ``folder`` and rename; a kill leaves the old one, as such or as PREVIOUS."""
    new, previous = folder.with_name(f".{folder.name}.new"), _previous(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, tensors in files.items():
        safetensors.torch.save_file(dict(tensors), new / name)
    (new / STATE).write_text(state, encoding="utf-8")
    for path in new.iterdir():
        _flush(path)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(folder, previous)
    os.rename(new, folder)
    shutil.rmtree(previous, ignore_errors=True)


def _flush(path: Path) -> None:
    """Force a file to the disk, so that the rename never comes before its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _read_state(folder: Path | str) -> tuple[Path, dict[str, Any]]:
    path = find_checkpoint(folder)
    if path is None:
        raise GraphError(
            f"{folder}: not a checkpoint: a folder with {STATE}, or a run's folder with 'last', "
            "expected"
        )
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GraphError(f"{path / STATE}: not JSON ({error}); use another checkpoint") from error
    given = state.get("format") if isinstance(state, dict) else None
    if given != FORMAT:
        raise GraphError(f"{path / STATE}: format {given!r} given, {FORMAT!r} expected")
    return path, state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (FileNotFoundError, safetensors.SafetensorError) as error:
        raise GraphError(f"{path}: missing or damaged ({error}); use another checkpoint") from error


def _check_tensors(path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare names, then shapes; the message lists the first few of each difference."""
    problems = []
    if missing := [name for name in expected if name not in given]:
        problems.append(f"{len(missing)} tensors of the model missing ({_first(missing)})")
    if unknown := sorted(name for name in given if name not in expected):
        near = difflib.get_close_matches(unknown[0], missing, n=1)
        hint = f"; {unknown[0]} may be the model's {near[0]}" if near else ""
        problems.append(f"{len(unknown)} tensors the model has not ({_first(unknown)}){hint}")
    if wrong := [
        f"{name} is {list(given[name].shape)}, the model's {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]:
        problems.append(f"{len(wrong)} tensors of another size ({_first(wrong)})")
    if problems:
        raise GraphError(f"{path}: {'; '.join(problems)}; build the model from the saved config")


def _check_groups(
    path: Path, groups: list[dict[str, Any]], optimizer: torch.optim.Optimizer
) -> None:
    """Torch matches parameters by position alone; compare the sizes, and names where known."""
    given = [(len(group["params"]), group.get("param_names")) for group in groups]
    expected = [
        (len(group["params"]), group.get("param_names")) for group in optimizer.param_groups
    ]
    sizes = [size for size, _ in given], [size for size, _ in expected]
    if sizes[0] != sizes[1]:
        raise GraphError(f"{path}: groups of {sizes[0]} parameters, the optimizer's of {sizes[1]}")
    for (_, names), (_, wanted) in zip(given, expected, strict=True):
        if names is None or wanted is None:
            continue
        for name, want in zip(names, wanted, strict=True):
            if name != want:
                raise GraphError(f"{path}: optimizer state of {name}, the optimizer has {want}")


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
