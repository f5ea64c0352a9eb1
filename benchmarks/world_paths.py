"""Does training pay on the OpenMoji world? Fresh splits pooled, each bar beside its figure.

    for split in 21 22 23; do
        kgclip demo world --runs knowledge --seeds 0,1,2 --split-seed $split -o runs/world-$split
        kgclip demo world --runs clip,verbalised,verbalised_matched --split-seed $split \
            -o runs/world-$split-seed0
    done
    python benchmarks/world_paths.py runs/world-2* -o benchmarks/results/world_paths.json

Without ``--runs`` every run has every seed, in more time.

Ratios of the path model to every untrained method on the same edges, with paired-bootstrap 95 %
intervals over the queries (reciprocal ranks: mean over the seeds, drawn within split and relation
or kind of question). The opponent of a bar is the untrained method that is best at it. Then the
bars of the main path, on the means of the splits. A split may have several folders with different
``--runs`` and seeds; rows that a split lacks are said to be missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import polars as pl
from processes import write_report
from world import BARS, measure

from kgclip.evaluation.bootstrap import bootstrap_ratio
from kgclip.metrics import load_metrics

UNTRAINED = ("walk", "vote_names", "symbolic", "walk_facts", "propagation_rule")
MEAN = "propagation_rule"  # mean of the neighbours' text embeddings, softmax and rule
# What, split, task, scoring, bar against the best untrained method, bar against the mean.
QUESTIONS = [
    ("entity told, picture to fact", "new_entities", "image_to_fact", "given", 1.05, 1.25),
    ("entity told, fact to picture", "new_entities", "fact_to_image", "given", 1.05, 1.2),
    ("picture linked, picture to fact", "new_entities", "image_to_fact", "linked", 1.05, 1.25),
    ("picture linked, fact to picture", "new_entities", "fact_to_image", "linked", 1.08, 1.2),
    ("multi-hop questions, entity told", "questions", "all", "given", 1.03, 1.25),
    ("multi-hop questions, picture linked", "questions", "all", "linked", 1.03, 1.25),
    # A goal, not a gate.
    ("goal: no shared word stem, told, picture to fact",
     "new_entities_no_overlap", "image_to_fact", "given", 1.05, None),
    ("goal: no shared word stem, told, fact to picture",
     "new_entities_no_overlap", "fact_to_image", "given", 1.05, None),
    ("goal: no shared word stem, linked, picture to fact",
     "new_entities_no_overlap", "image_to_fact", "linked", 1.05, None),
    ("goal: no shared word stem, linked, fact to picture",
     "new_entities_no_overlap", "fact_to_image", "linked", 1.05, None),
]  # fmt: skip
KEY = ["split_seed", "group", "query"]


def load_ranks(folders: list[Path]) -> pl.DataFrame:
    """Reciprocal rank of each answer, mean over the seeds, by run, scoring, split and task."""
    tables = []
    for folder in folders:
        split_seed = load_metrics(folder / "metrics.json")["split_seed"]
        ranks = pl.read_parquet(folder / "ranks.parquet")
        tables.append(ranks.with_columns(split_seed=pl.lit(split_seed)))
    by_answer = pl.concat(tables).group_by(
        "run", "scoring", "split", "task", *KEY, maintain_order=True
    )
    return by_answer.agg((1 / pl.col("rank")).mean().alias("figure"))


def compare(ranks: pl.DataFrame, above: str, below: str) -> dict[str, float] | None:
    """Ratio of two runs over the same answers; None unless both answered all of them."""
    mine = ranks.filter(pl.col("run") == above)
    both = mine.join(ranks.filter(pl.col("run") == below), on=KEY, suffix="_below")
    if len(both) != len(mine) or not len(both):
        return None
    groups = (both["split_seed"].cast(pl.String) + "/" + both["group"]).to_numpy()
    return bootstrap_ratio(both["figure"].to_numpy(), both["figure_below"].to_numpy(), groups)


def compare_all(ranks: pl.DataFrame) -> list[dict[str, Any]]:
    """Every bar of the path model, against every untrained method."""
    rows = []
    for what, split, task, scoring, bar, bar_mean in QUESTIONS:
        asked = ranks.filter(
            (pl.col("split") == split) & (pl.col("task") == task) & (pl.col("scoring") == scoring)
        )
        found = {run: compare(asked, "paths", run) for run in UNTRAINED}
        ratios = {run: one for run, one in found.items() if one is not None}
        missing = [run for run, one in found.items() if one is None]
        best = min(ratios, key=lambda run: ratios[run]["ratio"])
        row = {"what": what, "split": split, "task": task, "scoring": scoring,
               "opponent": best, "bar": bar, **ratios[best], "missing": missing,
               "against": ratios,
               "without_similarity": compare(asked, "paths_facts", best)}  # fmt: skip
        row["kept"] = row["ratio"] >= bar and row["low"] > 1
        if bar_mean is not None:
            row["bar_mean"] = bar_mean
            row["kept_mean"] = MEAN in ratios and ratios[MEAN]["ratio"] >= bar_mean
        rows.append(row)
    return rows


def pool(folders: list[Path]) -> dict[str, Any]:
    """Metrics of several splits as one: means over the splits' means, of what all splits have."""
    every = [load_metrics(folder / "metrics.json") for folder in folders]
    splits: dict[int, dict[str, dict[str, Any]]] = {}
    for metrics in every:
        for run, figures in metrics["results"].items():
            for key, figure in figures.items():
                if "/hits@" in key:
                    continue  # the folders' own metrics hold them
                row = splits.setdefault(metrics["split_seed"], {}).setdefault(f"{run} {key}", {})
                row |= {"mean": figure["mean"], "seeds": metrics["seeds"]}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name in next(iter(splits.values())):
        if all(name in rows for rows in splits.values()):
            run, _, key = name.partition(" ")
            by_split = [rows[name]["mean"] for rows in splits.values()]
            seeds = [rows[name]["seeds"] for rows in splits.values()]
            mean = sum(by_split) / len(by_split)
            results.setdefault(run, {})[key] = {
                "mean": mean, "by_split": by_split, "seeds": seeds,
            }  # fmt: skip
    return {
        "results": results,
        "split_seeds": list(splits),
        "seconds": [{"split_seed": one["split_seed"], **one["seconds"]} for one in every],
        "trained_with": every[0].get("versions", {}),
    }


