"""What does each part of the OpenMoji world's method add? Each in turn taken away or put in.

    python benchmarks/world_ablations.py losses paths --split-seed 101 --seeds 0,1,2 \
        -o benchmarks/results/world_ablations.json

Figures are on the test part of a split on which settings were chosen, never on one that a claim
rests on. ``losses``: the run ``knowledge`` anew with a loss off or on. ``paths``: the path model
with each family of similarity edges off. The file is written after each variant and read at the
start: variants that it holds are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from processes import write_report
from rich.progress import track

from kgclip.experiments import world as world_of
from kgclip.experiments import world_edges as edges
from kgclip.experiments import world_questions as questions_of
from kgclip.experiments import world_scores as scores_of
from kgclip.experiments.world_paths import PathOptions, answer_by_paths, train_paths
from kgclip.nn.clip import build_tokenizer
from kgclip.recipe import build_graph
from kgclip.report import write_report as write_page_of
from kgclip.report_text import WORLD

LOSSES: dict[str, dict[str, Any]] = {
    "knowledge": {},
    "e2e off": {"losses.e2e.weight": 0.0},
    "graph_fact off": {"losses.graph_fact.weight": 0.0},
    "fusion off": {"losses.fusion.weight": 0.0},
    "g2e on": {"losses.g2e.weight": 1.0},
}
PATHS: dict[str, dict[str, Any]] = {
    "paths": {},
    **{
        f"{name} off": {"similarities": tuple(s for s in edges.SIMILARITIES if s != name)}
        for name in edges.SIMILARITIES
    },
    "no similarity edges": {"similarities": ()},
    "reverse loss off": {"reverse": 0.0},
}
SHOWN = (
    "known_facts/fact_to_image/linked/mrr",
    "new_entities/fact_to_image/linked/mrr",
    "new_entities/fact_to_image/given/mrr",
    "new_entities/image_to_fact/given/mrr",
    "new_entities_no_overlap/fact_to_image/given/mrr",
    "questions/all/given/mrr",
    "unseen_pictures/subgroup/encoder/top1",
)


def measure_losses(variant: str, seed: int, output: Path, steps: int) -> dict[str, float]:
    """Train `knowledge` with other losses; its own rows, without the path model's."""
    world_of.RUNS[variant] = LOSSES[variant]
    job = world_of.Job(variant, seed, steps, output)
    corpus, model, entities = world_of.build_job(job)
    trainer = world_of.fit_job(job, corpus, model)
    world = scores_of.build_world(corpus, entities["type"])
    features = scores_of.encode_world(
        model, corpus, world, build_tokenizer(job.config().model.name)
    )
    link = scores_of.link_flags(features, world)
    nodes = scores_of.encode_graph(model, features)[world.countries]
    found = scores_of.evaluate_pictures(
        world, corpus, features, "test", scores_of.CLASS_TEMPLATES[0]
    )
    text = scores_of.score_facts(features, features.images[world.flags])
    for scoring, scores in (
        ("encoder", text),
        ("linked", scores_of.score_facts(features, link @ nodes)),
        ("given", scores_of.score_facts(features, nodes)),
    ):
        found |= scores_of.evaluate_facts(world, corpus, scores, scoring, "test")
    return {**found, "cpu_seconds": trainer.cpu_seconds}


def measure_paths(variant: str, seed: int, output: Path, steps: int) -> dict[str, float]:
    """Train the path model with other edges; the country is told."""
    job = world_of.Job("knowledge", seed, 1, output)
    corpus, _, entities = world_of.build_job(job)
    world = scores_of.build_world(corpus, entities["type"])
    layout = corpus, world, entities["type"].to_list(), corpus.image_features[world.flags]
    settings = dict(PATHS[variant])
    names = settings.pop("similarities", edges.SIMILARITIES)
    known, given = (
        edges.keep_similarities(edges.build_path_graph(*layout, splits=splits), names)
        for splits in (("train",), ("train", "inference"))
    )
    settings |= {"steps": steps} if steps else {}
    began = time.process_time()
    model = train_paths(known, corpus, PathOptions(seed=seed, **settings))
    seconds = time.process_time() - began
    belief = answer_by_paths(model, given, corpus)
    found = scores_of.evaluate_facts(world, corpus, belief, "given", "test")
    facts = questions_of.believed_facts(belief, given, corpus)
    ranks = questions_of.rank_questions(questions_of.build_questions(world, corpus), facts)
    return found | scores_of.average_ranks(ranks, "given") | {"cpu_seconds": seconds}


TABLES = {"losses": (LOSSES, measure_losses), "paths": (PATHS, measure_paths)}


def main() -> int:
    """Measure what the file does not hold yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=TABLES)
    parser.add_argument("--split-seed", type=int, default=101)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=0, help="0 = those of the demo")
    parser.add_argument("--cache", type=Path, help="folder of trunk features from an earlier run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--report", type=Path, help="an HTML page with the same figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    tables = json.loads(options.output.read_text())["tables"] if options.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        if options.cache:
            (output / "cache").symlink_to(options.cache.resolve())
        build_graph(
            "openmoji", overrides={"splits.seed": options.split_seed}, output=output / "graph"
        )
        for table in options.tables:
            variants, measure = TABLES[table]
            rows = tables.setdefault(table, {})
            steps = options.steps or (world_of.STEPS if table == "losses" else 0)
            for variant in variants:
                if variant in rows:
                    continue
                values = [
                    measure(variant, seed, output, steps)
                    for seed in track(seeds, f"{table}: {variant}", transient=True)
                ]
                rows[variant] = {key: summarise([one[key] for one in values]) for key in values[0]}
                write_report(
                    options.output,
                    str(__doc__).partition("\n")[0],
                    ["kgclip", "torch"],
                    split_seed=options.split_seed,
                    seeds=seeds,
                    steps=options.steps or "those of the demo",
                    tables=tables,
                )
    for table, rows in tables.items():
        print_table(table, rows)
    if options.report:
        write_page(options.report, tables, options.split_seed, seeds)
    return 0


def write_page(path: Path, tables: dict[str, Any], split_seed: int, seeds: list[int]) -> None:
    """The same figures as a page, laid out as the demo's report; a row for each variant."""
    rows = {variant: figures for table in tables.values() for variant, figures in table.items()}
    seconds = {name: figures["cpu_seconds"]["values"] for name, figures in rows.items()}
    results = {
        name: {key: one for key, one in figures.items() if key != "cpu_seconds"}
        for name, figures in rows.items()
    }
    metrics = {"split_seed": split_seed, "seeds": seeds, "seconds": seconds, "results": results}
    text = dataclasses.replace(WORLD, title="OpenMoji world: each part in turn off or on", runs={})
    write_page_of(path, metrics, text=text)


def summarise(values: list[float]) -> dict[str, Any]:
    """Mean and spread over the seeds."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd, "values": values}


def print_table(table: str, rows: dict[str, Any]) -> None:
    """The most telling figures of every variant."""
    keys = [key for key in SHOWN if key in next(iter(rows.values()))]
    print(f"{table}: " + ", ".join(keys))
    for variant, figures in rows.items():
        cells = [f"{figures[key]['mean']:.3f} ± {figures[key]['sd'] or 0:.3f}" for key in keys]
        print(f"  {variant:32} " + "  ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
