"""Which entities belong together? Communities, each named by its most central members.

python communities.py GRAPH communities.csv
"""

import sys

import polars as pl

import kgclip
from kgclip.analysis import communities, components, pagerank

graph = kgclip.load_graph(sys.argv[1])
table, modularity = communities(graph)
named = (
    table.with_columns(label=pl.Series(graph.labels()), pagerank=pagerank(graph)["pagerank"])
    .sort("community", "pagerank", descending=[False, True])
    .group_by("community", "size", maintain_order=True)
    .agg(members=pl.col("label").head(5).str.join(", "))
)
named.write_csv(sys.argv[2])
print(f"{len(named)} communities, modularity {modularity:.2f}")
print(f"{components(graph)['component'].n_unique()} connected components")
for community, size, members in named.head(10).rows():
    print(f"{community:>4} {size:>6,}  {members}")
