"""How well do plain embeddings predict links on the usual data sets, against published figures?

    KGCLIP_DATA=DATA python benchmarks/link_prediction.py -o benchmarks/results/link_prediction.json

Each config in ``benchmarks/configs`` is run as ``kgclip train`` and ``kgclip evaluate`` run it,
once a seed; it states where its data come from, the bar and the figures to expect. Settings were
chosen on the validation triples. The test triples are ranked filtered by all known triples, ties
at their mean, both sides. ``--runs FOLDER`` keeps the runs, and takes those that are there;
``--cases`` measures some, and leaves the others in the result as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from report import write_report

from kgclip.checkpoint import find_checkpoint, read_checkpoint
from kgclip.evaluation import summarise_seeds
from kgclip.link_prediction import LinkPredictionConfig, evaluate, train
from kgclip.settings import check_settings, read_settings

CONFIGS = Path(__file__).parent / "configs"
CASES = ("umls", "nations", "codex_s", "wn18rr")
KEPT = ("both/mrr", "both/hits@1", "both/hits@10", "both/amri", "tail/mrr", "head/mrr")


def measure(name: str, seeds: list[int], runs: Path) -> dict[str, Any]:
    """Train and evaluate a config once a seed."""
    file = CONFIGS / f"{name}.toml"
    config = read_settings(file)
    figures = []
    for seed in seeds:
        run = run_config(file, {"training.seed": seed, "output": str(runs / f"{name}-{seed}")})
        figures.append(evaluate(run))
        print(f"  {name}, seed {seed}: MRR {figures[-1]['both/mrr']:.4f}", flush=True)
    found = summarise_seeds(figures)
    return {
        "mrr": found["both/mrr"]["mean"],
        "sd": found["both/mrr"]["sd"],
        "values": [one["both/mrr"] for one in figures],
        "baseline": figures[0]["baseline/mrr"],
        "cpu_seconds": found["cpu_seconds"]["mean"],
        "means": {key: found[key]["mean"] for key in KEPT},
        "by_cardinality": {
            key: statistics.fmean(one[key] for one in figures)
            for key in figures[0]
            if key.startswith("cardinality/")
        },
        "model": config["model"],
        "training": config["training"],
        **{key: config["claim"][key] for key in ("bar", "published", "expected")},
    }


def run_config(file: Path, overrides: dict[str, Any]) -> Path:
    """Train, unless a run of the very same settings is there."""
    folder = Path(overrides["output"])
    config = check_settings(LinkPredictionConfig, read_settings(file, overrides), str(file))
    if find_checkpoint(folder) is not None:
        found = read_checkpoint(folder).config
        if all(found[key] == value for key, value in config.model_dump(mode="json").items()
               if key not in ("claim", "output")):  # fmt: skip
            return folder
    return train(file, overrides)


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cases", nargs="*", default=CASES, choices=CASES)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results: dict[str, Any] = {}
    if options.output and options.output.is_file():
        before = json.loads(options.output.read_text(encoding="utf-8"))["results"]
        results = {name: before[name] for name in CASES if name in before}
    kept = options.runs or Path(tempfile.mkdtemp())
    for name in options.cases:
        results[name] = row = measure(name, seeds, kept)
        print(
            f"{name}: MRR {row['mrr']:.3f} ± {row['sd']:.3f}, bar {row['bar']}, published "
            f"{row['published']}, frequency baseline {row['baseline']:.3f}; "
            f"{row['cpu_seconds'] / 60:.1f} CPU minutes a run",
            flush=True,
        )
    if options.output:
        write_report(
            options.output, __doc__.splitlines()[0], results,
            packages=("torch",), repeats=len(seeds),
        )  # fmt: skip
    return int(any(results[name]["mrr"] < results[name]["bar"] for name in options.cases))


if __name__ == "__main__":
    sys.exit(main())
