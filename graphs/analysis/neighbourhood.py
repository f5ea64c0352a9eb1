"""What surrounds an entity? A picture of what is nearest to it, relations as labels.

python neighbourhood.py GRAPH ENTITY neighbourhood.png
"""

import sys

import matplotlib.pyplot as plt
import networkx as nx

import kgclip
from kgclip.analysis import pagerank

graph = kgclip.load_graph(sys.argv[1])
name = sys.argv[2]
near = pagerank(graph, seeds={name: 1.0}).sort("pagerank", descending=True).head(15)
print(near)

chosen = set(near["name"])
part = graph.select(seeds=[name], hops=3).to_networkx().subgraph(chosen)
labels = dict(zip(graph.entities["name"], graph.labels(), strict=True))
place = nx.spring_layout(part, seed=0)
figure, axes = plt.subplots(figsize=(9, 7), layout="constrained")
nx.draw_networkx_edges(part, place, ax=axes, edge_color="grey", arrows=True)
words = {(head, tail): relation for head, tail, relation in part.edges(data="relation")}
nx.draw_networkx_edge_labels(nx.DiGraph(part), place, words, ax=axes, font_size=6)
nx.draw_networkx_labels(part, place, {n: labels[n] for n in part}, ax=axes, font_size=8)
axes.set_title(f"{labels[name]}: the {len(part)} nearest of {graph.num_entities:,} entities")
axes.axis("off")
figure.savefig(sys.argv[3], dpi=150)
