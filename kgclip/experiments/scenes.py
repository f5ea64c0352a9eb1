"""The scenes experiment: graph-level alignment against CLIP's blindness to relations.

A recipe comes in, a table of held-out figures goes out. Every run shares the towers, their start
and the order of the scenes; in all of them the plain dual encoder answers, and the graph encoder
is dropped. Each run trains in a process of its own with one thread.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from kgclip.experiments.pool import count_step, read_curve, run_jobs
from kgclip.experiments.scene_data import (
    RELATION,
    Scenes,
    Wording,
    draw_negatives,
    read_scenes,
    without_attributes,
)
from kgclip.experiments.scene_probes import evaluate_scenes, show_answers
from kgclip.graph import load_graph
from kgclip.metrics import write_at_once
from kgclip.nn.clip import (
    build_tokenizer,
    create_model_and_transforms,
    image_head,
    lock_image_trunk,
    save_model,
)
from kgclip.nn.features import cache_image_features
from kgclip.nn.grid_tower import GRID_STRIDE
from kgclip.nn.losses import LOSSES
from kgclip.nn.output import Batch, Targets
from kgclip.nn.scene_graph import SceneCLIP, SceneGraphEncoder
from kgclip.nn.scene_regions import SceneRegions, cell_shares
from kgclip.nn.tokens import encode_text_trimmed
from kgclip.nn.triples import TripleEncoder, TripleEncoderOptions
from kgclip.nn.vocabulary import restore_vocabulary, shrink_vocabulary
from kgclip.recipe import build_graph
from kgclip.sources.openmoji_scenes import RELATIONS
from kgclip.tables import GraphError
from kgclip.trainer import LossTerm, Trainer, TrainerOptions

MODEL = "kgclip-grid"
IMAGE_SIZE = 128  # of the scenes, in pixels, and of the model's pictures
BATCH, NUM_NEGATIVES, PLAIN_SHARE = 128, 3, 0.15
STEPS, QUICK_STEPS = 1000, 500
_CHUNKS = 4  # files of cached features: as many processes can make them
_HARD = {"weight": 3.0, "ramp": 0.3}

# Run: its losses, their weight, ramp and options.
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {"contrastive": {}},
    "graph": {"contrastive": {}, "graph_alignment": {}, "graph_negatives": _HARD},
    "neg": {"contrastive": {}, "text_negatives": _HARD},
    "negcol": {"negclip": {}},
    "graph0": {"contrastive": {}, "graph_alignment": {}},
    "tri": {
        "contrastive": {},
        "regions": {"weight": 0.5},
        "e2e": {"weight": 0.5, "options": {"sides": ["head", "tail"]}},
        "e2r": {"weight": 0.5},
    },
}
QUICK_RUNS = {run: RUNS[run] for run in ("clip", "graph")}
_HALF_ALIGNED, _HALF_HARD = {"weight": 0.5}, {**_HARD, "weight": 1.5}
# `graph` with one part off in turn; the other half of what is averaged keeps its weight.
ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "graph": RUNS["graph"],
    "no alignment": {name: RUNS["graph"][name] for name in ("contrastive", "graph_negatives")},
    "no picture-graph alignment": RUNS["graph"]
    | {"graph_alignment": {**_HALF_ALIGNED, "options": {"sides": ["text"]}}},
    "no caption-graph alignment": RUNS["graph"]
    | {"graph_alignment": {**_HALF_ALIGNED, "options": {"sides": ["image"]}}},
    "no false graphs": RUNS["graph0"],
    "no false graphs for pictures": RUNS["graph"]
    | {"graph_negatives": {**_HALF_HARD, "options": {"sides": ["text"]}}},
    "no false graphs for captions": RUNS["graph"]
    | {"graph_negatives": {**_HALF_HARD, "options": {"sides": ["image"]}}},
    "no ramp": RUNS["graph"] | {"graph_negatives": {"weight": _HARD["weight"]}},
    "clip": RUNS["clip"],
}
# Steps per step of `graph` where a run may only take as much computing as `graph` does: measured
# ratios of CPU seconds a step, fixed so that a run repeats exactly; `seconds` in the metrics
# shows how well they match.
MATCHED = {"neg": 0.57, "negcol": 0.57, "tri": 0.45}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a run and a seed.

    Attributes:
        run: Its name.
        losses: Its losses, as in :data:`RUNS`.
        seed: Of weights and batches.
        steps: Of this run.
        output: Folder of the whole experiment.
        resume: Go on from the run's checkpoint, if there is one.
    """

    run: str
    losses: Mapping[str, Mapping[str, Any]]
    seed: int
    steps: int
    output: Path
    resume: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.output / "runs" / f"{self.run.replace(' ', '_')}-{self.seed}"

    def uses(self, field: str) -> bool:
        """Whether one of the losses reads a field of the model's output."""
        return any(field in LOSSES[name].reads for name in self.losses)


