"""Which part of graph-level alignment does the work? Each is switched off in turn.

    python benchmarks/scenes_ablations.py runs/ablations --seeds 0,1,2 --steps 500 \
        -o benchmarks/results/scenes_ablations.json

Writes a table as JSON, and the report's page into the folder of the runs.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from processes import write_report
from scenes import PACKAGES

from kgclip import report
from kgclip.experiments.scenes import ABLATIONS, STEPS, run_scenes
from kgclip.metrics import write_metrics
from kgclip.report_text import OPENMOJI_CREDIT, SCENES

TEXT = dataclasses.replace(
    SCENES,
    title="Which part of graph-level alignment does the work?",
    runs={
        run: SCENES.runs.get(run, f"graph with {run.removeprefix('no ')} off") for run in ABLATIONS
    },
)


def main() -> None:
    """Train every ablation with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--split-seed", type=int, default=1234)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    found = run_scenes(
        options.folder, seeds, options.split_seed, runs=ABLATIONS, steps=options.steps
    )
    metrics = write_metrics(
        options.folder / "metrics.json",
        found["values"],
        split_seed=options.split_seed,
        seeds=seeds,
        seconds=found["seconds"],
        extra={"steps": found["steps"], "wall_seconds": found["wall_seconds"]},
    )
    report.write_report(
        options.folder / "report.html",
        metrics,
        curves=found["curves"],
        galleries=found["galleries"],
        credit=OPENMOJI_CREDIT,
        text=TEXT,
    )
    report.print_table(metrics, text=TEXT)
    if options.output:
        write_report(
            options.output,
            TEXT.title,
            PACKAGES,
            repeats=len(seeds),
            steps=options.steps,
            wall_seconds=found["wall_seconds"],
            seconds=found["seconds"],
            results=metrics["results"],
        )


if __name__ == "__main__":
    main()
