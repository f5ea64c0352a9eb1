"""How much faster is RGCNConv than PyG's, at equal output? Ours and the peer in the same run.

    python benchmarks/convolutions.py -o benchmarks/results/convolutions.json

Forward and backward with gradients to input and weights, fp32, one thread, interleaved pairs.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch_geometric.nn import RGCNConv as PyGRGCNConv

from kgclip.nn import CompGCNConv, RGCNConv

# Name: nodes, edges, relations, width, bases, bar (times faster).
CASES = {
    "AIFB-like": (8_300, 58_000, 90, 64, None, 10.0),
    "WN18RR-like, 64": (41_000, 174_000, 22, 64, None, 3.0),
    "WN18RR-like, 256": (41_000, 174_000, 22, 256, None, 6.0),
    "a million edges": (100_000, 1_000_000, 50, 64, None, 6.0),
    "a million edges, 8 bases": (100_000, 1_000_000, 50, 64, 8, 3.0),
    "a thousand relations": (10_000, 200_000, 1_000, 64, None, 25.0),
}


def skewed_graph(nodes: int, edges: int, relations: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Endpoints N u^1.5, relation k with weight 1 / k^0.9."""
    generator = torch.Generator().manual_seed(seed)
    ends = (nodes * torch.rand(2, edges, generator=generator) ** 1.5).long().clamp(max=nodes - 1)
    weight = torch.arange(1, relations + 1).double() ** -0.9
    return ends, torch.multinomial(weight, edges, replacement=True, generator=generator)


def cpu_seconds(conv: torch.nn.Module, x: torch.Tensor, *edges: torch.Tensor) -> float:
    """Process CPU seconds of one forward and backward pass."""
    conv.zero_grad(set_to_none=True)
    x.grad = None
    gc.collect()
    began = time.process_time()
    conv(x, *edges).square().sum().backward()
    return time.process_time() - began


def compare(case: tuple[Any, ...], pairs: int) -> dict[str, Any]:
    """Ratios of interleaved pairs, and the largest difference of outputs and gradients."""
    nodes, edges, relations, width, bases, bar = case
    edge_index, edge_type = skewed_graph(nodes, edges, relations)
    torch.manual_seed(0)
    options = {"num_bases": bases, "root_weight": False, "bias": False}
    peer = PyGRGCNConv(width, width, relations, **options)
    ours = RGCNConv(width, width, relations, **options)
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(nodes, width, requires_grad=True)
    found = []
    for conv in (ours, peer):
        cpu_seconds(conv, x, edge_index, edge_type)  # warm-up; ours sorts the graph here
        out = conv(x, edge_index, edge_type).detach()
        assert x.grad is not None
        found.append([out, x.grad.clone(), *(p.grad.clone() for p in conv.parameters())])
    difference = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True)
    )
    seconds = [
        [cpu_seconds(conv, x, edge_index, edge_type) for conv in (ours, peer)] for _ in range(pairs)
    ]
    ratios = [theirs / mine for mine, theirs in seconds]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "ours_seconds": statistics.median(mine for mine, _ in seconds),
        "peer_seconds": statistics.median(theirs for _, theirs in seconds),
        "times_faster": median,
        "quartiles": [low, high],
        "largest_relative_difference": difference,
        "bar": bar,
    }


def growth(pairs: int) -> dict[str, Any]:
    """CompGCN with a thousand relations against ten, on the same edges."""
    x = torch.randn(10_000, 64, requires_grad=True)
    edge_index, _ = skewed_graph(10_000, 200_000, 10)
    graphs = {n: skewed_graph(10_000, 200_000, n)[1] for n in (10, 1_000)}
    convs = {n: CompGCNConv(64, 64, n) for n in graphs}
    for n, conv in convs.items():
        cpu_seconds(conv, x, edge_index, graphs[n])
    ratios = []
    for _ in range(pairs):
        few, many = (cpu_seconds(convs[n], x, edge_index, graphs[n]) for n in (10, 1_000))
        ratios.append(many / few)
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"time_ratio": median, "quartiles": [low, high], "bar": 1.3}


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in options.cases:
        results[name] = row = compare(CASES[name], options.pairs)
        print(
            f"{name}: {row['times_faster']:.1f} times faster "
            f"({row['quartiles'][0]:.1f} to {row['quartiles'][1]:.1f}), bar {row['bar']:.0f}; "
            f"difference {row['largest_relative_difference']:.1e}",
            flush=True,
        )
    results["CompGCN, 1,000 relations / 10"] = grown = growth(options.pairs)
    print(f"CompGCN, 1,000 relations / 10: {grown['time_ratio']:.2f}, bar {grown['bar']}")
    if options.output:
        report = {
            "question": __doc__.splitlines()[0],
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, one thread",
            "versions": {n: importlib.metadata.version(n) for n in ("torch", "torch_geometric")},
            "repeats": options.pairs,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "results": results,
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    missed = any(row["times_faster"] < row["bar"] for row in results.values() if "bar" in row
                 and "times_faster" in row)  # fmt: skip
    return int(missed or grown["time_ratio"] > grown["bar"])


if __name__ == "__main__":
    sys.exit(main())
