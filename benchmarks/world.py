"""Does the OpenMoji world keep its bars? Reads a demo's metrics, prints each ratio and its bar.

    make demo SEEDS=0,1,2 SPLIT_SEED=1234
    python benchmarks/world.py runs/demo/metrics.json -o benchmarks/results/world.json --readme

``--readme`` also writes the chart and the table of the README.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

from kgclip.metrics import load_metrics
from kgclip.report import headline_chart
from kgclip.report_text import WORLD

ROOT = Path(__file__).parent.parent
NEW, KNOWN = "new_entities/fact_to_image", "known_facts/fact_to_image"
# What, figure above the line, figure below it (None = 1), bar, whether it is a gate or a goal.
BARS = [
    ("clip: flags, retrieval recall@1", ("clip", "flags/retrieval/encoder/recall@1"), None, 0.97),
    ("known facts, knowledge linked / clip encoder",
     ("knowledge", f"{KNOWN}/linked/mrr"), ("clip", f"{KNOWN}/encoder/mrr"), 5.0),
    ("new entities, knowledge linked / clip encoder",
     ("knowledge", f"{NEW}/linked/mrr"), ("clip", f"{NEW}/encoder/mrr"), 2.5),
    ("new entities, knowledge linked / verbalised linked",
     ("knowledge", f"{NEW}/linked/mrr"), ("verbalised", f"{NEW}/linked/mrr"), 1.5),
    ("new entities, knowledge / verbalised_matched, linked",
     ("knowledge", f"{NEW}/linked/mrr"), ("verbalised_matched", f"{NEW}/linked/mrr"), 1.5),
    ("new entities, knowledge / knowledge_mean, given",
     ("knowledge", f"{NEW}/given/mrr"), ("knowledge_mean", f"{NEW}/given/mrr"), 0.97),
    ("new entities, knowledge / knowledge_rewired, given",
     ("knowledge", f"{NEW}/given/mrr"), ("knowledge_rewired", f"{NEW}/given/mrr"), 2.0),
    ("unseen pictures, subgroup top1, knowledge / clip",
     ("knowledge", "unseen_pictures/subgroup/encoder/top1"),
     ("clip", "unseen_pictures/subgroup/encoder/top1"), 3.0),
    ("unseen pictures, recall@10, knowledge / clip",
     ("knowledge", "unseen_pictures/retrieval/encoder/recall@10"),
     ("clip", "unseen_pictures/retrieval/encoder/recall@10"), 1.0),
    ("unseen pictures, recall@1, knowledge / clip",
     ("knowledge", "unseen_pictures/retrieval/encoder/recall@1"),
     ("clip", "unseen_pictures/retrieval/encoder/recall@1"), 0.8),
    ("goal: new entities, knowledge / propagation, linked",
     ("knowledge", f"{NEW}/linked/mrr"), ("propagation", f"{NEW}/linked/mrr"), 1.15),
]  # fmt: skip


def measure(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar whose rows there are, with what was measured."""
    results = metrics["results"]

    def mean(figure: tuple[str, str] | None) -> float:
        return 1.0 if figure is None else float(results[figure[0]][figure[1]]["mean"])

    return [
        {"what": what, "bar": bar, "measured": mean(above) / mean(below)}
        for what, above, below, bar in BARS
        if all(
            figure is None or figure[1] in results.get(figure[0], {}) for figure in (above, below)
        )
    ]


def readme_table(metrics: dict[str, Any]) -> str:
    """The README's table: a row a run, mean ± sd."""
    columns = dict(WORLD.columns)
    lines = ["| run | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for run, figures in metrics["results"].items():
        cells = []
        for key in columns.values():
            figure = figures.get(key)
            spread = "" if not figure or figure["sd"] is None else f" ± {figure['sd']:.3f}"
            cells.append(f"{figure['mean']:.3f}{spread}" if figure else "")
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    notes = "\n".join(f"- `{run}`: {note}" for run, note in WORLD.runs.items())
    seconds = ", ".join(
        f"{run} {sum(values) / len(values):.0f}" for run, values in metrics["seconds"].items()
    )
    return (
        f"Means ± sd over the seeds {', '.join(map(str, metrics['seeds']))}, split seed "
        f"{metrics['split_seed']}, MRR unless named otherwise; f→i: from the fact to the flag "
        "among all 248, i→f: from the flag to the fact; enc: no graph, link: the model finds the "
        "flag's entity in the graph, given: it is told. Seconds of CPU for training, one thread: "
        f"{seconds}.\n\n" + "\n".join(lines) + "\n\n" + notes + "\n"
    )


def write_readme(metrics: dict[str, Any]) -> None:
    """Fill the README's region and draw its chart."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results -->")
    _, _, after = rest.partition("<!-- /results -->")
    table = readme_table(metrics)
    text = f"{before}<!-- results -->\n{table}<!-- /results -->{after}"
    readme.write_text(text, encoding="utf-8")
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "headline.svg").write_text(headline_chart(metrics), encoding="utf-8")


def main() -> int:
    """Print the bars; the exit code is 1 if a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    metrics = load_metrics(options.metrics)
    found = measure(metrics)
    for row in found:
        mark = "kept" if row["measured"] >= row["bar"] else "MISSED"
        print(f"{row['measured']:8.3f}  bar {row['bar']:5.2f}  {mark:6}  {row['what']}")
    if options.output:
        report = {
            "question": "Does the OpenMoji world keep its bars?",
            "command": "make demo SEEDS="
            + ",".join(map(str, metrics["seeds"]))
            + f" SPLIT_SEED={metrics['split_seed']}",
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {platform.processor() or 'unknown processor'}",
            "versions": metrics.get("versions", {}),
            "repeats": len(metrics["seeds"]),
            "wall_seconds": metrics.get("wall_seconds"),
            "bars": found,
            "seconds": metrics["seconds"],
            "results": metrics["results"],
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.readme:
        write_readme(metrics)
    gates = [row for row in found if not row["what"].startswith("goal")]
    return int(any(row["measured"] < row["bar"] for row in gates))


if __name__ == "__main__":
    sys.exit(main())
