"""What follows from what? Horn rules of one and two steps, with what they would add.

python rules.py GRAPH rules.csv
"""

import sys

import polars as pl

import kgclip
from kgclip.analysis import mine_rules

graph = kgclip.load_graph(sys.argv[1])
rules = mine_rules(graph, min_support=10, min_confidence=0.3)
# Pairs that the body connects and the head does not: new facts, or mistakes of the rule.
table = rules.with_columns(
    predicted=(pl.col("support") / pl.col("confidence") - pl.col("support")).round().cast(pl.Int64),
    body=pl.col("body").list.join(", "),
)
table.write_csv(sys.argv[2])
print(f"{len(table)} rules")
for row in table.head(10).to_dicts():
    print(f"{row['pca_confidence']:.2f}  {row['rule']}  ({row['predicted']:,} pairs to check)")
