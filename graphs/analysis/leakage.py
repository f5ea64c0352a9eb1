"""Can a benchmark be trusted? What gives its held-out triples away, worst first.

    python leakage.py GRAPH leakage.csv

GRAPH is the folder of a saved graph, or of train, valid and test files.
"""

import sys
from pathlib import Path

import polars as pl

import kgclip
from kgclip.analysis import audit_leakage, find_leaks

folder = Path(sys.argv[1])
saved = (folder / "manifest.json").is_file()
graph = kgclip.load_graph(folder) if saved else kgclip.read_graph(folder)

table = audit_leakage(graph)
table.write_csv(sys.argv[2])
leaks = find_leaks(graph).filter(pl.col("kind") != "word")
for part in ("valid", "test"):
    asked = (graph.triples["split"] == part).sum()
    if asked:
        given_away = leaks.filter(pl.col("part") == part)["triple"].n_unique()
        print(f"{part}: {given_away:,} of {asked:,} triples are given away by training")
print(table.group_by("part", "kind", maintain_order=True).agg(pl.col("found").sum()))
