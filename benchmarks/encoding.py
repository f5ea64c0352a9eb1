"""What do trimmed texts, the embedding cache and chunks save beside encoding everything in full?

    KGCLIP_DATA=DATA python benchmarks/encoding.py -o benchmarks/results/encoding.json

ViT-B-32 with random weights on one thread. ``texts``: head, relation and tail of batches of
ConceptNet-100k at full context, by open_clip's own ``encode_text``, against distinct texts at the
length of the longest. ``families``: how much trimming changes the features of other text towers.
``cache``: a step of the graph part (E2E and G2E, 128 triples) over COCO-mini's boxes and
ConceptNet's facts about their classes, from the cache, against the same step with both towers in
it. ``chunks``: the gradient of 32 pairs in chunks of 8 against that of the whole batch. ``memory``:
the gradient of 512 image-text pairs in chunks, in a process of its own.
``--cache FOLDER`` keeps the cache; ``--cases`` measures some, and leaves the others in the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import polars as pl
import torch
from open_clip.loss import ClipLoss
from processes import peak_mib
from report import compare_pairs, write_report

from kgclip import KnowledgeGraph, read_graph
from kgclip.batches import BatchOptions, Corpus, KnowledgeBatches
from kgclip.joining import Rule, apply_rules
from kgclip.nn import KnowledgeCLIP, cache_image_features, create_model_and_transforms
from kgclip.nn.chunks import encode_in_chunks
from kgclip.nn.clip import build_tokenizer
from kgclip.nn.losses import E2ELoss, G2ELoss
from kgclip.nn.model import GraphEncoder
from kgclip.nn.pictures import Picture, read_picture
from kgclip.nn.tokens import encode_text_trimmed, text_tower

NAME = "ViT-B-32"
FAMILIES = ("ViT-B-32", "RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "convnext_base")
TRIPLES, PAIRS, CHUNK = 128, 512, 32
BARS = {"texts": 8.0, "cache": 50.0, "memory": 6.0, "difference": 1e-5}
OPTIONS = BatchOptions(
    num_pairs=0, num_triples=TRIPLES, graph=True, image_share=0.5, num_neighbors=(10, 5)
)


def measure_texts(data: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Seconds of both ways, interleaved, each repeat on a batch of its own."""
    clip, tokenizer = _clip()
    graph = read_graph(data / "conceptnet100k")
    labels = graph.labels()
    names = graph.relations["label"].fill_null(graph.relations["name"]).to_list()
    train = graph.triples.filter(split="train").sample(TRIPLES * (repeats + 1), seed=0)
    rows = train.select("head", "relation", "tail").rows()
    pairs, differences, sizes = [], [], []
    for start in range(0, len(rows), TRIPLES):
        batch = rows[start : start + TRIPLES]
        texts = [labels[h] for h, _, _ in batch] + [names[r] for _, r, _ in batch]
        tokens = tokenizer(texts + [labels[t] for _, _, t in batch])
        mine, ours = _timed(lambda ids=tokens: encode_text_trimmed(clip, ids))
        full, theirs = _timed(lambda ids=tokens: clip.encode_text(ids))
        differences.append(float((mine - full).abs().max() / full.abs().max()))
        used = int((tokens.argmax(dim=1) + 1).max())
        sizes.append({"distinct": len(torch.unique(tokens, dim=0)), "longest": used})
        pairs.append((ours, theirs))
        print(f"  texts: {ours:.2f} s, full {theirs:.2f} s, {sizes[-1]}", flush=True)
    found = compare_pairs(pairs[1:])  # the first call also checks that the tower may be trimmed
    return {
        **found,
        "bar": BARS["texts"],
        "largest_difference": max(differences),
        "texts": 3 * TRIPLES,
        "context": int(clip.context_length),
        "batches": sizes[1:],
    }


