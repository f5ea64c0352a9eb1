"""How fast is RDF read, against rdflib, and against pyoxigraph with dicts for the same tables?

    python benchmarks/rdf.py -o benchmarks/results/rdf.json

One process a measurement, one thread, CPU seconds, the best of ``--repeats``; the data is made
(``rdf_data.py``). rdflib reads the first ``--rdflib-triples`` only, and triples a second are
compared: it would need minutes, and grows more than linearly. Its job is what PyTorch Geometric's
``Entities`` does, parse and number; pyoxigraph's is the loop that the tests compare ours with.
Ours compiles its code on the first run after a change, some seconds, which the best run has not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import measured, run_alone, write_report

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests hold the reference

BARS = {
    "N-Triples / rdflib": 25.0,
    "N-Triples / pyoxigraph": 2.0,
    "Turtle / rdflib": 12.0,
}
MEMORY_BAR = 0.6  # KB of peak memory a triple
GROWTH_BAR = 4.6  # time of four times as many triples


def job(reader: str, file: Path) -> Callable[[], dict[str, Any]]:
    """What a child process measures; its packages are imported before."""
    if reader == "ours":
        from kgclip.sources.rdf import read_rdf

        return lambda: counts(read_rdf(file))
    if reader == "pyoxigraph":
        from kgclip.sources.rdf import FORMATS
        from tests.rdf.reference import reference_tables

        return lambda: counts(reference_tables(file, FORMATS[file.suffix]))
    import rdflib

    def parse_and_number() -> dict[str, Any]:
        graph = rdflib.Graph().parse(file, format="nt" if file.suffix == ".nt" else "turtle")
        nodes = sorted({*graph.subjects(), *graph.objects()})
        ids = {str(node): i for i, node in enumerate(nodes)}
        relations = {str(r): i for i, r in enumerate(sorted(set(graph.predicates())))}
        edges = [(ids[str(s)], relations[str(p)], ids[str(o)]) for s, p, o in graph]
        return {"statements": len(edges)}

    return parse_and_number


def counts(tables: Any) -> dict[str, Any]:
    """Rows of each table, equal for ours and the loop."""
    rows = {name: len(frame) for name, frame in tables.frames().items()}
    return {"statements": rows["triples"] + rows["literals"], "rows": rows}


def best(reader: str, file: Path, repeats: int) -> dict[str, Any]:
    """The fastest of some measurements, with the times of all."""
    runs = [run_alone(__file__, "--measure", reader, str(file)) for _ in range(repeats)]
    fastest = min(runs, key=lambda run: run["cpu_seconds"])
    rate = fastest["statements"] / fastest["cpu_seconds"]
    print(
        f"{reader:>10} {file.name}: {fastest['statements']:,} statements, "
        f"{fastest['cpu_seconds']:.2f} s of CPU, {rate:,.0f} a second, "
        f"peak {fastest['peak_mb']:.0f} MB",
        flush=True,
    )
    return {
        **fastest,
        "statements_a_second": rate,
        "all_cpu_seconds": [run["cpu_seconds"] for run in runs],
    }


def head(file: Path, lines: int, target: Path) -> Path:
    """The first lines of a file, as a file."""
    with file.open(encoding="utf-8") as source, target.open("w", encoding="utf-8") as stream:
        stream.writelines(itertools.islice(source, lines))
    return target


def make_data(file: Path, triples: int, *, turtle: bool = True) -> None:
    """Make a file in a process of its own: a child's peak memory counts its parent's."""
    extra = ["--turtle", str(file.with_suffix(".ttl"))] if turtle else []
    script = str(Path(__file__).with_name("rdf_data.py"))
    command = [sys.executable, script, str(file), "--triples", str(triples), *extra]
    subprocess.run(command, check=True)


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All measurements, by name."""
    big, bigger, small = (folder / f"kg{n}.nt" for n in ("", "4", "_head"))
    make_data(big, options.triples)
    make_data(bigger, 4 * options.triples, turtle=False)
    head(big, options.rdflib_triples, small)
    make_data(small, options.rdflib_triples)
    files = {
        "ours, N-Triples": ("ours", big),
        "pyoxigraph, N-Triples": ("pyoxigraph", big),
        "ours, four times": ("ours", bigger),
        "ours, Turtle": ("ours", big.with_suffix(".ttl")),
        "rdflib, N-Triples": ("rdflib", small),
        "rdflib, Turtle": ("rdflib", small.with_suffix(".ttl")),
    }
    return {name: best(reader, file, options.repeats) for name, (reader, file) in files.items()}


def compare(found: dict[str, Any]) -> dict[str, Any]:
    """Ratios beside their bars."""
    rate = {name: run["statements_a_second"] for name, run in found.items()}
    ours = found["ours, N-Triples"]
    assert ours["rows"] == found["pyoxigraph, N-Triples"]["rows"]
    ratios = {
        "N-Triples / rdflib": rate["ours, N-Triples"] / rate["rdflib, N-Triples"],
        "N-Triples / pyoxigraph": rate["ours, N-Triples"] / rate["pyoxigraph, N-Triples"],
        "Turtle / rdflib": rate["ours, Turtle"] / rate["rdflib, Turtle"],
    }
    rows = {name: {"value": value, "at_least": BARS[name]} for name, value in ratios.items()}
    rows["peak KB a triple"] = {
        "value": ours["peak_mb"] * 1024 / ours["statements"],
        "at_most": MEMORY_BAR,
    }
    rows["time of four times as many / time"] = {
        "value": found["ours, four times"]["cpu_seconds"] / ours["cpu_seconds"],
        "at_most": GROWTH_BAR,
    }
    return rows


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--triples", type=int, default=2_000_000)
    parser.add_argument("--rdflib-triples", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, help="where the made files are kept")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        reader, file = options.measure
        print(json.dumps(measured(job(reader, Path(file)))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = measure_all(options, folder)
    rows = compare(found)
    missed = 0
    for name, row in rows.items():
        least, most = row.get("at_least", 0.0), row.get("at_most", float("inf"))
        ok = least <= row["value"] <= most
        missed += not ok
        bar = f"bar ≥ {least:g}" if "at_least" in row else f"bar ≤ {most:g}"
        print(f"{name}: {row['value']:.2f}, {bar}{'' if ok else '  MISSED'}")
    if options.output:
        write_report(
            options.output,
            __doc__.splitlines()[0],
            ["polars", "pyoxigraph", "rdflib"],
            repeats=options.repeats,
            bars=rows,
            measurements=found,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
