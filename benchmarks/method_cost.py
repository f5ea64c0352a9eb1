"""What does the whole method cost beside plain CLIP? Forward and backward of one batch each.

    python benchmarks/method_cost.py -o benchmarks/results/method_cost.json

ViT-B-32 with random weights on one thread, interleaved; the peer is open_clip's own forward pass
and loss. Frozen: cached tokens and features, all graph losses, no tower runs. End to end: both
towers are trained by pairs and triples at once; no picture of an entity is one of the pairs'.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from kgclip.nn import KnowledgeCLIP, Targets, TokenInputs, create_model_and_transforms
from kgclip.nn.clip import image_trunk_features
from kgclip.nn.losses import ContrastiveLoss, DistillationLoss, E2ELoss, E2RLoss, G2ELoss
from kgclip.nn.model import GraphInputs
from kgclip.nn.teacher import TeacherFeatures
from kgclip.nn.tokens import encode_with_tokens
from kgclip.nn.triples import Tokens, pool_tokens

PAIRS, TRIPLES, RELATIONS, MAX_TOKENS = 32, 32, 13, 16
CAPTION_TOKENS, GLOSS_TOKENS, RELATION_TOKENS = (10, 21), (16, 25), (3, 6)  # ends included
NODES, EDGES = 64 + 64 * (10 + 10 * 5), 64 * (10 + 10 * 5)  # two hops of 10 and 5 neighbours
BARS = {"frozen": 0.35, "end to end": 2.0}
START, END = 49406, 49407


class Material:
    """One batch: pairs, triples over 64 entities, half of them pictures, and their graph."""

    def __init__(self, model: KnowledgeCLIP, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.image, self.text = self.pictures(PAIRS), self.texts(PAIRS, CAPTION_TOKENS)
        ids = torch.arange(2 * TRIPLES)
        heads, tails = ids[:TRIPLES], ids[TRIPLES:]
        relations = torch.randint(RELATIONS, (TRIPLES,), generator=self.generator)
        self.inputs = TokenInputs(
            text=self.texts(TRIPLES, GLOSS_TOKENS),
            image=self.pictures(TRIPLES),
            image_mask=torch.rand(2 * TRIPLES, generator=self.generator).argsort() % 2 == 0,
            relation_text=self.texts(RELATIONS, RELATION_TOKENS),
            triples=torch.stack([heads, relations, tails]),
        )
        known = torch.eye(TRIPLES, dtype=torch.bool)
        self.targets = Targets(
            pair_ids=torch.arange(PAIRS),
            entity_ids=ids,
            head_rows=heads,
            tail_rows=tails,
            relation_ids=relations,
            head_known=known,
            tail_known=known,
        )
        self.cache(model)

    @torch.no_grad()
    def cache(self, model: KnowledgeCLIP) -> None:
        """What a run with frozen towers computes once: features, tokens and the teacher's."""
        clip = model.clip
        self.trunk = image_trunk_features(clip, self.image)
        self.features = model.encode_text(self.text)
        image = Tokens(*encode_with_tokens(clip, image=self.inputs.image)[1:])
        text = Tokens(*encode_with_tokens(clip, text=self.inputs.text)[1:])
        image = pool_tokens(image, MAX_TOKENS, num_prefix=1)
        text = pool_tokens(text, MAX_TOKENS)
        self.cached = TokenInputs(
            text=text.states,
            text_mask=text.mask,
            image=image.states,
            image_mask=self.inputs.image_mask,
            relation_text=model.encode_text(self.inputs.relation_text),
            triples=self.inputs.triples,
        )
        width = self.features.shape[1]
        x = F.normalize(torch.randn(NODES, width, generator=self.generator), dim=-1)
        relations = F.normalize(self.cached.relation_text, dim=-1)
        self.graph = GraphInputs(
            x=x.index_fill(0, self.targets.entity_ids, 0.0),
            edge_index=torch.randint(NODES, (2, EDGES), generator=self.generator),
            edge_type=torch.randint(2 * RELATIONS, (EDGES,), generator=self.generator),
            relation_features=relations.repeat(2, 1),
            rows=self.targets.entity_ids,
        )
        # A teacher of its own, or its divergence would be nothing.
        noise = torch.randn(2, PAIRS, width, generator=self.generator)
        self.teacher = TeacherFeatures(*F.normalize(noise, dim=-1), torch.tensor(1 / 0.07))

    def pictures(self, count: int) -> torch.Tensor:
        """Random pictures of the tower's size."""
        return torch.randn(count, 3, 224, 224, generator=self.generator)

    def texts(self, count: int, lengths: tuple[int, int]) -> torch.Tensor:
        """Random token ids of the given lengths, start and end of the text included."""
        ids = torch.zeros(count, 77, dtype=torch.long)
        for row in ids:
            size = int(torch.randint(*lengths, (), generator=self.generator))
            row[:size] = torch.randint(1000, 40000, (size,), generator=self.generator)
            row[0], row[size - 1] = START, END
        return ids


def plain(model: KnowledgeCLIP, batch: Material) -> torch.Tensor:
    """open_clip's own step."""
    loss: torch.Tensor = ClipLoss()(*model.clip(batch.image, batch.text))
    return loss


