"""What every benchmark writes beside its figures: machine, versions, command, repeats, date."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_report(
    path: Path, question: str, results: Any, *, packages: Sequence[str], repeats: int
) -> None:
    """Write the JSON of a benchmark.

    Args:
        path: File; its folder is made.
        question: What the benchmark asks.
        results: Its figures, each beside its bar.
        packages: Whose versions count.
        repeats: Pairs or seeds behind a figure.
    """
    script, *arguments = sys.argv
    given = [argument for argument in arguments if not Path(argument).is_absolute()]
    report = {
        "question": question,
        "command": " ".join(["python", f"benchmarks/{Path(script).name}", *given]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, one thread",
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "repeats": repeats,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def compare_pairs(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Median ratio of interleaved (ours, theirs) seconds, with its quartiles and medians."""
    low, median, high = statistics.quantiles([theirs / ours for ours, theirs in pairs], n=4)
    return {
        "times_faster": median,
        "quartiles": [low, high],
        "ours_seconds": statistics.median(ours for ours, _ in pairs),
        "peer_seconds": statistics.median(theirs for _, theirs in pairs),
    }