def measure_families(data: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Trimmed against full features of some texts; where trimming is off they are the same."""
    found = {}
    for name in FAMILIES:
        model = open_clip.create_model(name).eval()
        tower = text_tower(model)
        ids = torch.full((4, int(model.context_length)), 1 if "SigLIP" in name else 0)
        for row, length in zip(ids, (3, 5, 12, 8), strict=True):
            row[:length] = torch.randint(2, 30000, (length,))
            row[length - 1] = tower.vocab_size - 1  # the end of CLIP's texts
        lengths: list[int] = []
        tower.transformer.register_forward_pre_hook(
            lambda _, states, seen=lengths: seen.append(states[0].shape[1])
        )
        with torch.no_grad():
            full = model.encode_text(ids, normalize=False)
            short = encode_text_trimmed(model, ids)
        found[name] = {
            "largest_difference": float((short - full).abs().max() / full.abs().max()),
            "context": ids.shape[1],
            "trimmed": lengths[-1] < lengths[0],
        }
        print(f"  {name}: {found[name]}", flush=True)
    return {"bar": BARS["difference"], "models": found}


def measure_cache(data: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Steps of the graph part from the cache and with the towers, on the same batches."""
    model, _, preprocess = create_model_and_transforms(NAME, graph_layers=2)
    model.eval()
    graph = photographs_and_facts(data)
    boxes = graph.images["box"].to_list()
    pictures = [(graph.image_path(row), box) for row, box in enumerate(boxes)]
    tokenizer = build_tokenizer(NAME)
    features, seconds = _timed(
        lambda: cache_image_features(model.clip, preprocess, pictures, folder=cache)
    )
    corpus = Corpus(graph, tokenizer, features)
    texts, more = _timed(lambda: corpus.cache_texts(model.clip, cache))
    print(f"  cache of {len(pictures)} pictures and {len(corpus.text)} labels: "
          f"{seconds + more:.0f} s", flush=True)  # fmt: skip
    decoded = [preprocess(read_picture(Picture(*one))) for one in pictures]
    whole = Corpus(graph, tokenizer, torch.stack(decoded))
    types = graph.entities["type"].to_list()
    cached = KnowledgeBatches(corpus, types, OPTIONS, model.clip, texts=texts)
    towers = KnowledgeBatches(whole, types, OPTIONS, model.clip)
    kinds = {
        "cached": (cached, False),
        "frozen towers": (towers, False),
        "end to end": (towers, True),
    }
    rows: list[dict[str, float]] = []
    differences = []
    for step in range(repeats + 1):
        losses, row = {}, {}
        for kind, (batches, train) in kinds.items():
            work = functools.partial(_step, model, batches, step, train)
            losses[kind], row[kind] = _timed(work, grad=True)
            differences.append(float((losses[kind] - losses["cached"]).abs().max()))
        rows.append(row)
        print(f"  losses {losses['cached'].tolist()}, seconds {row}", flush=True)
    rows = rows[1:]
    against = {kind: compare_pairs([(row["cached"], row[kind]) for row in rows])
               for kind in ("frozen towers", "end to end")}  # fmt: skip
    return {
        "bar": BARS["cache"],
        "times_faster": min(one["times_faster"] for one in against.values()),
        "triples_per_second": TRIPLES / against["end to end"]["ours_seconds"],
        "against": against,
        "largest_difference_of_losses": max(differences),
        "entities": len(corpus.text),
        "triples": len(corpus.triples),
        "pictures": len(pictures),
        "options": dataclasses.asdict(OPTIONS),
    }


def photographs_and_facts(data: Path) -> KnowledgeGraph:
    """COCO-mini's scene graphs joined with ConceptNet's facts about their classes."""
    scenes = read_graph(data / "coco_mini", format="coco", crowds=True)
    facts = read_graph(data / "conceptnet100k")
    classes = [name.removeprefix("class:") for name in scenes.entities.filter(type="class")["name"]]
    known = set(facts.entities["name"])
    joined = scenes.merge(facts.select(seeds=[name for name in classes if name in known]))
    tables = apply_rules(joined.tables, [Rule(r"class:(.+)", r"\1")])
    triples = tables.triples.with_columns(pl.col("split").fill_null("train"))
    return KnowledgeGraph(dataclasses.replace(tables, triples=triples), scenes.root)


def _step(model: KnowledgeCLIP, batches: KnowledgeBatches, step: int, train: bool) -> torch.Tensor:
    """Batch, forward and backward pass; returns the losses."""
    model.zero_grad(set_to_none=True)
    model.clip.requires_grad_(train)
    batch = batches(step)
    output = model(**batch.inputs)
    losses = torch.stack([loss(output, batch.targets) for loss in (E2ELoss(), G2ELoss())])
    losses.sum().backward()
    return losses.detach()


def measure_chunks(data: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Gradient of 32 pairs in chunks of 8 against the whole batch, both towers and the graph."""
    clip, tokenizer = _clip()
    encoder = GraphEncoder(512, 2)
    images = torch.randn(32, 3, 224, 224)
    tokens = tokenizer([f"a photo of number {number}" for number in range(32)])
    x, relations = torch.randn(40, 512), torch.randn(3, 512)
    edge_index, edge_type = torch.randint(40, (2, 99)), torch.randint(3, (99,))
    parameters = [*clip.parameters(), *encoder.parameters()]
    found = []
    for chunk in (None, 8):
        for parameter in parameters:
            parameter.grad = None
        image = encode_in_chunks(lambda x: clip.encode_image(x, normalize=True), images, chunk)
        text = encode_in_chunks(lambda x: clip.encode_text(x, normalize=True), tokens, chunk)
        graph = encode_in_chunks(
            lambda rows: encoder(x, edge_index, edge_type, relations)[rows],
            torch.arange(32),
            chunk,
        )
        scale, loss = clip.logit_scale.exp(), ClipLoss()
        (loss(image, text, scale) + loss(image, graph, scale)).backward()
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    largest = float(found[0].abs().max())
    difference = float((found[0] - found[1]).abs().max()) / largest
    return {"bar": BARS["difference"], "largest_difference": difference, "largest": largest}


def measure_memory(data: Path, repeats: int, cache: Path) -> dict[str, Any]:
    """Peak memory of one step, seen from outside."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", str(CHUNK)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"bar": BARS["memory"], "pairs": PAIRS, "chunk": CHUNK, **found}


def gradient_of_many(chunk: int) -> dict[str, float]:
    """One contrastive step of ``PAIRS`` pairs; peak resident memory of this process in GiB."""
    clip, tokenizer = _clip()
    torch.manual_seed(0)
    images = torch.randn(PAIRS, 3, 224, 224)
    tokens = tokenizer([f"a photo of number {number}" for number in range(PAIRS)])

    def step() -> torch.Tensor:
        image = encode_in_chunks(lambda x: clip.encode_image(x, normalize=True), images, chunk)
        text = encode_in_chunks(lambda x: clip.encode_text(x, normalize=True), tokens, chunk)
        loss = ClipLoss()(image, text, clip.logit_scale.exp())
        loss.backward()
        return loss.detach()

    loss, seconds = _timed(step, grad=True)
    return {"peak_gib": peak_mib() / 1024, "seconds": seconds, "loss": float(loss)}


def _clip() -> tuple[Any, Callable[[list[str]], torch.Tensor]]:
    torch.manual_seed(0)
    model, _, _ = create_model_and_transforms(NAME, graph_layers=0)
    return model.clip.eval(), build_tokenizer(NAME)


def _timed(work: Callable[[], Any], grad: bool = False) -> tuple[Any, float]:
    """Result and CPU seconds."""
    began = time.process_time()
    with torch.set_grad_enabled(grad):
        result = work()
    return result, time.process_time() - began


CASES = {
    "texts": measure_texts,
    "families": measure_families,
    "cache": measure_cache,
    "chunks": measure_chunks,
    "memory": measure_memory,
}


def is_met(name: str, row: dict[str, Any]) -> bool:
    """Whether a case reaches its bars."""
    if name == "families":
        return all(one["largest_difference"] <= row["bar"] for one in row["models"].values())
    if name == "chunks":
        return bool(row["largest_difference"] <= row["bar"])
    if name == "memory":
        return bool(row["peak_gib"] <= row["bar"])
    difference = row.get("largest_difference", row.get("largest_difference_of_losses"))
    return bool(row["times_faster"] >= row["bar"] and difference <= BARS["difference"])


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--cases", nargs="*", default=[*CASES], choices=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(json.dumps(gradient_of_many(options.memory_of)))
        return 0
    data = Path(os.environ.get("KGCLIP_DATA", "../shared/data"))
    results: dict[str, Any] = {}
    if options.output and options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))["results"]
    cache = options.cache or Path(tempfile.mkdtemp())
    for name in options.cases:
        torch.manual_seed(0)
        results[name] = row = CASES[name](data, options.repeats, cache)
        print(f"{name}: {'met' if is_met(name, row) else 'MISSED'}: {row}", flush=True)
        if options.output:
            write_report(
                options.output,
                str(__doc__).splitlines()[0],
                results,
                packages=("torch", "open_clip_torch"),
                repeats=options.repeats,
            )
    return int(not all(is_met(name, results[name]) for name in options.cases))


if __name__ == "__main__":
    sys.exit(main())