def trimmed(model: KnowledgeCLIP, batch: Material) -> torch.Tensor:
    """The same loss by our forward pass, padding cut off: what plain CLIP costs with kgclip."""
    return ContrastiveLoss()(model(batch.image, batch.text), batch.targets)


def graph_losses(output: Any, batch: Material) -> torch.Tensor:
    """E2E of both sides, E2R, G2E and distillation."""
    losses = [E2ELoss(sides=("head", "tail")), E2RLoss(), G2ELoss(), DistillationLoss()]
    return torch.stack([loss(output, batch.targets) for loss in losses]).sum()


def frozen(model: KnowledgeCLIP, batch: Material) -> torch.Tensor:
    """All graph losses from cached tokens and features."""
    output = model(batch.trunk, batch.features, batch.cached, batch.graph, batch.teacher)
    return graph_losses(output, batch)


def end_to_end(model: KnowledgeCLIP, batch: Material) -> torch.Tensor:
    """CLIP's loss and all graph losses, gradients into both towers."""
    output = model(batch.image, batch.text, batch.inputs, batch.graph, batch.teacher)
    return graph_losses(output, batch) + ContrastiveLoss()(output, batch.targets)


STEPS: dict[str, Callable[[KnowledgeCLIP, Material], torch.Tensor]] = {
    "plain": plain,
    "trimmed": trimmed,
    "frozen": frozen,
    "end to end": end_to_end,
}


def cpu_seconds(step: str, model: KnowledgeCLIP, batch: Material) -> float:
    """Process CPU seconds of one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    model.clip.requires_grad_(step != "frozen")
    gc.collect()
    began = time.process_time()
    STEPS[step](model, batch).backward()  # type: ignore[no-untyped-call]
    return time.process_time() - began


def tower_gradients(model: KnowledgeCLIP, batch: Material) -> dict[str, float]:
    """Largest gradient of E2E alone in the first layer of each tower."""
    model.zero_grad(set_to_none=True)
    output = model(triples=batch.inputs)
    E2ELoss(sides=("head", "tail"))(output, batch.targets).backward()
    names = {"image": "visual.conv1.weight", "text": "token_embedding.weight"}
    found = {}
    for tower, name in names.items():
        gradient = model.clip.get_parameter(name).grad
        found[tower] = 0.0 if gradient is None else float(gradient.abs().max())
    return found


def counts(model: KnowledgeCLIP, batch: Material) -> dict[str, Any]:
    """What a step consists of."""
    encoder = model.triple_encoder
    assert encoder is not None
    return {
        "pairs": PAIRS,
        "triples": TRIPLES,
        "entities": len(batch.inputs.image_mask),
        "entities read as pictures": int(batch.inputs.image_mask.sum()),
        "tokens an entity": batch.cached.image.shape[1],
        "tokens a whole triple": 2 * batch.cached.image.shape[1] + 1,
        "relations": RELATIONS,
        "caption tokens": [*CAPTION_TOKENS],
        "gloss tokens": [*GLOSS_TOKENS],
        "message graph": {"nodes": NODES, "edges": EDGES},
        "parameters": {
            "towers": sum(p.numel() for p in model.clip.parameters()),
            "triple encoder": sum(p.numel() for p in encoder.parameters()),
        },
    }


def compare(seconds: Sequence[dict[str, float]], step: str, against: str) -> dict[str, Any]:
    """Ratio of two steps over the interleaved repeats."""
    ratios = [row[step] / row[against] for row in seconds]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"ratio": median, "quartiles": [low, high], "all": ratios}


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, _, _ = create_model_and_transforms("ViT-B-32", triple_encoder="small")
    batch = Material(model.train())
    parts = counts(model, batch)
    print(json.dumps(parts), flush=True)
    gradients = tower_gradients(model, batch)
    print(f"largest E2E gradient in the first layers: {gradients}", flush=True)
    facts = {"counts": parts, "largest_e2e_gradient": gradients}
    for step in STEPS:
        cpu_seconds(step, model, batch)  # warm-up
    seconds: list[dict[str, float]] = []
    while len(seconds) < options.repeats:
        seconds.append({step: cpu_seconds(step, model, batch) for step in STEPS})
        print({step: round(value, 2) for step, value in seconds[-1].items()}, flush=True)
        if options.output and len(seconds) > 1:
            write(options.output, facts, seconds)  # each time: a kill keeps what was measured
    results = summarise(seconds)
    for step, row in results.items():
        print(f"{step}: {row['ratio']:.3f} of plain CLIP's step (bar {row['bar']}), "
              f"{row['ratio to trimmed']:.3f} of it without padding")  # fmt: skip
    missed = any(row["ratio"] > row["bar"] for row in results.values())
    return int(missed or min(gradients.values()) == 0)


def summarise(seconds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Ratios by step, beside their bars."""
    return {
        step: compare(seconds, step, "plain")
        | {"bar": bar, "ratio to trimmed": compare(seconds, step, "trimmed")["ratio"]}
        for step, bar in BARS.items()
    }


def write(path: Path, facts: dict[str, Any], seconds: Sequence[dict[str, float]]) -> None:
    """Everything that was measured so far, as JSON."""
    report = {
        "question": str(__doc__).splitlines()[0],
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread",
        "versions": {n: importlib.metadata.version(n) for n in ("torch", "open_clip_torch")},
        "repeats": len(seconds),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **facts,
        "seconds": list(seconds),
        "results": summarise(seconds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
