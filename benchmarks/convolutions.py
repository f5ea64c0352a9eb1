"""How much faster is RGCNConv than PyG's, in how much less memory, at equal output?

    python benchmarks/convolutions.py -o benchmarks/results/convolutions.json

Forward and backward with gradients to input and weights, fp32, one thread, interleaved pairs of
ours and the peer in the same run, process CPU time. With a thousand relations the peer is the
better of PyG's RGCNConv and FastRGCNConv. Extra memory is what a first forward and backward pass,
for ours with the plan, adds at its peak to a process that holds graph, features and layer (Linux).
``--cases`` and ``--memory-cases`` measure some, and leave the others in the result as they are.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from processes import peak_mib, resident_mib, run_alone, write_report
from torch_geometric.nn import FastRGCNConv
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
GROWTH = "CompGCN, 1,000 relations / 10"
FAST = {"a thousand relations"}  # where FastRGCNConv fits into memory and may be faster
# Name: nodes, edges, relations, width, bases, bar (times less extra memory, or GiB for ours alone).
MEMORY = {
    "a million edges": (*CASES["a million edges"][:5], 5.0),
    "a thousand relations": (*CASES["a thousand relations"][:5], 10.0),
    "a million edges, 256": (100_000, 1_000_000, 50, 256, None, 4.0),
}
ALONE = {"a million edges, 256"}  # the peer needs 24 GB
LAYERS = {"ours": RGCNConv, "RGCNConv": PyGRGCNConv, "FastRGCNConv": FastRGCNConv}


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


def compare(name: str, pairs: int) -> dict[str, Any]:
    """Ratios of interleaved pairs, and the largest difference of outputs and gradients."""
    nodes, edges, relations, width, bases, bar = CASES[name]
    edge_index, edge_type = skewed_graph(nodes, edges, relations)
    torch.manual_seed(0)
    options = {"num_bases": bases, "root_weight": False, "bias": False}
    kinds = list(LAYERS) if name in FAST else ["ours", "RGCNConv"]
    convs = {kind: LAYERS[kind](width, width, relations, **options) for kind in kinds}
    x = torch.randn(nodes, width, requires_grad=True)
    found = []
    for conv in convs.values():
        conv.load_state_dict(convs["RGCNConv"].state_dict())
        cpu_seconds(conv, x, edge_index, edge_type)  # warm-up; ours sorts the graph here
        out = conv(x, edge_index, edge_type).detach()
        assert x.grad is not None
        found.append([out, x.grad.clone(), *(p.grad.clone() for p in conv.parameters())])
    difference = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found[:2], strict=True)
    )
    seconds = [
        [cpu_seconds(conv, x, edge_index, edge_type) for conv in convs.values()]
        for _ in range(pairs)
    ]
    ratios = [min(theirs) / mine for mine, *theirs in seconds]
    low, median, high = statistics.quantiles(ratios, n=4)
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    return {
        "pairs": pairs,
        "seconds": dict(zip(kinds, medians, strict=True)),
        "times_faster": median,
        "quartiles": [low, high],
        "largest_relative_difference": difference,
        "bar": bar,
    }


def extra_memory(name: str, kind: str) -> float:
    """MiB that one forward and backward pass adds at its peak, in this process."""
    nodes, edges, relations, width, bases, _ = MEMORY[name]
    graph = skewed_graph(nodes, edges, relations)
    conv = LAYERS[kind](width, width, relations, num_bases=bases, root_weight=False, bias=False)
    x = torch.randn(nodes, width, requires_grad=True)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident_mib()
    conv(x, *graph).square().sum().backward()
    return peak_mib() - before


def compare_memory(name: str) -> dict[str, Any]:
    """Extra memory of ours and the peers, each in a process of its own."""
    bar = MEMORY[name][-1]
    if name in ALONE:
        kinds = ["ours"]
    else:
        kinds = list(LAYERS) if name in FAST else ["ours", "RGCNConv"]
    used = {kind: run_alone(__file__, "--memory", name, kind)["mib"] for kind in kinds}
    row: dict[str, Any] = {"extra_mib": used, "bar": bar}
    if name in ALONE:
        return {**row, "gib": used["ours"] / 1024, "missed": used["ours"] / 1024 > bar}
    less = min(value for kind, value in used.items() if kind != "ours") / used["ours"]
    return {**row, "times_less": less, "missed": less < bar}


def growth(pairs: int) -> dict[str, Any]:
    """CompGCN with a thousand relations against ten, on the same edges."""
    x = torch.randn(10_000, 64, requires_grad=True)
    edge_index, _ = skewed_graph(10_000, 200_000, 10)
    graphs = {n: skewed_graph(10_000, 200_000, n)[1] for n in (10, 1_000)}
    convs = {n: CompGCNConv(64, 64, n) for n in graphs}
    for n, conv in convs.items():
        cpu_seconds(conv, x, edge_index, graphs[n])
    seconds = [
        [cpu_seconds(convs[n], x, edge_index, graphs[n]) for n in graphs] for _ in range(pairs)
    ]
    low, median, high = statistics.quantiles([many / few for few, many in seconds], n=4)
    few, many = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {
        "pairs": pairs, "seconds": {"10": few, "1,000": many}, "time_ratio": median,
        "quartiles": [low, high], "bar": 1.3, "missed": median > 1.3,
    }  # fmt: skip


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    names = [*CASES, GROWTH]
    parser.add_argument("--cases", nargs="*", default=names, choices=names)
    parser.add_argument("--memory-cases", nargs="*", default=list(MEMORY), choices=list(MEMORY))
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "LAYER"), help="measure one, alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps({"mib": extra_memory(*options.memory)}))
        return 0
    results: dict[str, Any] = {}
    if options.output and options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))["results"]
    measured = []
    for name in options.cases:
        if name == GROWTH:
            results[name] = row = growth(options.pairs)
            figure = f"{row['time_ratio']:.2f}"
        else:
            results[name] = row = compare(name, options.pairs)
            row["missed"] = row["times_faster"] < row["bar"]
            figure = (
                f"{row['times_faster']:.1f} times faster, difference "
                f"{row['largest_relative_difference']:.1e}"
            )
        low, high = row["quartiles"]
        print(f"{name}: {figure} ({low:.2f} to {high:.2f}), bar {row['bar']}", flush=True)
        measured.append(row)
    for name in options.memory_cases:
        results[f"memory, {name}"] = row = compare_memory(name)
        measured.append(row)
        used = ", ".join(f"{kind} {mib:.0f}" for kind, mib in row["extra_mib"].items())
        figure = (
            f"{row['gib']:.1f} GiB, bar at most"
            if name in ALONE
            else f"{row['times_less']:.0f} times less, bar"
        )
        print(f"memory, {name}: {used} MiB; {figure} {row['bar']:.0f}", flush=True)
    if options.output:
        write_report(
            options.output, __doc__.splitlines()[0], ["torch", "torch_geometric"],
            repeats=options.pairs, results=results,
        )  # fmt: skip
    return int(any(row["missed"] for row in measured))


if __name__ == "__main__":
    sys.exit(main())
