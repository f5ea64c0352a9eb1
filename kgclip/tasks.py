"""What ``kgclip train`` can train: a config's ``task`` says which; without one it is a CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from kgclip.checkpoint import find_checkpoint, read_checkpoint
from kgclip.settings import nearest, read_settings
from kgclip.tables import GraphError

TASKS = ("clip", "link_prediction", "entity_classification")


class Task(Protocol):
    """A module that trains from a config file to a run's folder, and evaluates such a folder."""

    def train(
        self, path: str | Path, overrides: Mapping[str, object] | None = None, resume: str = "never"
    ) -> Path:
        """From a config file to a run's folder."""

    def evaluate(self, run: str | Path, /) -> dict[str, float]:
        """The held-out figures of a run."""


def train(
    path: str | Path, overrides: Mapping[str, object] | None = None, resume: str = "never"
) -> Path:
    """Train as a config file says.

    Args:
        path: TOML file.
        overrides: Values by dotted key.
        resume: ``"auto"`` = go on where the run stopped, where its task can; else ``"never"``.

    Returns:
        Folder of the run.

    Raises:
        GraphError: If the config names no task of ``TASKS``, or cannot be used.
    """
    return find_task(read_settings(path, overrides), path).train(path, overrides, resume)


def evaluate(run: str | Path) -> dict[str, float]:
    """Evaluate a trained run on what its data hold out.

    Args:
        run: Folder that :func:`train` wrote.

    Raises:
        GraphError: If the folder holds no run.
    """
    config = read_checkpoint(run).config if find_checkpoint(run) else {}
    return find_task(config, run).evaluate(run)


def find_task(config: Mapping[str, Any], where: str | Path) -> Task:
    """The module of a config's task; only this one is imported.

    Raises:
        GraphError: If there is no such task; names the nearest.
    """
    name = config.get("task", "clip")
    if name == "link_prediction":
        from kgclip import link_prediction

        return link_prediction
    if name == "entity_classification":
        from kgclip import entity_classification

        return entity_classification
    if name == "clip":
        from kgclip import training

        return training
    raise GraphError(f"{where}: unknown task {name!r}; {nearest(str(name), TASKS)}")