def run_scenes(
    output: Path,
    seeds: Sequence[int],
    split_seed: int,
    *,
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]] = RUNS,
    steps: int = STEPS,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Draw the scenes, train every run with every seed, and probe.

    Args:
        output: Folder of the graph, the cached features and the runs.
        seeds: Of the trainings.
        split_seed: What is held out, and every scene.
        runs: Losses by run, as in :data:`RUNS`.
        steps: Of every run but those in :data:`MATCHED`, which take their share.
        overrides: Of the recipe ``scenes``.
        resume: Go on from the checkpoints in ``output``; runs that have ended are only probed.

    Returns:
        ``split_seed``, ``seeds``, ``steps``, ``wall_seconds``; ``seconds``: CPU seconds of
        training by run and seed; ``values``: by run, key and seed, on test; ``validation``: the
        same on validation; ``curves``: training log by run; ``galleries``: answers of the first
        seed.

    Raises:
        GraphError: If the recipe or a package is broken.
        ModuleNotFoundError: If a package of the extra ``demo`` is missing.
    """
    began = time.monotonic()
    output, console = Path(output), Console(stderr=True)
    console.print("drawing the scenes")
    settings = {"sources.0.options.seed": split_seed, **(overrides or {})}
    build_graph("scenes", overrides=settings, output=output / "graph")
    jobs = [
        Job(run, losses, seed, round(steps * MATCHED.get(run, 1.0)), output, resume)
        for run, losses in runs.items()
        for seed in seeds
    ]
    chunks = [(output, chunk) for chunk in range(_CHUNKS)]
    run_jobs(
        cache_chunk, chunks, [1] * _CHUNKS, "running the scenes through the frozen trunk", console
    )
    answers = run_jobs(run_job, jobs, [job.steps for job in jobs], "training", console)
    by_job = {(job.run, job.seed): answer for job, answer in zip(jobs, answers, strict=True)}
    return {
        "split_seed": split_seed,
        "seeds": list(seeds),
        "steps": steps,
        "wall_seconds": round(time.monotonic() - began, 1),
        "seconds": {run: [by_job[run, seed]["seconds"] for seed in seeds] for run in runs},
        "values": _collect(by_job, runs, seeds, "test"),
        "validation": _collect(by_job, runs, seeds, "valid"),
        "curves": {run: by_job[run, seeds[0]]["curve"] for run in runs},
        "galleries": [
            {
                "title": first["title"],
                "rows": {run: by_job[run, seeds[0]]["answers"][number]["items"] for run in runs},
            }
            for number, first in enumerate(answers[0]["answers"])
        ],
    }


def choose_runs(names: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Some of :data:`RUNS`, in the order given; GraphError for a name that it lacks."""
    unknown = [name for name in names if name not in RUNS]
    if unknown or not names:
        raise GraphError(f"runs: {list(names)} given, some of {', '.join(RUNS)} expected")
    return {name: RUNS[name] for name in names}


