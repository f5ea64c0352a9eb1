"""How well do plain embeddings predict links on the usual data sets, against published figures?

    python benchmarks/link_prediction.py DATA -o benchmarks/results/link_prediction.json

DATA is a folder with ``pykeen_small/umls``, ``pykeen_small/nations`` and ``codex/codex-s``, each in
the train/valid/test layout. Settings were chosen on the validation triples; the test triples are
ranked once a seed, filtered by all known triples, ties at their mean, both sides.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kgclip import read_graph
from kgclip.embedding_training import EmbeddingOptions, train_embedding
from kgclip.evaluation import evaluate_link_prediction
from kgclip.nn.embedding import KnowledgeGraphEmbedding

# Folder: width, settings, bar, published figure.
CASES: dict[str, tuple[int, dict[str, Any], float, str]] = {
    "pykeen_small/umls": (
        200, {"epochs": 40, "batch_size": 256, "n3": 0.01}, 0.94, "ConvE .94",
    ),
    "pykeen_small/nations": (
        100, {"epochs": 60, "batch_size": 64, "n3": 0.01, "dropout": 0.3}, 0.76, "ConvE .82",
    ),
    "codex/codex-s": (
        200, {"epochs": 20, "batch_size": 500, "n3": 0.01}, 0.445, "ComplEx .465",
    ),
}  # fmt: skip


def measure(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Filtered MRR on the test triples, by seed."""
    name = "/".join(folder.parts[-2:])
    channels, settings, bar, published = CASES[name]
    graph = read_graph(folder)
    columns = graph.triples.select("head", "relation", "tail").to_numpy()
    triples = torch.from_numpy(np.array(columns))
    split = np.array(graph.triples["split"].to_list())
    train, test = (triples[torch.from_numpy(split == part)] for part in ("train", "test"))
    values, seconds = [], []
    for seed in seeds:
        began = time.process_time()
        torch.manual_seed(seed)
        model = KnowledgeGraphEmbedding(graph.num_entities, graph.num_relations, channels)
        train_embedding(model, train, options=EmbeddingOptions(seed=seed, **settings))
        seconds.append(time.process_time() - began)
        with torch.no_grad():
            figures = evaluate_link_prediction(model, test, triples, graph.num_entities)
        values.append(figures["both/mrr"])
    return {
        "mrr": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
        "baseline": figures["baseline/mrr"],
        "cpu_seconds": statistics.fmean(seconds),
        "triples_per_second": settings["epochs"] * len(train) / statistics.fmean(seconds),
        "channels": channels,
        "settings": settings,
        "bar": bar,
        "published": published,
    }


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results = {}
    for name in CASES:
        results[name] = row = measure(options.data / name, seeds)
        print(
            f"{name}: MRR {row['mrr']:.3f}, bar {row['bar']}, published {row['published']}, "
            f"frequency baseline {row['baseline']:.3f}; {row['cpu_seconds']:.1f} CPU s a run",
            flush=True,
        )
    if options.output:
        report = {
            "question": __doc__.splitlines()[0],
            "command": f"python benchmarks/link_prediction.py DATA --seeds {options.seeds}",
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, one thread",
            "versions": {"torch": importlib.metadata.version("torch")},
            "repeats": len(seeds),
            "results": results,
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(any(row["mrr"] < row["bar"] for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
