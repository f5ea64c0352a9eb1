"""Figures by run, key and seed: ``metrics.json``, its shape, and means over the seeds.

A key is ``<split>/<task>/<scoring>/<metric>``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from kgclip.tables import GraphError

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """One figure over the seeds.

    Attributes:
        mean: Their mean.
        sd: Sample standard deviation (n - 1); ``None`` with one seed.
        half_width: Half of the 95 % interval of the mean; ``None`` with one seed.
    """

    mean: float
    sd: float | None
    half_width: float | None


def summarise(values_by_seed: Sequence[float]) -> Summary:
    """Mean, spread and 95 % interval (Student's t) of a figure over the seeds.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    if not values_by_seed or not all(math.isfinite(value) for value in values_by_seed):
        raise ValueError(f"values: {list(values_by_seed)} given, finite numbers expected")
    mean, count = statistics.fmean(values_by_seed), len(values_by_seed)
    if count == 1:
        return Summary(mean, None, None)
    sd = statistics.stdev(values_by_seed)
    quantile = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
    return Summary(mean, sd, quantile * sd / math.sqrt(count))


def write_metrics(
    path: str | Path,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    split_seed: int | None,
    seeds: Sequence[int],
    seconds: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``metrics.json``, at once or not at all.

    Args:
        path: The file.
        values: One value a seed, by run and key.
        split_seed: What was held out; ``None`` = no seed decided it.
        seeds: Of the trainings.
        seconds: Process CPU seconds of training, by run: a number, or one a seed.
        extra: More top-level entries: versions, command, machine, date. Never part of
            ``results``, so that these repeat.

    Returns:
        What was written: ``split_seed``, ``seeds``, ``seconds``, ``results`` (``mean``, ``sd``
        and ``values`` by run and key; ``sd`` is null with one seed), and ``extra``.

    Raises:
        GraphError: If a figure is not finite or has not one value a seed.
    """
    results: dict[str, dict[str, Any]] = {}
    for run, figures in values.items():
        results[run] = {}
        for key, numbers in sorted(figures.items()):
            if not numbers or not all(math.isfinite(number) for number in numbers):
                raise GraphError(
                    f"{path}: {run}, {key}: {list(numbers)} given, finite numbers expected; "
                    "did the training diverge?"
                )
            summary = summarise(numbers)
            results[run][key] = {"mean": summary.mean, "sd": summary.sd, "values": [*numbers]}
    metrics = {
        "split_seed": split_seed,
        "seeds": list(seeds),
        "seconds": dict(seconds),
        **(extra or {}),
        "results": results,
    }
    check_metrics(metrics, str(path))
    write_at_once(Path(path), json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


def load_metrics(path: str | Path) -> dict[str, Any]:
    """Read and check a ``metrics.json``.

    Raises:
        GraphError: If it is no such file.
    """
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file, metrics.json expected") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GraphError(f"{path}: no JSON ({error}); write it again") from None
    check_metrics(metrics, str(path))
    return metrics  # type: ignore[no-any-return]  # checked above


def check_metrics(metrics: Any, where: str = "metrics") -> None:
    """Raise GraphError unless ``metrics`` has the shape that :func:`write_metrics` returns."""
    entries = {"split_seed": int, "seeds": list, "seconds": dict, "results": dict}
    found = metrics if isinstance(metrics, dict) else {}
    if found.get("split_seed", 0) is None:  # no seed decided what is held out
        del entries["split_seed"]
    for name, kind in entries.items():
        _check_kind(where, name, found.get(name), kind)
    for run, figures in metrics["results"].items():
        _check_kind(where, run, figures, dict)
        for key, figure in figures.items():
            _check_kind(where, f"{run}, {key}", figure, dict)
            if set(figure) != {"mean", "sd", "values"}:
                raise GraphError(
                    f"{where}: {run}, {key}: {sorted(figure)} given, mean, sd and values expected"
                )
            if len(figure["values"]) != len(metrics["seeds"]):
                raise GraphError(
                    f"{where}: {run}, {key}: {len(figure['values'])} values given, "
                    f"{len(metrics['seeds'])} expected, one a seed"
                )


def _check_kind(where: str, name: str, given: object, kind: type) -> None:
    if not isinstance(given, kind):
        raise GraphError(
            f"{where}: {name}: {type(given).__name__} given, {kind.__name__} expected; "
            "write it with kgclip.report.write_metrics"
        )


def write_at_once(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