def _collect(
    by_job: Mapping[tuple[str, int], dict[str, Any]],
    runs: Mapping[str, Any],
    seeds: Sequence[int],
    split: str,
) -> dict[str, dict[str, list[float]]]:
    """Figures by run, key and seed."""
    return {
        run: {
            key: [by_job[run, seed][split][key] for seed in seeds]
            for key in by_job[run, seeds[0]][split]
        }
        for run in runs
    }


def cache_chunk(job: tuple[Path, int]) -> None:
    """Compute the features of every ``_CHUNKS``-th scene, in a worker process."""
    output, chunk = job
    scenes = read_scenes(load_graph(output / "graph"))
    clip, _, preprocess = create_model_and_transforms(MODEL, pretrained_image=True)
    _chunk_features(output, scenes, clip, preprocess, chunk)
    count_step(1)


def load_features(
    output: Path, scenes: Scenes, clip: nn.Module, preprocess: Callable[[Any], Tensor]
) -> Tensor:
    """What the frozen trunk makes of the scenes, from the cache where it is there.

    Returns:
        Float [S, 112, 8, 8].
    """
    chunks = [_chunk_features(output, scenes, clip, preprocess, i) for i in range(_CHUNKS)]
    features = chunks[0].new_empty(len(scenes), *chunks[0].shape[1:])
    for number, chunk in enumerate(chunks):
        features[number::_CHUNKS] = chunk
    return features


def _chunk_features(
    output: Path, scenes: Scenes, clip: nn.Module, preprocess: Callable[[Any], Tensor], chunk: int
) -> Tensor:
    paths = scenes.paths[chunk::_CHUNKS]
    cached = cache_image_features(clip, preprocess, paths, folder=output / "cache", progress=False)
    return cached[:]


def run_job(job: Job) -> dict[str, Any]:
    """Train and probe one model, in a worker process."""
    scenes = read_scenes(load_graph(job.output / "graph"))
    torch.manual_seed(job.seed)
    clip, _, preprocess = create_model_and_transforms(MODEL, pretrained_image=True)
    lock_image_trunk(clip)
    features = load_features(job.output, scenes, clip, preprocess)
    wording = Wording(build_tokenizer(MODEL))
    kept, full = shrink_vocabulary(clip, wording.vocabulary())
    wording.renumber(kept)
    width = full.embedding_dim
    needs_graph = job.uses("pair_graph_features")
    encoder = SceneGraphEncoder(width, width, len(RELATIONS)) if needs_graph else None
    reader = build_triple_encoder(clip, width) if job.uses("region_features") else None
    model = SceneCLIP(clip, encoder, reader)
    trainer = Trainer(
        model,
        build_terms(job.losses),
        functools.partial(draw_batch, job, scenes, features, wording),
        options=TrainerOptions(job.steps, warmup_steps=40, seed=job.seed),
        output=job.folder,
        on_step=lambda step, _: count_step(step),
    )
    trainer.fit("auto" if job.resume else None)
    model.eval()
    encode_text = functools.partial(_encode_text, clip)
    images = _encode_images(clip, features)
    answer = {
        "seconds": round(trainer.cpu_seconds, 2),
        "curve": read_curve(job.folder / "log.jsonl"),
        "answers": show_answers(images, encode_text, scenes, wording),
        **{
            split: evaluate_scenes(images, encode_text, scenes, wording, split)
            for split in ("valid", "test")
        },
    }
    write_at_once(job.folder / "answer.json", json.dumps(answer, indent=1) + "\n")
    restore_vocabulary(clip, kept, full)
    save_model(clip, MODEL, job.folder / "clip")
    return answer


def build_triple_encoder(clip: nn.Module, width: int) -> TripleEncoder:
    """A reader of region triples as wide as the towers; a region is one token."""
    trunk: Any = clip.visual.trunk  # type: ignore[union-attr]
    options = TripleEncoderOptions(
        width=width, num_layers=2, num_heads=4, max_tokens=None, missing_tokens=4
    )
    return TripleEncoder(clip.text_projection.shape[1], trunk.num_features, width, options)  # type: ignore[index, arg-type]


