"""What changed between two versions of a graph? Added, removed and changed, by name.

python versions.py OLD NEW changes.csv
"""

import sys

import polars as pl

import kgclip
from kgclip.analysis import compare_graphs

old, new = (kgclip.load_graph(folder) for folder in sys.argv[1:3])
difference = compare_graphs(old, new)
for title, frame in (
    ("entities", difference.entities),
    ("relations", difference.relations),
    ("facts", difference.facts),
):
    counts = dict(frame.group_by("change").len().sort("change").iter_rows())
    print(f"{title}: {counts or 'no change'}")
difference.facts.write_csv(sys.argv[3])
print(difference.facts.group_by("relation", "change").agg(pl.len()).sort("len", descending=True))