def main() -> int:
    """Print the bars; the exit code is 1 if a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    pooled = pool(options.folders)
    paths = compare_all(load_ranks(options.folders))
    main_path = measure(pooled)
    print(f"split seeds {pooled['split_seeds']}")
    for run, figures in pooled["results"].items():
        print(f"  {run}: training seeds {next(iter(figures.values()))['seeds']}")
    for row in paths:
        print_row(row)
    for row in main_path:
        mark = "kept" if row["measured"] >= row["bar"] else "MISSED"
        print(f"{row['measured']:8.3f}  bar {row['bar']:5.2f}  {mark:6}  {row['what']}")
    done = {row["what"] for row in main_path}
    missing = [bar[0] for bar in BARS if bar[0] not in done]
    print("not run in these folders:", "; ".join(missing) or "nothing")
    if options.output:
        question = str(__doc__).partition("\n")[0]
        figures = {"paths": paths, "main_path": main_path, "not_run": missing, **pooled}
        write_report(options.output, question, ["kgclip", "torch"], **figures)
    gates = [row for row in paths if not row["what"].startswith("goal")]
    kept = all(row["kept"] and row.get("kept_mean", True) for row in gates)
    return int(not kept)


def print_row(row: dict[str, Any]) -> None:
    """A bar with its interval, then the other opponents."""
    mark = "kept" if row["kept"] else "MISSED"
    print(
        f"{row['ratio']:8.3f} [{row['low']:.3f}, {row['high']:.3f}]  bar {row['bar']:.2f}  {mark:6}"
        f"  {row['what']}: paths {row['above']:.3f}, {row['opponent']} {row['below']:.3f}"
        f" ({row['count']:.0f} answers)"
    )
    for run, one in row["against"].items():
        bar = f"  bar {row['bar_mean']:.2f}" if run == MEAN and "bar_mean" in row else ""
        print(f"{'':10}{one['ratio']:.3f} [{one['low']:.3f}, {one['high']:.3f}] {run}{bar}")
    if row["missing"]:
        print(f"{'':10}missing: {', '.join(row['missing'])}")


if __name__ == "__main__":
    sys.exit(main())
