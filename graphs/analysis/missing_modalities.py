"""Which types lack texts or pictures? A table of gaps and a picture of the coverage.

python missing_modalities.py GRAPH missing.csv coverage.png
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import kgclip
from kgclip.analysis import missing_modality, modality_coverage

graph = kgclip.load_graph(sys.argv[1])
missing_modality(graph, "image").write_csv(sys.argv[2])
table = modality_coverage(graph).head(12)
print(table)

place = np.arange(len(table))
figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
for shift, column in ((-0.27, "entities"), (0, "with_text"), (0.27, "with_image")):
    axes.barh(place + shift, table[column], height=0.25, label=column.replace("_", " "))
axes.set_yticks(place, table["type"])
axes.invert_yaxis()
axes.set_xscale("symlog")
axes.set_xlabel("number of entities (logarithmic)")
axes.legend()
figure.savefig(sys.argv[3], dpi=150)