def build_terms(losses: Mapping[str, Mapping[str, Any]]) -> dict[str, LossTerm]:
    """Losses by name, from their weight, ramp and options."""
    return {
        name: LossTerm(
            LOSSES[name](**settings.get("options", {})),
            settings.get("weight", 1.0),
            settings.get("ramp", 0.0),
        )
        for name, settings in losses.items()
    }


def draw_batch(job: Job, scenes: Scenes, features: Tensor, wording: Wording, step: int) -> Batch:
    """Batch of a step: the same scenes, captions and negatives whatever the run."""
    rows = _draw_rows(scenes.rows("train"), job.seed, step)
    draws = torch.Generator().manual_seed(
        int(np.random.default_rng([job.seed, step]).integers(2**62))
    )
    edge = (torch.rand(len(rows), generator=draws) * scenes.counts[rows]).long()
    statements, truths = scenes.statements[rows, edge], scenes.statements[rows]
    plain = torch.rand(len(rows), generator=draws) < PLAIN_SHARE
    statements = torch.where(plain[:, None], without_attributes(statements), statements)
    negatives, mask = draw_negatives(statements, truths, NUM_NEGATIVES, draws)
    inputs: dict[str, Any] = {"image": features[rows], "text": wording.captions(statements)}
    targets = Targets()
    if job.uses("negative_text_features"):
        inputs["negative_text"] = wording.captions(negatives)
        targets.negative_text_mask = mask
    if job.uses("pair_graph_features"):
        every = statements[:, None]
        if job.uses("negative_graph_features"):
            every = torch.cat([every, negatives], dim=1)
            targets.negative_graph_mask = mask
        inputs["graphs"] = wording.graphs(every)
    if job.uses("region_features"):
        inputs["regions"] = draw_regions(statements, scenes.boxes[rows, edge], wording, draws)
        _, targets.region_ids = wording.things(statements)
        targets.relation_ids = statements[:, RELATION]
        heads, tails = targets.region_ids.view(2, -1)
        targets.head_rows = torch.arange(len(rows))
        targets.tail_rows = targets.head_rows + len(rows)
        targets.head_known = heads[:, None] == heads[None, :]
        targets.tail_known = tails[:, None] == tails[None, :]
    return Batch(inputs, targets, len(rows))


def draw_regions(
    statements: Tensor, boxes: Tensor, wording: Wording, draws: torch.Generator
) -> SceneRegions:
    """A triple of regions of each scene, its ends read as regions or as texts at random.

    Args:
        statements: Long [B, 7].
        boxes: Of their heads and tails. Float [B, 2, 4].
        wording: Of the texts.
        draws: Decides.
    """
    shares = cell_shares(boxes, IMAGE_SIZE, IMAGE_SIZE // (2 * GRID_STRIDE))
    return SceneRegions(
        cells=shares.transpose(0, 1).flatten(0, 1),
        text=wording.things(statements)[0],
        image_mask=torch.rand(2 * len(statements), generator=draws) < 0.5,
        relation=statements[:, RELATION],
        relation_text=wording.relations(),
    )


def _draw_rows(rows: Tensor, seed: int, step: int) -> Tensor:
    """The next scenes; all have had their turn before one comes again."""
    size = min(BATCH, len(rows))
    per_epoch = len(rows) // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 1_000_000 + epoch]).permutation(len(rows))
    return rows[torch.from_numpy(order[place * size : (place + 1) * size])]


@torch.no_grad()
def _encode_images(clip: nn.Module, features: Tensor) -> Tensor:
    parts = [image_head(clip, some) for some in torch.split(features, 256)]
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def _encode_text(clip: nn.Module, captions: Tensor) -> Tensor:
    return encode_text_trimmed(clip, captions, normalize=True)
