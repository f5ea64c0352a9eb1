"""How much faster is NeighborLoader than a plain sampler in numpy, for the same neighbourhoods?

    python benchmarks/sampling.py -o benchmarks/results/sampling.json

100,000 nodes, a million edges, fan-out [15, 10], 1,024 seeds a batch, one thread, process CPU
time, without features to gather. The peer is the plain sampler of ``tests/reference.py``, with its
edges sorted beforehand as ours are. PyG's own samplers need compiled extensions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convolutions import skewed_graph
from processes import write_report
from torch_geometric.data import Data

sys.path.insert(0, str(Path(__file__).parent.parent))
from kgclip.sampling import NeighborLoader
from tests.reference import edges_by_target, sample_neighbors

NODES, EDGES, FAN_OUT, BATCH = 100_000, 1_000_000, [15, 10], 1024
BAR, GOAL_MS = 20.0, 5.0
OURS_A_PAIR = 10  # batches of ours for each of the peer's


def full_neighbourhoods_differ(data: Data, entering: dict[int, np.ndarray]) -> int:
    """How many of some batches differ from the plain sampler's when every neighbour is taken."""
    loader = NeighborLoader(data, [-1, -1], torch.arange(0, NODES, 997), batch_size=16)
    differ = 0
    for batch in loader:
        seeds = batch.n_id[: batch.batch_size].numpy()
        nodes, edges = sample_neighbors(
            data.edge_index.numpy(), seeds, [-1, -1], np.random.default_rng(0), entering
        )
        same = set(nodes.tolist()) == set(batch.n_id.tolist())
        differ += not (same and set(edges.tolist()) == set(batch.e_id.tolist()))
    return differ


def compare(data: Data, entering: dict[int, np.ndarray], pairs: int) -> dict[str, Any]:
    """Ratios of interleaved pairs, and how many nodes and edges either draws."""
    loader = NeighborLoader(data, FAN_OUT, batch_size=BATCH, shuffle=True, drop_last=True)
    batches, generator = iter(loader), np.random.default_rng(0)
    next(batches)
    edge_index = data.edge_index.numpy()
    ours, peer, sizes = [], [], []
    for _ in range(pairs):
        drawn = []
        began = time.process_time()
        for _ in range(OURS_A_PAIR):
            batch = next(batches)
            drawn.append([sum(batch.num_sampled_nodes), sum(batch.num_sampled_edges)])
        ours.append((time.process_time() - began) / OURS_A_PAIR)
        seeds = generator.choice(NODES, BATCH, replace=False)
        began = time.process_time()
        plain = sample_neighbors(edge_index, seeds, FAN_OUT, generator, entering)
        peer.append(time.process_time() - began)
        sizes.append([*np.mean(drawn, axis=0), *map(len, plain)])
    ratios = [theirs / mine for mine, theirs in zip(ours, peer, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    nodes, edges, peer_nodes, peer_edges = np.mean(sizes, axis=0).tolist()
    return {
        "ours_ms": 1e3 * statistics.median(ours), "peer_ms": 1e3 * statistics.median(peer),
        "times_faster": median, "quartiles": [low, high], "bar": BAR, "goal_ms": GOAL_MS,
        "nodes": nodes, "edges": edges, "peer_nodes": peer_nodes, "peer_edges": peer_edges,
    }  # fmt: skip


def main() -> int:
    """Measure; the exit code is 1 if the bar is missed or a full neighbourhood differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Data(edge_index=skewed_graph(NODES, EDGES, 50)[0], num_nodes=NODES)
    entering = edges_by_target(data.edge_index.numpy())
    differ = full_neighbourhoods_differ(data, entering)
    row = compare(data, entering, options.pairs)
    print(
        f"{row['ours_ms']:.1f} ms a batch (goal {GOAL_MS:.0f}), plain {row['peer_ms']:.0f} ms: "
        f"{row['times_faster']:.0f} times faster ({row['quartiles'][0]:.0f} to "
        f"{row['quartiles'][1]:.0f}), bar {BAR:.0f}"
    )
    print(
        f"nodes {row['nodes']:.0f} and {row['peer_nodes']:.0f}, edges {row['edges']:.0f} and "
        f"{row['peer_edges']:.0f} a batch; {differ} full neighbourhoods differ"
    )
    if options.output:
        write_report(
            options.output, __doc__.splitlines()[0], ["numpy", "torch", "torch_geometric"],
            repeats=options.pairs, results={**row, "full_neighbourhoods_that_differ": differ},
        )  # fmt: skip
    return int(row["times_faster"] < BAR or differ > 0)


if __name__ == "__main__":
    sys.exit(main())
