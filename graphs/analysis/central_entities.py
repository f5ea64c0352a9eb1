"""Which entities matter most? A table of ranks and a picture of the first fifteen.

python central_entities.py GRAPH central.csv central.png
"""

import sys

import matplotlib.pyplot as plt
import polars as pl

import kgclip
from kgclip.analysis import betweenness, degree_table, k_core, pagerank

graph = kgclip.load_graph(sys.argv[1])
table = (
    pagerank(graph)
    .with_columns(
        label=pl.Series(graph.labels()),
        betweenness=betweenness(graph)["betweenness"],
        degree=degree_table(graph)["degree"],
        core=k_core(graph)["core"],
    )
    .sort("pagerank", descending=True)
)
table.write_csv(sys.argv[2])
print(table.head(5))

top = table.head(15).reverse()
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.barh(top["label"], top["pagerank"])
axes.set_xlabel(f"PageRank among {graph.num_entities:,} entities")
figure.savefig(sys.argv[3], dpi=150)
