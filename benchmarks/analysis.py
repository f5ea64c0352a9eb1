"""How fast is the analysis of a graph, against networkx, and how much does `kgclip analyse` take?

    python benchmarks/analysis.py DATA -o benchmarks/results/analysis.json

DATA is a folder with ``wn18rr``; the OpenMoji world is built. Ours is timed from the graph to the
frame. networkx is given its own graph ready made and timed up to its native result (a dictionary or
a list of sets); what converting and a frame of the same rows would cost it is measured beside it
and counts in no bar. One thread, CPU seconds, the median of ``--repeats`` calls in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import polars as pl
from processes import measured, run_alone, write_report

import kgclip
from kgclip.analysis import components, degree_table, k_core, pagerank

BAR = 20.0  # on WN18RR
SECONDS_BAR, MEMORY_BAR = 30.0, 1536.0
EXACT = 1e-8  # largest difference of PageRanks
TIGHT = 1e-13  # networkx's tolerance a node that reaches it; its default leaves errors of 1e-3


def cases(graph: kgclip.KnowledgeGraph) -> dict[str, dict[str, Callable[[], Any]]]:
    """By function: ours, networkx's result, networkx's frame of it, and the check of both."""
    multi = graph.to_networkx()
    simple = networkx.Graph(multi)
    simple.remove_edges_from(list(networkx.selfloop_edges(simple)))

    def ranks() -> dict[str, float]:
        return networkx.pagerank(multi, tol=TIGHT, max_iter=1000)

    def parts() -> list[set[str]]:
        return sorted(networkx.weakly_connected_components(multi), key=len, reverse=True)

    def degrees() -> list[tuple[str, int, int]]:
        pairs = zip(multi.out_degree(), multi.in_degree(), strict=True)
        return [(name, out, into) for (name, out), (_, into) in pairs]

    def rows(table: pl.DataFrame, *columns: str) -> Any:
        return dict(table.select("name", *columns).iter_rows())

    return {
        "pagerank": {
            "ours": lambda: pagerank(graph),
            "networkx": ranks,
            "default": lambda: networkx.pagerank(multi),
            "frame": lambda found: pl.DataFrame({"name": list(found), "x": list(found.values())}),
            "equal": lambda ours, found: (
                np.abs(ours["pagerank"].to_numpy() - np.array(list(found.values()))).max() <= EXACT
            ),
        },
        "components": {
            "ours": lambda: components(graph),
            "networkx": parts,
            "frame": lambda found: pl.DataFrame(
                [(name, i, len(part)) for i, part in enumerate(found) for name in part],
                orient="row",
            ),
            "equal": lambda ours, found: (
                {frozenset(p) for p in ours.group_by("component").agg("name")["name"].to_list()}
                == {frozenset(part) for part in found}
            ),
        },
        "k_core": {
            "ours": lambda: k_core(graph),
            "networkx": lambda: networkx.core_number(simple),
            "frame": lambda found: pl.DataFrame({"name": list(found), "x": list(found.values())}),
            "equal": lambda ours, found: rows(ours, "core") == found,
        },
        "degree_table": {
            "ours": lambda: degree_table(graph),
            "networkx": degrees,
            "frame": lambda found: pl.DataFrame(found, orient="row"),
            "equal": lambda ours, found: (
                ours.select("name", "out_degree", "in_degree").rows() == found
            ),
        },
    }


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def compare(name: str, functions: dict[str, Callable[..., Any]], repeats: int) -> dict[str, Any]:
    """Time ours and networkx in turns, after one call each that also checks their results."""
    found = functions["networkx"]()
    assert functions["equal"](functions["ours"](), found), f"{name}: results differ"
    timed = ("ours", "networkx", *(["default"] if "default" in functions else []))
    times: dict[str, list[float]] = {one: [] for one in timed}
    for _ in range(repeats):
        for one in timed:
            times[one].append(seconds(functions[one]))
    middle = {one: statistics.median(values) for one, values in times.items()}
    frame = statistics.median(seconds(lambda: functions["frame"](found)) for _ in range(repeats))
    ours = middle["ours"]
    return {
        "ours_ms": ours * 1e3,
        "ours_ms_all": [value * 1e3 for value in times["ours"]],
        "networkx_ms": middle["networkx"] * 1e3,
        "networkx_ms_all": [value * 1e3 for value in times["networkx"]],
        "networkx_frame_ms": frame * 1e3,
        "ratio": middle["networkx"] / ours,
        "ratio_with_frame": (middle["networkx"] + frame) / ours,
        **({"ratio_default": middle["default"] / ours} if "default" in functions else {}),
    }


def compare_all(data: Path, repeats: int) -> dict[str, Any]:
    """Both graphs, every function."""
    results: dict[str, Any] = {}
    graphs = {"wn18rr": kgclip.read_graph(data / "wn18rr")}
    with tempfile.TemporaryDirectory() as scratch:
        graphs["openmoji"] = kgclip.build_graph("openmoji", output=Path(scratch) / "world")
        for name, graph in graphs.items():
            results[name] = {
                "graph": repr(graph),
                "to_networkx_seconds": seconds(graph.to_networkx),
                "functions": {
                    function: compare(function, functions, repeats)
                    for function, functions in cases(graph).items()
                },
            }
    return results


def analyse_once(data: Path) -> dict[str, Any]:
    """Run the command in this process; counts everything since the process began."""
    from kgclip.cli import app

    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "report.html"

        def job() -> dict[str, Any]:
            app(["analyse", str(data / "wn18rr"), "-o", str(page)], standalone_mode=False)
            return {"page_bytes": page.stat().st_size, "torch_loaded": "torch" in sys.modules}

        result = measured(job)
    return {**result, "total_cpu_seconds": time.process_time()}


def show(results: dict[str, Any]) -> int:
    """Print every figure beside its bar; returns how many bars are missed."""
    missed = 0
    for name, found in results.items():
        for function, row in found["functions"].items():
            bar = BAR if name == "wn18rr" else 0.0
            missed += row["ratio"] < bar
            print(
                f"{name}, {function}: {row['ours_ms']:.2f} ms, networkx "
                f"{row['networkx_ms']:.1f} ms: {row['ratio']:.1f}x, "
                + (f"bar {bar:g}x" if bar else "no bar")
                + (" MISSED" if row["ratio"] < bar else "")
                + f" ({row['ratio_with_frame']:.1f}x where networkx makes a frame too)",
                flush=True,
            )
    return missed


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--measure", choices=["functions", "command"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "functions":
        print(json.dumps(compare_all(options.data, options.repeats)))
        return 0
    if options.measure == "command":
        print(json.dumps(analyse_once(options.data)))
        return 0
    repeats = ("--repeats", str(options.repeats))
    results = run_alone(__file__, str(options.data), *repeats, "--measure", "functions")
    missed = show(results)
    runs = [run_alone(__file__, str(options.data), "--measure", "command") for _ in range(3)]
    taken = max(run["total_cpu_seconds"] for run in runs)
    peak = max(run["peak_mb"] for run in runs)
    missed += taken > SECONDS_BAR or peak > MEMORY_BAR
    print(
        f"kgclip analyse wn18rr, slowest of 3: {taken:.1f} CPU s, bar {SECONDS_BAR:g}; "
        f"{peak:.0f} MB, bar {MEMORY_BAR:g}; torch loaded: {runs[0]['torch_loaded']}"
    )
    if options.output:
        write_report(
            options.output,
            __doc__.splitlines()[0],
            ["networkit", "networkx", "numpy", "polars", "scipy"],
            repeats=options.repeats,
            bars={"ratio on wn18rr": BAR, "cpu_seconds": SECONDS_BAR, "peak_mb": MEMORY_BAR},
            results={**results, "kgclip analyse wn18rr": runs},
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
